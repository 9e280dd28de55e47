// Package tar is tar archives as a system: one archive is one snapshot, a
// directory of archives is several.
//
// Reading begins at Open: system.go finds out what an archive is and gives its
// snapshot an identity, open.go decompresses, members.go takes an archive apart
// into members with the help of header.go (blocks), pax.go (extended headers),
// sparse.go (maps of holes) and attributes.go, entry.go makes entries of
// members, parse.go drives all that beside the goroutines that hash, and
// source.go hands out the records. An archive is read once, from its beginning
// to its end, and its members come in any order, so its snapshots are not
// sorted; what a hard link repeats is remembered in index.go.
//
// Writing begins at Create: sink.go takes the records, content.go gathers a
// file until its size and holes are known, compose.go makes headers, and
// output.go places the finished archive. A sink cannot look back into what it
// wrote, so its streams must be flat.
//
// The archives read are those of GNU tar (all of its formats), POSIX pax and
// ustar, the seventh edition, and what libarchive, star and borg add to them.
// What is written is pax, as both GNU tar and bsdtar restore it; spec/tar.md
// says what it is made of.
//
// This package imports format, format/chunker and format/internal/spill. Only
// programs import it.
package tar
