package main

import (
	"bytes"
	"math"
)

// bad is a case whose last record is the one that is wrong.
func bad(class, name, about string, build func(s *stream)) vector {
	return vector{name: class + "-" + name, about: about, expect: class, record: -1, build: build}
}

// badAt is a case whose wrong record is not the last one that was counted.
func badAt(record int, class, name, about string, build func(s *stream)) vector {
	v := bad(class, name, about, build)
	v.record = record
	return v
}

// opened is a stream in an open snapshot, to which build adds.
func opened(build func(s *stream)) func(s *stream) {
	return func(s *stream) {
		s.header()
		s.snapshot(1)
		build(s)
	}
}

// openedFile is a stream in an open file.
func openedFile(features []any, build func(s *stream)) func(s *stream) {
	return func(s *stream) {
		s.header(features...)
		s.snapshot(1)
		s.file("a")
		build(s)
	}
}

// badEncodings are streams that are cut off or are not records.
func badEncodings() []vector {
	dir := append([]byte{0x92}, enc("entry")...)
	return []vector{
		badAt(0, "cut", "empty", "No byte at all.", func(s *stream) {}),
		badAt(0, "cut", "in-header", "The header is cut off.", func(s *stream) { s.header(); s.cut(1) }),
		badAt(1, "cut", "after-header", "Nothing follows the header.", func(s *stream) { s.header() }),
		badAt(1, "cut", "in-kind", "The end is inside a kind.", func(s *stream) { s.header(); s.add("a part", []byte("\x92\xa8snap")) }),
		bad("cut", "in-body", "The end is inside a body.", opened(func(s *stream) { s.dir("a"); s.cut(3) })),
		badAt(3, "cut", "before-payload", "The end is before a payload.", openedFile(none, func(s *stream) {
			s.wire("data", append(append([]byte{0x93}, enc("data")...), enc(dict{{"id", sha("x")}, {"size", 1}})...))
		})),
		badAt(3, "cut", "in-payload", "The end is inside a payload.", openedFile(none, func(s *stream) { s.data("hello"); s.cut(1) })),
		badAt(4, "cut", "in-file", "The end is inside a file.", openedFile(none, func(s *stream) { s.data("hello") })),
		badAt(3, "cut", "in-snapshot", "The end is inside a snapshot.", opened(func(s *stream) { s.dir("a") })),
		badAt(4, "cut", "after-commit", "There is no end record.", opened(func(s *stream) { s.dir("a"); s.commit() })),
		bad("cut", "in-end", "The end record is cut off.", opened(func(s *stream) { s.finish(); s.cut(1) })),

		badAt(0, "syntax", "text", "This is text.", func(s *stream) { s.add("text", []byte("hello, world\n")) }),
		badAt(1, "syntax", "not-an-array", "A record that is a map.", func(s *stream) { s.header(); s.add("a map", enc(dict{{"kind", "end"}})) }),
		badAt(1, "syntax", "array-of-1", "A record without a body.", func(s *stream) { s.header(); s.add("short", enc(list{"end"})) }),
		badAt(1, "syntax", "array-of-4", "A record with four elements.", func(s *stream) { s.header(); s.add("long", enc(list{"x-y", dict{}, 1, 2})) }),
		badAt(1, "syntax", "kind-is-bin", "A kind that is a bin.", func(s *stream) { s.header(); s.add("bin", enc(list{bin("end"), dict{}})) }),
		badAt(1, "syntax", "body-is-array", "A body that is an array.", func(s *stream) { s.header(); s.add("array", enc(list{"end", list{}})) }),
		badAt(1, "syntax", "unused-byte", "The byte 0xc1.", func(s *stream) { s.header(); s.add("c1", []byte{0xc1}) }),
		badAt(2, "syntax", "unused-byte-in-value", "The byte 0xc1 as the value of an unknown key, behind a wrong value: the encoding comes first.", func(s *stream) {
			s.header()
			s.snapshot(1)
			s.add("entry", append(dir, enc(inOrder{{"mode", "x"}, {"path", bin("a")}, {"type", "dir"}, {"zz", raw("\xc1")}})...))
		}),
		badAt(3, "syntax", "data-of-2", "A data record without a payload.", openedFile(none, func(s *stream) {
			s.add("data", enc(list{"data", dict{{"id", sha("x")}, {"size", 1}}}))
		})),
		badAt(2, "syntax", "entry-of-3", "An entry with a payload.", opened(func(s *stream) {
			s.add("entry", enc(list{"entry", dict{{"path", bin("a")}, {"type", "dir"}}, bin("x")}))
		})),
		badAt(3, "syntax", "payload-is-str", "A payload that is a str.", openedFile(none, func(s *stream) {
			s.add("data", enc(list{"data", dict{{"id", sha("x")}, {"size", 1}}, "x"}))
		})),
		bad("trailing", "byte", "A byte follows the end record.", func(s *stream) { s.header(); s.end(); s.add("a byte", []byte{0}); s.records++ }),
		badAt(2, "trailing", "stream", "Another stream follows.", func(s *stream) { s.header(); s.end(); s.header(); s.end() }),
		bad("version", "2", "Version 2.", func(s *stream) { s.record("bk", dict{{"version", 2}}) }),
		bad("version", "0", "Version 0.", func(s *stream) { s.record("bk", dict{{"version", 0}}) }),
		bad("version", "2-other-header", "Version 2, where other keys have other types.", func(s *stream) {
			s.record("bk", dict{{"version", 2}, {"producer", list{}}, {"features", 7}})
		}),
		bad("kind", "unknown", "A kind that nobody knows.", opened(func(s *stream) { s.record("entries", dict{}) })),
		bad("kind", "x-alone", "An x- without a name.", opened(func(s *stream) { s.record("x-", dict{}) })),
	}
}

