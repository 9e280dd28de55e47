// Package find is what bk-find does: the versions of files in all snapshots, and
// when each was there. It costs one listing and the differences from snapshot to
// snapshot, whatever the system.
//
// Start at Find, then search (search.go) and versions (versions.go). Only that
// program imports it.
package find
