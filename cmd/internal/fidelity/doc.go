// Package fidelity proves that two systems hold equal snapshots: listing,
// metadata and content, by hashes, without restoring anything. It is what
// bk-diff --with does.
//
// Start at Compare. match.go finds the snapshots that belong together, side.go
// reads one of the systems, content.go compares what two files consist of: by
// the ids of their chunks, and where the two sides cut differently, by hashing.
// A system whose entries come in no order is put in order first (sorted.go).
// Only programs import it.
package fidelity
