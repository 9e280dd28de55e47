package hardlinks

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format"
)

func TestNames(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"2024-01-15":                 "2024-01-15T00:00:00+01:00",
		"2024-01-15T020000":          "2024-01-15T02:00:00+01:00",
		"20240115_020001":            "2024-01-15T02:00:01+01:00",
		"20240115":                   "2024-01-15T00:00:00+01:00",
		"2024-07-15-02-00-59":        "2024-07-15T02:00:59+02:00",
		"2024-01-15-020000":          "2024-01-15T02:00:00+01:00",
		"2024-01-15_02-00-00":        "2024-01-15T02:00:00+01:00",
		"2024-01-15 02:03":           "2024-01-15T02:03:00+01:00",
		"2024.01.15":                 "2024-01-15T00:00:00+01:00",
		"20240115-020000-123":        "2024-01-15T02:00:00+01:00",
		"backup-2024-01-15_0200":     "2024-01-15T02:00:00+01:00",
		"srv1-2024-01-15":            "2024-01-15T00:00:00+01:00",
		"2024-01-15T02:00:00Z":       "2024-01-15T02:00:00Z",
		"2024-01-15T02:00:00-03:30":  "2024-01-15T02:00:00-03:30",
		"2024-01-15T02:00:00+0100":   "2024-01-15T02:00:00+01:00",
		"@GMT_2024.01.15-02.00.00":   "2024-01-15T02:00:00+01:00",
		"2024-02-29":                 "2024-02-29T00:00:00+01:00",
		"2023-02-29":                 "",
		"2024-13-01":                 "",
		"2024-00-10":                 "",
		"2024-01-15-250000":          "",
		"home":                       "",
		"1234567890":                 "",
		"2024-01":                    "",
		"12024-01-15":                "",
		"2024-01-15T02:00:00+01:00x": "",
	} {
		s, ok := datePattern.parse(name, berlin)
		got := ""
		if ok {
			got = s.time.Format(time.RFC3339)
		}
		if got != want {
			t.Errorf("%q is %q, not %q", name, got, want)
		}
	}
	for name, want := range map[string]int{"daily.0": 0, "weekly.12": 12, "backup-3": 3, "snap_7": 7, "daily": -1, "x.y": -1, "7": -1, ".5": -1} {
		s, ok := numberPattern.parse(name, berlin)
		if !ok {
			s.number = -1
		}
		if s.number != want {
			t.Errorf("%q has the number %d, not %d", name, s.number, want)
		}
	}
}

func TestPatterns(t *testing.T) {
	for _, c := range []struct{ pattern, name, want string }{
		{"host-%d.%m.%Y", "host-15.01.2024", "2024-01-15T00:00:00Z"},
		{"*_%Y%m%d%H%M%S", "a_b_20240115020304", "2024-01-15T02:03:04Z"},
		{"at%s", "at1705284000", "2024-01-15T02:00:00Z"},
		{"%Y-%m-%dT%H%z", "2024-01-15T02+0200", "2024-01-15T02:00:00+02:00"},
		{"100%%-%Y?%m?%d", "100%-2024/01/15", "2024-01-15T00:00:00Z"},
		{"gen%N", "gen5", "number 5"},
		{"a.c", "abc", ""},
		{"*", "anything", "number 0"},
	} {
		p, err := parsePattern(c.pattern)
		if err != nil {
			t.Errorf("%s: %v", c.pattern, err)
			continue
		}
		got := ""
		if s, ok := p.parse(c.name, time.UTC); ok && s.hasTime {
			got = s.time.In(s.time.Location()).Format(time.RFC3339)
			if c.pattern == "at%s" {
				got = s.time.UTC().Format(time.RFC3339)
			}
		} else if ok {
			got = fmt.Sprint("number ", s.number)
		}
		if got != c.want {
			t.Errorf("%s with %q is %q, not %q", c.pattern, c.name, got, c.want)
		}
	}
	for pattern, want := range map[string]string{"%x": "followed by one of", "a%": "followed by", "%Y%Y": "twice", "%H": "parts of a time", "%Y-%m": "parts of a time"} {
		if _, err := parsePattern(pattern); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", pattern, err)
		}
	}
}

