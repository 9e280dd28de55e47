package hardlinks

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/disk"
	"github.com/bk-backup/bk/format/formattest"
	"github.com/bk-backup/bk/format/tar"
)

// unpack restores the trees of a fixture, hard links and all, and returns the
// directory that has them.
func unpack(t testing.TB, name string) string {
	t.Helper()
	dir := t.TempDir()
	formattest.EachFile(t, "testdata/"+name+".tar.zst", func(name string, content io.Reader) bool {
		if name == "trees.tar" {
			restoreTar(t, content, dir)
		}
		return name != "trees.tar"
	})
	return filepath.Join(dir, "trees")
}

func restoreTar(t testing.TB, archive io.Reader, dir string) {
	t.Helper()
	ctx := context.Background()
	system, err := tar.Open(ctx, "-", tar.Options{Stdin: archive})
	if err != nil {
		t.Fatal(err)
	}
	defer system.Close()
	src, err := system.Export(ctx, format.ExportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	sink, err := disk.NewRestore(ctx, dir, disk.RestoreOptions{})
	if err == nil {
		err = format.Copy(ctx, sink, src)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
}

// What the copies do not have: rsync knows no flags; of the way of the fixtures
// as archives of GNU tar, sockets and the links between fifos.
var (
	noFlags = []string{`x/immutable flags: "", not "i"`, `x/nodump flags: "", not "d"`}
	byTar   = []string{`hl/fifo1 hl: "", not "hl/fifo1"`, `hl/fifo2 hl: "", not "hl/fifo1"`, "missing dev/socket"}
)

// rewritten is what a rotation with cp -al changes in older snapshots.
var rewritten = map[string][]string{
	"snap1": {
		`perm/all-bits mode: "0600", not "7777"`, `perm/setgid uid: "12345", not "0"`, `perm/setuid mode: "0755", not "4755"`,
		`x/acl mode: "0664", not "0670"`,
		`x/acl x:system.posix_acl_access: "0200000001000600ffffffff04000400ffffffff08000600f710000010000600ffffffff20000400ffffffff", not "0200000001000600ffffffff020007009210000002000400feff000004000400ffffffff08000500f710000010000700ffffffff20000000ffffffff"`,
		`x/user x:user.added: "2b", not ""`, `x/user x:user.comment: "6368616e676564", not "706c61696e2074657874"`, `x/user x:user.empty: there false, not true`,
	},
	"snap2": {`perm/all-bits mode: "0600", not "7777"`},
}

func TestFixtures(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make the trees again, with their owners and devices")
	}
	times := []int64{1705284000, 1705372200, 1706788800}
	for name, c := range map[string]struct {
		prefix string // of the source in the listings
		lost   []string
		older  map[string][]string
		inside string
	}{
		"rsnapshot-cpal":  {"tmp/fx-work-set-a/src/tricky", append(byTar, noFlags...), rewritten, "localhost"},
		"rsync-linkdest":  {"", append(byTar, noFlags...), nil, ""},
		"rsync-fakesuper": {"", noFlags, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			place := unpack(t, name)
			system := open(t, place, Options{})
			if system.Inside() != c.inside {
				t.Errorf("the listings begin at %q", system.Inside())
			}
			list := mustExport(t, system, format.ExportOptions{})
			if len(list) != 3 {
				t.Fatalf("%d snapshots, skipped %v", len(list), system.Skipped())
			}
			for i, s := range list {
				snap := "snap" + string(rune('1'+i))
				if s.Record.Time.Sec != times[i] || len(s.Commit.Losses) > 0 {
					t.Errorf("%s: time %v, losses %v", snap, s.Record.Time.Time(), s.Commit.Losses)
				}
				checkGroups(t, s.Listing)
				want := map[string]bool{}
				for _, line := range append(c.lost, c.older[snap]...) {
					want[line] = true
				}
				got := map[string]bool{}
				for _, line := range formattest.Differences(manifest(t, snap), formattest.Describe(s.Listing, c.prefix), "data") {
					got[line] = true
				}
				if d := cmp.Diff(want, got); d != "" {
					t.Errorf("%s, beside the manifest (-expected +found):\n%s", snap, d)
				}
			}
			// Of a thousand files, each snapshot sends what changed.
			for i := 1; i < 3; i++ {
				if n := len(list[i].Changes); n == 0 || n > 120 || list[i].Data > 200 {
					t.Errorf("snapshot %d: %d records and %d chunks", i, n, list[i].Data)
				}
			}
			checkBase(t, system, list)
		})
	}
}

// checkBase compares an export that begins with a difference, and one that is
// whole, with what came before.
func checkBase(t *testing.T, system *System, list []*formattest.Received) {
	t.Helper()
	last, before := list[len(list)-1], list[len(list)-2].Record.ID
	only := []format.ID{last.Record.ID}
	full := mustExport(t, system, format.ExportOptions{Full: true, Snapshots: only})
	equal := func(mode string, want, got *formattest.Received) {
		t.Helper()
		// Differences do not say what is informative alone: how many links a directory has.
		if d := formattest.Differences(formattest.Describe(want.Listing, ""), formattest.Describe(got.Listing, "")); len(d) > 0 {
			t.Errorf("%s: what came is not what the differences amount to: %q", mode, d)
		}
	}
	equal("whole", last, full[0])
	based := mustExport(t, system, format.ExportOptions{Base: before, Snapshots: only})
	if d := cmp.Diff(last.Changes, based[0].Changes); d != "" {
		t.Errorf("a difference to a base (-first +now):\n%s", d)
	}
	listed := mustExport(t, system, format.ExportOptions{ListingOnly: true, Snapshots: []format.ID{list[0].Record.ID}})
	if listed[0].Data > 0 || len(listed[0].Listing) != len(list[0].Listing) {
		t.Errorf("a listing has %d chunks and %d entries", listed[0].Data, len(listed[0].Listing))
	}
	for i, flat := range mustExport(t, system, format.ExportOptions{Flat: true}) {
		equal("flat", list[i], flat)
	}
}
