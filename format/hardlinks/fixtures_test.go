package hardlinks

import (
	stdtar "archive/tar"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/disk"
	"github.com/bk-backup/bk/format/tar"
)

// unpack restores the trees of a fixture, hard links and all, and returns the
// directory that has them.
func unpack(t testing.TB, name string) string {
	t.Helper()
	file, err := os.Open("testdata/" + name + ".tar.zst")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	z, err := zstd.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	outer := stdtar.NewReader(z)
	for h, err := outer.Next(); ; h, err = outer.Next() {
		if err != nil {
			t.Fatalf("find trees.tar in %s: %v", name, err)
		}
		if strings.HasSuffix(h.Name, "trees.tar") {
			break
		}
	}
	dir := t.TempDir()
	restoreTar(t, outer, dir)
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
	noFlags = []string{"x/immutable flags: immutable -> ", "x/nodump flags: nodump -> "}
	byTar   = []string{"hl/fifo1 hl: hl/fifo1 -> ", "hl/fifo2 hl: hl/fifo1 -> ", "missing dev/socket socket"}
)

// rewritten is what a rotation with cp -al changes in older snapshots.
var rewritten = map[string][]string{
	"snap1": {
		"perm/all-bits mode: 7777 -> 0600", "perm/setgid uid: 0 -> 12345", "perm/setuid mode: 4755 -> 0755",
		"x/acl mode: 0670 -> 0664",
		"x/acl x:system.posix_acl_access: 0200000001000600ffffffff020007009210000002000400feff000004000400ffffffff08000500f710000010000700ffffffff20000000ffffffff -> 0200000001000600ffffffff04000400ffffffff08000600f710000010000600ffffffff20000400ffffffff",
		"x/user x:user.added:  -> 2b", "x/user x:user.comment: 706c61696e2074657874 -> 6368616e676564", "x/user x:user.empty:  -> ",
	},
	"snap2": {"perm/all-bits mode: 7777 -> 0600"},
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
			h, err := export2(t, system, format.ExportOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if len(h.listings) != 3 {
				t.Fatalf("%d snapshots, skipped %v", len(h.listings), system.Skipped())
			}
			for i, listing := range h.listings {
				snap := "snap" + string(rune('1'+i))
				if h.snaps[i].Time.Sec != times[i] || len(h.commits[i].Losses) > 0 {
					t.Errorf("%s: time %v, losses %v", snap, h.snaps[i].Time.Time(), h.commits[i].Losses)
				}
				want := map[string]bool{}
				for _, line := range append(c.lost, c.older[snap]...) {
					want[line] = true
				}
				got := map[string]bool{}
				for _, line := range differences(manifest(t, snap), lines(listing, c.prefix)) {
					got[line] = true
				}
				if d := cmp.Diff(want, got); d != "" {
					t.Errorf("%s, beside the manifest (-expected +found):\n%s", snap, d)
				}
			}
			// Of a thousand files, each snapshot sends what changed.
			for i := 1; i < 3; i++ {
				if n := len(h.changes[i]); n == 0 || n > 120 || h.data[i] > 200 {
					t.Errorf("snapshot %d: %d records and %d chunks", i, n, h.data[i])
				}
			}
			checkBase(t, system, h)
		})
	}
}

// checkBase compares an export that begins with a difference, and one that is
// whole, with what came before.
func checkBase(t *testing.T, system *System, h *history) {
	t.Helper()
	n := len(h.snaps)
	full, err := export2(t, system, format.ExportOptions{Full: true, Snapshots: []format.ID{h.snaps[n-1].ID}})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(lines(h.listings[n-1], ""), lines(full.listings[0], "")); d != "" {
		t.Errorf("a whole snapshot is not what the differences amount to (-differences +whole):\n%s", d)
	}
	based, err := export2(t, system, format.ExportOptions{Base: h.snaps[n-2].ID, Snapshots: []format.ID{h.snaps[n-1].ID}})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(h.changes[n-1], based.changes[0]); d != "" {
		t.Errorf("a difference to a base (-first +now):\n%s", d)
	}
	listed, err := export2(t, system, format.ExportOptions{ListingOnly: true, Snapshots: []format.ID{h.snaps[0].ID}})
	if err != nil {
		t.Fatal(err)
	}
	if listed.data[0] > 0 || len(listed.listings[0]) != len(h.listings[0]) {
		t.Errorf("a listing has %d chunks and %d entries", listed.data[0], len(listed.listings[0]))
	}
	flat, err := export2(t, system, format.ExportOptions{Flat: true})
	if err != nil {
		t.Fatal(err)
	}
	for i := range flat.listings {
		if d := cmp.Diff(lines(h.listings[i], ""), lines(flat.listings[i], "")); d != "" {
			t.Errorf("flat snapshot %d is not what the differences amount to (-differences +flat):\n%s", i, d)
		}
	}
}
