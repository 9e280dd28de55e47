// Package index finds chunks: from a label to the pack, place and size of a
// chunk on storage.
//
// The truth are the index objects on storage (spec/repository.md, section 6).
// What is looked up is a local cache of them: a few runs, each a file of records
// sorted by label, mapped into memory and not parsed. Opening costs what is new
// on storage; memory does not grow with the repository. A cache that is damaged
// or missing is built again from storage, also while it is in use (heal.go). One
// that cannot be written stops nobody: what is new goes elsewhere for as long as
// the program runs (shelf.go).
//
// Start at Cache (cache.go), then Run (run.go). Only repo and the programs'
// benchmarks import it; it imports repo/pack for the encoding of index objects.
package index
