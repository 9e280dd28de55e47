package tree

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bk-backup/bk/format"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// change is a Change in a form that can be compared.
type change struct {
	Path     string
	Old, New *testFile
}

func naiveDiff(older, newer []testFile, below string) []change {
	var changes []change
	add := func(c change) {
		if below == "" || c.Path == below || format.IsBelow(c.Path, below) {
			changes = append(changes, c)
		}
	}
	for len(older) > 0 || len(newer) > 0 {
		c := 0
		switch {
		case len(older) == 0:
			c = 1
		case len(newer) == 0:
			c = -1
		default:
			c = format.ComparePaths(older[0].Path, newer[0].Path)
		}
		switch {
		case c < 0:
			add(change{older[0].Path, &older[0], nil})
			older = older[1:]
		case c > 0:
			add(change{newer[0].Path, nil, &newer[0]})
			newer = newer[1:]
		default:
			if !cmp.Equal(older[0], newer[0], cmpopts.EquateEmpty()) {
				add(change{older[0].Path, &older[0], &newer[0]})
			}
			older, newer = older[1:], newer[1:]
		}
	}
	return changes
}

func diffAll(tb testing.TB, a *memory, rootA format.ID, b *memory, rootB format.ID, opts DiffOptions) []change {
	tb.Helper()
	d, err := NewDiff(context.Background(), Listing{a, rootA}, Listing{b, rootB}, opts)
	if err != nil {
		tb.Fatal(err)
	}
	defer d.Close()
	var changes []change
	for {
		c, err := d.Next()
		if err == io.EOF {
			return changes
		}
		if err != nil {
			tb.Fatal(err)
		}
		got := change{Path: c.Path}
		if c.Old != nil {
			f := fileOf(tb, a, c.Old)
			got.Old = &f
		}
		if c.New != nil {
			f := fileOf(tb, b, c.New)
			got.New = &f
		}
		changes = append(changes, got)
	}
}

func TestDiffEqualsNaiveDiff(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		a, b := newMemory(), newMemory()
		older := drawListing(rt, 60)
		newer := applyEdits(older, drawEdits(rt, older, 12))
		if rapid.IntRange(0, 4).Draw(rt, "unrelated") == 0 {
			newer = drawListing(rt, 60)
		}
		rootA, _ := build(t, a, older, true)
		rootB, _ := build(t, b, newer, rapid.IntRange(0, 4).Draw(rt, "cutsOfB") > 0)
		opts := DiffOptions{ReadAhead: rapid.SampledFrom([]int{0, 3}).Draw(rt, "ahead")}
		if rapid.Bool().Draw(rt, "hasBelow") {
			opts.Below = drawPath(rt, pathsOf(older))
		}
		got := diffAll(t, a, rootA, b, rootB, opts)
		if diff := cmp.Diff(naiveDiff(older, newer, opts.Below), got, cmpopts.EquateEmpty()); diff != "" {
			rt.Fatal(diff)
		}
		// A node that both have is never loaded.
		for _, id := range a.loads {
			if _, both := b.chunks[id]; both && id != rootA && id != rootB && opts.Below == "" {
				rt.Fatalf("node %s is in both listings and was loaded", id.Short())
			}
		}
	})
}

func TestDiffCostsWhatDiffers(t *testing.T) {
	m := newMemory()
	older := synthetic(50000, 40)
	newer := append([]testFile{}, older...)
	newer[10000].Sec++
	newer[40000].Sec++
	// Many entries before all others move every node of the tree.
	var front []testFile
	for _, f := range synthetic(3000, 40)[1:] {
		f.Path = "aaa/" + f.Path
		front = append(front, f)
	}
	newer = append(append(newer[:1:1], front...), newer[1:]...)
	rootA, _ := build(t, m, older, false)
	rootB, _ := build(t, m, newer, false)
	m.reset()
	changes := diffAll(t, m, rootA, m, rootB, DiffOptions{})
	if len(changes) != len(front)+2 {
		t.Fatalf("%d changes, want %d", len(changes), len(front)+2)
	}
	if len(m.loads) > 75 {
		t.Errorf("%d loads", len(m.loads))
	}
}

func TestDiffReadsAheadInParallel(t *testing.T) {
	m := newMemory()
	older := synthetic(40000, 40)
	newer := append([]testFile{}, older...)
	for i := 0; i < len(newer); i += 150 {
		newer[i].Sec++
	}
	rootA, _ := build(t, m, older, false)
	rootB, _ := build(t, m, newer, false)
	m.reset()
	m.delay = time.Second
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		changes := diffAll(t, m, rootA, m, rootB, DiffOptions{ReadAhead: 16})
		if len(changes) != (len(older)+149)/150 {
			t.Errorf("%d changes", len(changes))
		}
		if took, want := time.Since(begin), time.Duration(len(m.loads)/8)*m.delay; took > want {
			t.Errorf("comparing took %v with %d loads, want %v at most", took, len(m.loads), want)
		}
	})
}
