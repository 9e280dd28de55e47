package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/chunker"
	"github.com/bk-backup/bk/repo/seal"
)

// rechunkHistory makes n listings of files whose contents change in places: as
// small chunks, some of which come many times, and holes.
func rechunkHistory(rng *rand.Rand, n, files int) model {
	var pool []string
	piece := func() string {
		switch rng.IntN(12) {
		case 0:
			return ""
		case 1, 2:
			if len(pool) > 0 {
				return pool[rng.IntN(len(pool))]
			}
		}
		b := make([]byte, 1+rng.IntN(1<<(4+rng.IntN(8))))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		if rng.IntN(4) == 0 {
			pool = append(pool, string(b))
		}
		return string(b)
	}
	var m model
	cur := map[string]file{}
	for i := range files {
		f := file{entry: modelEntry(fmt.Sprintf("f%02d", i), format.TypeFile)}
		for range rng.IntN(1 << rng.IntN(7)) {
			f.chunks = append(f.chunks, piece())
		}
		cur[f.entry.Path] = f
	}
	for range n {
		m = append(m, maps.Clone(cur))
		for range 1 + rng.IntN(4) {
			path := fmt.Sprintf("f%02d", rng.IntN(files))
			f := cur[path]
			chunks := slices.Clone(f.chunks)
			for range rng.IntN(4) {
				at := rng.IntN(len(chunks) + 1)
				switch rng.IntN(4) {
				case 0:
					chunks = slices.Insert(chunks, at, piece())
				case 1:
					chunks = slices.Delete(chunks, at, min(at+1+rng.IntN(3), len(chunks)))
				case 2:
					if at < len(chunks) {
						chunks[at] = piece()
					}
				case 3: // take something of another file
					other := cur[fmt.Sprintf("f%02d", rng.IntN(files))].chunks
					if len(other) > 0 {
						from := rng.IntN(len(other))
						chunks = slices.Insert(chunks, at, other[from:min(len(other), from+5)]...)
					}
				}
			}
			f.chunks = chunks
			f.entry.Mtime.Sec++
			cur[path] = f
		}
	}
	return m
}

// chunkersOf returns what ImportOptions.ChunkerFor takes: a splitter with the
// secret of a repository, another one for some files if there are two.
func chunkersOf(t testing.TB, r *Repository, specs ...string) func(string, uint64) (func() chunker.Splitter, string) {
	t.Helper()
	var factories []*chunker.Factory
	for _, text := range specs {
		spec, err := chunker.ParseSpec(text)
		if err != nil {
			t.Fatal(err)
		}
		f, err := r.Splitters(spec)
		if err != nil {
			t.Fatal(err)
		}
		factories = append(factories, f)
	}
	return func(path string, _ uint64) (func() chunker.Splitter, string) {
		f := factories[int(path[len(path)-1])%len(factories)]
		return f.Splitter, f.Spec().String()
	}
}

// cutsOf is what a content consists of, for comparisons.
type cutsOf []string

func (c *cutsOf) chunk(id format.ID, size int) {
	*c = append(*c, fmt.Sprintf("%d %s", size, id.Short()))
}

func (c *cutsOf) hole(size int) { *c = append(*c, fmt.Sprintf("hole %d", size)) }

// freshCuts cuts a model's file as a backup of it does: each run between holes.
func freshCuts(f file, newSplitter func() chunker.Splitter) cutsOf {
	cuts := cutsOf{}
	run, hole := "", 0
	end := func() {
		for rest := []byte(run); len(rest) > 0; {
			n := newSplitter().Cut(rest, true)
			cuts.chunk(format.SumID(rest[:n]), n)
			rest = rest[n:]
		}
		run = ""
	}
	for _, c := range append(slices.Clone(f.chunks), "end") {
		if c == "" {
			end()
			hole += 4096
			continue
		}
		if hole > 0 {
			cuts.hole(hole)
			hole = 0
		}
		if c != "end" {
			run += c
		}
	}
	end()
	return cuts
}