// badRecords are records that are wrong by themselves.
func badRecords() []vector {
	all := badFields()
	paths := []struct{ name, path string }{
		{"dot-dot", "a/../b"}, {"dot-dot-first", ".."}, {"dot", "./a"}, {"absolute", "/a"}, {"slash-last", "a/"},
		{"slash-twice", "a//b"}, {"zero", "a\x00b"}, {"slash-alone", "/"},
	}
	for _, p := range paths {
		all = append(all, bad("path", p.name, "A path that is not allowed.", opened(func(s *stream) { s.dir(p.path) })))
	}
	return append(all,
		bad("path", "remove", "A path of a remove that is not allowed.", opened(func(s *stream) { s.remove("..") })),
		bad("path", "roots", "A root that is not allowed.", func(s *stream) { s.header(); s.snapshot(1, kv{"roots", list{bin("/home")}}) }),
		bad("path", "copy-from", "A copy from a path that is not allowed.", func(s *stream) {
			s.header("base", "copy")
			s.child(2, 1)
			s.file("a")
			s.copyRange(0, 1, kv{"from", bin("../a")})
		}),
	)
}

func badFields() []vector {
	field := func(name, about string, more ...kv) vector {
		return bad("field", name, about, opened(func(s *stream) {
			body := dict{{"path", bin("a")}, {"type", "dir"}}.set(more...)
			s.record("entry", body)
		}))
	}
	typed := func(kind string, more ...kv) []kv { return append([]kv{{"type", kind}}, more...) }
	return []vector{
		bad("field", "no-path", "An entry without a path.", opened(func(s *stream) { s.record("entry", dict{{"type", "dir"}}) })),
		bad("field", "no-type", "An entry without a type.", opened(func(s *stream) { s.record("entry", dict{{"path", bin("a")}}) })),
		bad("field", "no-version", "A header without a version.", func(s *stream) { s.record("bk", dict{}) }),
		bad("field", "no-snapshot-id", "A snapshot without an id.", func(s *stream) { s.header(); s.record("snapshot", dict{}) }),
		bad("field", "no-data-size", "Data without a size.", openedFile(none, func(s *stream) { s.payload(dict{{"id", sha("x")}}, []byte("x")) })),
		bad("field", "no-digest", "A commit without a digest.", opened(func(s *stream) {
			s.record("commit", dict{{"bytes", 0}, {"data", 0}, {"entries", 0}, {"removes", 0}})
		})),
		field("path-is-str", "A path that is a str.", kv{"path", "a"}),
		field("type-is-bin", "A type that is a bin.", kv{"type", bin("dir")}),
		field("type-unknown", "A type that nobody knows.", kv{"type", "door"}),
		field("nil", "A value that is nil.", kv{"user", nil}),
		field("mode-range", "A mode above 07777.", kv{"mode", 0o10000}),
		field("uid-negative", "A uid below 0.", kv{"uid", -1}),
		field("uid-range", "A uid of more than 32 bits.", kv{"uid", uint64(math.MaxUint32) + 1}),
		field("float", "A number that is a float.", kv{"uid", raw("\xca\x3f\x80\x00\x00")}),
		field("nanoseconds", "A second has 10^9 nanoseconds.", kv{"mtime", time(0, 1_000_000_000)}),
		field("time-of-3", "A time with three elements.", kv{"mtime", list{1, 2, 3}}),
		field("seconds-range", "Seconds of more than 63 bits.", kv{"mtime", list{uint64(math.MaxInt64) + 1, 0}}),
		field("hardlink-dir", "A directory with a hard link.", kv{"hardlink", bin("x")}),
		field("size-dir", "A directory with a size.", kv{"size", 1}),
		field("size-symlink", "A symbolic link with a size.", typed("symlink", kv{"target", bin("t")}, kv{"size", 1})...),
		field("target-missing", "A symbolic link without a target.", typed("symlink")...),
		field("target-dir", "A directory with a target.", kv{"target", bin("t")}),
		field("target-zero", "A target with a zero byte.", typed("symlink", kv{"target", bin("t\x00")})...),
		field("rdev-missing", "A device without a number.", typed("char")...),
		field("rdev-fifo", "A fifo with a number.", typed("fifo", kv{"rdev", list{1, 2}})...),
		field("extents-dir", "A directory with extents.", kv{"extents", list{list{0, 1}}}),
		field("chunker-dir", "A directory with a chunker.", kv{"chunker", "gear:avg=1048576"}),
		field("chunker-symlink", "A symbolic link with a chunker.", typed("symlink", kv{"target", bin("t")}, kv{"chunker", "gear:avg=1048576"})...),
		field("extents-touch", "Extents that touch.", typed("file", kv{"extents", list{list{0, 1}, list{1, 1}}})...),
		field("extents-empty", "An extent of no bytes.", typed("file", kv{"extents", list{list{0, 0}}})...),
		field("xattrs-order", "Extended attributes out of order.", kv{"xattrs", list{list{bin("user.b"), bin("")}, list{bin("user.a"), bin("")}}}),
		field("xattrs-twice", "An extended attribute twice.", kv{"xattrs", list{list{bin("user.a"), bin("")}, list{bin("user.a"), bin("")}}}),
		field("xattrs-name-zero", "An extended attribute with a zero byte in its name.", kv{"xattrs", list{list{bin("user.\x00a"), bin("")}}}),
		field("xattrs-no-name", "An extended attribute without a name.", kv{"xattrs", list{list{bin(""), bin("")}}}),
		field("flags-order", "Flags out of order.", kv{"flags", list{"nodump", "append"}}),
		field("str-utf8", "A str that is not UTF-8.", kv{"flags", list{"\xff"}}),
		bad("field", "root-file", "The root as a file.", opened(func(s *stream) { s.file("") })),
		bad("field", "key-twice", "A key twice.", opened(func(s *stream) {
			s.record("entry", inOrder{{"path", bin("a")}, {"path", bin("a")}, {"type", "dir"}})
		})),
		bad("field", "unknown-key-twice", "An unknown key twice.", opened(func(s *stream) {
			s.record("entry", inOrder{{"path", bin("a")}, {"type", "dir"}, {"zz", 1}, {"zz", 1}})
		})),
		bad("field", "key-utf8", "A key that is not UTF-8.", opened(func(s *stream) { s.entry("a", "dir", kv{"z\xff", 1}) })),
		bad("field", "key-is-bin", "A key that is a bin.", opened(func(s *stream) {
			s.record("entry", inOrder{{"path", bin("a")}, {"type", "dir"}, {bin("zz"), 1}})
		})),
		bad("field", "features-order", "Features out of order.", func(s *stream) { s.header("zstd", "base") }),
		bad("field", "snapshot-id-zero", "An id that is all zero.", func(s *stream) { s.header(); s.snapshot(0) }),
		bad("field", "via-from-zero", "A stage whose snapshot has an id that is all zero.", func(s *stream) {
			s.header()
			s.snapshot(1, kv{"via", list{dict{{"stage", bin("s")}, {"from", id(0)}}}})
		}),
		bad("field", "data-id-zero", "A chunk with an id that is all zero; its payload, which cannot have it, is looked at later.", openedFile(none, func(s *stream) {
			s.payload(dict{{"id", id(0)}, {"size", 1}}, []byte("x"))
		})),
		bad("field", "refs-id-zero", "A reference with an id that is all zero, which nobody can hold.", openedFile([]any{"held"}, func(s *stream) {
			s.record("refs", dict{{"chunks", list{list{id(0), 1}}}})
		})),
		bad("field", "snapshot-id-short", "An id of 31 bytes.", func(s *stream) { s.header(); s.record("snapshot", dict{{"id", id(1)[1:]}}) }),
		bad("field", "sorted-is-int", "A bool that is a number.", func(s *stream) { s.header(); s.snapshot(1, kv{"sorted", 0}) }),
		bad("field", "origin-no-system", "An origin without a system.", func(s *stream) { s.header(); s.snapshot(1, kv{"origin", dict{}}) }),
		bad("field", "via-no-stage", "A stage that is not named.", func(s *stream) {
			s.header()
			s.snapshot(1, kv{"via", list{dict{{"stage", bin("")}, {"from", id(1)}}}})
		}),
		bad("field", "codec-unknown", "A codec that nobody knows.", openedFile(none, func(s *stream) { s.data("x", kv{"codec", "lz4"}) })),
		bad("field", "data-empty", "A chunk of no bytes.", openedFile(none, func(s *stream) { s.data("") })),
		bad("field", "refs-empty", "References to nothing.", openedFile(none, func(s *stream) { s.refs() })),
		bad("field", "refs-zero", "A reference to a chunk of no bytes.", openedFile(none, func(s *stream) { s.refs("") })),
		bad("field", "hole-empty", "A hole of no bytes.", openedFile(none, func(s *stream) { s.hole(0) })),
		bad("field", "losses-order", "Losses out of order.", opened(func(s *stream) {
			s.commit(kv{"losses", list{dict{{"kind", "b"}, {"count", 1}}, dict{{"kind", "a"}, {"count", 1}}}})
		})),
		bad("field", "loss-of-none", "A loss that never happened.", opened(func(s *stream) {
			s.commit(kv{"losses", list{dict{{"kind", "b"}, {"count", 0}}}})
		})),
	}
}

