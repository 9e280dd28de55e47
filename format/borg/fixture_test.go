package borg

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/formattest"
)

// fixtures are the repositories in testdata. BORG_FIXTURES names a directory
// that may have more of them.
func fixtures(t testing.TB) (names []string) {
	t.Helper()
	dir := "testdata"
	if more := os.Getenv("BORG_FIXTURES"); more != "" {
		dir = more
	}
	paths, err := filepath.Glob(dir + "/borg-*.tar.zst")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		names = append(names, strings.TrimSuffix(strings.TrimPrefix(filepath.Base(p), "borg-"), ".tar.zst"))
	}
	if len(names) < 8 {
		t.Fatalf("only %d fixtures", len(names))
	}
	return names
}

// known are the differences between the trees and what borg recorded of them.
func known(want map[string]formattest.Fields) (list []string) {
	list = []string{
		`missing dev/socket`,
		`hl/sym1 hl: "", not "hl/sym1"`, // borg records no links of symbolic links
		`hl/sym2 hl: "", not "hl/sym1"`,
	}
	for path, was := range map[string]string{ // it has no times before 1970, and none behind January 2038
		"time/dir-1960": "0", "time/link-1965": "0", "time/minus-1s": "0", "time/minus-half": "0", "time/y1901": "0", "time/y1969": "0",
		"time/y2038": "2147310847000000000", "time/y2106": "2147310847000000000", "time/y2200": "2147310847000000000", "time/y2300": "2147310847000000000",
	} {
		list = append(list, path+` mtime: "`+was+`", not "`+want[path]["mtime"]+`"`)
	}
	return list
}

// checkFixture compares what was received with the manifests.
func checkFixture(t *testing.T, fixture string, list []*formattest.Received) {
	t.Helper()
	manifests := formattest.Unpack(t, "testdata/manifests.tar.zst")
	compared := 0
	for _, s := range list {
		name := s.Record.Tags[0]
		text := manifests[name+".txt"]
		if name == "parts" {
			continue
		}
		want := formattest.ParseManifest(text)
		if len(want) < 100 {
			t.Fatalf("no manifest of %q", name)
		}
		compared++
		got := formattest.Differences(want, formattest.Describe(s.Listing, "tricky"), "data")
		if d := cmp.Diff(slices.Sorted(slices.Values(known(want))), slices.Sorted(slices.Values(got))); d != "" {
			t.Errorf("%s, %s: differences (-expected +found):\n%s", fixture, name, d)
		}
		if len(s.Commit.Losses) > 0 {
			t.Errorf("%s, %s: losses %v", fixture, name, s.Commit.Losses)
		}
		roots := []string{"tricky"}
		if fixture == "new-repokey-blake2" {
			roots = []string{"tmp/fx-work-set-a/src/tricky"} // borg 1.4 says where it ran
		}
		if !slices.Equal(s.Record.Roots, roots) {
			t.Errorf("%s, %s: roots %q, want %q", fixture, name, s.Record.Roots, roots)
		}
	}
	if compared < 3 && len(list) >= 3 {
		t.Errorf("%s: only %d archives were compared", fixture, compared)
	}
}

// TestFixtures holds every archive of every fixture, exported in every way,
// against the manifest of the tree that it was made of.
func TestFixtures(t *testing.T) {
	for _, name := range fixtures(t) {
		if raceEnabled && name != "repokey-churn" {
			continue // their codecs and hashes take minutes then
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := mustOpenFixture(t, name, Options{})
			defer r.Close()
			snaps, err := r.Snapshots(context.Background())
			if err != nil || len(snaps) < 3 {
				t.Fatal(len(snaps), err)
			}
			whole := formattest.Receive(t, formattest.MustStream(t, r, format.ExportOptions{Full: true}), nil)
			checkFixture(t, name, whole)
			formattest.EqualSnapshots(t, "differences", whole, formattest.Receive(t, formattest.MustStream(t, r, format.ExportOptions{}), nil))
			if name != "authenticated-lzma" && name != "repokey-blake2-zstd" { // small ones have to do for the rest
				return
			}
			formattest.EveryWay(t, r, whole)
		})
	}
}
