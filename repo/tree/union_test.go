package tree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format"
)

// LoadBatch implements BatchLoader.
func (m *memory) LoadBatch(ctx context.Context, ids []format.ID, fn func(number int, plain []byte, err error)) error {
	for i, id := range ids {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		plain, err := m.Load(ctx, id)
		fn(i, append(format.AllocPayload(len(plain))[:0], plain...), err)
	}
	return nil
}

// randomListings makes a history of small changes; some listings are equal.
func randomListings(rng *rand.Rand, n int) (out [][]testFile) {
	files := map[string]testFile{}
	for range n {
		for range rng.IntN(12) {
			var name []string
			for range 1 + rng.IntN(3) {
				name = append(name, fmt.Sprint(string(rune('a'+rng.IntN(6))), strings.Repeat("-", rng.IntN(2))))
			}
			path := strings.Join(name, "/")
			if rng.IntN(3) == 0 {
				delete(files, path)
				continue
			}
			files[path] = testFile{Path: path, Type: format.TypeDir, Sec: int64(rng.IntN(4))}
		}
		l := slices.Collect(maps.Values(files))
		slices.SortFunc(l, func(a, b testFile) int { return format.ComparePaths(a.Path, b.Path) })
		out = append(out, l)
	}
	return out
}

// unionAll returns what a Union hands out, as "path second: listings".
func unionAll(t *testing.T, m *memory, roots []format.ID, opts UnionOptions) (out []string, err error) {
	t.Helper()
	u, err := NewUnion(t.Context(), m, roots, opts)
	if err != nil {
		return nil, err
	}
	defer u.Close()
	for {
		path, variants, err := u.Next()
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		var lines []string
		for i := range variants {
			var e format.Entry
			if err := variants[i].Item.Decode(t.Context(), &e); err != nil {
				t.Fatal(err)
			}
			lines = append(lines, fmt.Sprintf("%s %d: %s", path, e.Mtime.Sec, members(variants[i].In, len(roots))))
		}
		slices.Sort(lines)
		out = append(out, lines...)
	}
}

func members(s Set, n int) string {
	var b strings.Builder
	for i := range n {
		if s.Has(i) {
			fmt.Fprint(&b, i, " ")
		}
	}
	return b.String()
}

// naiveUnion is what unionAll returns, from the listings; of those that want
// allows, and but for what is not had.
func naiveUnion(listings [][]testFile, want func(path string) bool, had func(listing int, path string) bool) (out []string) {
	var paths []string
	in := map[string]map[int64]Set{}
	for i, l := range listings {
		for _, f := range l {
			if !want(f.Path) || !had(i, f.Path) {
				continue
			}
			if in[f.Path] == nil {
				in[f.Path] = map[int64]Set{}
				paths = append(paths, f.Path)
			}
			if in[f.Path][f.Sec] == nil {
				in[f.Path][f.Sec] = NewSet(len(listings))
			}
			in[f.Path][f.Sec].Add(i)
		}
	}
	slices.SortFunc(paths, format.ComparePaths)
	for _, p := range paths {
		var lines []string
		for sec, set := range in[p] {
			lines = append(lines, fmt.Sprintf("%s %d: %s", p, sec, members(set, len(listings))))
		}
		slices.Sort(lines)
		out = append(out, lines...)
	}
	return out
}

func always(int, string) bool { return true }

// TestUnion compares walks of many listings with the listings, reading each node
// once, with patterns and without, and with nodes that are gone.
func TestUnion(t *testing.T) {
	for seed := range uint64(24) {
		rng := rand.New(rand.NewPCG(seed, 1))
		m := newMemory()
		listings := randomListings(rng, 1+rng.IntN(68))
		roots := make([]format.ID, len(listings))
		for i, l := range listings {
			roots[i], _ = build(t, m, l, true)
		}
		ahead := []int{0, 3, 64}[seed%3]
		m.reset()
		got, err := unionAll(t, m, roots, UnionOptions{ReadAhead: ahead})
		if err != nil {
			t.Fatal(err)
		}
		all := func(string) bool { return true }
		if diff := cmp.Diff(naiveUnion(listings, all, always), got); diff != "" {
			t.Fatalf("seed %d: %s", seed, diff)
		}
		loads := m.loads
		seen := map[format.ID]bool{}
		for _, id := range loads {
			// The root of one listing may be a node of another.
			if seen[id] && !slices.Contains(roots, id) {
				t.Fatalf("seed %d: the node %s was loaded twice", seed, id.Short())
			}
			seen[id] = true
		}

		dir := string(rune('a' + rng.IntN(6)))
		below := func(path string) bool { return path == dir || format.IsBelow(path, dir) }
		m.reset()
		got, err = unionAll(t, m, roots, UnionOptions{ReadAhead: ahead, Want: below, Skip: func(d string) bool { return !below(d) && !format.IsBelow(dir, d) }})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(naiveUnion(listings, below, always), got); diff != "" {
			t.Fatalf("seed %d, below %s: %s", seed, dir, diff)
		}
		if len(m.loads) > len(loads) {
			t.Errorf("seed %d: %d loads for a part of what took %d", seed, len(m.loads), len(loads))
		}
		unionDamaged(t, seed, m, listings, roots, loads[rng.IntN(len(loads))], ahead)
	}
}

// unionDamaged loses a node: what lies in it is named, the rest comes.
func unionDamaged(t *testing.T, seed uint64, m *memory, listings [][]testFile, roots []format.ID, lost format.ID, ahead int) {
	t.Helper()
	if _, err := unionAll(t, m, roots, UnionOptions{ReadAhead: ahead, Lost: func(id format.ID) bool { return id == lost }}); !errors.Is(err, errLost) {
		t.Fatalf("seed %d: a lost node: %v", seed, err)
	}
	delete(m.chunks, lost)
	var ne *NodeError
	if _, err := unionAll(t, m, roots, UnionOptions{ReadAhead: ahead}); !errors.As(err, &ne) || ne.ID != lost {
		t.Fatalf("seed %d: %v, not the node that is gone", seed, err)
	}
	var gaps []UnionGap
	got, err := unionAll(t, m, roots, UnionOptions{ReadAhead: ahead, OnGap: func(g UnionGap) error { gaps = append(gaps, g); return nil }})
	if err != nil || len(gaps) == 0 {
		t.Fatalf("seed %d: %d gaps, %v", seed, len(gaps), err)
	}
	missing := 0
	had := func(listing int, path string) bool {
		for _, g := range gaps {
			if g.In.Has(listing) && g.covers(path) {
				missing++
				return false
			}
		}
		return true
	}
	if diff := cmp.Diff(naiveUnion(listings, func(string) bool { return true }, had), got); diff != "" {
		t.Fatalf("seed %d: beside what is gone: %s", seed, diff)
	}
	if missing == 0 && len(listings[0]) > 0 {
		t.Errorf("seed %d: nothing lay in the node that is gone", seed)
	}
}

func TestSet(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 2))
		n := 1 + rng.IntN(200)
		s, want := NewSet(n), [][2]int(nil)
		for i := 0; i < n; {
			to := min(n, i+1+rng.IntN(68))
			if rng.IntN(2) == 0 {
				for j := i; j < to; j++ {
					s.Add(j)
				}
				if k := len(want); k > 0 && want[k-1][1] == i {
					want[k-1][1] = to
				} else {
					want = append(want, [2]int{i, to})
				}
			}
			i = to
		}
		var got [][2]int
		for from, to := range s.Runs() {
			got = append(got, [2]int{from, to})
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("seed %d: %s", seed, diff)
		}
	}
}
