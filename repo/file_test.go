package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/seal"
)

// stored imports a history and returns the repository and its snapshots.
func stored(t *testing.T, m model) (*Repository, []*Snapshot) {
	t.Helper()
	r := newRepo(t, seal.SuiteAES256GCM)
	sink, err := r.Import(t.Context(), ImportOptions{Compression: format.LevelDefault})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(m.write(t, sink), sink.Close()); err != nil {
		t.Fatal(err)
	}
	list, damage, err := r.List(t.Context())
	if err != nil || len(damage) > 0 || len(list) != len(m) {
		t.Fatalf("%d snapshots, damage %v, error %v; want %d", len(list), damage, err, len(m))
	}
	return r, list
}

// plainOf returns the bytes of a model's file.
func plainOf(f file) []byte {
	var b []byte
	for _, c := range f.chunks {
		if c == "" {
			b = append(b, make([]byte, 4096)...)
		}
		b = append(b, c...)
	}
	return b
}

func TestFiles(t *testing.T) {
	m := randomHistory(rand.New(rand.NewPCG(1, 2)), 3, 60)
	// More than several windows of chunks, and more pieces than a window has.
	big := file{entry: modelEntry("big", format.TypeFile)}
	for i := range 40 {
		big.chunks = append(big.chunks, fmt.Sprint(i)+strings.Repeat("y", 700_000), "")
	}
	many := file{entry: modelEntry("many", format.TypeFile)}
	for i := range filePiecesMax + 100 {
		many.chunks = append(many.chunks, fmt.Sprint("chunk ", i))
	}
	m[1]["big"], m[2]["many"] = big, many
	r, list := stored(t, m)
	for i, listing := range m {
		for path, want := range listing {
			f, err := r.File(t.Context(), list[i], path)
			if want.entry.Type != format.TypeFile {
				if !errors.Is(err, ErrNotFile) {
					t.Errorf("%s, a %s: %v", path, want.entry.Type, err)
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			var got bytes.Buffer
			if err := f.Copy(t.Context(), &got); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Bytes(), plainOf(want)) || f.EOF.Size != uint64(got.Len()) {
				t.Errorf("snapshot %d, %s: %d bytes, want %d", i, path, got.Len(), len(plainOf(want)))
			}
		}
	}
	if _, err := r.File(t.Context(), list[0], "big"); !errors.Is(err, ErrNoEntry) {
		t.Errorf("a file that is not there: %v", err)
	}
}

// brokenPipe fails after some bytes.
type brokenPipe struct{ left int }

var errBroken = errors.New("broken")

func (b *brokenPipe) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, errBroken
	}
	return len(p), nil
}

func TestFileErrors(t *testing.T) {
	f := file{entry: modelEntry("f", format.TypeFile)}
	for i := range 30 {
		f.chunks = append(f.chunks, fmt.Sprint(i)+strings.Repeat("z", 1_000_000))
	}
	r, list := stored(t, model{{"f": f}})
	opened, err := r.File(t.Context(), list[0], "f")
	if err != nil {
		t.Fatal(err)
	}
	if err := opened.Copy(t.Context(), &brokenPipe{left: 9_000_000}); !errors.Is(err, errBroken) {
		t.Errorf("a writer that fails: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := opened.Copy(ctx, new(bytes.Buffer)); !errors.Is(err, context.Canceled) {
		t.Errorf("after a cancellation: %v", err)
	}
	// A chunk that is not there.
	label := r.label.LabelOf(seal.ChunkData, format.SumID([]byte(f.chunks[7])))
	if _, found, err := r.index.Find(label); err != nil || !found {
		t.Fatal("the chunk should be there", err)
	}
	missing := *opened
	missing.r = newRepo(t, seal.SuiteAES256GCM)
	if err := missing.Copy(t.Context(), new(bytes.Buffer)); !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), `"/f"`) {
		t.Errorf("chunks that no index lists: %v", err)
	}
}

// TestDiff compares with the differences between models.
func TestDiff(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		m := randomHistory(rand.New(rand.NewPCG(seed, 3)), 4, 40)
		r, list := stored(t, m)
		for a := range m {
			for b := range m {
				for _, below := range []string{"", "d1", "d2/e3", "nowhere"} {
					checkDiff(t, r, list[a], list[b], m[a], m[b], below)
				}
			}
		}
	}
}

func checkDiff(t *testing.T, r *Repository, a, b *Snapshot, older, newer map[string]file, below string) {
	t.Helper()
	d, err := r.Diff(t.Context(), a, b, ListingOptions{Below: below})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	got := map[string]string{}
	for {
		c, err := d.Next()
		if err != nil {
			break
		}
		got[c.Path] = fmt.Sprint(c.Old != nil, c.New != nil, c.Content)
	}
	want := map[string]string{}
	chunks := [2]map[string]bool{{}, {}}
	for path := range older {
		if below != "" && path != below && !format.IsBelow(path, below) {
			continue
		}
		f, o := newer[path], older[path]
		_, there := newer[path]
		differs := string(plainOf(f)) != string(plainOf(o))
		switch {
		case !there:
			want[path] = "true false false"
		case differs || !f.entry.Equal(&o.entry):
			want[path] = fmt.Sprint(true, true, differs && f.entry.Type == format.TypeFile && o.entry.Type == format.TypeFile)
		}
	}
	for path := range newer {
		if _, there := older[path]; !there && (below == "" || path == below || format.IsBelow(path, below)) {
			want[path] = "false true false"
		}
	}
	for path, text := range want {
		if got[path] != text {
			t.Errorf("%q: %q, want %q", path, got[path], text)
		}
		for side, f := range []file{older[path], newer[path]} {
			for _, c := range f.chunks {
				if c != "" {
					chunks[side][c] = true
				}
			}
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d changes, want %d", len(got), len(want))
	}
	var sum Difference
	for c := range chunks[1] {
		if !chunks[0][c] {
			sum.Chunks++
			sum.Bytes += uint64(len(c))
		}
	}
	for c := range chunks[0] {
		if !chunks[1][c] {
			sum.ChunksRemoved++
			sum.BytesRemoved += uint64(len(c))
		}
	}
	// What both versions of a file have may lie in other files of one side too:
	// then it is seen on that side alone.
	if got := d.Difference(); got.Chunks < sum.Chunks || got.ChunksRemoved < sum.ChunksRemoved || got.Bytes < sum.Bytes {
		t.Errorf("difference %+v, want at least %+v", got, sum)
	}
}

func TestDiffCounts(t *testing.T) {
	f := func(path string, chunks ...string) file { return file{modelEntry(path, format.TypeFile), chunks} }
	m := model{
		{"a": f("a", "one", "two", "three"), "b": f("b", "moves"), "c": f("c", "stays"), "d": f("d", "same")},
		{"a": f("a", "one", "2222", "three"), "bb": f("bb", "moves"), "c": f("c", "stays"), "d": f("d", "same", "more")},
	}
	r, list := stored(t, m)
	d, err := r.Diff(t.Context(), list[0], list[1], ListingOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for err == nil {
		_, err = d.Next()
	}
	if got, want := d.Difference(), (Difference{Chunks: 2, Bytes: 8, ChunksRemoved: 1, BytesRemoved: 3}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