// cutsIn returns the cuts of every file of every snapshot of a repository.
func cutsIn(t testing.TB, r *Repository) (out []map[string]cutsOf) {
	t.Helper()
	src, err := r.Export(context.Background(), format.ExportOptions{Full: true, Held: true})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	var listing map[string]cutsOf
	var path string
	var cuts cutsOf
	for {
		rec, err := src.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		switch rec := rec.(type) {
		case *format.Snapshot:
			listing = map[string]cutsOf{}
			out = append(out, listing)
		case *format.Entry:
			path, cuts = rec.Path, cutsOf{}
		case *format.Refs:
			for _, ref := range rec.Chunks {
				cuts.chunk(ref.ID, int(ref.Size))
			}
		case *format.Hole:
			cuts.hole(int(rec.Size))
		case *format.EOF:
			listing[path] = cuts
		}
	}
}

// checkFresh compares with what backups of the same files would give.
func checkFresh(t *testing.T, m model, r *Repository, chunkerFor func(string, uint64) (func() chunker.Splitter, string)) {
	t.Helper()
	got := cutsIn(t, r)
	if len(got) != len(m) {
		t.Fatalf("%d snapshots, not %d", len(got), len(m))
	}
	for i, listing := range m {
		want := map[string]cutsOf{}
		for path, f := range listing {
			newSplitter, _ := chunkerFor(path, 0)
			want[path] = freshCuts(f, newSplitter)
		}
		if diff := cmp.Diff(want, got[i]); diff != "" {
			t.Fatalf("snapshot %d, afresh (-), rechunked (+): %s", i, diff[:min(len(diff), 3000)])
		}
	}
	if diff := cmp.Diff(m.listings(), expand(t, r, format.ExportOptions{})); diff != "" {
		t.Fatalf("contents: %s", diff[:min(len(diff), 3000)])
	}
}

var rechunkSpecs = [][]string{
	{"gear:64,256,1KiB"}, {"fixed:500"}, {"rabin:64,256,2KiB"}, {"fixed:37"}, {"gear:64,128,300", "fixed:100"}, {"gear:64KiB"}, {"buzhash:64,128,2KiB,1000"},
}

func TestRechunkEqualsBackupAfresh(t *testing.T) {
	t.Parallel()
	for seed := range underRace(uint64(14), 7) {
		specs := rechunkSpecs[seed%uint64(len(rechunkSpecs))]
		t.Run(fmt.Sprint(seed, specs), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 21))
			m := rechunkHistory(rng, 6, 8)
			a := newRepo(t, seal.SuiteAES256GCM)
			importModel(t, a, m)
			list, _, err := a.List(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			ids := make([]format.ID, len(list))
			for i, s := range list {
				ids[i] = s.ID
			}
			for name, opts := range map[string]format.ExportOptions{
				"refs": {}, "copy": {Copy: true}, "full": {Full: true}, "flat": {Flat: true}, "plain": {Plain: true},
			} {
				t.Run(name, func(t *testing.T) {
					b := newRepo(t, seal.SuiteXChaCha20Poly1305)
					cut := chunkersOf(t, b, specs...)
					transfer(t, a, b, opts, ImportOptions{ChunkerFor: cut})
					checkFresh(t, m, b, cut)
				})
			}
			for name, opts := range map[string]format.ExportOptions{"base": {}, "base and copy": {Copy: true}, "base, no copy": {NoCopy: true}} {
				t.Run(name, func(t *testing.T) {
					b := newRepo(t, seal.SuiteXChaCha20Poly1305)
					cut := chunkersOf(t, b, specs...)
					for i, id := range ids {
						opts.Snapshots, opts.Base = []format.ID{id}, format.ID{}
						if i > 0 {
							opts.Base = ids[i-1]
						}
						transfer(t, a, b, opts, ImportOptions{ChunkerFor: cut})
					}
					checkFresh(t, m, b, cut)
				})
			}
		})
	}
}

