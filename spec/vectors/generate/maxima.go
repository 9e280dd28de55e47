package main

import (
	"bytes"
	"fmt"
	"math"
	"strings"
)

// Each limit of spec/stream.md, "Limits", has a case at it here, which a reader
// must let pass whose limit is right, and one just over it in overLimits.

// atLimits are good streams that reach a limit and do not exceed it.
func atLimits() []vector {
	all := textsAtLimits()
	all = append(all, numbersAtLimits()...)
	all = append(all, keysAtLimits()...)
	return append(all, contentAtLimits()...)
}

func long(n int) bin { return bin(strings.Repeat("x", n)) }

// oneSnapshot is a stream of one snapshot without entries, with keys of its own.
func oneSnapshot(more ...kv) func(s *stream) {
	return func(s *stream) { s.header(); s.snapshot(1, more...); s.finish() }
}

// lossy is a stream whose commit counts losses.
func lossy(losses any) func(s *stream) {
	return opened(func(s *stream) { s.commit(kv{"losses", losses}); s.end() })
}

func textsAtLimits() []vector {
	most := long(4096)
	return []vector{
		good("path-size", "A path of 32768 bytes.", inSnapshot(none, func(s *stream) { s.remove(strings.Repeat("abc/", 8191) + "abcd") })),
		good("target-size", "A target of 64 KiB.", inSnapshot(none, func(s *stream) { s.entry("a", "symlink", kv{"target", long(64 << 10)}) })),
		good("comment-size", "A comment of 64 KiB.", oneSnapshot(kv{"comment", long(64 << 10)})),
		good("eof-error-size", "An error text of 64 KiB.", inSnapshot(none, func(s *stream) { s.file("a"); s.eof(kv{"error", long(64 << 10)}) })),
		good("hardlink-size", "A group of hard links with a name of 64 bytes.", inSnapshot(none, func(s *stream) {
			s.entry("a", "fifo", kv{"hardlink", long(64)})
		})),
		good("xattr-name-size", "An extended attribute with a name of 1024 bytes.", inSnapshot(none, func(s *stream) {
			s.entry("a", "dir", kv{"xattrs", list{list{"user." + long(1019), bin("v")}}})
		})),
		good("head-text-size", "Texts of 4096 bytes in the header and in a snapshot.", func(s *stream) {
			s.record("bk", dict{{"version", 1}, {"producer", most}})
			s.snapshot(1, kv{"host", most}, kv{"user", most}, kv{"tags", list{most}},
				kv{"origin", dict{{"system", string(most)}, {"repository", most}, {"id", most}}},
				kv{"via", list{dict{{"stage", most}, {"from", id(9)}}}})
			s.finish()
		}),
		good("entry-text-size", "Texts of 4096 bytes in an entry.", inSnapshot(none, func(s *stream) {
			s.file("a", kv{"user", most}, kv{"group", most}, kv{"chunker", string(most)}, kv{"flags", list{"x-" + string(long(4094))}})
			s.eof()
		})),
		good("key-size", "A key of 4096 bytes.", inSnapshot(none, func(s *stream) { s.entry("a", "dir", kv{"x-" + string(long(4094)), 1}) })),
		good("kind-size", "A kind of 4096 bytes.", inSnapshot(none, func(s *stream) { s.record("x-"+string(long(4094)), dict{}) })),
		good("loss-kind-size", "A kind of loss of 4096 bytes.", lossy(list{dict{{"kind", "x-" + string(long(4094))}, {"count", 1}}})),
		good("loss-path-size", "A path of a loss of 32 KiB.", lossy(list{dict{{"kind", "k"}, {"count", 1}, {"paths", list{long(32 << 10)}}}})),
	}
}

