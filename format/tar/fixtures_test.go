package tar

import (
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/formattest"
)

// lostByGNU is what differs between a tree and its restore by GNU tar, as the
// fixtures' list of differences has it.
var lostByGNU = []string{
	"missing dev/socket",
	`hl/fifo1 hl: "", not "hl/fifo1"`,
	`hl/fifo2 hl: "", not "hl/fifo1"`,
	`x/immutable flags: "", not "i"`,
	`x/nodump flags: "", not "d"`,
}

// lostByBSD is what bsdtar does not write, and what it writes wrongly: libarchive
// 3.6.2 takes seconds and fractions apart in different directions before 1970.
var lostByBSD = []string{
	"missing dev/socket",
	`time/dir-1960 mtime: "-315619200000000001", not "-315619199999999999"`,
	`time/link-1965 mtime: "-157766400000000003", not "-157766399999999997"`,
	`time/minus-half mtime: "-1500000000", not "-500000000"`,
	`time/y1969 mtime: "-1000000123456789", not "-999999876543211"`,
}

// completeFixtures hold everything but what is listed.
var completeFixtures = map[string][]string{
	"snap1-gnutar-pax-sparse.tar": lostByGNU,
	"snap2-gnutar-pax-sparse.tar": lostByGNU,
	"snap3-gnutar-pax-sparse.tar": lostByGNU,
	"snap1-bsdtar-pax.tar":        lostByBSD,
}

// poorFixture is an archive in a format that holds less: what it can hold must
// be right.
type poorFixture struct {
	prefix  string // all it has
	ignore  []string
	missing int // objects that the tool may have left out
	losses  map[string]uint64
}

const perhaps = 50

var poorFixtures = map[string]poorFixture{
	"snap1-gnutar-pax-sparse00.tar":   {"size", nil, 0, nil},
	"snap1-gnutar-pax-sparse01.tar":   {"size", nil, 0, nil},
	"snap1-gnutar-gnu-sparse.tar":     {"", []string{"mtime", "x", "flags", "hl"}, 1, nil},
	"snap1-gnutar-oldgnu.tar":         {"", []string{"mtime", "x", "flags", "hl", "data"}, perhaps, nil},
	"snap1-gnutar-ustar.tar":          {"", []string{"mtime", "x", "flags", "hl", "data"}, perhaps, nil},
	"snap1-gnutar-v7.tar":             {"", []string{"mtime", "x", "flags", "hl", "data"}, perhaps, nil},
	"snap1-export-by-borg.tar":        {"", []string{"mtime", "x", "flags", "hl", "data"}, 1, nil},
	"snap1-dump-by-restic-v2.tar":     {"", []string{"mtime", "flags", "hl", "data"}, perhaps, map[string]uint64{"unreadable": 1}},
	"snap1-dump-by-restic-v2-new.tar": {"", []string{"mtime", "flags", "hl", "data"}, perhaps, map[string]uint64{"unreadable": 1}},
}

// TestFixtures reads what real tools wrote.
func TestFixtures(t *testing.T) {
	manifests := map[string]map[string]formattest.Fields{}
	for _, name := range []string{"snap1", "snap2", "snap3"} {
		manifests[name] = manifest(t, name)
	}
	met := 0
	fixtures(t, func(name string, r io.Reader) bool {
		lost, complete := completeFixtures[name]
		poor, isPoor := poorFixtures[name]
		if !complete && !isPoor || raceEnabled && strings.HasPrefix(name, "snap3") {
			return true
		}
		met++
		t.Run(name, func(t *testing.T) {
			l, err := readAll(t, r, Options{}, format.ExportOptions{})
			if err != nil {
				t.Fatal(err)
			}
			want := maps.Clone(manifests[name[:5]])
			got := formattest.Describe(l.Listing(), "tricky")
			if complete {
				if d := cmp.Diff(lost, formattest.Differences(want, got)); d != "" || len(l.Losses()) > 0 {
					t.Errorf("beside the manifest (-expected +found):\n%s\nlosses: %v", d, l.Losses())
				}
				return
			}
			poor.check(t, want, got)
			if d := cmp.Diff(poor.losses, l.Losses()); d != "" && len(l.Losses())+len(poor.losses) > 0 {
				t.Errorf("losses (-expected +found):\n%s", d)
			}
		})
		return true
	})
	if met < 12 {
		t.Errorf("only %d fixtures were met", met)
	}
}

func (f *poorFixture) check(t *testing.T, want, got map[string]formattest.Fields) {
	t.Helper()
	for path := range want {
		if f.prefix != "" && path != f.prefix && !format.IsBelow(path, f.prefix) {
			delete(want, path)
		}
	}
	delete(got, ".")
	delete(want, ".")
	var missing, other []string
	for _, d := range formattest.Differences(want, got, f.ignore...) {
		switch {
		case strings.HasPrefix(d, "missing "):
			missing = append(missing, d)
		case strings.HasPrefix(d, "links/long-target "), strings.HasPrefix(d, "links/raw-target "),
			strings.HasPrefix(d, "x/link x:trusted"):
			// Cut by the old formats, changed or left out by restic.
		default:
			other = append(other, d)
		}
	}
	if len(missing) > f.missing || len(other) > 0 {
		t.Errorf("%d are missing: %q\ndiffer: %q", len(missing), missing, other)
	}
	if len(got) < 14 {
		t.Errorf("only %d objects were read", len(got))
	}
	for path, line := range got {
		if strings.HasPrefix(path, "time/") {
			continue // beyond what some of these can hold
		}
		w := want[path]["mtime"]
		if diff := secondsApart(line["mtime"], w); !slices.Contains(f.ignore, "mtime") && diff != 0 || diff > 1 {
			t.Errorf("%s has the mtime %s, not about %s", path, line["mtime"], w)
		}
	}
}

func secondsApart(a, b string) int64 {
	sec := func(s string) int64 {
		n := int64(0)
		for _, c := range strings.TrimPrefix(s, "-") {
			n = n*10 + int64(c-'0')
		}
		if strings.HasPrefix(s, "-") {
			n = -n
		}
		return n / 1e9
	}
	return max(sec(a)-sec(b), sec(b)-sec(a))
}

func TestFixturesIncremental(t *testing.T) {
	read := func(name string) (paths []string, losses map[string]uint64) {
		fixture(t, name, func(r io.Reader) {
			l, err := readAll(t, r, Options{}, format.ExportOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for path, o := range l.Listing() {
				paths = append(paths, path+" "+string(o.Entry.Type))
			}
			slices.Sort(paths)
			losses = l.Losses()
		})
		return paths, losses
	}
	paths, losses := read("incremental-level0.tar")
	want := []string{"tricky dir", "tricky/deleted dir", "tricky/deleted/x file", "tricky/kept dir", "tricky/kept/one file",
		"tricky/renamed-from dir", "tricky/renamed-from/two file"}
	if d := cmp.Diff(want, paths); d != "" || len(losses) > 0 {
		t.Errorf("level 0: %s, losses %v", d, losses)
	}
	paths, losses = read("incremental-level1.tar")
	want = []string{"tricky dir", "tricky/kept dir", "tricky/kept/one file", "tricky/renamed-to dir"}
	if d := cmp.Diff(want, paths); d != "" || losses[format.LossUnreadable] != 1 {
		t.Errorf("level 1: %s, losses %v: what did not change is to be named", d, losses)
	}
}
