package format

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vmihailenco/msgpack/v5"
	"pgregory.net/rapid"
)

// sameRecord compares records; empty and nil slices are the same.
var sameRecord = cmp.Options{
	cmpopts.EquateEmpty(),
	cmp.FilterValues(func(a, b []byte) bool { return len(a) > 0 && len(b) > 0 }, cmp.Comparer(bytes.Equal)),
	cmpopts.IgnoreUnexported(Data{}), cmpopts.IgnoreFields(Data{}, "Checked"),
}

// parseRecord reads one whole encoded record with fresh structs.
func parseRecord(b []byte) (Record, error) {
	var p parser
	h, err := parseHead(b)
	if err != nil {
		return nil, err
	}
	rec, n, err := p.parseBody(h, b[h.size:], "")
	if err != nil {
		return nil, err
	}
	b = b[h.size+n:]
	if d, ok := rec.(*Data); ok {
		c := cursor{b: b}
		d.Payload = bytes.Clone(c.bin())
		if c.err != nil {
			return nil, c.err
		}
		if e := checkPayload(d); e != nil {
			return nil, e
		}
		b = b[c.i:]
	}
	if len(b) > 0 {
		return nil, Errorf(ClassTrailing, "%d bytes", len(b))
	}
	return rec, nil
}

func TestRecordRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rec := genRecord().Draw(t, "record")
		b, err := AppendRecord(nil, rec)
		if err != nil {
			t.Fatal(err)
		}
		back, err := parseRecord(b)
		if err != nil {
			t.Fatalf("%v\n% x", err, b)
		}
		if diff := cmp.Diff(rec, back, sameRecord); diff != "" {
			t.Fatal(diff)
		}
		again, err := AppendRecord(nil, Clone(back))
		if err != nil || !bytes.Equal(b, again) {
			t.Fatalf("%v\n% x\n% x", err, b, again)
		}
		checkSorted(t, b)
	})
}

// checkSorted looks at the encoding with another implementation: the keys of
// the body stand in order.
func checkSorted(t *rapid.T, b []byte) {
	dec := msgpack.NewDecoder(bytes.NewReader(b))
	if _, err := dec.DecodeArrayLen(); err != nil {
		t.Fatal(err)
	}
	if _, err := dec.DecodeString(); err != nil {
		t.Fatal(err)
	}
	n, err := dec.DecodeMapLen()
	if err != nil {
		t.Fatal(err)
	}
	last := ""
	for i := range n {
		key, err := dec.DecodeString()
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 && key <= last {
			t.Fatalf("%q after %q", key, last)
		}
		last = key
		if err := dec.Skip(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestEntryReuse parses one entry after another into one struct: nothing of the
// first may shine through.
func TestEntryReuse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := genEntry().Draw(t, "a"), genEntry().Draw(t, "b")
		var e Entry
		for _, want := range []*Entry{a, b, a} {
			rest, err := e.ParseBody(append(want.AppendBody(nil, true), "rest"...), true)
			if err != nil || string(rest) != "rest" {
				t.Fatal(err, rest)
			}
			if diff := cmp.Diff(want, &e, sameRecord); diff != "" {
				t.Fatal(diff)
			}
			if !e.Equal(want) {
				t.Fatal("not equal to itself")
			}
			rest, err = e.ParseBody(want.AppendBody(nil, false), false)
			if err != nil || len(rest) > 0 {
				t.Fatal(err)
			}
			pathless := *want
			pathless.Path = ""
			if diff := cmp.Diff(&pathless, &e, sameRecord); diff != "" {
				t.Fatal(diff)
			}
		}
	})
}

func TestSnapshotReuse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := genSnapshot().Draw(t, "a"), genSnapshot().Draw(t, "b")
		var s Snapshot
		for _, want := range []*Snapshot{a, b, a} {
			if _, err := s.ParseBody(want.AppendBody(nil)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, &s, sameRecord); diff != "" {
				t.Fatal(diff)
			}
		}
	})
}

// TestAnyForm encodes a record in forms that are not the shortest, with the keys
// in another order, and expects the same record.
func TestAnyForm(t *testing.T) {
	e := &Entry{Path: "a/b", Type: TypeFile, Has: HasMode | HasUID | HasMtime | HasSize, Mode: 0o644, UID: 7, Mtime: Time{-5, 9}, Size: 3, User: "u"}
	var buf bytes.Buffer
	enc := msgpack.NewEncoder(&buf)
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	buf.Write([]byte{0xdd, 0, 0, 0, 2, 0xda, 0, 5})
	buf.WriteString("entry")
	buf.Write([]byte{0xdf, 0, 0, 0, 7})
	str := func(s string) { buf.Write([]byte{0xdb, 0, 0, 0, byte(len(s))}); buf.WriteString(s) }
	str("user")
	buf.Write([]byte{0xc6, 0, 0, 0, 1, 'u'})
	str("uid")
	check(enc.EncodeInt64(7))
	str("type")
	str("file")
	str("size")
	check(enc.EncodeUint64(3))
	str("path")
	buf.Write([]byte{0xc5, 0, 3, 'a', '/', 'b'})
	str("mtime")
	buf.Write([]byte{0xdc, 0, 2})
	check(enc.EncodeInt64(-5))
	check(enc.EncodeInt32(9))
	str("mode")
	check(enc.EncodeInt16(0o644))
	back, err := parseRecord(buf.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Record(e), back, sameRecord); diff != "" {
		t.Fatal(diff)
	}
}