// TestRechunkAfterOtherCuts has a parent whose cuts are not those that are asked
// for now: what changes is cut as asked for, from the first byte on.
func TestRechunkAfterOtherCuts(t *testing.T) {
	for name, first := range map[string]func(t *testing.T, r *Repository) ImportOptions{
		"kept": func(*testing.T, *Repository) ImportOptions { return ImportOptions{} },
		"another": func(t *testing.T, r *Repository) ImportOptions {
			return ImportOptions{ChunkerFor: chunkersOf(t, r, "fixed:300")}
		},
	} {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, 22))
			m := rechunkHistory(rng, 2, 6)
			// Every file changes, so that all of the second snapshot is cut anew.
			for path, f := range m[1] {
				f.entry.Mtime.Sec += 1000
				m[1][path] = f
			}
			a, b := newRepo(t, 1), newRepo(t, 2)
			importModel(t, a, m)
			list, _, _ := a.List(context.Background())
			transfer(t, a, b, format.ExportOptions{Snapshots: []format.ID{list[0].ID}}, first(t, b))
			cut := chunkersOf(t, b, "gear:64,256,1KiB")
			transfer(t, a, b, format.ExportOptions{Snapshots: []format.ID{list[1].ID}, Base: list[0].ID}, ImportOptions{ChunkerFor: cut})
			got := cutsIn(t, b)[1]
			for path, f := range m[1] {
				newSplitter, _ := cut(path, 0)
				if diff := cmp.Diff(freshCuts(f, newSplitter), got[path]); diff != "" {
					t.Errorf("%s: afresh (-), rechunked (+): %s", path, diff)
				}
			}
		})
	}
}

// TestRechunkLargeFile changes a large file in scattered places, and counts what
// is read and cut.
func TestRechunkLargeFile(t *testing.T) {
	t.Parallel()
	sizeMiB := underRace(12, 4)
	rng := rand.New(rand.NewPCG(2, 23))
	random := func(n int) string {
		b := make([]byte, n)
		for i := 0; i+8 <= n; i += 8 {
			v := rng.Uint64()
			for j := range 8 {
				b[i+j] = byte(v >> (8 * j))
			}
		}
		return string(b)
	}
	image := file{entry: modelEntry("image", format.TypeFile)}
	for range sizeMiB * 128 {
		image.chunks = append(image.chunks, random(8<<10))
	}
	m := model{{"image": image}}
	image.chunks = slices.Clone(image.chunks)
	changed := 0
	for i := 7; i < len(image.chunks); i += 97 { // a little over 1%
		image.chunks[i] = random(8 << 10)
		changed += 8 << 10
	}
	image.entry.Mtime.Sec++
	m = append(m, map[string]file{"image": image})

	a, b := newRepo(t, 1), newRepo(t, 1)
	importModel(t, a, m)
	list, _, _ := a.List(context.Background())
	cut := chunkersOf(t, b, "gear:8KiB")
	transfer(t, a, b, format.ExportOptions{Snapshots: []format.ID{list[0].ID}}, ImportOptions{ChunkerFor: cut})
	sum, stream := transfer(t, a, b, format.ExportOptions{Snapshots: []format.ID{list[1].ID}, Base: list[0].ID}, ImportOptions{ChunkerFor: cut})
	total := sizeMiB << 20
	t.Logf("%d of %d bytes changed: %d sent, %d cut, %d read back", changed, total, len(stream), sum.BytesCut, sum.BytesReadBack)
	if limit := uint64(total) / 20; sum.BytesCut > limit || sum.BytesReadBack > limit || sum.BytesCut < uint64(changed) {
		t.Errorf("%d bytes were cut and %d read back, more than %d", sum.BytesCut, sum.BytesReadBack, limit)
	}
	newSplitter, _ := cut("image", 0)
	if diff := cmp.Diff(freshCuts(image, newSplitter), cutsIn(t, b)[1]["image"]); diff != "" {
		t.Errorf("afresh (-), rechunked (+): %s", diff[:min(len(diff), 2000)])
	}
}

// TestRechunkUnchanged sends a file whose metadata alone changed.
func TestRechunkUnchanged(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 24))
	m := rechunkHistory(rng, 1, 8)
	next := maps.Clone(m[0])
	for path, f := range next {
		f.entry.Mode = 0o600
		next[path] = f
	}
	m = append(m, next)
	a, b := newRepo(t, 1), newRepo(t, 2)
	importModel(t, a, m)
	list, _, _ := a.List(context.Background())
	cut := chunkersOf(t, b, "gear:64,256,1KiB")
	transfer(t, a, b, format.ExportOptions{Snapshots: []format.ID{list[0].ID}}, ImportOptions{ChunkerFor: cut})
	sum, _ := transfer(t, a, b, format.ExportOptions{Snapshots: []format.ID{list[1].ID}, Base: list[0].ID}, ImportOptions{ChunkerFor: cut})
	if sum.Entries == 0 || sum.Bytes == 0 || sum.BytesCut != 0 || sum.BytesReadBack != 0 {
		t.Errorf("of %d bytes whose metadata changed, %d were cut and %d read back", sum.Bytes, sum.BytesCut, sum.BytesReadBack)
	}
	checkFresh(t, m, b, cut)
}

