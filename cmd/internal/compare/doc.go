// Package compare is what bk-diff does: what changed between two snapshots.
// Start at Diff; source.go says where changes come from, systems.go compares two
// repositories by way of package fidelity. Only that program imports it.
package compare