// set makes directories with the given times of modification; what ends in / is
// a directory.
func set(t *testing.T, names map[string]int64) string {
	t.Helper()
	root := t.TempDir()
	for name := range names {
		path := filepath.Join(root, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if err == nil && strings.HasSuffix(name, "/") {
			err = os.MkdirAll(path, 0o755)
		} else if err == nil {
			err = os.WriteFile(path, nil, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, sec := range names {
		if sec > 0 {
			if err := os.Chtimes(filepath.Join(root, name), time.Unix(sec, 5), time.Unix(sec, 5)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return root
}

func TestSets(t *testing.T) {
	for name, c := range map[string]struct {
		names   map[string]int64
		opts    Options
		want    []string // trees, oldest first
		skipped []string
		inside  string
	}{
		"rsnapshot": {
			names: map[string]int64{"daily.0/localhost/": 0, "daily.1/localhost/": 0, "weekly.0/localhost/": 0, ".sync/": 0, "_delete.123/": 0,
				"daily.0/": 400, "daily.1/": 300, "weekly.0/": 100, "rsnapshot.log": 0},
			want: []string{"weekly.0", "daily.1", "daily.0"}, skipped: []string{".sync", "_delete.123"}, inside: "localhost"},
		"rsnapshot, several points": {
			names: map[string]int64{"daily.0/localhost/": 0, "daily.0/other/": 0, "daily.1/localhost/": 0, "daily.0/": 400, "daily.1/": 300},
			want:  []string{"daily.1", "daily.0"}},
		"a point that is chosen": {
			names: map[string]int64{"daily.0/localhost/": 0, "daily.0/other/": 0, "daily.1/localhost/": 0, "daily.0/": 400, "daily.1/": 300},
			opts:  Options{Inside: "/other/", InsideSet: true},
			want:  []string{"daily.0"}, skipped: []string{"daily.1"}, inside: "other"},
		"dates": {
			names: map[string]int64{"2024-01-15/": 0, "2023-12-31T235959/": 0, "2024-01-16.partial/": 0, "2024-01-16.part/": 0, "2024-01-17.incomplete/": 0, "incomplete_2024-01-18/": 0,
				"lost+found/": 0, "latest": 0},
			want:    []string{"2023-12-31T235959", "2024-01-15"},
			skipped: []string{"2024-01-16.part", "2024-01-16.partial", "2024-01-17.incomplete", "incomplete_2024-01-18", "lost+found"}},
		"rsync-time-backup": {
			names: map[string]int64{"2024-01-15-020000/": 0, "2024-01-16-020000/": 0, "backup.marker": 0},
			want:  []string{"2024-01-15-020000", "2024-01-16-020000"}},
		"rsync-time-backup, running": {
			names: map[string]int64{"2024-01-15-020000/": 0, "2024-01-16-020000/": 0, "backup.marker": 0, "backup.inprogress": 0},
			want:  []string{"2024-01-15-020000"}, skipped: []string{"2024-01-16-020000"}},
		"cp -al, one time": {
			names: map[string]int64{"backup.0/": 100, "backup.1/": 100, "backup.2/": 100, "backup.10/": 100},
			want:  []string{"backup.10", "backup.2", "backup.1", "backup.0"}},
		"two sets": {
			names: map[string]int64{"home-2024-01-15/": 0, "home-2024-01-16/": 0, "etc-2024-01-15/": 0},
			want:  []string{"home-2024-01-15", "home-2024-01-16"}, skipped: []string{"etc-2024-01-15"}},
		"one of two sets": {
			names: map[string]int64{"home-2024-01-15/": 0, "home-2024-01-16/": 0, "etc-2024-01-15/": 0},
			opts:  Options{Pattern: "etc-%Y-%m-%d"},
			want:  []string{"etc-2024-01-15"}, skipped: []string{"home-2024-01-15", "home-2024-01-16"}},
		"Timeshift": {
			names: map[string]int64{"2024-01-15_02-00-00/localhost/": 0, "2024-01-15_02-00-00/info.json": 0},
			want:  []string{"2024-01-15_02-00-00"}, inside: "localhost"},
		"Back In Time": {
			names: map[string]int64{"20240115-020000-123/backup/": 0, "20240115-020000-123/info": 0, "new_snapshot/": 0},
			want:  []string{"20240115-020000-123"}, skipped: []string{"new_snapshot"}, inside: "backup"},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, set(t, c.names), c.opts)
			var trees, skipped []string
			for _, f := range s.found.trees {
				trees = append(trees, f.name)
			}
			for _, sk := range s.Skipped() {
				skipped = append(skipped, sk.Name)
			}
			slices.Sort(skipped)
			if d := cmp.Diff(c.want, trees); d != "" {
				t.Errorf("trees (-want +got):\n%s", d)
			}
			if d := cmp.Diff(c.skipped, skipped); d != "" {
				t.Errorf("skipped (-want +got):\n%s", d)
			}
			if s.Inside() != c.inside {
				t.Errorf("inside is %q", s.Inside())
			}
			ids := map[format.ID]bool{}
			list, err := s.Snapshots(t.Context())
			for _, snap := range list {
				ids[snap.ID] = true
			}
			if err != nil || len(ids) != len(trees) {
				t.Errorf("%d ids of %d trees, error %v", len(ids), len(trees), err)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	empty := t.TempDir()
	if _, err := Open(empty, Options{}); !errors.Is(err, ErrNone) {
		t.Errorf("an empty directory: %v", err)
	}
	if _, err := Open(empty+"/none", Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	if _, err := Open(empty, Options{Pattern: "%"}); err == nil || !strings.Contains(err.Error(), "pattern") {
		t.Errorf("a bad pattern: %v", err)
	}
	if _, err := Open(empty, Options{At: "a/../b"}); err == nil || errors.Is(err, ErrNone) {
		t.Errorf("a bad place: %v", err)
	}
}

// TestIDs has ids outlive a rotation and change with how trees are read.
func TestIDs(t *testing.T) {
	root := set(t, map[string]int64{"daily.0/": 400, "daily.1/": 300})
	ids := func(opts Options) []format.ID {
		opts.Name = "set"
		list, err := open(t, root, opts).Snapshots(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var out []format.ID
		for _, s := range list {
			out = append(out, s.ID)
		}
		return out
	}
	before := ids(Options{})
	if slices.Equal(before, ids(Options{At: "home/u"})) {
		t.Error("placing the trees elsewhere leaves the ids")
	}
	for _, move := range [][2]string{{"daily.1", "daily.2"}, {"daily.0", "daily.1"}} {
		if err := os.Rename(filepath.Join(root, move[0]), filepath.Join(root, move[1])); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff(before, ids(Options{})); d != "" {
		t.Errorf("after a rotation (-before +after):\n%s", d)
	}
}

// TestRotationWhileReading has a rotation rename a tree before it was read to
// its end.
func TestRotationWhileReading(t *testing.T) {
	root := set(t, map[string]int64{"daily.0/a": 0, "daily.1/a": 0, "daily.0/": 400, "daily.1/": 300})
	system := open(t, root, Options{})
	src, err := system.Export(t.Context(), format.ExportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	commits := 0
	for err == nil {
		var rec format.Record
		rec, err = src.Next()
		if rec == nil {
			break
		}
		switch rec.Kind() {
		case format.KindEntry:
			_ = os.Rename(root+"/daily.1", root+"/daily.2")
		case format.KindCommit:
			commits++
		}
	}
	if err == nil || !strings.Contains(err.Error(), "renamed or removed while it was read") || commits > 0 {
		t.Errorf("%d snapshots were complete, then: %v", commits, err)
	}
}

func TestAtAndHost(t *testing.T) {
	root := set(t, map[string]int64{"2024-01-15/x/a": 0})
	h := read(t, root, Options{At: "/home/u/", Host: "h"}, format.ExportOptions{})
	if d := cmp.Diff([]string{"home/u", "home/u/x", "home/u/x/a"}, h[0].Changes); d != "" {
		t.Error(d)
	}
	if s := h[0].Record; s.Host != "h" || !slices.Equal(s.Roots, []string{"home/u"}) || s.Origin.System != "hardlinks" {
		t.Errorf("%+v", s)
	}
	dropped := read(t, root, Options{At: "home/u"}, format.ExportOptions{Drop: func(path string, isDir bool) (bool, bool) { return path == "home/u/x/a", false }})
	if d := cmp.Diff([]string{"home/u", "home/u/x"}, dropped[0].Changes); d != "" {
		t.Error(d)
	}
}
