package restic

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/formattest"
	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/store/mem"
)

// testSinkOptions are options that cost no time.
func testSinkOptions() SinkOptions {
	return SinkOptions{
		Passphrase: func(context.Context) (string, error) { return "secret", nil },
		keyWork:    2, lockWait: time.Nanosecond, Host: "h", User: "u", PID: 7,
	}
}

func openSink(t testing.TB, st store.Store, change func(*SinkOptions)) *Sink {
	t.Helper()
	opts := testSinkOptions()
	if change != nil {
		change(&opts)
	}
	s, err := OpenSink(t.Context(), st, opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// thing is an object of a listing as a test has it.
type thing struct {
	entry   format.Entry // without a path
	content []int        // numbers of testChunks; below zero: a hole of so many KiB
}

// state is a listing.
type state map[string]*thing

// testChunks are what contents are made of: random and not, short and long.
var testChunks = sync.OnceValue(func() [][]byte {
	r := rand.NewChaCha8([32]byte{1})
	var list [][]byte
	for _, size := range []int{1, 700, 300_000, 600_000, 1_400_000, 2_000_000} {
		b := make([]byte, size)
		r.Read(b)
		list = append(list, b)
	}
	list = append(list, bytes.Repeat([]byte("a line of text\n"), 60_000), make([]byte, 700_000))
	return list
})

func (o *thing) bytes() []byte {
	var b []byte
	for _, n := range o.content {
		if n < 0 {
			b = append(b, make([]byte, -n<<10)...)
		} else {
			b = append(b, testChunks()[n]...)
		}
	}
	return b
}

// file and others make objects.
func file(content ...int) *thing {
	return &thing{entry: entryOf(format.TypeFile), content: content}
}

func entryOf(kind format.Type) format.Entry {
	e := format.Entry{Type: kind, Has: format.HasMode | format.HasUID | format.HasGID | format.HasMtime,
		Mode: 0o640, UID: 1000, GID: 100, User: "me", Group: "us", Mtime: format.Time{Sec: 1_600_000_000, Nsec: 120_000_000}}
	if kind == format.TypeSymlink {
		e.Target = "to"
	}
	return e
}

func plainObject(kind format.Type) *thing { return &thing{entry: entryOf(kind)} }

// teller makes the records of listings, each a difference to the one before.
type teller struct {
	t        testing.TB
	to       format.Sink
	copies   bool // what a changed file shares with its version before comes as copy
	unsorted bool
	zip      bool
	nameless bool // every other plain chunk comes without an id, each time anew
	sent     map[format.ID]bool
	last     state
	lastID   format.ID
	count    int
}

func (s *teller) header() error {
	s.sent = map[format.ID]bool{}
	return s.to.Write(&format.Header{Version: 1, Features: []format.Feature{format.FeatureBase, format.FeatureCopy, format.FeatureZstd}})
}

func testSnapshotID(n int) format.ID { return format.SumID(fmt.Append(nil, "snapshot", n)) }

func (s *teller) snapshot(now state) error {
	s.count++
	when := format.Time{Sec: 1_700_000_000 + int64(s.count)*3600}
	rec := &format.Snapshot{ID: testSnapshotID(s.count), Parent: s.lastID, Time: &when, Host: "host", User: "user",
		Roots: []string{"a"}, Tags: []string{"x", "y"}, Comment: "a comment", Unsorted: s.unsorted}
	if err := s.to.Write(rec); err != nil {
		return err
	}
	paths := slices.Collect(maps.Keys(now))
	for path := range s.last {
		if now[path] == nil {
			paths = append(paths, path)
		}
	}
	slices.SortFunc(paths, format.ComparePaths)
	if s.unsorted {
		// Removals first, and what replaces other types after them.
		rand.New(rand.NewPCG(1, uint64(len(paths)))).Shuffle(len(paths), func(i, j int) { paths[i], paths[j] = paths[j], paths[i] })
		slices.SortStableFunc(paths, func(a, b string) int {
			switch {
			case now[a] == nil && now[b] != nil:
				return -1
			case now[a] != nil && now[b] == nil:
				return 1
			case now[a] != nil && now[b] != nil:
				return strings.Count(a, "/") - strings.Count(b, "/")
			}
			return strings.Count(b, "/") - strings.Count(a, "/")
		})
	}
	for _, path := range paths {
		if err := s.path(path, s.last[path], now[path]); err != nil {
			return err
		}
	}
	s.last, s.lastID = now, rec.ID
	return s.to.Write(&format.Commit{Losses: []format.Loss{{Kind: "changed", Count: 1, Paths: []string{"a"}}}})
}

func (s *teller) path(path string, old, now *thing) error {
	if now == nil {
		return s.to.Write(&format.Remove{Path: path})
	}
	e := now.entry
	e.Path = path
	if old != nil && sameObject(old, now) {
		return nil
	}
	if err := s.to.Write(&e); err != nil || e.Type != format.TypeFile {
		return err
	}
	size := uint64(0)
	for i, n := range now.content {
		if n < 0 {
			size += uint64(-n) << 10
			if err := s.to.Write(&format.Hole{Size: uint64(-n) << 10}); err != nil {
				return err
			}
			continue
		}
		plain := testChunks()[n]
		size += uint64(len(plain))
		id := format.SumID(plain)
		var rec format.Record
		switch {
		case s.copies && old != nil && i == 0 && len(old.content) > 0 && old.content[0] == n && len(plain) > 10:
			// In two runs, which meet in the middle of a chunk.
			half := uint64(len(plain) / 3)
			if err := s.to.Write(&format.CopyRange{Size: half}); err != nil {
				return err
			}
			rec = &format.CopyRange{Offset: half, Size: uint64(len(plain)) - half}
		case s.sent[id]:
			rec = &format.Refs{Chunks: []format.ChunkRef{{ID: id, Size: uint32(len(plain))}}}
		default:
			d := &format.Data{ID: id, Size: uint32(len(plain)), Codec: format.CodecNone, Payload: bytes.Clone(plain)}
			if s.zip {
				var err error
				if d.Codec, d.Payload, err = format.EncodePayload(nil, plain, format.LevelFastest); err != nil {
					return err
				}
				d.Payload = bytes.Clone(d.Payload)
			}
			if s.nameless && !s.zip && n%2 == 0 {
				d.ID, d.Once, d.Checked = format.ID{}, true, true
			} else {
				s.sent[id] = true
			}
			rec = d
		}
		if err := s.to.Write(rec); err != nil {
			return err
		}
	}
	return s.to.Write(&format.EOF{Size: size})
}

func sameObject(a, b *thing) bool {
	return a.entry.Equal(&b.entry) && slices.Equal(a.content, b.content)
}

// readBack returns all snapshots of a repository, oldest first, whole.
func readBack(t testing.TB, st *mem.Store) []*formattest.Received {
	t.Helper()
	r, err := Open(t.Context(), st, Options{Passphrase: testSinkOptions().Passphrase})
	if err != nil {
		t.Fatal(err)
	}
	got, err := formattest.Export(r, format.ExportOptions{Flat: true, Plain: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range got.Snapshots {
		for _, l := range s.Commit.Losses {
			if l.Kind == format.LossDamaged {
				t.Errorf("damaged: %q", l.Paths)
			}
		}
	}
	return got.Snapshots
}

// checkState compares a listing with what was read back.
func checkState(t testing.TB, want state, got formattest.Listing) {
	t.Helper()
	for path, o := range want {
		f := got[path]
		if f == nil {
			t.Errorf("%q is missing", path)
			continue
		}
		e := o.entry.Clone()
		e.Path = path
		plain := o.bytes()
		if e.Type == format.TypeFile {
			e.Size, e.Has = uint64(len(plain)), e.Has|format.HasSize
			if !bytes.Equal(f.Content(), plain) {
				t.Errorf("%q: other content, of %d bytes instead of %d", path, f.Size(), e.Size)
			}
		}
		back := f.Entry.Clone()
		if e.Hardlink != "" && back.Hardlink != "" {
			back.Hardlink = e.Hardlink
		}
		if !e.Equal(back) {
			t.Errorf("%q: read back as %+v, not %+v", path, back, e)
		}
	}
	for path := range got {
		if want[path] == nil {
			t.Errorf("%q should not be there", path)
		}
	}
}
