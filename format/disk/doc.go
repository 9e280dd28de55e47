// Package disk is a file system as a source and a sink of the bk stream.
//
// Scan walks directories and hands out what they hold as records: everything
// that a Linux file system keeps, sorted by path, read by several goroutines in
// bounded memory. Restore takes records and makes files of them again, inside
// one directory and nowhere else.
//
// Start reading at ScanOptions and Scan (scan.go). A scan is four parts, each
// in a file of its own, that hand each other work in the order of the paths:
//
//	walk (scan_walk.go) -> merge (scan_merge.go) -> read (scan_read.go) -> Scanner.Next (scan.go)
//
// The walk lists directories and takes the status of what is in them, ahead of
// the rest. The merge compares that with the previous snapshot and says what is
// to be done about each path. Readers do it. Next hands out the result.
//
// Trees that share files by hard links are scanned one after another with the
// same Inodes (scan_inodes.go), each after a Survey (scan_survey.go).
//
// A restore begins at NewRestore (restore.go). The caller's goroutine keeps the
// directories of the current path open and gathers files into loads, and workers
// write them:
//
//	Restore.Write (restore_snapshot.go, restore_entry.go) -> directories (restore_dir.go)
//	                                                      -> load (restore_load.go) -> file (restore_file.go)
//
// What was put where, for streams with several snapshots, is in
// restore_history.go; metadata is set in apply_linux.go.
//
// What the kernel says about a file, and how it becomes an entry, is in
// meta_linux.go, which both directions use. Programs and repo's callers import
// this package; it imports format, format/chunker and format/internal/spill. It
// is for Linux.
package disk
