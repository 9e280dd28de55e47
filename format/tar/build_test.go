package tar

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/formattest"
)

// builder makes archives by hand.
type builder struct{ bytes.Buffer }

// member appends a member; edit changes its header.
func (b *builder) member(typ byte, name, link, data string, edit ...func(*block)) *builder {
	h := &block{}
	copy(h[0:100], name)
	copy(h[157:257], link)
	putNumber(h[100:108], 0o644)
	putNumber(h[108:116], 1000)
	putNumber(h[116:124], 1000)
	putNumber(h[124:136], int64(len(data)))
	putNumber(h[136:148], 1_000_000_000)
	h[156] = typ
	copy(h[257:], "ustar\x0000")
	for _, e := range edit {
		e(h)
	}
	h.seal()
	b.Write(h[:])
	b.WriteString(data)
	b.Write(make([]byte, padded(int64(len(data)))-int64(len(data))))
	return b
}

func (b *builder) file(name, data string) *builder { return b.member(typeFile, name, "", data) }
func (b *builder) dir(name string) *builder        { return b.member(typeDir, name, "", "") }
func (b *builder) link(name, to string) *builder   { return b.member(typeLink, name, to, "") }

func (b *builder) pax(typ byte, records ...string) *builder {
	var data []byte
	for i := 0; i < len(records); i += 2 {
		data = appendPax(data, records[i], records[i+1])
	}
	return b.member(typ, "pax", "", string(data))
}

// end closes the archive.
func (b *builder) end() []byte {
	return append(bytes.Clone(b.Bytes()), make([]byte, 2*blockSize)...)
}

func gnuMagic(h *block) { copy(h[257:], "ustar  \x00") }

// tree prints a listing: type, path, content or target, group.
func tree(l formattest.Listing) []string {
	var out []string
	groups := l.Groups()
	for path, o := range l {
		line := fmt.Sprintf("%s %q", o.Entry.Type, path)
		switch o.Entry.Type {
		case format.TypeFile:
			line += fmt.Sprintf(" %q", o.Content())
		case format.TypeSymlink:
			line += fmt.Sprintf(" -> %q", o.Entry.Target)
		}
		if g := groups[o.Entry.Hardlink]; len(g) > 0 {
			line += " = " + strings.Join(g, " ")
		}
		out = append(out, line)
	}
	slices.Sort(out)
	return out
}

