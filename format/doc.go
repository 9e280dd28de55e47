// Package format is the bk stream, version 1: its records, a Reader and a
// Writer for it, and the three roles that everything in bk plays.
//
// A Source hands out records, a Sink takes them, a Stage changes them on the
// way, and Copy drives all three:
//
//	source -> stage -> stage -> sink
//
// A file system, a bk repository, a stream on a pipe, a restic or borg
// repository, a tar archive are each a source, a sink, or both; so a program is
// little more than the choice of the two ends.
//
// Start reading at Record and its kinds (record.go), then Source, Sink, Stage
// and Copy (flow.go), then Reader and Writer. The normative text is
// spec/stream.md; comments cite it by section.
//
// Anybody may import this package; it imports nothing else of bk.
package format
