package main

import (
	"encoding/hex"
	"math"
	"strings"
)

// frame returns a zstd frame without a checksum that says its size in one byte,
// made of the given blocks.
func frame(size byte, blocks ...[]byte) []byte {
	b := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x20, size}
	for _, x := range blocks {
		b = append(b, x...)
	}
	return b
}

// rawBlock holds its content as it is, rleBlock one byte n times.
func rawBlock(content string, last bool) []byte {
	return append(blockHead(len(content), 0, last), content...)
}

func rleBlock(b byte, n int, last bool) []byte { return append(blockHead(n, 1, last), b) }

func blockHead(n, kind int, last bool) []byte {
	head := n<<3 | kind<<1
	if last {
		head |= 1
	}
	return []byte{byte(head), byte(head >> 8), byte(head >> 16)}
}

// packedText is repeatedText as a frame with a compressed block and a checksum,
// as an encoder made it.
var repeatedText = strings.Repeat("all work and no play ", 20)

const packedText = "28b52ffd4400a400f500005401616c6c20776f726b20616e64206e6f20706c617920015412042c1931b7708b37"

func mustHex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

func good(name, about string, build func(s *stream)) vector {
	return vector{name: "ok-" + name, about: about, expect: "ok", record: -1, build: build}
}

// inSnapshot is a stream of one snapshot.
func inSnapshot(features []any, build func(s *stream)) func(s *stream) {
	return func(s *stream) {
		s.header(features...)
		s.snapshot(1)
		build(s)
		s.finish()
	}
}

var none []any

func time(sec, nsec int64) list { return list{sec, nsec} }

func goodVectors() []vector {
	all := goodHeads()
	all = append(all, goodEntries()...)
	all = append(all, goodContent()...)
	all = append(all, goodDifferences()...)
	return append(all, goodForms()...)
}

func goodHeads() []vector {
	return []vector{
		good("empty", "No snapshot at all is a stream.", func(s *stream) { s.header(); s.end() }),
		good("header", "Every key of the header and every feature.", func(s *stream) {
			s.record("bk", dict{
				{"version", 1}, {"producer", bin("a producer 1.0\xff")}, {"created", time(1767225600, 1)},
				{"features", list{"base", "copy", "held", "zstd"}},
			})
			s.end()
		}),
		good("snapshot-empty", "A snapshot without entries.", inSnapshot(none, func(s *stream) {})),
		good("snapshot-all-keys", "Every key of a snapshot.", func(s *stream) {
			s.header()
			s.snapshot(1,
				kv{"time", time(1767225600, 999999999)}, kv{"host", bin("host")}, kv{"user", bin("user")},
				kv{"roots", list{bin("home/user"), bin("etc")}}, kv{"tags", list{bin("b"), bin("a"), bin("b")}},
				kv{"comment", bin("line\nline")},
				kv{"origin", dict{{"system", "restic"}, {"repository", bin("r")}, {"id", bin("\x00\x01")}}},
				kv{"via", list{dict{{"stage", bin("drop *.jpg")}, {"from", id(9)}}, dict{{"stage", bin("rename")}, {"from", id(8)}}}},
				kv{"unstable", true}, kv{"estimate", dict{{"entries", 5}, {"bytes", uint64(math.MaxUint64)}}})
			s.finish()
		}),
		good("tag-empty", "A tag that is empty.", oneSnapshot(kv{"tags", list{bin(""), bin("a")}})),
		good("roots-root", "The root is what was asked for.", oneSnapshot(kv{"roots", list{bin("")}})),
		good("two-snapshots", "Two snapshots that are whole; the order of paths begins again.", func(s *stream) {
			s.header()
			s.snapshot(1)
			s.dir("z")
			s.commit()
			s.snapshot(2)
			s.dir("a")
			s.finish()
		}),
		good("losses", "Losses in a commit.", func(s *stream) {
			s.header()
			s.snapshot(1)
			s.commit(kv{"losses", list{
				dict{{"kind", "unreadable"}, {"count", 3}, {"paths", list{bin("a"), bin("b\xff")}}},
				dict{{"kind", "xattr"}, {"count", 1}},
			}})
			s.end()
		}),
	}
}

