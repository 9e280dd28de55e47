package borg

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/formattest"
	"github.com/bk-backup/bk/format/internal/prefetch"
	"github.com/bk-backup/bk/repo/store"
)

// failing fails its nth call from now on.
type failing struct {
	store.Reader
	calls atomic.Int64
	n     int64
}

var errStorage = errors.New("the storage has gone")

func (f *failing) fail() error {
	if n := f.calls.Add(1); f.n > 0 && n >= f.n {
		return errStorage
	}
	return nil
}

func (f *failing) ReadAt(ctx context.Context, name string, p []byte, off int64) error {
	if err := f.fail(); err != nil {
		return err
	}
	return f.Reader.ReadAt(ctx, name, p, off)
}

func (f *failing) Get(ctx context.Context, name string, sizeMax int64) ([]byte, error) {
	if err := f.fail(); err != nil {
		return nil, err
	}
	return f.Reader.Get(ctx, name, sizeMax)
}

func (f *failing) List(ctx context.Context, prefix string, fn func(store.Info) error) error {
	if err := f.fail(); err != nil {
		return err
	}
	return f.Reader.List(ctx, prefix, fn)
}

// TestFailingStorage fails at every call in turn: there is an error each time.
func TestFailingStorage(t *testing.T) {
	b := smallHistory(t, modeRepokey, codecZstd)
	st := &failing{Reader: b.withIndex()}
	export := func() error {
		r, err := Open(context.Background(), st, Options{keys: b.keys})
		if err != nil {
			return err
		}
		_, err = formattest.Stream(r, format.ExportOptions{})
		return errors.Join(err, r.closeIndex())
	}
	if err := export(); err != nil {
		t.Fatal(err)
	}
	calls := st.calls.Load()
	if calls < 8 {
		t.Fatalf("only %d calls", calls)
	}
	for n := range calls {
		st.calls.Store(0)
		st.n = n + 1
		if err := export(); !errors.Is(err, errStorage) {
			t.Errorf("call %d of %d: %v", n+1, calls, err)
		}
	}
}

