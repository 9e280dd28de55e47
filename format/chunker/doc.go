// Package chunker cuts streams of bytes into chunks: at fixed offsets, or where
// the content itself says so, so that an insertion moves few cuts.
//
// Start with Spec, which names a splitter ("gear:64KiB"), then New, which joins
// it with a secret into a Factory, and Splitter, which cuts buffers. A splitter
// does no input or output: whoever makes a stream holds the buffer and asks
// where its next chunk ends; Waiting is the buffer of those who are given a
// stream piece by piece. Resync says which parts of a changed file must be
// read and cut again.
//
// spec/chunker.md describes each splitter to the byte, and spec/vectors/chunker
// holds inputs with the cuts that every implementation must find.
//
// Any package may import this one; it imports nothing else of this module.
package chunker