// badStreams are records that are wrong where they stand.
func badStreams() []vector {
	all := append(badGrammar(), badFeatures()...)
	all = append(all, badOrder()...)
	all = append(all, badCounts()...)
	return append(all, badChunks()...)
}

func badGrammar() []vector {
	return []vector{
		bad("grammar", "snapshot-first", "A stream without a header.", func(s *stream) { s.snapshot(1) }),
		bad("grammar", "extension-first", "An x- record has nothing to belong to.", func(s *stream) { s.record("x-note", dict{}) }),
		bad("grammar", "two-headers", "A second header.", func(s *stream) { s.header(); s.header() }),
		bad("grammar", "entry-outside", "An entry outside of snapshots.", func(s *stream) { s.header(); s.dir("a") }),
		bad("grammar", "commit-outside", "A commit outside of snapshots.", func(s *stream) { s.header(); s.commit() }),
		bad("grammar", "snapshot-inside", "A snapshot in a snapshot.", opened(func(s *stream) { s.snapshot(2) })),
		bad("grammar", "end-inside", "The end in a snapshot.", opened(func(s *stream) { s.end() })),
		bad("grammar", "data-after-dir", "Content after a directory.", opened(func(s *stream) { s.dir("a"); s.data("x") })),
		bad("grammar", "data-after-eof", "Content after eof.", opened(func(s *stream) { s.emptyFile("a"); s.data("x") })),
		bad("grammar", "eof-after-symlink", "A symbolic link with an eof.", opened(func(s *stream) {
			s.entry("a", "symlink", kv{"target", bin("t")})
			s.eof()
		})),
		bad("grammar", "entry-before-eof", "An entry while a file is open.", openedFile(none, func(s *stream) { s.dir("b") })),
		bad("grammar", "remove-before-eof", "A remove while a file is open.", openedFile(none, func(s *stream) { s.remove("b") })),
		bad("grammar", "commit-before-eof", "A commit while a file is open.", openedFile(none, func(s *stream) { s.commit() })),
	}
}

