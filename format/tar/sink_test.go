package tar

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/formattest"
)

// writeArchive copies what is at a place into an archive.
func writeArchive(t testing.TB, from, to string, opts SinkOptions) Written {
	t.Helper()
	system, err := Open(context.Background(), from, Options{TempDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer system.Close()
	src, err := system.Export(context.Background(), format.ExportOptions{Flat: true})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	opts.TempDir = t.TempDir()
	sink, err := Create(context.Background(), to, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	if err := format.Copy(context.Background(), sink, src); err != nil {
		t.Fatal(err)
	}
	return sink.Summary()
}

// unpack writes an archive of the fixtures into a file.
func unpack(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	fixture(t, name, func(r io.Reader) {
		file, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(file, r); err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
	})
	return path
}

// TestRoundTrip reads the whole tricky tree, writes it, and reads it again.
func TestRoundTrip(t *testing.T) {
	for _, name := range []string{"snap1-bsdtar-pax.tar"} {
		for _, suffix := range []string{"", ".zst"} {
			if suffix != "" && raceEnabled {
				continue
			}
			from := unpack(t, name)
			to := filepath.Join(t.TempDir(), "out.tar"+suffix)
			sum := writeArchive(t, from, to, SinkOptions{Strict: true})
			if len(sum.Losses) > 0 {
				t.Errorf("%s: losses %v", name, sum.Losses)
			}
			want, err := readPlace(t, from, Options{}, format.ExportOptions{})
			if err != nil {
				t.Fatal(err)
			}
			got, err := readPlace(t, to, Options{}, format.ExportOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if d := formattest.Differences(formattest.Describe(want.Listing(), ""), formattest.Describe(got.Listing(), "")); len(d) > 0 {
				t.Errorf("%s%s changed on the way: %q", name, suffix, d)
			}
			for path, was := range want.Listing() {
				now := got.Listing()[path]
				if now == nil {
					continue
				}
				o, g := was.Entry, now.Entry
				for _, x := range [][2]any{{o.User, g.User}, {o.Group, g.Group}, {o.Atime, g.Atime}, {o.Ctime, g.Ctime}, {o.Extents, g.Extents}, {o.Has, g.Has}} {
					if d := cmp.Diff(x[0], x[1]); d != "" {
						t.Errorf("%s: %q: %s", name, path, d)
					}
				}
			}
			left, err := os.ReadDir(filepath.Dir(to))
			if err != nil || len(left) != 1 {
				t.Errorf("beside the archive: %v, %v", left, err)
			}
		}
	}
}

// script is a stream made by hand.
type script struct{ recs []format.Record }

func newScript(s *format.Snapshot) *script {
	return &script{[]format.Record{&format.Header{Version: 1, Features: []format.Feature{format.FeatureFlat}}, s}}
}

const allHas = format.HasMode | format.HasUID | format.HasGID | format.HasMtime

func (s *script) add(recs ...format.Record) *script {
	s.recs = append(s.recs, recs...)
	return s
}

func data(plain []byte) *format.Data {
	return &format.Data{ID: format.SumID(plain), Size: uint32(len(plain)), Payload: plain}
}

// file adds a file; content are []byte for data and int for holes.
func (s *script) file(e format.Entry, content ...any) *script {
	e.Type = format.TypeFile
	s.add(&e)
	size := uint64(0)
	for _, c := range content {
		switch c := c.(type) {
		case []byte:
			s.add(data(c))
			size += uint64(len(c))
		case int:
			s.add(&format.Hole{Size: uint64(c)})
			size += uint64(c)
		case *format.Refs:
			s.add(c)
			size += uint64(c.Chunks[0].Size)
		}
	}
	return s.add(&format.EOF{Size: size})
}

func (s *script) end() *script { return s.add(&format.Commit{}, &format.End{Snapshots: 1}) }

// write gives the script to a sink and reads the archive back.
func (s *script) write(t *testing.T, opts SinkOptions) (*formattest.Receiver, Written, error) {
	t.Helper()
	to := filepath.Join(t.TempDir(), "a.tar")
	opts.TempDir = t.TempDir()
	sink, err := Create(context.Background(), to, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	for _, rec := range s.recs {
		if err := sink.Write(rec); err != nil {
			if err := sink.Close(); err != nil {
				t.Error(err)
			}
			if left, err := os.ReadDir(filepath.Dir(to)); err != nil || len(left) > 0 {
				t.Errorf("a failed sink left %v, %v", left, err)
			}
			return nil, sink.Summary(), err
		}
	}
	l, err := readPlace(t, to, Options{}, format.ExportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Losses()) > 0 {
		t.Errorf("reading it back: %v", l.Losses())
	}
	return l, sink.Summary(), nil
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8 + 1)
		if b[i] == 0 {
			b[i] = 1
		}
	}
	return b
}

func entry(path string, change ...func(*format.Entry)) format.Entry {
	e := format.Entry{Path: path, Has: allHas, Mode: 0o640, UID: 5, GID: 6, Mtime: format.Time{Sec: -5, Nsec: 7}}
	for _, c := range change {
		c(&e)
	}
	return e
}

func size(n uint64) func(*format.Entry) {
	return func(e *format.Entry) { e.Size, e.Has = n, e.Has|format.HasSize }
}

func grouped(name string) func(*format.Entry) {
	return func(e *format.Entry) { e.Hardlink = name }
}

func extents(x ...format.Extent) func(*format.Entry) {
	return func(e *format.Entry) { e.Extents = x }
}

func sum(parts ...any) [32]byte {
	h := sha256.New()
	for _, p := range parts {
		switch p := p.(type) {
		case []byte:
			h.Write(p)
		case int:
			h.Write(make([]byte, p))
		}
	}
	return [32]byte(h.Sum(nil))
}

// TestContentWays sends files in every way in which a sink can write them.
func TestContentWays(t *testing.T) {
	const m = 1 << 20
	chunk := pattern(m)
	var long []any
	for range 12 {
		long = append(long, chunk)
	}
	runs := func(x ...uint64) (out []format.Extent) {
		for i := 0; i < len(x); i += 2 {
			out = append(out, format.Extent{Offset: x[i], Size: x[i+1]})
		}
		return out
	}
	for _, test := range []struct {
		name    string
		entry   format.Entry
		content []any
		want    []any           // if it is not the content
		data    []format.Extent // as read back
		losses  string
	}{
		{"empty", entry("f"), nil, nil, nil, ""},
		{"small", entry("f", size(3)), []any{[]byte("abc")}, nil, runs(0, 3), ""},
		{"small, grown", entry("f", size(1)), []any{[]byte("abc")}, nil, runs(0, 3), ""},
		{"small, shrunk", entry("f", size(10)), []any{[]byte("abc")}, nil, runs(0, 3), ""},
		{"hole", entry("f"), []any{10 * m}, nil, nil, ""},
		{"holes", entry("f"), []any{4096, chunk[:512], 8192, chunk[:100]}, nil, runs(4096, 512, 12800, 100), ""},
		{"holes of odd places", entry("f"), []any{100, chunk[:10], 3000, chunk[:10], 1000}, nil, runs(0, 512, 3072, 512), ""},
		{"zeros that are holes", entry("f", extents(runs(512, 512)...)), []any{append(make([]byte, 512), append(chunk[:512:512], make([]byte, 600)...)...)},
			nil, runs(512, 512), ""},
		{"extents that are wrong", entry("f", extents(runs(512, 512)...)), []any{chunk[:2048]}, nil, runs(0, 2048), ""},
		{"long", entry("f", size(12*m)), long, nil, runs(0, 12*m), ""},
		{"long, size not known", entry("f"), long, nil, runs(0, 12*m), ""},
		{"long, size is wrong", entry("f", size(5)), long, nil, runs(0, 12*m), ""},
		{"long with holes, size not known", entry("f"), append(append([]any{m}, long...), m, chunk), nil, runs(m, 12*m, 14*m, m), ""},
		{"long with holes", entry("f", size(15*m), extents(runs(m, 12*m, 14*m, m)...)), append(append([]any{m}, long...), m, chunk), nil, runs(m, 12*m, 14*m, m), ""},
		{"long with holes, not said", entry("f", size(15*m)), append(append([]any{m}, long...), m, chunk), nil, runs(0, 15*m), "sparse"},
		{"long, zeros for holes", entry("f", size(15*m), extents(runs(m, 12*m, 14*m, m)...)),
			append(append([]any{make([]byte, m)}, long...), make([]byte, m), chunk), nil, runs(m, 12*m, 14*m, m), ""},
		{"long, shrunk", entry("f", size(13*m)), long, append(long[:12:12], m), runs(0, 13*m), "damaged"},
		{"long, grown", entry("f", size(11*m)), long, long[:11], runs(0, 11*m), "damaged"},
	} {
		t.Run(test.name, func(t *testing.T) {
			want := test.want
			if want == nil {
				want = test.content
			}
			l, written, err := newScript(&format.Snapshot{ID: format.ID{1}}).file(test.entry, test.content...).file(entry("z"), []byte("behind")).end().write(t, SinkOptions{})
			if err != nil {
				t.Fatal(err)
			}
			o := l.Listing()["f"]
			if o.Sum() != sum(want...) || l.Listing()["z"].Sum() != sum([]byte("behind")) {
				t.Error("the content changed")
			}
			if d := cmp.Diff(test.data, o.Data()); d != "" {
				t.Errorf("data (-want +got):\n%s", d)
			}
			if e := o.Entry; e.Mtime != test.entry.Mtime || e.Mode != 0o640 || e.UID != 5 {
				t.Errorf("the entry became %+v", e)
			}
			if len(written.Losses) > 1 || len(written.Losses) == 1 != (test.losses != "") || test.losses != "" && written.Losses[0].Kind != test.losses {
				t.Errorf("losses %v, not %q", written.Losses, test.losses)
			}
		})
	}
	// What the header cannot take back any more.
	hidden := append([]any{make([]byte, m)}, long...)
	_, _, err := newScript(&format.Snapshot{ID: format.ID{1}}).
		file(entry("f", size(15*m), extents(runs(m, 9*m)...)), append(hidden, chunk)...).end().write(t, SinkOptions{})
	if err == nil || !strings.Contains(err.Error(), "hole") {
		t.Errorf("data where there should be a hole: %v", err)
	}
}

func TestSinkHardlinks(t *testing.T) {
	long := []any{}
	for range 10 {
		long = append(long, pattern(1<<20))
	}
	ref := &format.Refs{Chunks: []format.ChunkRef{{ID: format.SumID([]byte("ab")), Size: 2}}}
	for _, test := range []struct {
		name   string
		build  func(s *script)
		want   []string // groups
		losses string
		err    string
	}{
		{"same", func(s *script) {
			s.file(entry("a", grouped("g")), []byte("ab")).file(entry("b", grouped("g")), []byte("ab"))
		}, []string{"a b"}, "", ""},
		{"other cuts", func(s *script) {
			s.file(entry("a", grouped("g")), []byte("a"), []byte("b")).file(entry("b", grouped("g")), []byte("ab"))
		}, []string{"a b"}, "", ""},
		{"other content", func(s *script) {
			s.file(entry("a", grouped("g")), []byte("ab")).file(entry("b", grouped("g")), []byte("ac"))
		}, []string{"", ""}, "hardlink", ""},
		{"other keys", func(s *script) {
			s.file(entry("a", grouped("g")), []byte("ab")).file(entry("b", grouped("g"), func(e *format.Entry) { e.Mode = 0 }), []byte("ab"))
		}, []string{"", ""}, "hardlink", ""},
		{"informative keys", func(s *script) {
			s.file(entry("a", grouped("g")), []byte("ab")).file(entry("b", grouped("g"), func(e *format.Entry) { e.Inode = 5; e.Has |= format.HasInode }), []byte("ab"))
		}, []string{"a b"}, "", ""},
		{"long", func(s *script) { s.file(entry("a", grouped("g")), long...).file(entry("b", grouped("g")), long...) }, []string{"a b"}, "", ""},
		{"long, and other", func(s *script) {
			s.file(entry("a", grouped("g")), long...).file(entry("b", grouped("g")), append(long[:9:9], []byte("x"))...)
		}, nil, "", "too long to keep"},
		{"as refs", func(s *script) { s.file(entry("a", grouped("g")), []byte("ab")).file(entry("b", grouped("g")), ref) }, []string{"a b"}, "", ""},
		{"as other refs", func(s *script) { s.file(entry("a", grouped("g")), []byte("xy")).file(entry("b", grouped("g")), ref) }, nil, "", "flat"},
		{"refs elsewhere", func(s *script) { s.file(entry("a"), []byte("ab")).file(entry("b"), ref) }, nil, "", "flat"},
		{"fifos", func(s *script) {
			for _, p := range []string{"a", "b"} {
				e := entry(p, grouped("g"))
				e.Type = format.TypeFifo
				s.add(&e)
			}
		}, []string{"a b"}, "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newScript(&format.Snapshot{ID: format.ID{1}})
			s.recs[0] = &format.Header{Version: 1} // refs are not announced away
			test.build(s)
			l, written, err := s.end().write(t, SinkOptions{})
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Fatalf("error %v, not %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			groups := l.Listing().Groups()
			for path, o := range l.Listing() {
				group := groups[o.Entry.Hardlink]
				if len(group) == 0 || group[0] == path {
					got = append(got, strings.Join(group, " "))
				}
			}
			if d := cmp.Diff(test.want, got); d != "" {
				t.Errorf("groups (-want +got):\n%s", d)
			}
			if len(written.Losses) > 1 || len(written.Losses) == 1 != (test.losses != "") || test.losses != "" && written.Losses[0].Kind != test.losses {
				t.Errorf("losses %v, not %q", written.Losses, test.losses)
			}
		})
	}
}

func TestSinkLosses(t *testing.T) {
	build := func() *script {
		s := newScript(&format.Snapshot{ID: format.ID{1}})
		socket := entry("sock")
		socket.Type = format.TypeSocket
		link := entry("link")
		link.Type = format.TypeSymlink
		bare := format.Entry{Path: "bare", Type: format.TypeDir, Extra: []format.Field{{Key: "x-new", Raw: []byte{1}}}}
		return s.add(&bare, &link, &socket, &format.Extension{Name: "x-note"}, &format.Commit{Losses: []format.Loss{{Kind: "vanished", Count: 3, Paths: []string{"v"}}}}, &format.End{Snapshots: 1})
	}
	var reported []string
	_, written, err := build().write(t, SinkOptions{OnLoss: func(path string, err error) { reported = append(reported, path) }})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]uint64{}
	for _, l := range written.Losses {
		got[l.Kind] = l.Count
	}
	if d := cmp.Diff(map[string]uint64{"extension": 2, "mode": 1, "owner": 1, "time": 1, "socket": 1, "unwritable": 1, "vanished": 3}, got); d != "" || len(reported) != 7 {
		t.Errorf("losses (-want +got):\n%s\nreported %q", d, reported)
	}
	if _, _, err := build().write(t, SinkOptions{Strict: true}); err == nil || !strings.Contains(err.Error(), "bare") {
		t.Errorf("strict: %v", err)
	}
}

func TestSnapshotRecord(t *testing.T) {
	snapshot := &format.Snapshot{ID: format.ID{9}, Time: &format.Time{Sec: 1_700_000_000, Nsec: 5}, Host: "ho/st", User: "u\xff", Roots: []string{"home"},
		Tags: []string{"a", "b c"}, Comment: "text\nmore", Origin: &format.Origin{System: "restic", Repository: "r", ID: "i"}}
	l, _, err := newScript(snapshot).file(entry("f"), []byte("1")).end().write(t, SinkOptions{Strict: true})
	if err != nil {
		t.Fatal(err)
	}
	got := l.Snapshots[0].Record
	if got.ID == snapshot.ID {
		t.Error("the archive claims to be the snapshot that it was made of")
	}
	want := snapshot.Clone()
	want.ID, want.Unsorted = got.ID, true
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("the snapshot (-want +got):\n%s", d)
	}
	if name := archiveName(snapshot); name != "20231114T221320Z-ho_st-09000000.tar" {
		t.Errorf("its archive in a directory is %q", name)
	}
}

func TestTargets(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	two := newScript(&format.Snapshot{ID: format.ID{1}, Host: "h"}).file(entry("f"), []byte("1")).add(&format.Commit{}).
		add(&format.Snapshot{ID: format.ID{2}, Host: "h"}).file(entry("f"), []byte("2")).add(&format.Commit{}, &format.End{Snapshots: 2})
	feed := func(place string, s *script, opts SinkOptions) (Written, error) {
		t.Helper()
		sink, err := Create(ctx, place, opts)
		if err != nil {
			return Written{}, err
		}
		defer sink.Close()
		for _, rec := range s.recs {
			if err := sink.Write(rec); err != nil {
				return sink.Summary(), err
			}
		}
		return sink.Summary(), sink.Close()
	}
	one := filepath.Join(dir, "one.tar")
	if w, err := feed(one, two, SinkOptions{}); err == nil || !strings.Contains(err.Error(), "slash") || w.Snapshots != 1 {
		t.Errorf("two snapshots in one archive: %+v, %v", w, err)
	}
	if _, err := os.Stat(one); err != nil {
		t.Errorf("the first one, which was complete, is gone: %v", err)
	}
	if _, err := feed(one, two, SinkOptions{}); err == nil || !strings.Contains(err.Error(), "exists") {
		t.Errorf("an archive was replaced: %v", err)
	}
	for round, want := range []Written{{Snapshots: 2, Entries: 2, Bytes: 2}, {Held: 2}} {
		w, err := feed(dir+"/many/", two, SinkOptions{})
		w.Archives = nil
		if d := cmp.Diff(want, w); d != "" || err != nil {
			t.Errorf("round %d: %s, %v", round, d, err)
		}
	}
	l, err := readPlace(t, dir+"/many", Options{}, format.ExportOptions{})
	if err != nil || len(l.Snapshots) != 2 {
		t.Errorf("the directory has %v, %v", l, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "many", "h-03000000.tar"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := feed(dir+"/many", newScript(&format.Snapshot{ID: format.ID{3}, Host: "h"}).end(), SinkOptions{}); err == nil {
		t.Error("somebody's file counts as an archive")
	}
	var out bytes.Buffer
	if _, err := feed("-", newScript(&format.Snapshot{ID: format.ID{1}}).file(entry("f"), []byte("1")).end(), SinkOptions{Stdout: &out}); err != nil || out.Len()%recordSize != 0 {
		t.Errorf("standard output: %d bytes, %v", out.Len(), err)
	}
	for _, place := range []string{"", dir + "/x.tar.xz", dir + "/none/x.tar", "-"} {
		if _, err := feed(place, two, SinkOptions{}); err == nil {
			t.Errorf("%q can be written to", place)
		}
	}
	for _, name := range []string{"x.tgz", "x.tar.zst"} {
		if _, err := feed(filepath.Join(dir, name), newScript(&format.Snapshot{ID: format.ID{1}}).end(), SinkOptions{}); err != nil {
			t.Error(err)
		}
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || len(b) > 2000 {
			t.Errorf("%s has %d bytes, %v", name, len(b), err)
		}
		if l, err := readPlace(t, filepath.Join(dir, name), Options{}, format.ExportOptions{}); err != nil || len(l.Listing()) != 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	difference := newScript(&format.Snapshot{ID: format.ID{2}, Parent: format.ID{1}})
	difference.recs[0] = &format.Header{Version: 1, Features: []format.Feature{format.FeatureBase}}
	_, err = feed(dir+"/d.tar", difference.end(), SinkOptions{})
	var fix interface{ FixText() string }
	if !errors.As(err, &fix) || !strings.Contains(fix.FixText(), "--flat") {
		t.Errorf("a difference: %v", err)
	}
}