func TestMembers(t *testing.T) {
	for _, test := range []struct {
		name   string
		build  func(b *builder)
		want   []string
		losses map[string]uint64
	}{
		{"names", func(b *builder) {
			b.dir("./").file("./a/./b", "1").file("/abs//c", "2").dir("d/").file("..x", "3").file("y..", "4")
		}, []string{`dir ""`, `dir "d"`, `file "..x" "3"`, `file "a/b" "1"`, `file "abs/c" "2"`, `file "y.." "4"`}, nil},
		{"upward", func(b *builder) {
			b.file("../a", "1").file("a/../b", "2").file("c/..", "3").file("", "4").file("ok", "5")
		},
			[]string{`file "ok" "5"`}, map[string]uint64{"unreadable": 4}},
		{"last wins", func(b *builder) {
			b.file("a", "1").file("b", "2").file("a", "3").dir("b").file("b/c", "4").file("b", "5")
		},
			[]string{`file "a" "3"`, `file "b" "5"`}, nil},
		{"directory after its content", func(b *builder) { b.file("d/a", "1").dir("d") }, []string{`dir "d"`, `file "d/a" "1"`}, nil},
		{"below a link", func(b *builder) {
			b.member(typeSymlink, "l", "/etc", "").file("l/x", "1").file("l/y/z", "2").dir("l/d").dir("l").file("l/x", "3")
		}, []string{`dir "l"`, `file "l/x" "3"`}, map[string]uint64{"unreadable": 3}},
		{"hard links", func(b *builder) {
			b.file("a", "content").link("b", "./a").link("c", "b").link("e/d", "/a").file("f", "content")
		}, []string{`file "a" "content" = a b c e/d`, `file "b" "content" = a b c e/d`, `file "c" "content" = a b c e/d`,
			`file "e/d" "content" = a b c e/d`, `file "f" "content"`}, nil},
		{"hard links of links and fifos", func(b *builder) {
			b.member(typeSymlink, "s", "t", "").link("s2", "s").member(typeFifo, "p", "", "").link("p2", "p")
		}, []string{`fifo "p" = p p2`, `fifo "p2" = p p2`, `symlink "s" -> "t" = s s2`, `symlink "s2" -> "t" = s s2`}, nil},
		{"hard links to nothing", func(b *builder) {
			b.link("b", "a").file("a", "1").dir("d").link("e", "d").link("a", "a").link("x", "../a")
		},
			[]string{`dir "d"`, `file "a" "1"`}, map[string]uint64{"unreadable": 3}},
		{"a name that had links and gets another file", func(b *builder) {
			b.file("a", "old").link("b", "a").file("a", "new").link("c", "a")
		}, []string{`file "a" "new" = a c`, `file "b" "old" = b`, `file "c" "new" = a c`}, nil},
		{"hard links with data", func(b *builder) {
			b.file("a", "same").pax(typePax, "comment", "x").member(typeLink, "b", "a", "same").
				pax(typePax, "comment", "x").member(typeLink, "c", "gone", "alone").file("z", "1")
		}, []string{`file "a" "same" = a b`, `file "b" "same" = a b`, `file "c" "alone"`, `file "z" "1"`}, nil},
		{"hard links that state a size", func(b *builder) {
			b.file("a", "four").member(typeLink, "b", "a", "", func(h *block) { putNumber(h[124:136], 4) }).file("c", "1")
		}, []string{`file "a" "four" = a b`, `file "b" "four" = a b`, `file "c" "1"`}, nil},
		{"types", func(b *builder) {
			b.member(typeContiguous, "contiguous", "", "1").member(typeFileOld, "old", "", "2").
				member(typeFileOld, "olddir/", "", "").member('Z', "strange", "", "lost").member(typeVolume, "label", "", "").
				member(typeContinuation, "rest", "", "lost").file("z", "3")
		}, []string{`dir "olddir"`, `file "contiguous" "1"`, `file "old" "2"`, `file "z" "3"`}, map[string]uint64{"unreadable": 2, "snapshot": 1}},
		{"long names", func(b *builder) {
			b.member(typeLongName, "././@LongLink", "", strings.Repeat("n", 120)+"\x00", gnuMagic).
				member(typeLongLink, "././@LongLink", "", strings.Repeat("t", 130)+"\x00", gnuMagic).
				member(typeSymlink, "short", "short", "", gnuMagic)
		}, []string{fmt.Sprintf("symlink %q -> %q", strings.Repeat("n", 120), strings.Repeat("t", 130))}, nil},
		{"prefix", func(b *builder) {
			b.member(typeFile, "name", "", "1", func(h *block) { copy(h[345:], "pre/fix") })
		}, []string{`file "pre/fix/name" "1"`}, nil},
		{"global header", func(b *builder) {
			b.pax(typePaxGlobal, "uname", "all", "path", "").file("a", "1").pax(typePax, "path", "b\n\xff").file("x", "2")
		}, []string{`file "a" "1"`, `file "b\n\xff" "2"`}, nil},
		{"too long", func(b *builder) {
			b.pax(typePax, "path", strings.Repeat("n", format.NameSizeMax+1)).file("x", "1").file("y", "2")
		}, []string{`file "y" "2"`}, map[string]uint64{"limit": 1}},
		{"strange ids", func(b *builder) {
			b.pax(typePax, "uid", "4294967296", "gid", "-1", "mtime", "soon").file("x", "1")
		}, []string{`file "x" "1"`}, map[string]uint64{"owner": 2, "time": 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := &builder{}
			test.build(b)
			archive := b.end()
			l := mustRead(t, archive)
			if d := cmp.Diff(test.want, tree(l.Listing())); d != "" {
				t.Errorf("listing (-want +got):\n%s", d)
			}
			if got := l.Losses(); len(got)+len(test.losses) > 0 {
				if d := cmp.Diff(test.losses, got); d != "" {
					t.Errorf("losses (-want +got):\n%s", d)
				}
			}
			// The same from a file, flat, and as metadata alone.
			path := filepath.Join(t.TempDir(), "a.tar")
			if err := os.WriteFile(path, archive, 0o600); err != nil {
				t.Fatal(err)
			}
			for _, export := range []format.ExportOptions{{Flat: true}, {Plain: true}} {
				again, err := readPlace(t, path, Options{Compress: true, Workers: 3}, export)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(tree(l.Listing()), tree(again.Listing())); d != "" {
					t.Errorf("with %+v:\n%s", export, d)
				}
			}
			listed, err := readPlace(t, path, Options{}, format.ExportOptions{ListingOnly: true})
			if err != nil {
				t.Fatal(err)
			}
			for p, o := range l.Listing() {
				if got := listed.Listing()[p]; got == nil || got.Entry.Type != o.Entry.Type || got.Entry.Size != o.Size() || got.Entry.Hardlink != o.Entry.Hardlink {
					t.Errorf("%q is listed as %+v, not %+v", p, got, o)
				}
			}
		})
	}
}