func goodEntries() []vector {
	return []vector{
		good("types", "Every type of entry.", inSnapshot(none, func(s *stream) {
			s.entry("block", "block", kv{"rdev", list{8, uint64(math.MaxUint32)}})
			s.entry("char", "char", kv{"rdev", list{0, 0}})
			s.entry("dir", "dir")
			s.entry("fifo", "fifo")
			s.emptyFile("file")
			s.entry("socket", "socket")
			s.entry("symlink", "symlink", kv{"target", bin("../\xff target")})
		})),
		good("entry-all-keys", "Every key that a file may have; more than 15 keys.", inSnapshot(none, func(s *stream) {
			s.file("f",
				kv{"mode", 0o7777}, kv{"uid", uint64(math.MaxUint32)}, kv{"gid", 0}, kv{"user", bin("u\xff")}, kv{"group", bin("g")},
				kv{"mtime", time(1, 0)}, kv{"size", 9}, kv{"hardlink", bin("group 1")},
				kv{"xattrs", list{list{bin("system.posix_acl_access"), bin("\x02\x00\x00\x00")}, list{bin("user.empty"), bin("")}}},
				kv{"flags", list{"append", "nodump"}}, kv{"extents", list{list{0, 4096}, list{8192, 1}}},
				kv{"atime", time(2, 0)}, kv{"ctime", time(3, 0)}, kv{"btime", time(4, 0)},
				kv{"inode", uint64(math.MaxUint64)}, kv{"links", 2}, kv{"chunker", "gear:avg=1048576"})
			s.hole(10)
			s.eof()
		})),
		good("root", "The root has the empty path.", inSnapshot(none, func(s *stream) {
			s.entry("", "dir", kv{"mode", 0o755})
			s.dir("a")
		})),
		good("names", "Names are bytes: not UTF-8, control characters, dots, spaces, a component of 4096 bytes.", inSnapshot(none, func(s *stream) {
			s.dir("\x01")
			s.dir(" ")
			s.dir("...")
			s.dir("..a")
			s.dir("\\")
			s.dir(strings.Repeat("n", 4096))
			s.dir("\xc3\xa4")
			s.dir("\xff\xfe")
		})),
		good("order", "The order of paths: '/' is below every other byte.", inSnapshot(none, func(s *stream) {
			for _, p := range []string{"", "a", "a/b", "a/b/c", "a/b\x01", "a/b-c", "a\x01", "a-b", "a.b", "a.b/c", "ab", "b"} {
				s.dir(p)
			}
		})),
		good("ancestors", "Ancestors that have no entry are implied.", inSnapshot(none, func(s *stream) {
			s.dir("a/b/c")
			s.emptyFile("d/e")
		})),
		good("unsorted", "A snapshot that says it is not sorted; a path comes again, an entry comes below a file.", func(s *stream) {
			s.header()
			s.snapshot(1, kv{"sorted", false})
			s.dir("b")
			s.emptyFile("a")
			s.dir("a/b")
			s.dir("b")
			s.finish()
		}),
		good("target-empty", "A symbolic link whose target is empty.", inSnapshot(none, func(s *stream) { s.entry("a", "symlink", kv{"target", bin("")}) })),
		good("beside-file", "Paths that begin with a file's, but are not below it.", inSnapshot(none, func(s *stream) {
			s.emptyFile("a")
			s.dir("a-")
			s.dir("a-/b")
			s.dir("ab/c")
		})),
		good("times", "Times before 1970, after 2262 and at the ends of 64 bits.", inSnapshot(none, func(s *stream) {
			for i, t := range []list{time(-1, 500000000), time(1<<33, 0), time(math.MinInt64, 0), time(math.MaxInt64, 999999999), time(-33, 0), time(-32, 0)} {
				s.entry(string(rune('a'+i)), "dir", kv{"mtime", t})
			}
		})),
		good("hardlinks", "Every member of a group of hard links carries its content.", inSnapshot(none, func(s *stream) {
			s.file("a", kv{"hardlink", bin("\x00\xff")})
			s.data("x")
			s.eof()
			s.file("b", kv{"hardlink", bin("\x00\xff")})
			s.refs("x")
			s.eof()
			s.entry("c", "symlink", kv{"hardlink", bin("other")}, kv{"target", bin("t")})
			s.entry("d", "symlink", kv{"hardlink", bin("other")}, kv{"target", bin("t")})
		})),
	}
}

