package listing

import (
	"encoding/json"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/cmd/internal/systemtest"
	"github.com/bk-backup/bk/format"
)

// read walks a listing and skips what lies below some of the entries.
func read(t *testing.T, e Entries, skip func(path string) bool) (paths []string) {
	t.Helper()
	defer e.Close()
	for {
		entry, err := e.Next()
		if err == io.EOF {
			return paths
		}
		if err != nil {
			t.Fatal(err)
		}
		if entry.Type == format.TypeFile && entry.Has&format.HasSize == 0 {
			t.Errorf("%s has no size", entry.Path)
		}
		paths = append(paths, entry.Path)
		if skip(entry.Path) {
			if err := e.SkipBelow(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestOpen: every kind of system is walked alike.
func TestOpen(t *testing.T) {
	for seed := range uint64(6) {
		system := systemtest.Random(seed, 3)
		systems := map[string]format.System{
			"sorted":   system,
			"whole":    &systemtest.System{Listings: system.Listings, Whole: true},
			"unsorted": &systemtest.System{Listings: system.Listings, Unsorted: true},
			"repo":     system.Repo(t),
		}
		for _, below := range []string{"", "d0", "d1/a0", "nowhere"} {
			for _, skipping := range []bool{false, true} {
				skip := func(path string) bool {
					return skipping && rand.New(rand.NewPCG(uint64(len(path)), uint64(path[len(path)-1]))).IntN(3) == 0
				}
				for n, listing := range system.Listings {
					want := expected(listing, below, skip)
					for name, system := range systems {
						snaps, _, err := cli.ListSnapshots(t.Context(), system)
						if err != nil {
							t.Fatal(err)
						}
						entries, err := Open(t.Context(), snaps, snaps.List[n], below, nil)
						if err != nil {
							t.Fatal(err)
						}
						if diff := cmp.Diff(want, read(t, entries, skip)); diff != "" {
							t.Errorf("%s, below %q, skipping %t: %s", name, below, skipping, diff)
						}
					}
				}
			}
		}
	}
}

// expected is what a walk over a listing hands out.
func expected(listing systemtest.Listing, below string, skip func(string) bool) (paths []string) {
	skipped := ""
	for _, p := range slices.SortedFunc(maps.Keys(listing), format.ComparePaths) {
		if below != "" && p != below && !format.IsBelow(p, below) || skipped != "" && format.IsBelow(p, skipped) {
			continue
		}
		paths = append(paths, p)
		if skip(p) {
			skipped = p
		}
	}
	return paths
}

func TestLevels(t *testing.T) {
	for path, want := range map[string]int{"": 0, "a": 1, "a/b": 2, "a/b/c": 3} {
		if got := levels(path); got != want {
			t.Errorf("%q: %d", path, got)
		}
	}
}

func TestLong(t *testing.T) {
	for _, c := range []struct {
		entry format.Entry
		want  string
	}{
		{format.Entry{Path: "a b", Type: format.TypeFile, Has: format.HasMode | format.HasSize | format.HasMtime | format.HasUID, Mode: 0o640, UID: 7, Size: 12, Group: "staff"},
			"-rw-r----- 7        staff             12 1970-01-01 00:00:00 /a b"},
		{format.Entry{Path: "l\x1b", Type: format.TypeSymlink, Target: "x\ny", Has: format.HasMtime, Mtime: format.Time{Sec: 1 << 50}},
			`l????????? ?        ?                  - @1125899906842624   /l\x1b -> x\x0ay`},
		{format.Entry{Path: "", Type: format.TypeChar, Rdev: format.Rdev{Major: 8, Minor: 1}},
			"c????????? ?        ?               8, 1 -                   /"},
	} {
		if got := string(AppendLong(nil, &c.entry, time.UTC)); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

func TestJSON(t *testing.T) {
	e := format.Entry{Path: "\xff", Type: format.TypeFile, Has: format.HasMode | format.HasUID, Mode: 0o7, User: "\xfe", Hardlink: "\x01", Xattrs: []format.Xattr{{Name: "user.a"}}}
	b, err := json.Marshal(JSON(&e))
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"path_hex":"2fff","type":"file","mode":"0007","uid":0,"user_hex":"fe","hardlink":"01","xattrs":["user.a"]}`; string(b) != want {
		t.Errorf("%s, want %s", b, want)
	}
}