// TestClosedEarly ends exports at every record, and by their context.
func TestClosedEarly(t *testing.T) {
	b := smallHistory(t, modeNone, codecNone)
	r := b.open()
	for n := 0; ; n++ {
		ctx, cancel := context.WithCancel(context.Background())
		src, err := r.Export(ctx, format.ExportOptions{})
		if err != nil {
			t.Fatal(err)
		}
		ended := false
		for range n {
			if _, err := src.Next(); err == io.EOF {
				ended = true
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if n%2 == 1 {
			cancel()
		}
		if err := src.Close(); err != nil {
			t.Error(err)
		}
		cancel()
		if ended {
			break
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	src, err := r.Export(ctx, format.ExportOptions{})
	if err == nil {
		for err == nil {
			_, err = src.Next()
		}
		src.Close()
	}
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func count[T format.Record](list []format.Record) (n int) {
	for _, rec := range list {
		if _, ok := rec.(T); ok {
			n++
		}
	}
	return n
}

// TestOptions sends no more than is asked for.
func TestOptions(t *testing.T) {
	b := smallHistory(t, modeRepokeyBlake2, codecLZ4)
	r := b.open()
	all := formattest.Records(t, r, format.ExportOptions{})
	if count[*format.Data](all) != 4 || count[*format.Refs](all) != 2 || count[*format.Remove](all) != 1 {
		t.Errorf("%d data, %d refs, %d removes", count[*format.Data](all), count[*format.Refs](all), count[*format.Remove](all))
	}
	listing := formattest.Records(t, r, format.ExportOptions{ListingOnly: true})
	if count[*format.Data](listing)+count[*format.Refs](listing) != 0 || count[*format.Entry](listing) != count[*format.Entry](all) {
		t.Errorf("a listing of %d records", len(listing))
	}
	held := formattest.Records(t, r, format.ExportOptions{Held: true})
	if count[*format.Data](held) != 0 || !slices.Contains(held[0].(*format.Header).Features, format.FeatureHeld) {
		t.Errorf("%d data records of what is held", count[*format.Data](held))
	}
	has := format.SumID([]byte(strings.Repeat("beta ", 300)))
	some := formattest.Records(t, r, format.ExportOptions{HasChunk: func(id format.ID, size uint32) bool { return id == has && size == 1500 }})
	if count[*format.Data](some) != 3 {
		t.Errorf("%d data records, and one chunk is held", count[*format.Data](some))
	}
	for _, rec := range formattest.Records(t, r, format.ExportOptions{Plain: true}) {
		if d, ok := rec.(*format.Data); ok && d.Codec != format.CodecNone {
			t.Errorf("codec %q", d.Codec)
		}
	}
	based := formattest.Records(t, r, format.ExportOptions{Base: all[1].(*format.Snapshot).ID, Snapshots: []format.ID{mustSnapshots(t, r)[1].ID}})
	if count[*format.CopyRange](based) != 1 {
		t.Errorf("%d copies in a difference to a base", count[*format.CopyRange](based))
	}
	for _, opts := range []format.ExportOptions{{Snapshots: []format.ID{{1}}}, {Base: format.ID{1}}} {
		if _, err := r.Export(context.Background(), opts); !errors.Is(err, ErrMissing) {
			t.Errorf("an archive that is not there: %v", err)
		}
	}
}

// TestNameless leaves out the ids that nobody asks for, of chunks that come once.
func TestNameless(t *testing.T) {
	r := smallHistory(t, modeRepokeyBlake2, codecZstd).open()
	src, err := r.Export(t.Context(), format.ExportOptions{Nameless: true})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	named, nameless := 0, 0
	for {
		rec, err := src.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		d, ok := rec.(*format.Data)
		if !ok {
			continue
		}
		if d.Nameless() {
			nameless++
		} else {
			named++
		}
		plain, err := format.DecodeTaken(d.Detach())
		if err != nil || d.Nameless() != d.Once || !d.Once && d.ID != format.SumID(plain) {
			t.Errorf("once %v, id %s: %v", d.Once, d.ID, err)
		}
	}
	if named == 0 || nameless == 0 {
		t.Errorf("%d chunks with and %d without an id", named, nameless)
	}
}

func mustSnapshots(t *testing.T, r *Repository) []*format.Snapshot {
	t.Helper()
	list, err := r.Snapshots(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestFixtureSnapshots checks what is said of snapshots themselves.
func TestFixtureSnapshots(t *testing.T) {
	r := mustOpenFixture(t, "repokey-churn", Options{})
	list := mustSnapshots(t, r)
	archive := id(t, "5aa58fa579eadaed3bd8c7bcab50a492b9f9b25da90dfe2afbf73e1bf235fb73")
	repository, err := hex.DecodeString(r.ID())
	if err != nil || len(list) != 4 {
		t.Fatal(len(list), err)
	}
	want := &format.Snapshot{
		ID: archive, Time: &format.Time{Sec: 1705372200}, Host: "vm", User: "root", Roots: []string{"tricky"}, Tags: []string{"snap2"},
		Comment: "a new comment", Origin: &format.Origin{System: "borg", Repository: string(repository), ID: string(archive[:])},
	}
	if d := cmp.Diff(want, list[1]); d != "" {
		t.Error(d)
	}
	all := mustSnapshots(t, mustOpenFixture(t, "repokey-churn", Options{Archives: func(name string) bool { return strings.HasSuffix(name, "checkpoint") }}))
	if len(all) != 1 || all[0].Tags[0] != "killed.checkpoint" {
		t.Errorf("%d archives", len(all))
	}
}

// TestUnreadableArchive is told of, and the others are listed.
func TestUnreadableArchive(t *testing.T) {
	b := smallHistory(t, modeNone, codecNone)
	b.archives = append(b.archives, archiveRef{name: "gone", id: objectID{7}, time: "2026-01-02T03:04:05"})
	var told []string
	r, err := b.on(b.commit(), Options{OnError: func(name string, err error) { told = append(told, fmt.Sprint(name, errors.Is(err, ErrMissing))) }})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(mustSnapshots(t, r)); n != 2 || !slices.Equal(told, []string{"gonetrue"}) {
		t.Errorf("%d archives, %q", n, told)
	}
	if _, err := r.Export(context.Background(), format.ExportOptions{}); !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), `"gone"`) {
		t.Errorf("an export of all: %v", err)
	}
}

// TestKeys opens keys with what their users have.
func TestKeys(t *testing.T) {
	files, keyFile := fixtureFiles(t, "keyfile-blake2-auto")
	st := memory(t, files)
	text := func(p string) func(context.Context) (string, error) {
		return func(context.Context) (string, error) { return p, nil }
	}
	key := func(b []byte) func(context.Context, string) ([]byte, error) {
		return func(context.Context, string) ([]byte, error) { return b, nil }
	}
	other := append([]byte(KeyFileHead(strings.Repeat("ab", 32))), keyFile[len(KeyFileHead(strings.Repeat("ab", 32))):]...)
	for _, c := range []struct {
		opts Options
		err  error
	}{
		{Options{Passphrase: text("borg set-a passphrase"), KeyFile: key(keyFile)}, nil},
		{Options{Passphrase: text("wrong"), KeyFile: key(keyFile)}, ErrWrongPassphrase},
		{Options{KeyFile: key(keyFile)}, ErrWrongPassphrase},
		{Options{Passphrase: text("borg set-a passphrase")}, ErrNoKeyFile},
		{Options{Passphrase: text("borg set-a passphrase"), KeyFile: key(other)}, ErrNoKeyFile},
		{Options{Passphrase: text("borg set-a passphrase"), KeyFile: key(keyFile[:200])}, ErrDamaged},
	} {
		r, err := Open(context.Background(), st, c.opts)
		if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
			t.Errorf("%v, want %v", err, c.err)
		}
		if err == nil {
			r.closeIndex()
		}
	}
	for what, c := range map[string]struct {
		config string
		err    error
	}{
		"Borg 2":       {"[repository]\nversion = 2\nsegments_per_dir = 1\nmax_segment_size = 1\nid = " + strings.Repeat("ab", 32), ErrVersion},
		"another file": {"[core]\nversion = 1\n", ErrNoRepository},
		"nothing":      {"", ErrNoRepository},
	} {
		if _, err := Open(context.Background(), memory(t, map[string][]byte{"config": []byte(c.config)}), Options{}); !errors.Is(err, c.err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// Keys of a mode stay keys when they are sealed anew.
	for _, m := range []mode{modeRepokey, modeRepokeyBlake2} {
		ks := testKeys(t, m)
		ks.chunkSeed = -5
		blob, err := sealKeys(ks, "päss", make([]byte, 32))
		if err != nil {
			t.Fatal(err)
		}
		if blob, err = parseKeyBlob(blob.encode()); err != nil {
			t.Fatal(err)
		}
		if _, err := blob.open("pass", m); !errors.Is(err, errPassphrase) {
			t.Error(err)
		}
		got, err := blob.open("päss", m)
		if err != nil || got.chunkSeed != -5 || string(got.name) != string(ks.name) || !got.tamRequired || got.repository != ks.repository {
			t.Errorf("%+v, %v", got, err)
		}
	}
}

// TestRoots finds what was backed up in command lines.
func TestRoots(t *testing.T) {
	for line, want := range map[string]string{
		"/usr/bin/borg create -C zlib,9 --comment x /repo::a /home/me rel/./path": "home/me rel/path",
		"borg create --stats --exclude *.o r::a -e x .. . ../up":                  "  up",
		"borg --lock-wait 5 create r::{now} -- -x":                                "-x",
		"borg create r::a -":                  "stdin",
		"borg recreate r::a /x":               "",
		"borg create --compression=lz4 ::a /": "",
	} {
		if got := strings.Join(roots(strings.Fields(line), ""), " "); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
	// borg 1.4 says where it ran.
	if got := roots(strings.Fields("borg create r::a . /x ../up"), "/home/me"); !slices.Equal(got, []string{"home/me", "x", "home/up"}) {
		t.Errorf("below /home/me: %q", got)
	}
}

// TestManyRefs names more chunks than one record, and one window, can.
func TestManyRefs(t *testing.T) {
	b := newBuilder(t, modeNone)
	one := b.file("a", "x", "y")
	long := b.file("b")
	for range 3*prefetch.SizeMax/refCost/2 + 5 {
		long.chunks = append(long.chunks, one.chunks...)
	}
	b.cut = func(rest int) int { return min(rest, 100_000) }
	b.archive("one", one, long)
	got := list(t, b.open())[0].Listing["b"]
	if n := len(got.Pieces); n != len(long.chunks) || string(got.Pieces[n-1]) != "y" || string(got.Pieces[n-2]) != "x" {
		t.Errorf("%d pieces", n)
	}
}

// TestGreatObjects has an archive say that small chunks lie in large objects: of
// the room for content in flight each needs more than half.
func TestGreatObjects(t *testing.T) {
	b := newBuilder(t, modeNone)
	one := b.file("a", "x", "y", "z")
	for i := range one.chunks {
		one.chunks[i].csize = 31 << 20
	}
	b.archive("one", one)
	if got := contentOf(list(t, b.open())[0].Listing, "a"); got != "xyz" {
		t.Errorf("content %q", got)
	}
}