func goodContent() []vector {
	zstd := []any{"zstd"}
	return []vector{
		good("data", "Files of no, one and several chunks.", inSnapshot(none, func(s *stream) {
			s.emptyFile("a")
			s.whole("b", "hello, world\n")
			s.file("c")
			s.data("one")
			s.data("two")
			s.data("\x00")
			s.eof()
		})),
		good("data-once", "A chunk that is not referred to again.", inSnapshot(none, func(s *stream) {
			s.file("a")
			s.data("x", kv{"once", true})
			s.eof()
		})),
		good("data-twice", "A chunk may be sent again.", inSnapshot(none, func(s *stream) {
			s.whole("a", "x")
			s.whole("b", "x")
		})),
		good("zstd-raw", "A zstd frame with a raw block.", inSnapshot(zstd, func(s *stream) {
			s.file("a")
			s.zstd("hello", frame(5, rawBlock("hello", true)))
			s.eof()
		})),
		good("zstd-rle", "A zstd frame with two blocks, one of repeated bytes.", inSnapshot(zstd, func(s *stream) {
			s.file("a")
			s.zstd("hi"+strings.Repeat("z", 200), frame(202, rawBlock("hi", false), rleBlock('z', 200, true)))
			s.eof()
		})),
		good("zstd-packed", "A zstd frame with a compressed block and a checksum.", inSnapshot(zstd, func(s *stream) {
			s.file("a")
			s.zstd(repeatedText, mustHex(packedText))
			s.eof()
		})),
		good("zstd-no-size", "A zstd frame that does not say its size.", inSnapshot(zstd, func(s *stream) {
			s.file("a")
			s.zstd("hello", append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58}, rawBlock("hello", true)...))
			s.eof()
		})),
		good("zstd-unused-bit", "A zstd frame with the bit set that no decoder looks at.", inSnapshot(zstd, func(s *stream) {
			s.file("a")
			s.zstd("hello", append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x30, 5}, rawBlock("hello", true)...))
			s.eof()
		})),
		good("zstd-not-used", "A feature may be announced and not used.", inSnapshot(zstd, func(s *stream) { s.whole("a", "x") })),
		good("holes", "Holes at the begin, in the middle and at the end; a file that is nothing else.", inSnapshot(none, func(s *stream) {
			s.file("a", kv{"extents", list{list{4096, 1}}})
			s.hole(4096)
			s.data("x")
			s.hole(1)
			s.hole(math.MaxUint32)
			s.eof()
			s.file("b")
			s.hole(math.MaxInt64)
			s.eof()
		})),
		good("refs", "References to chunks of this stream, in one snapshot and in the next.", func(s *stream) {
			s.header()
			s.snapshot(1)
			s.whole("a", "one")
			s.file("b")
			s.data("two")
			s.refs("one", "two", "one")
			s.eof()
			s.commit()
			s.snapshot(2)
			s.file("a")
			s.refs("two")
			s.data("three")
			s.eof()
			s.finish()
		}),
		good("held", "With held, references may name what the receiver has.", inSnapshot([]any{"held"}, func(s *stream) {
			s.file("a")
			s.refs("never sent")
			s.eof()
		})),
		good("eof-sha256", "The SHA-256 of a whole content.", inSnapshot(none, func(s *stream) {
			s.file("a")
			s.data("one")
			s.data("two")
			s.eof(kv{"sha256", sha("onetwo")})
			s.file("b")
			s.eof(kv{"sha256", sha("")})
		})),
		good("eof-error", "An error at the source cut the content short.", inSnapshot(none, func(s *stream) {
			s.file("a", kv{"size", 100})
			s.data("one")
			s.eof(kv{"error", bin("input/output error")})
		})),
	}
}

