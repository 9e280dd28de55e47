// Package interop holds the tests in which other people's programs meet ours: the
// examples in spec/examples, written in Python from the specification alone, read
// and write streams in pipes with the programs of bk, in both directions, and
// read the repositories that they make; and restic and borg, whose repositories ours read.
//
//	go test -tags interop ./cmd/internal/interop
//
// It needs /usr/bin/python3 with the modules msgpack, zstandard and cryptography
// and the library libargon2 (in Debian: python3-msgpack, python3-zstandard,
// python3-cryptography, libargon2-1), restic, borg, rsync, and programs in the directory that BK_BIN
// names, or else in bin at the top of the tree. Start reading at interop_test.go.
// Nothing imports it.
package interop