// TestRechunkRefusesFalseOnce names a chunk again that was said to come once.
func TestRechunkRefusesFalseOnce(t *testing.T) {
	a := newRepo(t, 1)
	sink, err := a.Import(context.Background(), ImportOptions{ChunkerFor: chunkersOf(t, a, "fixed:4")})
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	plain := []byte("a chunk of some bytes")
	id := format.SumID(plain)
	one, two := modelEntry("one", format.TypeFile), modelEntry("two", format.TypeFile)
	for _, rec := range []format.Record{
		&format.Header{Version: 1}, &format.Snapshot{ID: format.ID{9}}, &one,
		&format.Data{ID: id, Size: uint32(len(plain)), Once: true, Payload: append(format.AllocPayload(len(plain))[:0], plain...)},
		&format.EOF{Size: uint64(len(plain))}, &two,
		&format.Refs{Chunks: []format.ChunkRef{{ID: id, Size: uint32(len(plain))}}},
		&format.EOF{Size: uint64(len(plain))}, &format.Commit{}, &format.End{},
	} {
		if err = sink.Write(rec); err != nil {
			break
		}
	}
	if format.ClassOf(err) != format.ClassReference {
		t.Fatalf("a second use of a chunk that comes once: %v", err)
	}
}

// unnamer leaves the ids of chunks out that come once and are plain.
type unnamer struct{ count int }

// Process implements format.Stage.
func (u *unnamer) Process(rec format.Record, emit func(format.Record) error) error {
	if d, ok := rec.(*format.Data); ok && d.Once && d.Codec == format.CodecNone {
		d.ID, d.Checked = format.ID{}, true
		u.count++
	}
	return emit(rec)
}

func (*unnamer) Close() error { return nil }

// TestRechunkNameless cuts chunks anew whose ids a source in the same process
// left out.
func TestRechunkNameless(t *testing.T) {
	m := rechunkHistory(rand.New(rand.NewPCG(8, 26)), 5, 8)
	a, b := newRepo(t, 1), newRepo(t, 2)
	importModel(t, a, m)
	src, err := a.Export(t.Context(), format.ExportOptions{Plain: true, Copy: true})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	cut := chunkersOf(t, b, "gear:64,256,1KiB")
	sink, err := b.Import(t.Context(), ImportOptions{ChunkerFor: cut})
	if err != nil {
		t.Fatal(err)
	}
	var u unnamer
	if err := errors.Join(format.Copy(t.Context(), sink, src, &u), sink.Close()); err != nil {
		t.Fatal(err)
	}
	if u.count < 10 {
		t.Errorf("%d chunks without an id", u.count)
	}
	checkFresh(t, m, b, cut)
}

// TestRechunkCut breaks a stream off at many places and runs it again.
func TestRechunkCut(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 25))
	m := rechunkHistory(rng, 3, 6)
	a := newRepo(t, 1)
	importModel(t, a, m)
	_, stream := transfer(t, a, newRepo(t, 2), format.ExportOptions{Copy: true}, ImportOptions{})
	for at := 0; at < len(stream); at += 1 + len(stream)/30 {
		b := newRepo(t, 2)
		cut := chunkersOf(t, b, "gear:64,256,1KiB")
		sink, err := b.Import(context.Background(), ImportOptions{ChunkerFor: cut})
		if err != nil {
			t.Fatal(err)
		}
		err = format.Copy(context.Background(), sink, format.NewReader(bytes.NewReader(stream[:at]), format.ReaderOptions{}))
		if err == nil {
			t.Fatalf("cut off at %d of %d: no error", at, len(stream))
		}
		if err := sink.Close(); err != nil {
			t.Fatal(err)
		}
		sum, _ := transfer(t, a, b, format.ExportOptions{Copy: true}, ImportOptions{ChunkerFor: cut})
		if sum.HeldAlready+len(sum.Snapshots) != 3 {
			t.Fatalf("cut off at %d, then again: %d held, %d new", at, sum.HeldAlready, len(sum.Snapshots))
		}
		checkFresh(t, m, b, cut)
	}
}
