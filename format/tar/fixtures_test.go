package tar

import (
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format"
)

// lostByGNU is what differs between a tree and its restore by GNU tar, as the
// fixtures' list of differences has it.
var lostByGNU = []string{
	"hl/fifo1 hl: hl/fifo1 -> ",
	"hl/fifo2 hl: hl/fifo1 -> ",
	"missing dev/socket socket",
	"x/immutable flags: immutable -> ",
	"x/nodump flags: nodump -> ",
}

func TestFixturesComplete(t *testing.T) {
	lostByBSD := []string{
		"missing dev/socket socket",
		// libarchive 3.6.2 writes the seconds before 1970 wrongly.
		"time/dir-1960 mtime: -315619199999999999 -> -315619200000000001",
		"time/link-1965 mtime: -157766399999999997 -> -157766400000000003",
		"time/minus-half mtime: -500000000 -> -1500000000",
		"time/y1969 mtime: -999999876543211 -> -1000000123456789",
	}
	for name, want := range map[string][]string{
		"snap1-gnutar-pax-sparse": lostByGNU,
		"snap2-gnutar-pax-sparse": lostByGNU,
		"snap3-gnutar-pax-sparse": lostByGNU,
		"snap1-bsdtar-pax":        lostByBSD,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fixture(t, name+".tar", func(r io.Reader) {
				l, err := readAll(t, r, Options{}, format.ExportOptions{})
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(want, differences(manifest(t, name[:5]), l.lines("tricky"))); d != "" {
					t.Errorf("beside the manifest (-expected +found):\n%s", d)
				}
				if len(l.losses()) > 0 {
					t.Errorf("losses: %v", l.losses())
				}
			})
		})
	}
}

// TestFixturesPoor reads archives in formats that hold less: what they can hold
// must be right.
func TestFixturesPoor(t *testing.T) {
	const perhaps = 50 // objects that the tools refused to write at all
	for _, test := range []struct {
		name    string
		prefix  string
		ignore  []string
		missing int
		losses  map[string]uint64
	}{
		{"snap1-gnutar-pax-sparse00", "size", []string{}, 0, nil},
		{"snap1-gnutar-pax-sparse01", "size", []string{}, 0, nil},
		{"snap1-gnutar-gnu-sparse", "", []string{"mtime", "x", "flags", "hl"}, 1, nil},
		{"snap1-gnutar-oldgnu", "", []string{"mtime", "x", "flags", "hl", "data"}, perhaps, nil},
		{"snap1-gnutar-ustar", "", []string{"mtime", "x", "flags", "hl", "data"}, perhaps, nil},
		{"snap1-gnutar-v7", "", []string{"mtime", "x", "flags", "hl", "data"}, perhaps, nil},
		{"snap1-export-by-borg", "", []string{"mtime", "x", "flags", "hl", "data"}, 1, nil},
		{"snap1-dump-by-restic-v2", "", []string{"mtime", "flags", "hl", "data"}, perhaps, map[string]uint64{"unreadable": 1}},
		{"snap1-dump-by-restic-v2-new", "", []string{"mtime", "flags", "hl", "data"}, perhaps, map[string]uint64{"unreadable": 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			fixture(t, test.name+".tar", func(r io.Reader) {
				l, err := readAll(t, r, Options{}, format.ExportOptions{})
				if err != nil {
					t.Fatal(err)
				}
				want := manifest(t, "snap1")
				for path := range want {
					if test.prefix != "" && path != test.prefix && !format.IsBelow(path, test.prefix) {
						delete(want, path)
					}
				}
				got := l.lines("tricky")
				delete(got, ".")
				delete(want, ".")
				var missing, other []string
				for _, d := range differences(want, got, test.ignore...) {
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
				if len(missing) > test.missing || len(other) > 0 {
					t.Errorf("%d are missing: %q\ndiffer: %q", len(missing), missing, other)
				}
				if len(got) < 14 {
					t.Errorf("only %d objects were read", len(got))
				}
				if d := cmp.Diff(test.losses, l.losses()); d != "" && len(l.losses())+len(test.losses) > 0 {
					t.Errorf("losses (-expected +found):\n%s", d)
				}
				for path, line := range got {
					if strings.HasPrefix(path, "time/") {
						continue // beyond what some of these can hold
					}
					w := want[path]["mtime"]
					if diff := secondsApart(line["mtime"], w); !slices.Contains(test.ignore, "mtime") && diff != 0 || diff > 1 {
						t.Errorf("%s has the mtime %s, not about %s", path, line["mtime"], w)
					}
				}
			})
		})
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
			for path, o := range l.objects {
				paths = append(paths, path+" "+string(o.Type))
			}
			slices.Sort(paths)
			losses = l.losses()
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