func goodDifferences() []vector {
	return []vector{
		good("parent", "A difference: a change, a removal, an entry below what was removed.", func(s *stream) {
			s.header()
			s.snapshot(1)
			s.whole("a", "one")
			s.whole("b/c", "two")
			s.commit()
			s.child(2, 1)
			s.file("a")
			s.refs("two")
			s.eof()
			s.remove("b")
			s.emptyFile("b/d")
			s.commit()
			s.child(3, 2)
			s.finish()
		}),
		good("base", "The first snapshot's parent is held by the receiver.", func(s *stream) {
			s.header("base")
			s.child(2, 1)
			s.remove("not/there")
			s.finish()
		}),
		good("base-not-used", "With base, the first snapshot may be whole all the same.", func(s *stream) {
			s.header("base")
			s.snapshot(1)
			s.finish()
		}),
		good("copy", "Runs of bytes from the parent's version, and from another path of it.", func(s *stream) {
			s.header("copy")
			s.snapshot(1)
			s.whole("a", "0123456789")
			s.commit()
			s.child(2, 1)
			s.file("a")
			s.copyRange(2, 3)
			s.data("new")
			s.copyRange(0, 10)
			s.eof()
			s.file("b")
			s.copyRange(0, 4, kv{"from", bin("a")})
			s.eof()
			s.finish()
		}),
		good("flat", "A flat stream: every snapshot whole, every content sent.", func(s *stream) {
			s.header("flat")
			for n := range 2 {
				s.snapshot(byte(n + 1))
				s.whole("a", "one")
				s.whole("b", "one")
				s.commit()
			}
			s.end()
		}),
		good("emptied", "A directory that begins empty: a remove, then its entry.", func(s *stream) {
			s.header("base")
			s.child(2, 1)
			s.remove("a")
			s.dir("a")
			s.dir("a/b")
			s.finish()
		}),
		good("remove-root", "Removing everything.", func(s *stream) {
			s.header("base")
			s.child(2, 1)
			s.remove("")
			s.dir("a")
			s.finish()
		}),
	}
}

