// Package compare is what bk-diff does: what changed between two snapshots.
// Start at Diff; source.go says where changes come from. Only that program
// imports it.
package compare
