package main

import (
	"fmt"
	"math"
	"strings"
)

// overLimits has a case just over each limit of spec/stream.md, "Limits".
func overLimits() []vector {
	over := func(name, about string, build func(s *stream)) vector { return bad("limit", name, about, build) }
	entry := func(name, about string, more ...kv) vector {
		return over(name, about, opened(func(s *stream) {
			s.record("entry", dict{{"path", bin("a")}, {"type", "file"}}.set(more...))
		}))
	}
	snapshot := func(name, about string, more ...kv) vector {
		return over(name, about, func(s *stream) { s.header(); s.snapshot(1, more...) })
	}
	loss := func(more ...kv) any { return dict{{"kind", "k"}, {"count", 1}}.set(more...) }
	fields := dict{{"path", bin("a")}, {"type", "dir"}}
	for i := range 255 {
		fields = append(fields, kv{fmt.Sprintf("k%03d", i), 1})
	}
	via := dict{{"stage", bin("s")}, {"from", id(1)}}
	return []vector{
		over("chunk-size", "A chunk of 32 MiB and a byte.", openedFile(none, func(s *stream) {
			s.payload(dict{{"id", sha("x")}, {"size", 32<<20 + 1}}, []byte("x"))
		})),
		over("ref-size", "A reference to a chunk of 32 MiB and a byte.", openedFile(none, func(s *stream) {
			s.record("refs", dict{{"chunks", list{list{sha("x"), 32<<20 + 1}}}})
		})),
		badAt(3, "limit", "payload-size", "A payload of a byte more than its chunk may have; the byte need not come.", openedFile([]any{"zstd"}, func(s *stream) {
			s.wire("data", append(append([]byte{0x93}, enc("data")...), enc(dict{{"codec", "zstd"}, {"id", sha("x")}, {"size", 128}})...))
			s.add("  the head of its payload", head(128+1+64<<10+1, 0, 0, 0xc4))
		})),
		over("body-size", "A body of more than 8 MiB.", opened(func(s *stream) {
			s.record("entry", dict{{"path", bin("a")}, {"type", "dir"}, {"zz", long(8<<20 - 10)}})
		})),
		badAt(2, "limit", "body-size-claimed", "A body that claims to be longer than 8 MiB; the bytes need not come.", opened(func(s *stream) {
			s.add("2 entry", append(append([]byte{0x92}, enc("entry")...), "\x81\xa2zz\xc6\x7f\xff\xff\xff"...))
		})),
		badAt(2, "limit", "body-elements-claimed", "A body that claims more elements than 8 MiB hold; they need not come.", opened(func(s *stream) {
			s.add("2 entry", append(append([]byte{0x92}, enc("entry")...), "\x81\xa2zz\xdd\x7f\xff\xff\xff"...))
		})),
		over("path-size", "A path of 32769 bytes.", opened(func(s *stream) { s.dir(strings.Repeat("abc/", 8192) + "a") })),
		over("name-size", "A component of 4097 bytes.", opened(func(s *stream) { s.dir("a/" + string(long(4097))) })),
		entry("target-size", "A target of 64 KiB and a byte.", kv{"type", "symlink"}, kv{"target", long(64<<10 + 1)}),
		entry("user-size", "A user's name of 4097 bytes.", kv{"user", long(4097)}),
		entry("group-size", "A group's name of 4097 bytes.", kv{"group", long(4097)}),
		entry("chunker-size", "A chunker of 4097 bytes.", kv{"chunker", string(long(4097))}),
		entry("hardlink-size", "A group of hard links with a name of 65 bytes.", kv{"hardlink", long(65)}),
		entry("file-size", "A file of 2^63 bytes.", kv{"size", uint64(1 << 63)}),
		entry("extent-size", "An extent that ends behind 2^63-1.", kv{"extents", list{list{uint64(math.MaxInt64), 1}}}),
		entry("extents", "65537 extents.", kv{"extents", repeat{65537, list{0, 1}}}),
		entry("xattrs", "4097 extended attributes.", kv{"xattrs", repeat{4097, list{bin("a"), bin("")}}}),
		entry("xattr-name-size", "An extended attribute with a name of 1025 bytes.", kv{"xattrs", list{list{long(1025), bin("")}}}),
		entry("xattr-value-size", "An extended attribute of 1 MiB and a byte.", kv{"xattrs", list{list{bin("a"), long(1<<20 + 1)}}}),
		entry("flags", "65 flags.", kv{"flags", repeat{65, "f"}}),
		over("keys", "257 keys.", opened(func(s *stream) { s.record("entry", fields) })),
		over("keys-known", "One unknown key too many: known keys count though they are not there.", opened(func(s *stream) {
			s.entry("a", "dir", unknown(256-21+1)...)
		})),
		snapshot("keys-estimate", "One unknown key too many in an estimate that has no known one.", kv{"estimate", dict(unknown(256 - 2 + 1))}),
		over("keys-nested", "257 keys in a map of an unknown key.", opened(func(s *stream) {
			s.record("entry", dict{{"path", bin("a")}, {"type", "dir"}, {"zz", raw("\xde\x01\x01" + strings.Repeat("\x01\x01", 257))}})
		})),
		over("keys-x", "257 keys in an x- record.", opened(func(s *stream) { s.record("x-note", fields) })),
		entry("depth", "An unknown key that nests 17 deep.", kv{"zz", raw(strings.Repeat("\x91", 17) + "\xc0")}),
		snapshot("depth-via", "An unknown key of a stage that nests 17 deep.", kv{"via", list{viaWith(kv{"zz", deep(17)})}}),
		over("depth-x", "A key of an x- record that nests 17 deep.", opened(func(s *stream) {
			s.record("x-note", dict{{"zz", raw(strings.Repeat("\x81\xc0", 17) + "\xc0")}})
		})),
		badAt(2, "limit", "depth-million", "A million arrays in each other.", opened(func(s *stream) {
			s.add("2 x-note", append(append([]byte{0x92}, enc("x-note")...), "\x81\xa1k"+strings.Repeat("\x91", 1<<20)...))
		})),
		entry("key-size", "A key of 4097 bytes.", kv{string(long(4097)), 1}),
		badAt(1, "limit", "kind-size", "A kind of 4097 bytes.", func(s *stream) { s.header(); s.record("x-"+string(long(4095)), dict{}) }),
		over("features", "65 features.", func(s *stream) { s.record("bk", dict{{"version", 1}, {"features", repeat{65, "f"}}}) }),
		over("producer-size", "A producer of 4097 bytes.", func(s *stream) { s.record("bk", dict{{"version", 1}, {"producer", long(4097)}}) }),
		snapshot("host-size", "A host of 4097 bytes.", kv{"host", long(4097)}),
		snapshot("comment-size", "A comment of 64 KiB and a byte.", kv{"comment", long(64<<10 + 1)}),
		snapshot("roots", "4097 roots.", kv{"roots", repeat{4097, bin("a")}}),
		snapshot("tags", "4097 tags.", kv{"tags", repeat{4097, bin("a")}}),
		snapshot("tag-size", "A tag of 4097 bytes.", kv{"tags", list{long(4097)}}),
		snapshot("via", "4097 stages.", kv{"via", repeat{4097, via}}),
		snapshot("stage-size", "A stage of 4097 bytes.", kv{"via", list{via.clone().set(kv{"stage", long(4097)})}}),
		snapshot("origin-size", "An origin's id of 4097 bytes.", kv{"origin", dict{{"system", "tar"}, {"id", long(4097)}}}),
		over("refs", "8193 references.", openedFile(none, func(s *stream) {
			s.record("refs", dict{{"chunks", repeat{8193, list{sha("x"), 1}}}})
		})),
		over("hole-size", "A hole of 2^63 bytes.", openedFile(none, func(s *stream) { s.hole(1 << 63) })),
		over("content-size", "Runs of content that are 2^63 bytes together.", openedFile(none, func(s *stream) { s.hole(math.MaxInt64); s.hole(1) })),
		over("copy-end", "A copy that ends behind 2^63-1.", func(s *stream) {
			s.header("base", "copy")
			s.child(2, 1)
			s.file("a")
			s.copyRange(math.MaxInt64, 1)
		}),
		over("bytes", "Files of more than 2^64-1 bytes together.", opened(func(s *stream) {
			for _, name := range []string{"a", "b", "c"} {
				s.file(name)
				s.hole(math.MaxInt64)
				s.eof()
			}
		})),
		over("eof-error-size", "An error text of 64 KiB and a byte.", openedFile(none, func(s *stream) { s.eof(kv{"error", long(64<<10 + 1)}) })),
		over("losses", "1025 kinds of loss.", opened(func(s *stream) { s.commit(kv{"losses", repeat{1025, loss()}}) })),
		over("loss-paths", "17 paths of one loss.", opened(func(s *stream) {
			s.commit(kv{"losses", list{loss(kv{"paths", repeat{17, bin("a")}})}})
		})),
		over("loss-path-size", "A path of a loss of 32 KiB and a byte.", opened(func(s *stream) {
			s.commit(kv{"losses", list{loss(kv{"paths", list{long(32<<10 + 1)}})}})
		})),
	}
}
