// Package filter holds the stages that take things out of a stream or change
// them on the way, and the pattern language that they share.
//
// Start reading at Options and New (filter.go): a Filter is a format.Stage made
// of up to four parts, in this order:
//
//	snapshots (fold.go) -> entries (drop.go, content.go) -> changes (change.go) -> identity (identity.go)
//
// Patterns (pattern.go) can be used alone, by whoever walks paths. The spool
// (spool.go) keeps what was dropped and may be asked for again. The rules are
// those of spec/stream.md, "Filtering".
//
// Any program may import this package; it imports format and nothing else of bk.
package filter