func badFeatures() []vector {
	return []vector{
		bad("feature", "unknown", "A feature that nobody knows.", func(s *stream) { s.header("future") }),
		bad("feature", "zstd", "A zstd payload that was not announced.", openedFile(none, func(s *stream) {
			s.zstd("hello", frame(5, rawBlock("hello", true)))
		})),
		bad("feature", "copy", "A copy that was not announced.", func(s *stream) {
			s.header("base")
			s.child(2, 1)
			s.file("a")
			s.copyRange(0, 1)
		}),
		bad("feature", "flat-parent", "A parent in a flat stream.", func(s *stream) { s.header("base", "flat"); s.child(2, 1) }),
		bad("feature", "flat-remove", "A remove in a flat stream.", func(s *stream) { s.header("flat"); s.snapshot(1); s.remove("a") }),
		bad("feature", "flat-refs", "References in a flat stream.", openedFile([]any{"flat"}, func(s *stream) { s.data("x"); s.refs("x") })),
		bad("feature", "flat-copy", "A copy in a flat stream.", openedFile([]any{"copy", "flat"}, func(s *stream) { s.copyRange(0, 1) })),
		bad("parent", "no-base", "The first snapshot has a parent without base.", func(s *stream) { s.header(); s.child(2, 1) }),
		bad("parent", "not-before", "The parent is not the snapshot before.", func(s *stream) {
			s.header("base")
			for n := range 2 {
				s.snapshot(byte(n + 1))
				s.commit()
			}
			s.child(3, 1)
		}),
		bad("parent", "itself", "A snapshot that is its own parent.", func(s *stream) { s.header("base"); s.child(1, 1) }),
	}
}

