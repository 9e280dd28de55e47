// Package restic reads and writes restic repositories, formats 1 and 2, as a
// source and a sink of the bk stream (spec/restic.md).
//
// A restic snapshot is a tree of JSON objects, one for each directory, whose
// files list the chunks ("blobs") of their content. Both kinds of blob lie
// encrypted in packs, which an index names. The flow of an export is
//
//	snapshots -> walk (trees, two at a time) -> windows of records -> fetch (packs) -> Next
//
// restic names a chunk by the SHA-256 of its plain bytes, as the stream does,
// and compresses it as the stream may: ids and payloads pass as they are. A
// snapshot's id is restic's.
//
// An export writes nothing into a repository, not even a lock: who prunes it with
// restic at the same time may take a pack away from under an export, which then
// fails and can be run again.
//
// An import goes the other way:
//
//	Write -> contentWriter (chunks as they came, or cut anew) -> jobs -> writer (packs, indexes)
//	      -> treeWriter (directories that changed)            -> jobs -> writer
//	commit -> all of it durable -> snapshots
//
// Start reading at Open (repository.go), then Export (export.go) and walk.go; for
// writing at OpenSink (sink.go), then sink_content.go and write_tree.go. What lies
// in a repository is read by key.go, index.go, pack.go and tree.go, and written by
// the files that begin with write_; node.go says what of a restic node becomes
// what of an entry, write_node.go the reverse. The package imports format and what
// is below it, and repo/store; programs import it.
package restic