// TestIntForms is the list of ways to write a number that msgpack's own suite has.
func TestIntForms(t *testing.T) {
	for _, c := range []struct {
		in   []byte
		want int64
	}{
		{[]byte{0}, 0}, {[]byte{0xcc, 0}, 0}, {[]byte{0xcd, 0, 0}, 0}, {[]byte{0xce, 0, 0, 0, 0}, 0},
		{[]byte{0xcf, 0, 0, 0, 0, 0, 0, 0, 0}, 0}, {[]byte{0xd0, 0}, 0}, {[]byte{0xd1, 0, 0}, 0},
		{[]byte{0xd2, 0, 0, 0, 0}, 0}, {[]byte{0xd3, 0, 0, 0, 0, 0, 0, 0, 0}, 0},
		{[]byte{0xff}, -1}, {[]byte{0xe0}, -32}, {[]byte{0xd0, 0xdf}, -33}, {[]byte{0xd1, 0xff, 0xff}, -1},
		{[]byte{0xd2, 0x80, 0, 0, 0}, -1 << 31}, {[]byte{0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0}, -1 << 63},
		{[]byte{0xcf, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 1<<63 - 1},
	} {
		c2 := cursor{b: c.in}
		if got := c2.int(); c2.err != nil || got != c.want || c2.i != len(c.in) {
			t.Errorf("% x: %d, %v", c.in, got, c2.err)
		}
		for n := range c.in {
			c3 := cursor{b: c.in[:n]}
			if c3.int(); c3.err != errShort {
				t.Errorf("% x: %v", c.in[:n], c3.err)
			}
		}
		if c.want < 0 {
			c4 := cursor{b: c.in}
			if c4.uint(100); ClassOf(c4.err) != ClassField {
				t.Errorf("% x: %v", c.in, c4.err)
			}
		}
	}
	over := cursor{b: []byte{0xcf, 0x80, 0, 0, 0, 0, 0, 0, 0}}
	if over.int(); ClassOf(over.err) != ClassField {
		t.Error(over.err)
	}
}

func TestPaths(t *testing.T) {
	for p, want := range map[string]Class{
		"": "", "a": "", "a/b": "", "...": "", "a/..b": "", "\xff\n": "",
		"/": ClassPath, "/a": ClassPath, "a/": ClassPath, "a//b": ClassPath, ".": ClassPath, "..": ClassPath,
		"a/./b": ClassPath, "a/..": ClassPath, "../a": ClassPath, "a\x00b": ClassPath,
		strings.Repeat("n", NameSizeMax):              "",
		strings.Repeat("n", NameSizeMax+1):            ClassLimit,
		strings.Repeat("nnn/", PathSizeMax/4) + "nn":  ClassLimit,
		strings.Repeat("nnn/", PathSizeMax/4-1) + "n": "",
	} {
		if got := ClassOf(CheckPath(p)); got != want {
			t.Errorf("%.40q: %q, want %q", p, got, want)
		}
	}
	sorted := []string{"", "a", "a/b", "a/b/c", "a/b-c", "a-b", "a.b", "a.b/c", "ab", "b", "b\xff"}
	for i, a := range sorted {
		for j, b := range sorted {
			got := ComparePaths(a, b)
			if (i < j) != (got < 0) || (i == j) != (got == 0) {
				t.Errorf("%q, %q: %d", a, b, got)
			}
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := genPath().Draw(t, "a"), genPath().Draw(t, "b")
		if got, want := ComparePaths(a, b), slices.Compare(strings.Split(a, "/"), strings.Split(b, "/")); got != want {
			t.Fatal(a, b, got, want)
		}
		if bad := a + rapid.SampledFrom([]string{"/", "//x", "/..", "/./x", "/\x00"}).Draw(t, "bad"); checkPathAfter(bad, b) == nil || checkPathAfter(bad, a) == nil || checkPathAfter(bad, a+"/y") == nil {
			t.Fatalf("%q passed after %q", bad, a)
		}
		if checkPathAfter(a, b) != nil || checkPathAfter(a, a) != nil {
			t.Fatal(a, b)
		}
		if !IsBelow(a, ParentPath(a)) || IsBelow(a, a) || IsBelow(ParentPath(a), a) || !IsBelow(a+"/x", a) || IsBelow(a+"x", a) {
			t.Fatal(a)
		}
	})
}

func TestEqualIgnoresInformative(t *testing.T) {
	a := &Entry{Path: "a", Type: TypeFile, Has: HasMode | HasMtime, Mode: 1, Mtime: Time{1, 2}, Xattrs: []Xattr{{"a", "b"}}}
	b := a.Clone()
	b.Path, b.Chunker, b.Has, b.Inode, b.Links, b.Atime = "b", "rabin", b.Has|HasInode|HasLinks|HasAtime|HasCtime|HasBtime, 5, 6, Time{7, 8}
	if !a.Equal(b) {
		t.Error("informative keys were compared")
	}
	for _, change := range []func(e *Entry){
		func(e *Entry) { e.Mode = 2 }, func(e *Entry) { e.Has |= HasUID }, func(e *Entry) { e.Mtime.Nsec++ },
		func(e *Entry) { e.Xattrs[0].Value = "c" }, func(e *Entry) { e.Extra = []Field{{"k", []byte{1}}} },
		func(e *Entry) { e.Type = TypeFifo }, func(e *Entry) { e.Hardlink = "h" }, func(e *Entry) { e.User = "u" },
	} {
		c := a.Clone()
		change(c)
		if a.Equal(c) {
			t.Errorf("equal: %+v", c)
		}
	}
}