func badOrder() []vector {
	return []vector{
		bad("order", "descending", "A path that comes before the one before.", opened(func(s *stream) { s.dir("b"); s.dir("a") })),
		bad("order", "twice", "A path twice.", opened(func(s *stream) { s.dir("a"); s.dir("a") })),
		bad("order", "remove-and-file", "A path removed and then described as a file, which would remove what was below by itself.", opened(func(s *stream) {
			s.remove("a")
			s.file("a")
		})),
		bad("order", "entry-and-remove", "A path described and then removed.", opened(func(s *stream) { s.dir("a"); s.remove("a") })),
		bad("order", "removed-twice", "A path removed twice.", opened(func(s *stream) { s.remove("a"); s.remove("a") })),
		bad("order", "emptied-twice", "A directory that begins empty, twice.", opened(func(s *stream) { s.remove("a"); s.dir("a"); s.dir("a") })),
		bad("order", "remove-descending", "Removes have their place in the order too.", opened(func(s *stream) { s.dir("b"); s.remove("a") })),
		bad("order", "slash", "Plain bytewise order, where '-' is below '/'.", opened(func(s *stream) { s.dir("a"); s.dir("a-b"); s.dir("a/b") })),
		bad("order", "parent-after", "A directory after what is in it.", opened(func(s *stream) { s.dir("a/b"); s.dir("a") })),
		bad("tree", "below-file", "An entry below a file.", opened(func(s *stream) { s.emptyFile("a"); s.dir("a/b") })),
		bad("tree", "below-symlink", "An entry far below a symbolic link.", opened(func(s *stream) {
			s.entry("a", "symlink", kv{"target", bin("/etc")})
			s.dir("a/b/c")
		})),
		bad("tree", "below-file-in-dir", "An entry below a file that lies beside other directories.", opened(func(s *stream) {
			s.dir("d")
			s.dir("d/a")
			s.emptyFile("d/b")
			s.dir("d/b/c")
		})),
		bad("tree", "below-file-after-remove", "A remove in between does not help.", opened(func(s *stream) {
			s.emptyFile("a")
			s.remove("a/a")
			s.dir("a/b")
		})),
	}
}

