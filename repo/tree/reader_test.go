package tree

import (
	"context"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bk-backup/bk/format"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

func TestReaderMovesAsTold(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := newMemory()
		files := drawListing(rt, 60)
		root, _ := build(t, m, files, true)
		below := ""
		if rapid.Bool().Draw(rt, "hasBelow") {
			below = drawPath(rt, pathsOf(files))
		}
		opts := ReaderOptions{Below: below, ReadAhead: rapid.SampledFrom([]int{0, 1, 5}).Draw(rt, "ahead")}
		inside := slices.DeleteFunc(slices.Clone(files), func(f testFile) bool {
			return below != "" && f.Path != below && !format.IsBelow(f.Path, below)
		})
		r, err := NewReader(context.Background(), Listing{m, root}, opts)
		if err != nil {
			rt.Fatal(err)
		}
		defer r.Close()
		next, last := 0, -1 // what is expected
		for range rapid.IntRange(0, 80).Draw(rt, "steps") {
			switch step := rapid.IntRange(0, 9).Draw(rt, "step"); {
			case step == 0:
				path := drawPath(rt, pathsOf(files))
				if err := r.Seek(path); err != nil {
					rt.Fatal(err)
				}
				next, _ = slices.BinarySearchFunc(inside, path, func(f testFile, p string) int { return format.ComparePaths(f.Path, p) })
			case step == 1 && last >= 0 && next == last+1:
				if err := r.SkipBelow(); err != nil {
					rt.Fatal(err)
				}
				for next < len(inside) && format.IsBelow(inside[next].Path, inside[last].Path) {
					next++
				}
				last = -1
			default:
				it, err := r.Next()
				if next == len(inside) {
					if err != io.EOF {
						rt.Fatalf("behind the end Next returned %v, %v", it, err)
					}
					continue
				}
				if err != nil {
					rt.Fatal(err)
				}
				if diff := cmp.Diff(inside[next], fileOf(t, m, it), cmpopts.EquateEmpty()); diff != "" {
					rt.Fatal(diff)
				}
				last = next
				next++
			}
		}
	})
}

func pathsOf(files []testFile) []string {
	paths := []string{""}
	for _, f := range files {
		paths = append(paths, f.Path)
	}
	return paths
}

func TestGet(t *testing.T) {
	ctx := context.Background()
	m := newMemory()
	files := synthetic(5000, 30)
	root, _ := build(t, m, files, false)
	for i := 0; i < len(files); i += 17 {
		m.reset()
		it, err := Get(ctx, Listing{m, root}, files[i].Path)
		if err != nil || it == nil {
			t.Fatal(files[i].Path, it, err)
		}
		if len(m.loads) > 3 {
			t.Fatalf("%d loads for one entry", len(m.loads))
		}
		if diff := cmp.Diff(files[i], fileOf(t, m, it), cmpopts.EquateEmpty()); diff != "" {
			t.Fatal(diff)
		}
		if it, err := Get(ctx, Listing{m, root}, files[i].Path+"\x01"); it != nil || err != nil {
			t.Fatal("found what is not there", it, err)
		}
	}
	entries, _, err := Totals(ctx, Listing{m, root})
	if err != nil || int(entries) != len(files) {
		t.Fatal(entries, err)
	}
}

