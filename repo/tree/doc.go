// Package tree keeps the listing of a snapshot as one search tree from path to
// entry, whose nodes are meta chunks cut by content (spec/repository.md,
// section 7). Equal listings have equal roots, and two listings share every
// node where they agree, so comparing or changing one costs what differs.
//
// Start reading at Listing and Item (item.go). Then, by what is to be done:
//
//	Reader       the entries in order, from a path, below a path (reader.go)
//	Get          one entry (reader.go)
//	Diff         what differs between two listings (diff.go)
//	Updater      a listing from another one and edits, or from nothing (update.go)
//	Sorter       edits in any order, for Updater (sorter.go)
//	Content      what a file consists of, and ContentWriter, ContentReader,
//	             ContentDiff for contents of any length (content*.go)
//
// Underneath, node.go is the encoding, cut.go says where a node ends, and
// cursor.go walks the nodes of one level.
//
// The package imports format only. Compression, sealing, packs and
// deduplication are behind Chunks, which package repo implements. Only repo and
// what lies above it import this package.
package tree