func badCounts() []vector {
	count := func(name string, more kv) vector {
		return bad("count", name, "A commit whose count is wrong.", opened(func(s *stream) {
			s.whole("a", "xyz")
			s.remove("b")
			s.commit(more)
		}))
	}
	return []vector{
		bad("count", "eof", "An eof with a wrong size.", openedFile(none, func(s *stream) { s.data("xyz"); s.record("eof", dict{{"size", 4}}) })),
		count("entries", kv{"entries", 2}), count("removes", kv{"removes", 0}), count("data", kv{"data", 2}), count("bytes", kv{"bytes", 4}),
		bad("count", "end", "An end with a wrong number of snapshots.", opened(func(s *stream) { s.commit(); s.end(kv{"snapshots", 2}) })),
		bad("digest", "commit", "A commit with a wrong digest.", opened(func(s *stream) { s.commit(kv{"digest", id(1)}) })),
		bad("digest", "end", "An end with a wrong digest.", opened(func(s *stream) { s.commit(); s.end(kv{"digest", id(1)}) })),
		bad("digest", "flipped-entry", "A flipped bit in a name, found at the commit.", opened(func(s *stream) {
			s.dir("abc")
			s.commit()
			s.flip("2 entry", 10)
		})),
		bad("digest", "flipped-extension", "Extensions are covered by the digest.", opened(func(s *stream) {
			s.record("x-note", dict{{"k", 1}})
			s.commit()
			s.flip("2 x-note", 0)
		})),
		bad("digest", "flipped-header", "A flipped bit in the header, found at the end.", func(s *stream) {
			s.record("bk", dict{{"version", 1}, {"a", 1}})
			s.end()
			s.flip("0 bk", 9)
		}),
		bad("digest", "flipped-extension-after-commit", "What follows a commit is covered by the end.", func(s *stream) {
			s.header()
			s.snapshot(1)
			s.commit()
			s.record("x-note", dict{{"k", 1}})
			s.end()
			s.flip("3 x-note", 0)
		}),
		bad("digest", "eof-sha256", "A whole content that is not what eof says.", openedFile(none, func(s *stream) { s.data("x"); s.eof(kv{"sha256", sha("y")}) })),
	}
}