func TestUnsortedIsSaid(t *testing.T) {
	l := mustRead(t, new(builder).file("b", "1").file("a", "2").end())
	s := l.Snapshots[0].Record
	if !s.Unsorted || !s.Unstable || s.ID.IsZero() || s.Time != nil || s.Origin == nil || s.Origin.System != "tar" {
		t.Errorf("the snapshot of a stream is %+v", s)
	}
	if o := l.Listing()["a"].Entry; o.Chunker != "gear:64KiB" || o.UID != 1000 || o.Mode != 0o644 || o.Mtime.Sec != 1_000_000_000 {
		t.Errorf("the entry is %+v", *o)
	}
}

func TestIdentity(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, b *builder) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b.end(), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	one := write("one.tar", new(builder).file("a", "1"))
	same := write("same.tar", new(builder).file("a", "1"))
	two := write("two.tar", new(builder).file("a", "2"))
	snapshot := func(path string) *format.Snapshot {
		t.Helper()
		l, err := readPlace(t, path, Options{}, format.ExportOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return l.Snapshots[0].Record
	}
	a, b, c := snapshot(one), snapshot(same), snapshot(two)
	if a.ID != b.ID || a.ID == c.ID || a.Unstable || a.Time == nil {
		t.Errorf("ids %s, %s, %s; the first snapshot is %+v", a.ID, b.ID, c.ID, a)
	}
	if err := os.WriteFile(filepath.Join(dir, "notes.txt"), []byte("no archive"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := readPlace(t, dir, Options{Host: "h", Time: &format.Time{Sec: 5}}, format.ExportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Snapshots) != 2 || l.Snapshots[0].Record.Host != "h" || l.Snapshots[0].Record.Time.Sec != 5 {
		t.Errorf("a directory with two different archives has %+v", l.Snapshots)
	}
	l, err = readPlace(t, dir, Options{}, format.ExportOptions{Snapshots: []format.ID{c.ID}})
	if err != nil || len(l.Snapshots) != 1 || l.Snapshots[0].Record.ID != c.ID {
		t.Errorf("choosing one gave %+v, %v", l.Snapshots, err)
	}
	if _, err := readPlace(t, dir, Options{}, format.ExportOptions{Snapshots: []format.ID{{1}}}); err == nil {
		t.Error("a snapshot that is not there could be chosen")
	}
}

// TestDrop leaves out what is not wanted, of which other names may remain.
func TestDrop(t *testing.T) {
	archive := new(builder).dir("d").file("d/secret", strings.Repeat("s", 5000)).file("keep", "1").link("d/l", "d/secret").
		link("other", "d/l").link("third", "other").file("also", "2").end()
	drop := func(path string, isDir bool) (bool, bool) {
		return path == "d" || format.IsBelow(path, "d"), isDir
	}
	secret := fmt.Sprintf("%q", strings.Repeat("s", 5000))
	path := filepath.Join(t.TempDir(), "a.tar")
	if err := os.WriteFile(path, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, flat := range []bool{false, true} {
		l, err := readPlace(t, path, Options{}, format.ExportOptions{Drop: drop, Flat: flat})
		if err != nil {
			t.Fatal(err)
		}
		want := []string{`file "also" "2"`, `file "keep" "1"`, `file "other" ` + secret + ` = other third`, `file "third" ` + secret + ` = other third`}
		if d := cmp.Diff(want, tree(l.Listing())); d != "" || len(l.Losses()) > 0 {
			t.Errorf("flat %v: %s, losses %v", flat, d, l.Losses())
		}
	}
	// From a stream the content has passed.
	l, err := readAll(t, bytes.NewReader(archive), Options{}, format.ExportOptions{Drop: drop})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{`file "also" "2"`, `file "keep" "1"`}, tree(l.Listing())); d != "" || l.Losses()["unreadable"] != 2 {
		t.Errorf("from a stream: %s, losses %v", d, l.Losses())
	}
	for id := range l.Chunks {
		if len(l.Chunks[id]) > 100 {
			t.Error("dropped content was sent")
		}
	}
}

func TestFlatNeedsAFile(t *testing.T) {
	archive := new(builder).file("a", "1").link("b", "a").end()
	_, err := readAll(t, bytes.NewReader(archive), Options{}, format.ExportOptions{Flat: true})
	var needs needsSeekError
	if !errors.As(err, &needs) || !strings.Contains(err.Error(), `"/b"`) || !strings.Contains(needs.FixText(), "uncompress") {
		t.Errorf("a flat stream with hard links from a pipe: %v", err)
	}
}

func TestDamage(t *testing.T) {
	archive := new(builder).file("a", strings.Repeat("1", 1000)).pax(typePax, "path", "other").file("b", "2").end()
	broken := func(at int, c byte) []byte {
		b := bytes.Clone(archive)
		b[at] = c
		return b
	}
	for name, test := range map[string]struct {
		archive []byte
		want    string
	}{
		"empty":            {nil, "empty"},
		"text":             {[]byte(strings.Repeat("no archive ", 100)), "not a tar archive"},
		"short":            {[]byte("x"), "at byte 1: the archive is cut off"},
		"cut in content":   {archive[:700], `in the member "a": at byte 700: the archive is cut off`},
		"cut in header":    {archive[:512+1024+100], "at byte 1636: the archive is cut off"},
		"cut behind pax":   {archive[:512+1024+1024], "at byte 2560: the archive is cut off"},
		"broken header":    {broken(512+1024+3, 'x'), "at byte 1536: this is no header"},
		"broken pax":       {broken(512+1024+512, 'x'), "at byte 2048: an extended header"},
		"xz":               {[]byte("\xfd7zXZ\x00..."), "xz"},
		"a compressed cut": {zstdOf(archive)[:30], "cut off"},
	} {
		l, err := readAll(t, bytes.NewReader(test.archive), Options{}, format.ExportOptions{})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, not %q", name, err, test.want)
		}
		if l != nil && l.Commits() > 0 {
			t.Errorf("%s: a snapshot was committed", name)
		}
	}
	// Where nothing says that there is more, it is a loss.
	for name, a := range map[string][]byte{
		"no end":           archive[:len(archive)-1024],
		"no padding":       archive[:len(archive)-1024-511],
		"another archive":  slices.Concat(archive, archive),
		"another, behind":  slices.Concat(archive, make([]byte, 4096), archive),
		"garbage, no loss": slices.Concat(archive, bytes.Repeat([]byte("x"), 5000)),
	} {
		want := map[string]uint64{"unreadable": 1}
		if strings.HasSuffix(name, "no loss") {
			want = map[string]uint64{}
		}
		if d := cmp.Diff(want, mustRead(t, a).Losses()); d != "" {
			t.Errorf("%s: losses (-want +got):\n%s", name, d)
		}
	}
}

func zstdOf(b []byte) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err)
	}
	return w.EncodeAll(b, nil)
}

// TestCutAnywhere cuts an archive in many places.
func TestCutAnywhere(t *testing.T) {
	archive := new(builder).file("a", strings.Repeat("1", 600)).pax(typePax, "path", "other", keySparseMajor, "1", keySparseMinor, "0", keySparseRealSize, "9").
		file("s", "1\n3\n4\n"+strings.Repeat("\x00", 506)+"data").link("b", "a").end()
	whole := mustRead(t, archive)
	if d := cmp.Diff([]string{`file "a" "` + strings.Repeat("1", 600) + `" = a b`, `file "b" "` + strings.Repeat("1", 600) + `" = a b`, `file "other" "\x00\x00\x00data\x00\x00"`}, tree(whole.Listing())); d != "" {
		t.Fatal(d)
	}
	for n := 0; n < len(archive)-1024; n += 7 {
		l, err := readAll(t, io.LimitReader(bytes.NewReader(archive), int64(n)), Options{Workers: 1}, format.ExportOptions{})
		if err == nil && l.Losses()["unreadable"] != 1 {
			t.Fatalf("cut to %d bytes: nothing is said", n)
		}
	}
}