func numbersAtLimits() []vector {
	var flags, losses, xattrs list
	for i := range 64 {
		flags = append(flags, fmt.Sprintf("x-%02d", i))
	}
	for i := range 1024 {
		losses = append(losses, dict{{"kind", fmt.Sprintf("%03x", i)}, {"count", 1}})
	}
	for i := range 4096 {
		// Two letters each keep the file small.
		xattrs = append(xattrs, list{bin([]byte{byte('0' + i/64), byte('0' + i%64)}), bin("")})
	}
	return []vector{
		good("xattrs", "4096 extended attributes.", inSnapshot(none, func(s *stream) { s.entry("a", "dir", kv{"xattrs", xattrs}) })),
		good("flags", "64 flags.", inSnapshot(none, func(s *stream) { s.entry("a", "dir", kv{"flags", flags}) })),
		good("roots", "4096 roots.", oneSnapshot(kv{"roots", repeat{4096, bin("a")}})),
		good("tags", "4096 tags.", oneSnapshot(kv{"tags", repeat{4096, bin("a")}})),
		good("losses-most", "1024 kinds of loss.", lossy(losses)),
		good("loss-paths", "16 paths of one loss.", lossy(list{dict{{"kind", "k"}, {"count", 17}, {"paths", repeat{16, bin("a")}}}})),
	}
}

// unknown returns n unknown keys.
func unknown(n int) (keys []kv) {
	for i := range n {
		keys = append(keys, kv{fmt.Sprintf("x%03d", i), 1})
	}
	return keys
}

func keysAtLimits() []vector {
	nested := raw("\xde\x01\x00")
	for i := range 256 {
		nested = append(append(nested, enc(i)...), 0)
	}
	with := func(known int, d dict) dict { return append(d, unknown(256-known)...) }
	return []vector{
		good("keys", "The most unknown keys that an entry may have beside the 21 that it knows, of which it has two.", inSnapshot(none, func(s *stream) {
			s.entry("a", "dir", unknown(256-21)...)
		})),
		good("keys-everywhere", "The most unknown keys that every record and every map may have.", func(s *stream) {
			s.record("bk", with(4, dict{{"version", 1}, {"features", list{"base", "copy"}}}))
			s.record("snapshot", with(13, dict{
				{"id", id(2)}, {"parent", id(1)},
				{"origin", with(3, dict{{"system", "tar"}})},
				{"via", list{with(2, dict{{"stage", bin("s")}, {"from", id(7)}})}},
				{"estimate", with(2, nil)},
			}))
			s.file("a", unknown(256-21)...)
			s.data("x", unknown(256-4)...)
			s.record("refs", with(1, dict{{"chunks", list{list{sha("x"), 1}}}}))
			s.content++
			s.copyRange(0, 1, unknown(256-3)...)
			s.record("hole", with(1, dict{{"size", 1}}))
			s.content++
			s.eof(unknown(256 - 3)...)
			s.remove("b", unknown(256-1)...)
			s.commit(append(unknown(256-6), kv{"losses", list{with(3, dict{{"kind", "k"}, {"count", 1}})}})...)
			s.end(unknown(256 - 2)...)
		}),
		good("keys-nested", "256 keys in a map of an unknown key.", inSnapshot(none, func(s *stream) { s.entry("a", "dir", kv{"zz", nested}) })),
		good("keys-x", "256 keys in an x- record.", inSnapshot(none, func(s *stream) { s.record("x-note", dict(unknown(256))) })),
		good("depth-via", "An unknown key of a stage that nests 16 deep.", oneSnapshot(kv{"via", list{viaWith(kv{"zz", deep(16)})}})),
	}
}

func viaWith(more ...kv) dict { return append(dict{{"stage", bin("s")}, {"from", id(1)}}, more...) }

// deep is n arrays in each other.
func deep(n int) raw { return raw(strings.Repeat("\x91", n) + "\xc0") }