func badChunks() []vector {
	zstd := func(name, about, plain string, payload []byte) vector {
		return badAt(3, "chunk", name, about, openedFile([]any{"zstd"}, func(s *stream) { s.zstd(plain, payload) }))
	}
	hello := frame(5, rawBlock("hello", true))
	skippable := []byte{0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 'x'}
	noSize := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58}
	bomb := append(bytes.Clone(noSize), bytes.Repeat(rleBlock(0, 128<<10, false), 16000)...)
	return []vector{
		badAt(3, "chunk", "wrong-id", "A payload that is not the chunk it claims to be.", openedFile(none, func(s *stream) {
			s.payload(dict{{"id", sha("y")}, {"size", 1}}, []byte("x"))
		})),
		badAt(3, "chunk", "plain-size", "A payload without a codec of another size.", openedFile(none, func(s *stream) {
			s.payload(dict{{"id", sha("xy")}, {"size", 1}}, []byte("xy"))
		})),
		zstd("zstd-wrong-id", "A frame with another content.", "jello", hello),
		zstd("zstd-size", "A frame that says another size.", "hello!", hello),
		zstd("zstd-shorter", "A frame without a size that decodes to less.", "hello!", append(bytes.Clone(noSize), rawBlock("hello", true)...)),
		zstd("zstd-trailing", "A byte after the frame.", "hello", append(bytes.Clone(hello), 0)),
		zstd("zstd-two-frames", "Two frames.", "hello", append(frame(2, rawBlock("he", true)), frame(3, rawBlock("llo", true))...)),
		zstd("zstd-skippable", "A skippable frame before the frame.", "hello", append(bytes.Clone(skippable), hello...)),
		zstd("zstd-skippable-last", "A skippable frame after the frame.", "hello", append(bytes.Clone(hello), skippable...)),
		zstd("zstd-cut", "A frame that is cut off.", "hello", hello[:len(hello)-1]),
		zstd("zstd-empty", "No frame.", "hello", nil),
		zstd("zstd-not-zstd", "Not a frame.", "hello", []byte("hello")),
		zstd("zstd-dictionary", "A frame that needs a dictionary.", "hello", append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x21, 7, 5}, rawBlock("hello", true)...)),
		zstd("zstd-window", "A frame with a window of 64 MiB.", "hello", append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x80}, rawBlock("hello", true)...)),
		zstd("zstd-window-36", "A frame with a window of 36 MiB, the next larger one.", "hello", append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x79}, rawBlock("hello", true)...)),
		zstd("zstd-one-segment", "A frame of one segment that says 64 MiB, which is its window too.", "hello", append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0, 4}, rawBlock("hello", true)...)),
		zstd("zstd-reserved-bit", "A frame with the reserved bit set.", "hello", append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x28, 5}, rawBlock("hello", true)...)),
		zstd("zstd-checksum", "A frame with a wrong checksum.", repeatedText, append(mustHex(packedText)[:len(packedText)/2-1], 0)),
		zstd("zstd-bomb", "64 KB that decode to 2 GB.", string(make([]byte, 100)), append(bomb, rawBlock("", true)...)),
		bad("reference", "never-sent", "A reference to what was never sent.", openedFile(none, func(s *stream) { s.data("x"); s.refs("y") })),
		bad("reference", "size", "A reference with a wrong size.", openedFile(none, func(s *stream) {
			s.data("x")
			s.record("refs", dict{{"chunks", list{list{sha("x"), 2}}}})
		})),
		bad("reference", "held-size", "With held, a reference with another size than the chunk that was sent.", openedFile([]any{"held"}, func(s *stream) {
			s.data("x")
			s.record("refs", dict{{"chunks", list{list{sha("x"), 2}}}})
		})),
		bad("reference", "copy-no-parent", "A copy in a snapshot without a parent.", openedFile([]any{"copy"}, func(s *stream) { s.copyRange(0, 1) })),
	}
}