func TestLongPartsLieOutside(t *testing.T) {
	ctx := context.Background()
	m := newMemory()
	u := NewBuilder(ctx, m, testKey)
	long := make([]byte, 5000)
	e := &format.Entry{Path: "f", Type: format.TypeFile, Xattrs: []format.Xattr{{Name: "user.long", Value: string(long)}}}
	f := testFile{EOF: string(long)}
	if err := u.Put(e, Content{}, f.eof()); err != nil {
		t.Fatal(err)
	}
	root, _, err := u.Finish()
	if err != nil {
		t.Fatal(err)
	}
	if n := len(m.chunks[root]); n > 200 {
		t.Errorf("the leaf has %d bytes", n)
	}
	it, err := Get(ctx, Listing{m, root}, "f")
	if err != nil {
		t.Fatal(err)
	}
	var got format.Entry
	if err := it.Decode(ctx, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(e, &got, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
	if eof, err := it.EOF(ctx); err != nil || string(eof) != string(f.eof()) {
		t.Errorf("the eof has %d bytes, error %v", len(eof), err)
	}
}

func TestSkipBelowDoesNotLoad(t *testing.T) {
	m := newMemory()
	root, stats := build(t, m, synthetic(50000, 2000), false)
	r, err := NewReader(context.Background(), Listing{m, root}, ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	m.reset()
	dirs := 0
	for {
		it, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if it.Path == "" {
			continue
		}
		dirs++
		if err := r.SkipBelow(); err != nil {
			t.Fatal(err)
		}
	}
	if dirs != 25 || len(m.loads) > 60 || stats.NodesSaved < 300 {
		t.Errorf("%d directories with %d loads of %d nodes", dirs, len(m.loads), stats.NodesSaved)
	}
}

func TestReadAheadLoadsInParallel(t *testing.T) {
	m := newMemory()
	files := synthetic(40000, 40)
	root, stats := build(t, m, files, false)
	m.delay = time.Second
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		got := readAll(t, m, root, ReaderOptions{ReadAhead: 16})
		if len(got) != len(files) {
			t.Fatalf("%d entries, want %d", len(got), len(files))
		}
		if took, want := time.Since(begin), time.Duration(stats.NodesSaved/10)*m.delay; took > want {
			t.Errorf("reading took %v, want %v at most", took, want)
		}
		if n := len(m.loads) - stats.NodesSaved; n > 4 {
			t.Errorf("%d nodes were loaded twice", n)
		}
		m.reset()
		r, err := NewReader(t.Context(), Listing{m, root}, ReaderOptions{ReadAhead: 4})
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		if len(m.loads) > 8 {
			t.Errorf("%d loads with 4 ahead", len(m.loads))
		}
	})
}

func TestSeekingBackStillReadsAhead(t *testing.T) {
	m := newMemory()
	files := synthetic(20000, 40)
	root, _ := build(t, m, files, false)
	r, err := NewReader(context.Background(), Listing{m, root}, ReaderOptions{ReadAhead: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, i := range []int{10000, 500, 15000, 0} {
		if err := r.Seek(files[i].Path); err != nil {
			t.Fatal(err)
		}
		if it, err := r.Next(); err != nil || it.Path != files[i].Path {
			t.Fatal(it, err)
		}
		next, ok := r.cur.nextPath()
		found := false
		for _, p := range r.f.pending {
			found = found || p.ref.path == next
		}
		if !ok || !found {
			t.Errorf("at entry %d the leaf that comes next is not being loaded", i)
		}
	}
}

func TestReaderStopsWithItsContext(t *testing.T) {
	m := newMemory()
	root, _ := build(t, m, synthetic(5000, 40), false)
	ctx, cancel := context.WithCancel(context.Background())
	r, err := NewReader(ctx, Listing{m, root}, ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cancel()
	for err == nil {
		_, err = r.Next()
	}
	if err != context.Canceled {
		t.Errorf("the error is %v", err)
	}
}

// TestCloseEarly closes readers while nodes are being loaded ahead, before the
// goroutines that load them have begun, and again.
func TestCloseEarly(t *testing.T) {
	m := newMemory()
	root, _ := build(t, m, synthetic(3000, 50), true)
	other, _ := build(t, m, synthetic(2500, 40), true)
	for i := range 500 {
		r, err := NewReader(t.Context(), Listing{m, root}, ReaderOptions{ReadAhead: 8})
		if err != nil {
			t.Fatal(err)
		}
		d, err := NewDiff(t.Context(), Listing{m, root}, Listing{m, other}, DiffOptions{ReadAhead: 8})
		if err != nil {
			t.Fatal(err)
		}
		for range i % 4 * 100 {
			if _, err := r.Next(); err != nil {
				t.Fatal(err)
			}
			if _, err := d.Next(); err != nil {
				t.Fatal(err)
			}
		}
		r.Close()
		r.Close()
		d.Close()
		d.Close()
	}
}