func contentAtLimits() []vector {
	zstd := []any{"zstd"}
	const most = 32 << 20
	// A frame of one segment that says its size in four bytes: 256 blocks of 128 KiB.
	largest := append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0, 2}, bytes.Repeat(rleBlock(0, 128<<10, false), 255)...)
	largest = append(largest, rleBlock(0, 128<<10, true)...)
	// Empty blocks fill the payload up to what 128 bytes may have: 128 + 1 + 65536.
	filled := append(frame(128, rleBlock('x', 128, false)), bytes.Repeat(rawBlock("", false), 21884)...)
	filled = append(filled, rawBlock("", true)...)
	return []vector{
		good("chunk-size", "A chunk of 32 MiB, and a reference to it; the window of its frame, which is one segment, is as large.", inSnapshot(zstd, func(s *stream) {
			s.file("a")
			s.zstd(strings.Repeat("\x00", most), largest)
			s.eof()
			s.file("b")
			s.refs(strings.Repeat("\x00", most))
			s.eof()
		})),
		good("payload-size", "A payload as long as one for 128 bytes may be: 65665.", inSnapshot(zstd, func(s *stream) {
			s.file("a")
			s.zstd(strings.Repeat("x", 128), paddedTo(filled, 65665))
			s.eof()
		})),
		good("zstd-window", "A frame with a window of 32 MiB.", inSnapshot(zstd, func(s *stream) {
			s.file("a")
			s.zstd("hello", append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x78}, rawBlock("hello", true)...))
			s.eof()
		})),
		good("file-size", "A file of 2^63-1 bytes, whose size is known beforehand.", inSnapshot(none, func(s *stream) {
			s.file("a", kv{"size", uint64(math.MaxInt64)})
			s.hole(math.MaxInt64)
			s.eof()
		})),
		good("content-size", "Runs of content that are 2^63-1 bytes together.", inSnapshot(none, func(s *stream) {
			s.file("a")
			s.hole(math.MaxInt64 - 1)
			s.data("x")
			s.eof()
		})),
		good("extent-end", "An extent that ends at 2^63-1.", inSnapshot(none, func(s *stream) {
			s.file("a", kv{"extents", list{list{uint64(math.MaxInt64 - 1), 1}}})
			s.eof()
		})),
		good("copy-end", "A copy that ends at 2^63-1.", func(s *stream) {
			s.header("base", "copy")
			s.child(2, 1)
			s.file("a")
			s.copyRange(math.MaxInt64-1, 1)
			s.eof()
			s.finish()
		}),
		good("bytes", "Files of 2^64-1 bytes together.", inSnapshot(none, func(s *stream) {
			for i, size := range []uint64{math.MaxInt64, math.MaxInt64, 1} {
				s.file(string(rune('a' + i)))
				s.hole(size)
				s.eof()
			}
		})),
	}
}

// paddedTo panics unless the frame has the size that its case says.
func paddedTo(frame []byte, size int) []byte {
	if len(frame) != size {
		panic(fmt.Sprintf("the frame has %d bytes, not %d", len(frame), size))
	}
	return frame
}

// refusedAtLimits are for limits whose text would fill a file if the record were
// accepted: it reaches the limit, but breaks a rule that is looked at later. Who
// says limit has a limit that is too small.
func refusedAtLimits() []vector {
	var features list
	for i := range 64 {
		features = append(features, fmt.Sprintf("x-%02d", i))
	}
	late := func(name, about, path string, more ...kv) vector {
		return bad("order", name+"-at-limit", about+", which is allowed, in an entry that comes too late.", opened(func(s *stream) {
			s.dir("b")
			s.entry(path, "dir", more...)
		}))
	}
	body := dict{{"path", bin("a")}, {"type", "dir"}, {"zz", long(1 << 16)}}
	return []vector{
		late("path-size", "A path of 32768 bytes", strings.Repeat("a/", 16383)+"ab"),
		late("xattr-value-size", "An extended attribute of 1 MiB", "a", kv{"xattrs", list{list{bin("a"), long(1 << 20)}}}),
		late("body-size", "A body of 8 MiB", "a", kv{"zz", long(8<<20 - (len(enc(body)) - 1<<16))}),
		bad("field", "extents-at-limit", "65536 extents, which are allowed, but all at one place.", opened(func(s *stream) {
			s.file("a", kv{"extents", repeat{65536, list{0, 1}}})
		})),
		bad("reference", "refs-at-limit", "8192 references, which are allowed, of which the last names what was never sent.", openedFile(none, func(s *stream) {
			s.data("x")
			s.refs(append(strings.Split(strings.Repeat("x", 8191), ""), "y")...)
		})),
		bad("parent", "via-at-limit", "4096 stages, which are allowed, of a first snapshot that has a parent without base.", func(s *stream) {
			s.header()
			s.child(2, 1, kv{"via", repeat{4096, viaWith()}})
		}),
		bad("feature", "at-limit", "64 features, which are allowed, but nobody knows them.", func(s *stream) { s.header(features...) }),
	}
}
