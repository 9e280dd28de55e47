// Package borg reads and writes repositories of Borg 1.x (1.1, 1.2 and 1.4), as a
// source and a sink of the bk stream. spec/borg.md says what becomes of what.
//
// A borg repository is a log of numbered segments in which every object lies
// under a 32-byte id that is a keyed hash of its content. One object, the
// manifest, names the archives, which are bk's snapshots; an archive names the
// objects that together are a stream of items, one for each file, in no order;
// an item names the chunks of its content. The flow of an export is
//
//	archives -> runs (items, sorted) -> merge of two archives -> plan -> windows (chunks) -> Next
//
// borg's ids are not the stream's, which become known as chunks are read: refs
// get theirs when they are handed out. Payloads that borg compressed with zstd
// pass as they are, others plain. A snapshot's id is that of borg's archive.
//
// Reading writes nothing into a repository, not even a lock: who compacts it with
// borg at the same time may take a segment away from under an export, which then
// fails and can be run again.
//
// The flow of an import into a repository in a directory, which stays locked, is
//
//	Write -> decode (workers) -> recutter, if cuts are not kept -> compress (workers) -> log
//	                          -> merger: the parent's listing and the records -> listing -> items -> archive, manifest, commit
//
// Start reading at Open (repository.go), then Export (export.go); for writing at
// Init (init.go), then Sink (sink.go). What lies in a
// repository is read by segment.go, index.go, key.go, crypto.go, object.go,
// manifest.go, archive.go and item.go; entry.go says what of an item becomes
// what of an entry. The package imports format, what is below it, and repo/store;
// programs import it.
package borg
