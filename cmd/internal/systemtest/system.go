// Package systemtest has a system in memory for tests of programs that look into
// any system: a history of listings, which it hands out as a repository would,
// or as simpler systems do. Start at System. Only tests import it.
package systemtest

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo"
	"github.com/bk-backup/bk/repo/keyring"
	"github.com/bk-backup/bk/repo/store/mem"
)

// File is an entry of a listing and its content, one chunk or none.
type File struct {
	Entry   format.Entry
	Content string
}

// Listing is what a snapshot holds, by path.
type Listing map[string]File

// System implements format.System.
type System struct {
	Listings []Listing // oldest first
	Whole    bool      // it knows no differences: snapshots come without parents
	Unsorted bool      // it does not sort
}

// ID returns the id of a snapshot by its number.
func ID(n int) format.ID { return format.ID{byte(n + 1), 0xab} }

// Snapshots implements format.System.
func (s *System) Snapshots(context.Context) ([]*format.Snapshot, error) {
	out := make([]*format.Snapshot, len(s.Listings))
	for i := range out {
		out[i] = &format.Snapshot{ID: ID(i), Host: "h", Roots: []string{"d0"}, Time: &format.Time{Sec: int64(1000 * i)}}
	}
	return out, nil
}

// Close implements format.System.
func (s *System) Close() error { return nil }

// Export implements format.System. Payloads are plain.
func (s *System) Export(ctx context.Context, opts format.ExportOptions) (format.SourceCloser, error) {
	recs := []format.Record{&format.Header{Version: format.Version}}
	sent := map[string]bool{}
	list, _ := s.Snapshots(ctx)
	var prev Listing
	for _, snap := range list {
		if len(opts.Snapshots) > 0 && !slices.Contains(opts.Snapshots, snap.ID) {
			continue
		}
		listing := s.Listings[slices.IndexFunc(list, func(l *format.Snapshot) bool { return l.ID == snap.ID })]
		whole := s.Whole || opts.Full || opts.Flat || prev == nil
		snap.Unsorted = s.Unsorted
		if last := len(recs) - 1; !whole {
			snap.Parent = parentOf(recs[:last+1])
		} else {
			prev = nil
		}
		recs = append(recs, snap)
		recs = append(recs, s.changes(prev, listing, opts, sent)...)
		recs = append(recs, &format.Commit{})
		prev = listing
	}
	return &source{recs: append(recs, &format.End{})}, nil
}

// parentOf returns the id of the last snapshot.
func parentOf(recs []format.Record) format.ID {
	for i := len(recs) - 1; ; i-- {
		if s, ok := recs[i].(*format.Snapshot); ok {
			return s.ID
		}
	}
}

// changes are the records that make a listing of the one before.
func (s *System) changes(prev, cur Listing, opts format.ExportOptions, sent map[string]bool) []format.Record {
	paths := map[string]bool{}
	for p := range prev {
		paths[p] = true
	}
	for p := range cur {
		paths[p] = true
	}
	sorted := make([]string, 0, len(paths))
	for p := range paths {
		sorted = append(sorted, p)
	}
	slices.SortFunc(sorted, format.ComparePaths)
	var groups [][]format.Record
	for _, p := range sorted {
		older, before := prev[p]
		f, now := cur[p]
		switch {
		case now && before && older.Content == f.Content && older.Entry.Equal(&f.Entry):
		case now && !drops(opts, p, f.Entry.Type == format.TypeDir):
			groups = append(groups, f.records(opts, sent))
		case !now && !drops(opts, p, older.Entry.Type == format.TypeDir):
			groups = append(groups, []format.Record{&format.Remove{Path: p}})
		}
	}
	if s.Unsorted && prev == nil {
		rand.New(rand.NewPCG(1, uint64(len(groups)))).Shuffle(len(groups), func(i, j int) { groups[i], groups[j] = groups[j], groups[i] })
	}
	return slices.Concat(groups...)
}

func drops(opts format.ExportOptions, path string, isDir bool) bool {
	if opts.Drop == nil {
		return false
	}
	drop, _ := opts.Drop(path, isDir)
	return drop
}

