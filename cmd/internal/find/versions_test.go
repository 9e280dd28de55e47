package find

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/cmd/internal/systemtest"
	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo"
)

// TestSearch compares what is found in each kind of system with a search through
// every listing.
func TestSearch(t *testing.T) {
	for seed := range uint64(25) {
		system := systemtest.Random(seed, 7)
		systems := map[string]format.System{
			"differences": system,
			"whole":       &systemtest.System{Listings: system.Listings, Whole: true},
			"unsorted":    &systemtest.System{Listings: system.Listings, Whole: true, Unsorted: true},
			"repo":        system.Repo(t),
		}
		for _, flags := range []Find{
			{Patterns: []string{"*"}},
			{Patterns: []string{"a1"}},
			{Patterns: []string{"a1/"}},
			{Patterns: []string{"b*", "!b2"}},
			{Patterns: []string{"/d1/a*"}},
			{Patterns: []string{"/d0/**"}, Type: []string{"file"}},
			{Patterns: []string{"D1"}, IgnoreCase: true},
			{Patterns: []string{"*"}, LargerThan: "5", SmallerThan: "25"},
			{Patterns: []string{"*"}, NewerThan: "1970-01-01T00:00:00Z", OlderThan: "1970-01-01T00:00:02Z"},
			{Patterns: []string{"*"}, Type: []string{"symlink", "dir"}},
			{Patterns: []string{"nothing"}},
		} {
			want, err := flags.wanted(time.Now())
			if err != nil {
				t.Fatal(err)
			}
			expected := searchListings(system.Listings, want)
			for name, system := range systems {
				list, err := system.Snapshots(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				add := func(v *version) error {
					e, err := v.entry()
					if err != nil {
						t.Fatal(err)
					}
					first := slices.IndexFunc(list, func(s *format.Snapshot) bool { return s.ID == v.first.ID })
					last := slices.IndexFunc(list, func(s *format.Snapshot) bool { return s.ID == v.last.ID })
					if v.snapshots != last-first+1 {
						t.Errorf("%d snapshots from %d to %d", v.snapshots, first, last)
					}
					got = append(got, text(e, first, last))
					return nil
				}
				if err := search(t.Context(), system, list, want, nil, add); err != nil {
					t.Fatal(err)
				}
				if r, ok := system.(*repo.Repository); ok {
					compareRepo(t, r, list, want, &got, add)
				}
				if diff := cmp.Diff(expected, got); diff != "" {
					t.Errorf("seed %d, %s, %+v: %s", seed, name, flags.Patterns, diff)
				}
			}
		}
	}
}

// compareRepo searches a repository's listings all at once; add gathers in got.
func compareRepo(t *testing.T, r *repo.Repository, list []*format.Snapshot, want *wanted, got *[]string, add func(*version) error) {
	t.Helper()
	expected := *got
	*got = nil
	own, _, err := r.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := searchRepo(t.Context(), r, own, list, want, nil, add); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(expected, *got); diff != "" {
		t.Errorf("all at once: %s", diff)
	}
}

func text(e *format.Entry, first, last int) string {
	return fmt.Sprintf("%s %s %d %d: %d-%d", e.Path, e.Type, e.Size, e.Mtime.Sec, first, last)
}

// searchListings looks into every listing.
func searchListings(listings []systemtest.Listing, want *wanted) (out []string) {
	var paths []string
	for _, l := range listings {
		for p := range l {
			paths = append(paths, p)
		}
	}
	slices.SortFunc(paths, format.ComparePaths)
	for _, p := range slices.Compact(paths) {
		first := -1 // of the version that is being followed
		for n := 0; n <= len(listings); n++ {
			var e, before format.Entry
			there := false
			if n < len(listings) {
				f, ok := listings[n][p]
				e, there = f.Entry, ok && want.match(&f.Entry)
			}
			if first >= 0 {
				before = listings[n-1][p].Entry
				if !there || !e.Equal(&before) {
					out = append(out, text(&before, first, n-1))
					first = -1
				}
			}
			if there && first < 0 {
				first = n
			}
		}
	}
	return out
}

func TestHistories(t *testing.T) {
	snap := func(n byte, host string, roots ...string) *format.Snapshot {
		return &format.Snapshot{ID: format.ID{n}, Host: host, Roots: roots}
	}
	list := []*format.Snapshot{snap(1, "a", "x", "y"), snap(2, "b", "x"), snap(3, "a", "y", "x"), snap(4, "a", "x"), snap(5, "b", "x")}
	var got [][]byte
	for _, h := range histories(list) {
		var ids []byte
		for _, s := range h {
			ids = append(ids, s.ID[0])
		}
		got = append(got, ids)
	}
	if diff := cmp.Diff([][]byte{{1, 3}, {2, 5}, {4}}, got); diff != "" {
		t.Error(diff)
	}
}

// TestReadsDifferences: what did not change is not read again.
func TestReadsDifferences(t *testing.T) {
	big := systemtest.Listing{}
	for i := range 6000 {
		path := fmt.Sprintf("d0/f%04d", i)
		big[path] = systemtest.File{Entry: format.Entry{Path: path, Type: format.TypeFile, Has: format.HasMtime, Mtime: format.Time{Sec: int64(i)}}}
	}
	system := &systemtest.System{Listings: []systemtest.Listing{big}}
	for n := range 20 {
		next := systemtest.Listing{}
		for p, f := range system.Listings[n] {
			next[p] = f
		}
		path := fmt.Sprintf("d0/f%04d", 250*n)
		f := next[path]
		f.Entry.Mtime.Sec = -1
		next[path] = f
		system.Listings = append(system.Listings, next)
	}
	r := system.Repo(t)
	list, err := r.Snapshots(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want, err := (&Find{Patterns: []string{"f*0"}}).wanted(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	count := func(list []*format.Snapshot) int {
		calls := 0
		onEntry := func(format.Progress) { calls++ }
		if _, err := searchDifferences(t.Context(), r, list, want, onEntry); err != nil {
			t.Fatal(err)
		}
		return calls
	}
	if one, all := count(list[:1]), count(list); one != 600 || all != one+20 {
		t.Errorf("%d entries in one snapshot, %d in 21", one, all)
	}
}