func goodForms() []vector {
	deep := raw(strings.Repeat("\x91", 16) + "\xc0")
	extra := []kv{{"a new key", list{1, dict{{"k", bin("v")}}}}, {"zz", nil}}
	return []vector{
		good("unknown-keys", "Unknown keys in every record and every map.", func(s *stream) {
			s.record("bk", append(dict{{"version", 1}}, extra...))
			s.snapshot(1, append(extra,
				kv{"origin", append(dict{{"system", "tar"}}, extra...)},
				kv{"via", list{append(dict{{"stage", bin("s")}, {"from", id(7)}}, extra...)}},
				kv{"estimate", append(dict{}, extra...)})...)
			s.file("a", extra...)
			s.data("x", extra...)
			s.record("hole", append(dict{{"size", 1}}, extra...))
			s.content++
			s.record("refs", append(dict{{"chunks", list{list{sha("x"), 1}}}}, extra...))
			s.content++
			s.eof(extra...)
			s.remove("b", extra...)
			s.commit(append(extra, kv{"losses", list{append(dict{{"kind", "k"}, {"count", 1}}, extra...)}})...)
			s.end(extra...)
		}),
		good("unknown-values", "An unknown key may have any value, nested 16 deep.", inSnapshot(none, func(s *stream) {
			s.entry("a", "dir",
				kv{"k01", deep}, kv{"k02", raw("\xca\x3f\x80\x00\x00")}, kv{"k03", raw("\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00")},
				kv{"k04", raw("\xd4\x01\x02")}, kv{"k05", raw("\xc7\x03\x01abc")}, kv{"k06", raw("\xcd\x00\x01")},
				kv{"k07", raw("\x82\x01\x02\xc0\xc3")}, kv{"k08", raw("\xdb\x00\x00\x00\x01s")}, kv{"k09", raw("\xd8\x01" + strings.Repeat("e", 16))})
		})),
		good("extensions", "Records of kinds that begin with x- after every other record.", func(s *stream) {
			x := func() { s.record("x-note", dict{{"text", bin("t")}}) }
			s.header()
			x()
			x()
			s.snapshot(1)
			x()
			s.dir("a")
			x()
			s.file("b")
			x()
			s.data("1")
			x()
			s.hole(1)
			x()
			s.eof()
			x()
			s.remove("c")
			x()
			s.commit()
			x()
			s.snapshot(2)
			s.record("x-empty", dict{})
			s.commit()
			s.end()
		}),
		good("long-forms", "Values in forms that are not the shortest.", func(s *stream) {
			s.wire("bk", []byte("\x92\xa2bk\xde\x00\x01\xd9\x07version\xd3\x00\x00\x00\x00\x00\x00\x00\x01"))
			s.wire("snapshot", append([]byte("\xdc\x00\x02\xdb\x00\x00\x00\x08snapshot\xdf\x00\x00\x00\x01\xda\x00\x02id\xc6\x00\x00\x00\x20"), id(1)...))
			s.wire("entry", []byte("\xdd\x00\x00\x00\x02\xd9\x05entry\x83\xa4type\xd9\x04file\xa4path\xc5\x00\x01a\xa5mtime\xdd\x00\x00\x00\x02\xd2\xff\xff\xff\xff\xcf\x00\x00\x00\x00\x00\x00\x00\x05"))
			s.wire("data", append([]byte("\xdc\x00\x03\xa4data\x82\xa2id\xc5\x00\x20"), sha("x")+"\xa4size\xd1\x00\x01"...))
			s.add("  its payload", []byte("\xc6\x00\x00\x00\x01x"))
			s.content = 1
			s.byteSum = 1
			s.record("eof", dict{{"size", 1}})
			s.finish()
		}),
		good("key-order", "Keys in another order than sorted.", inSnapshot(none, func(s *stream) {
			s.record("entry", inOrder{{"type", "dir"}, {"zz", 1}, {"path", bin("a")}, {"mode", 1}, {"aa", 2}})
		})),
		good("defaults", "Keys at their default are accepted, and left out when written again.", func(s *stream) {
			s.record("bk", dict{{"version", 1}, {"producer", bin("")}, {"features", list{}}})
			s.snapshot(1, kv{"parent", id(0)}, kv{"host", bin("")}, kv{"roots", list{}}, kv{"sorted", true}, kv{"unstable", false}, kv{"via", list{}})
			s.file("a", kv{"user", bin("")}, kv{"xattrs", list{}}, kv{"flags", list{}}, kv{"extents", list{}}, kv{"hardlink", bin("")}, kv{"chunker", ""})
			s.data("x", kv{"codec", "none"}, kv{"once", false})
			s.eof(kv{"error", bin("")})
			s.commit(kv{"losses", list{}})
			s.end()
		}),
		good("int-forms", "The ways to write a small number.", inSnapshot(none, func(s *stream) {
			for i, form := range []string{
				"\x05", "\xcc\x05", "\xcd\x00\x05", "\xce\x00\x00\x00\x05", "\xcf\x00\x00\x00\x00\x00\x00\x00\x05",
				"\xd0\x05", "\xd1\x00\x05", "\xd2\x00\x00\x00\x05", "\xd3\x00\x00\x00\x00\x00\x00\x00\x05",
			} {
				s.entry(string(rune('a'+i)), "dir", kv{"uid", raw(form)})
			}
		})),
	}
}
