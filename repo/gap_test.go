package repo

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"testing"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/index"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store/mem"
)

// wideHistory has snapshots whose listings are several nodes, and one entry whose
// metadata lies outside of its node.
func wideHistory() model {
	m := model{{}}
	for i := range 1500 {
		path := fmt.Sprintf("d%02d/entry-%d", i/100, i%100)
		m[0][path] = file{entry: modelEntry(path, format.TypeSymlink)}
	}
	long := modelEntry("d07/long", format.TypeSymlink)
	long.Target = strings.Repeat("x", 4000)
	m[0]["d07/long"] = file{entry: long}
	for n := range 3 {
		next := maps.Clone(m[n])
		for i := range 40 {
			path := fmt.Sprintf("d%02d/entry-%d", (7*i+n)%15, i)
			f := next[path]
			f.entry.Mtime.Sec = int64(n + 1)
			next[path] = f
		}
		delete(next, fmt.Sprintf("d0%d/entry-50", n))
		m = append(m, next)
	}
	return m
}

// gapSet tells for which paths of which snapshots gaps were named.
type gapSet struct {
	t    *testing.T
	list []Gap
}

func (g *gapSet) add(gap Gap) {
	if len(gap.Snapshots) == 0 || gap.Err == nil {
		g.t.Errorf("a gap in no snapshot, or without a reason: %+v", gap)
	}
	g.list = append(g.list, gap)
}

func (g *gapSet) has(s *Snapshot, path string) bool {
	for _, gap := range g.list {
		covers := gap.Path == path
		if !gap.One {
			covers = format.ComparePaths(path, gap.Path) >= 0 && (gap.Before == "" || format.ComparePaths(path, gap.Before) < 0)
		}
		for _, in := range gap.Snapshots {
			if covers && in.ID == s.ID {
				return true
			}
		}
	}
	return false
}

// TestGaps damages every chunk of the listings, one at a time: whoever reads them
// is told where, and gets the rest exactly; and again when a repair has marked it.
func TestGaps(t *testing.T) {
	t.Parallel()
	m := wideHistory()
	r, list := stored(t, m)
	st := r.store.(*mem.Store)
	chunks, cases, hurt := 0, 0, 0
	err := r.index.EachRecord(func(label seal.Label, hit index.Hit) error {
		if hit.Pack.Kind != seal.KindMetaPack {
			return nil
		}
		if chunks++; chunks%underRace(2, 20) > 0 {
			return nil
		}
		cases++
		damaged := st.Clone()
		damaged.Damage(hit.Pack.ObjectName(), func(b []byte) []byte { b[hit.Offset+3] ^= 1; return b })
		hurt += readWithGaps(t, damaged, m, list, false)
		if cases%underRace(12, 3) == 0 {
			if _, err := tryRepair(damaged, RepairOptions{}); err != nil {
				t.Fatal(err)
			}
			readWithGaps(t, damaged, m, list, true)
		}
		if t.Failed() {
			t.Fatalf("chunk %x", label)
		}
		return nil
	})
	if err != nil || hurt < cases/2 || cases < 4 {
		t.Errorf("%d of %d damages were met: %v", hurt, cases, err)
	}
	t.Logf("%d chunks, %d damages, %d of them met", chunks, cases, hurt)
}

// readWithGaps reads all listings in each way, and returns whether any of it was
// damaged.
func readWithGaps(t *testing.T, st *mem.Store, m model, list []*Snapshot, marked bool) (hurt int) {
	t.Helper()
	r := mustOpen(t, st)
	found := &gapSet{t: t}
	for i, s := range list {
		l, err := r.Listing(t.Context(), s, ListingOptions{OnGap: found.add})
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]string{}
		for {
			e, err := l.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			seen[e.Path] = describe(e)
		}
		l.Close()
		compareBeside(t, "listing", m[i], seen, func(path string) bool { return found.has(s, path) })
	}
	versionsWithGaps(t, r, m, list)
	for i := range list[1:] {
		diffWithGaps(t, r, m, list, i)
	}
	for _, gap := range found.list {
		if errors.Is(gap.Err, ErrKnownLost) != (marked && !gap.One) && (!marked || !errors.Is(gap.Err, ErrMissing)) {
			t.Errorf("marked %v, and it says: %v", marked, gap.Err)
		}
		hurt = 1
	}
	return hurt
}

// compareBeside compares entries with a model, but for what lies in gaps.
func compareBeside(t *testing.T, what string, want map[string]file, got map[string]string, inGap func(path string) bool) {
	t.Helper()
	for path, f := range want {
		is, there := got[path]
		delete(got, path)
		if there == inGap(path) || there && is != describe(&f.entry) {
			t.Errorf("%s: %s came: %v, in a gap: %v", what, path, there, inGap(path))
		}
	}
	for path := range got {
		t.Errorf("%s: %s came and was never there", what, path)
	}
}

func versionsWithGaps(t *testing.T, r *Repository, m model, list []*Snapshot) {
	t.Helper()
	found := &gapSet{t: t}
	v, err := r.Versions(t.Context(), list, VersionsOptions{OnGap: found.add})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	seen := make([]map[string]string, len(list))
	for i := range seen {
		seen[i] = map[string]string{}
	}
	for {
		versions, err := v.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		for i := range versions {
			for from, to := range versions[i].In.Runs() {
				for n := from; n < to; n++ {
					seen[n][versions[i].Entry.Path] = describe(&versions[i].Entry)
				}
			}
		}
	}
	for i, s := range list {
		compareBeside(t, "versions", m[i], seen[i], func(path string) bool { return found.has(s, path) })
	}
}

// diffWithGaps compares two snapshots: what differs is said but for what lies in
// gaps of either, and nothing else is.
func diffWithGaps(t *testing.T, r *Repository, m model, list []*Snapshot, i int) {
	t.Helper()
	found := &gapSet{t: t}
	d, err := r.Diff(t.Context(), list[i], list[i+1], ListingOptions{OnGap: found.add})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	said := map[string]bool{}
	for {
		c, err := d.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		said[c.Path] = true
	}
	all := maps.Clone(m[i])
	maps.Copy(all, m[i+1])
	for path := range all {
		a, before := m[i][path]
		b, after := m[i+1][path]
		differs := before != after || describe(&a.entry) != describe(&b.entry)
		inGap := found.has(list[i], path) || found.has(list[i+1], path)
		if said[path] != (differs && !inGap) {
			t.Errorf("diff: %s differs: %v, in a gap: %v, said: %v", path, differs, inGap, said[path])
		}
	}
}