func (f *File) records(opts format.ExportOptions, sent map[string]bool) []format.Record {
	recs := []format.Record{f.Entry.Clone()}
	if f.Entry.Type != format.TypeFile {
		return recs
	}
	id, size := format.SumID([]byte(f.Content)), uint32(len(f.Content))
	switch {
	case opts.ListingOnly || f.Content == "":
	case sent[f.Content] && !opts.Flat:
		recs = append(recs, &format.Refs{Chunks: []format.ChunkRef{{ID: id, Size: size}}})
	default:
		sent[f.Content] = true
		recs = append(recs, &format.Data{ID: id, Size: size, Codec: format.CodecNone, Payload: append(format.AllocPayload(int(size))[:0], f.Content...)})
	}
	return append(recs, &format.EOF{Size: uint64(size)})
}

// source hands out records.
type source struct{ recs []format.Record }

// Next implements format.Source.
func (s *source) Next() (format.Record, error) {
	if len(s.recs) == 0 {
		return nil, io.EOF
	}
	rec := s.recs[0]
	s.recs = s.recs[1:]
	return rec, nil
}

// Close implements io.Closer.
func (s *source) Close() error { return nil }

// Repo returns a bk repository that holds the same snapshots under other ids.
func (s *System) Repo(t testing.TB) *repo.Repository {
	t.Helper()
	r, err := repo.Init(t.Context(), mem.New(), keyring.InitOptions{
		Passphrase: "p", Argon2: keyring.Argon2{MemoryKiB: 64, Passes: 1, Threads: 1}, Chunker: "gear:64KiB", Compression: "default",
	}, repo.Options{Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	sink, err := r.Import(t.Context(), repo.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	src, err := s.Export(t.Context(), format.ExportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	err = format.Copy(t.Context(), sink, src)
	if closeErr := sink.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Random makes a history of n listings, each a few edits away from the one
// before: files and directories come, go, change, and take each other's place.
func Random(seed uint64, n int) *System {
	rng := rand.New(rand.NewPCG(seed, 77))
	s := new(System)
	cur := Listing{}
	for range n {
		for range 1 + rng.IntN(25) {
			edit(rng, cur)
		}
		listing := Listing{}
		for p, f := range cur {
			listing[p] = f
		}
		s.Listings = append(s.Listings, listing)
	}
	return s
}

func edit(rng *rand.Rand, cur Listing) {
	path := fmt.Sprintf("d%d", rng.IntN(3))
	for range rng.IntN(3) {
		path += fmt.Sprintf("/%c%d", 'a'+rune(rng.IntN(3)), rng.IntN(3))
	}
	if rng.IntN(4) == 0 {
		for p := range cur {
			if p == path || format.IsBelow(p, path) {
				delete(cur, p)
			}
		}
		return
	}
	for dir := format.ParentPath(path); dir != ""; dir = format.ParentPath(dir) {
		if f, ok := cur[dir]; !ok || f.Entry.Type != format.TypeDir {
			cur[dir] = File{Entry: entry(rng, dir, format.TypeDir)}
		}
	}
	switch kind := rng.IntN(8); {
	case kind < 2 || strings.Count(path, "/") < 1:
		cur[path] = File{Entry: entry(rng, path, format.TypeDir)}
		return
	case kind == 2:
		e := entry(rng, path, format.TypeSymlink)
		e.Target = "to"
		cur[path] = File{Entry: e}
	default:
		f := File{Entry: entry(rng, path, format.TypeFile), Content: strings.Repeat("x", rng.IntN(4)*10)}
		f.Entry.Size, f.Entry.Has = uint64(len(f.Content)), f.Entry.Has|format.HasSize
		cur[path] = f
	}
	for p := range cur {
		if format.IsBelow(p, path) {
			delete(cur, p)
		}
	}
}

func entry(rng *rand.Rand, path string, typ format.Type) format.Entry {
	return format.Entry{Path: path, Type: typ, Has: format.HasMode | format.HasMtime, Mode: 0o644, Mtime: format.Time{Sec: int64(rng.IntN(3))}}
}
