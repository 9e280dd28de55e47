package fidelity_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/borg"
	"github.com/bk-backup/bk/format/formattest"
	"github.com/bk-backup/bk/format/hardlinks"
	"github.com/bk-backup/bk/format/restic"
	"github.com/bk-backup/bk/format/tar"
	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/store/dir"
)

// tool is a column of the second table: what is read of the first state of one
// tree, as a real tool stored it.
type tool struct {
	name string
	top  string // of the tree in the listing
	open func(t *testing.T) format.System
}

// tools are all of whose work there is a fixture, with the packages' test data.
var tools = []tool{
	{name: "GNU tar 1.34", top: "tricky", open: func(t *testing.T) format.System { return openTar(t, "snap1-gnutar-pax-sparse.tar") }},
	{name: "bsdtar 3.6.2", top: "tricky", open: func(t *testing.T) format.System { return openTar(t, "snap1-bsdtar-pax.tar") }},
	{name: "restic 0.14", top: "tricky", open: openRestic},
	{name: "borg 1.2.4", top: "tricky", open: openBorg},
	{name: "rsync --link-dest", open: func(t *testing.T) format.System { return openTrees(t, "rsync-linkdest") }},
	{name: "rsync --fake-super", open: func(t *testing.T) format.System { return openTrees(t, "rsync-fakesuper") }},
}

func openTar(t *testing.T, name string) format.System {
	t.Helper()
	content := formattest.Unpack(t, "../../../format/tar/testdata/tar-files.tar.zst")[name]
	system, err := tar.Open(t.Context(), "-", tar.Options{Stdin: bytes.NewReader(content)})
	if err != nil {
		t.Fatal(err)
	}
	return system
}

// unpack writes the files of a repository in an archive and opens the storage.
func unpack(t *testing.T, archive string) store.Store {
	t.Helper()
	to := t.TempDir()
	for name, content := range formattest.Unpack(t, archive) {
		path := filepath.Join(to, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if err == nil {
			err = os.WriteFile(path, content, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	st, err := dir.Open(filepath.Join(to, "repo"), dir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func openRestic(t *testing.T) format.System {
	t.Helper()
	system, err := restic.Open(t.Context(), unpack(t, "../../../format/restic/testdata/restic-v2.tar.zst"), restic.Options{Passphrase: func(context.Context) (string, error) { return "restic set-a passphrase", nil }})
	if err != nil {
		t.Fatal(err)
	}
	return system
}

func openBorg(t *testing.T) format.System {
	t.Helper()
	system, err := borg.Open(t.Context(), unpack(t, "../../../format/borg/testdata/borg-none-auto.tar.zst"), borg.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return system
}

func openTrees(t *testing.T, name string) format.System {
	t.Helper()
	content := formattest.Unpack(t, "../../../format/hardlinks/testdata/"+name+".tar.zst")["trees.tar"]
	archive, err := tar.Open(t.Context(), "-", tar.Options{Stdin: bytes.NewReader(content)})
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	src, err := archive.Export(t.Context(), format.ExportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	to := t.TempDir()
	if _, err := restoreInto(t, src, to); err != nil {
		t.Fatal(err)
	}
	system, err := hardlinks.Open(filepath.Join(to, "trees"), hardlinks.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return system
}

// described is the listing below top in a manifest's terms.
func (f *found) described(top string) map[string]formattest.Fields {
	l := formattest.Listing{}
	for path, o := range f.objects {
		l[path] = &formattest.Object{Entry: &o.entry, Pieces: [][]byte{[]byte(plain(o.content))}}
	}
	return formattest.Describe(l, top)
}

// TestTools reads what real tools stored, and compares what is there of each
// attribute with the table.
func TestTools(t *testing.T) {
	if raceEnabled {
		t.Skip("the readers are tested under the race detector by their packages")
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can make the trees again, with their owners and devices")
	}
	tb := readTable(t, "## What is read of what other programs wrote")
	truth := formattest.ParseManifest(formattest.Unpack(t, "../../../format/restic/testdata/manifests.tar.zst")["snap1.txt"])
	var rows, names []string
	for _, p := range probes() {
		if p.fixture != "" {
			rows = append(rows, p.row)
		}
	}
	outcomes := map[string][]string{}
	for _, tool := range tools {
		names = append(names, tool.name)
		t.Run(tool.name, func(t *testing.T) {
			system := tool.open(t)
			defer system.Close()
			list, err := system.Snapshots(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			src, err := system.Export(t.Context(), format.ExportOptions{Snapshots: []format.ID{list[0].ID}})
			if err != nil {
				t.Fatal(err)
			}
			defer src.Close()
			got := collect(t, src).described(tool.top)
			for _, p := range probes() {
				if p.fixture == "" {
					continue
				}
				want, ok := truth[p.fixture][p.field]
				if !ok {
					t.Fatalf("%s: the manifest has no %s of %s", p.row, p.field, p.fixture)
				}
				out := kept
				if got[p.fixture][p.field] != want {
					out = nothing
				}
				outcomes[p.row] = append(outcomes[p.row], out)
				if cell := tb.cells[p.row][tool.name]; cell != out {
					t.Errorf("%s: %s, not %s", p.row, out, cell)
				}
			}
		})
	}
	if !slices.Equal(rows, tb.rows) || !slices.Equal(names, tb.columns) {
		t.Errorf("the table has the rows %q\nand columns %q\nand not %q\nand %q", tb.rows, tb.columns, rows, names)
	}
	if t.Failed() {
		var lines strings.Builder
		for _, row := range rows {
			fmt.Fprintf(&lines, "| %s | %s |\n", row, strings.Join(outcomes[row], " | "))
		}
		t.Logf("as it is:\n| | %s |\n%s", strings.Join(names, " | "), lines.String())
	}
}
