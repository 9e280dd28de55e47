package restic

import (
	"context"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/formattest"
)

// known are the differences between the trees and what restic recorded of them.
func known(fixture string) (list []string, excluded []string) {
	list = []string{
		`hl/fifo1 hl: "", not "hl/fifo1"`, // restic records no links of fifos
		`hl/fifo2 hl: "", not "hl/fifo1"`,
		`missing dev/socket`, // and no sockets
	}
	if fixture == "v2-new" {
		list = append(list, `time/y1901 mtime: "-2147483700000000000", not "-2147483648000000000"`)
	} else {
		list = append(list,
			`links/raw-target link: "bytes-\\xef\\xbf\\xbd\\xef\\xbf\\xbd\\xef\\xbf\\xbd-target", not "bytes-\\xff\\xfe\\x80-target"`,
			`x/link x:trusted.on-link: "", not "6c"`)
	}
	if strings.HasPrefix(fixture, "v1") {
		excluded = []string{"size/cdc.txt", "many"}
	}
	return list, excluded
}

// checkFixture compares what was received with the manifests.
func checkFixture(t *testing.T, fixture string, list []*formattest.Received) {
	t.Helper()
	manifests := formattest.Unpack(t, "testdata/manifests.tar.zst")
	expected, excluded := known(fixture)
	for _, s := range list {
		top := "tricky"
		if fixture == "v1" { // was given an absolute path
			top = "tmp/fx-work-set-a/src/tricky"
		}
		if want := []string{"tmp/fx-work-set-a/src/tricky"}; !slices.Equal(s.Record.Roots, want) {
			t.Errorf("roots %q, want %q", s.Record.Roots, want)
		}
		want := formattest.ParseManifest(manifests[s.Record.Tags[0]+".txt"])
		if len(want) < 100 {
			t.Fatalf("no manifest of %q", s.Record.Tags)
		}
		for p := range want {
			for _, x := range excluded {
				if p == x || format.IsBelow(p, x) {
					delete(want, p)
				}
			}
		}
		got := formattest.Differences(want, formattest.Describe(s.Listing, top), "flags", "data") // no restic repository has flags, or where a file has holes
		if d := cmp.Diff(slices.Sorted(slices.Values(expected)), slices.Sorted(slices.Values(got))); d != "" {
			t.Errorf("%s, %s: differences (-expected +found):\n%s", fixture, s.Record.Tags[0], d)
		}
		if len(s.Commit.Losses) > 0 {
			t.Errorf("%s, %s: losses %v", fixture, s.Record.Tags[0], s.Commit.Losses)
		}
	}
}

// TestFixtures holds every snapshot of every fixture, exported in every way,
// against the manifest of the tree that it was made of.
func TestFixtures(t *testing.T) {
	for _, name := range fixtures {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st := fixtureStore(t, name)
			r := openFixture(t, name, st)
			snaps, err := r.Snapshots(context.Background())
			if err != nil || len(snaps) != len(slices.Compact(slices.Clone(snaps))) || len(snaps) < 2 {
				t.Fatal(len(snaps), err)
			}
			whole := formattest.Receive(t, formattest.MustStream(t, r, format.ExportOptions{Full: true}), nil)
			checkFixture(t, name, whole)
			formattest.EqualSnapshots(t, "differences", whole, formattest.Receive(t, formattest.MustStream(t, r, format.ExportOptions{}), nil))
			if name != "v2-pruned" { // the smallest one has to do for the rest
				return
			}
			formattest.EveryWay(t, r, whole)
		})
	}
}

// TestFixtureSnapshots checks what is said of snapshots themselves.
func TestFixtureSnapshots(t *testing.T) {
	r := openFixture(t, "v2-pruned", fixtureStore(t, "v2-pruned"))
	list, err := r.Snapshots(context.Background())
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	id, err := format.ParseID("087c1c2bee53deaa5ba501f27941292da496b8a5ce6fcabf6bcb7bf71bc3d7f0")
	if err != nil {
		t.Fatal(err)
	}
	repository, err := hex.DecodeString(r.config.ID)
	if err != nil || len(repository) != 32 {
		t.Fatal(r.config.ID, err)
	}
	want := &format.Snapshot{
		ID: id, Time: &format.Time{Sec: 1705372200}, Host: "fixture-host", User: "root",
		Roots:  []string{"tmp/fx-work-set-a/src/tricky"},
		Tags:   []string{"snap2", "set-a", "retagged", "with space"},
		Origin: &format.Origin{System: "restic", Repository: string(repository), ID: string(id[:])},
	}
	if d := cmp.Diff(want, list[0]); d != "" {
		t.Error(d)
	}
	if p, err := r.Polynomial(); err != nil || p>>53 != 1 {
		t.Errorf("polynomial %x, %v", p, err)
	}
	if r.Version() != 2 {
		t.Errorf("format %d", r.Version())
	}
	newer := openFixture(t, "v2-new", fixtureStore(t, "v2-new"))
	if list, err = newer.Snapshots(context.Background()); err != nil || list[0].Estimate == nil || list[0].Estimate.Entries < 900 {
		t.Errorf("estimate %v, %v", list[0].Estimate, err)
	}
}

// TestListingOnly sees the same entries as an export with content.
func TestListingOnly(t *testing.T) {
	r := openFixture(t, "v2", fixtureStore(t, "v2"))
	entries, want := 0, 0
	for _, rec := range formattest.Records(t, r, format.ExportOptions{ListingOnly: true}) {
		switch rec.(type) {
		case *format.Data, *format.Refs, *format.CopyRange:
			t.Fatalf("a %s record", rec.Kind())
		case *format.Entry:
			entries++
		}
	}
	for _, s := range formattest.Receive(t, formattest.MustStream(t, r, format.ExportOptions{}), nil) {
		want += int(s.Commit.Entries)
	}
	if entries != want || want == 0 {
		t.Errorf("%d entries, want %d", entries, want)
	}
}

// TestHeld sends names of content alone.
func TestHeld(t *testing.T) {
	r := openFixture(t, "v2", fixtureStore(t, "v2"))
	refs := 0
	for _, rec := range formattest.Records(t, r, format.ExportOptions{Held: true}) {
		switch rec := rec.(type) {
		case *format.Header:
			if !slices.Contains(rec.Features, format.FeatureHeld) {
				t.Errorf("features %v", rec.Features)
			}
		case *format.Data:
			t.Fatal("content was sent")
		case *format.Refs:
			refs += len(rec.Chunks)
		}
	}
	if refs < 1000 {
		t.Errorf("%d refs", refs)
	}
}
