package hardlinks

import (
	"testing"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/formattest"
)

// read exports from the set at place.
func read(t testing.TB, place string, opts Options, export format.ExportOptions) []*formattest.Received {
	t.Helper()
	return mustExport(t, open(t, place, opts), export)
}

func open(t testing.TB, place string, opts Options) *System {
	t.Helper()
	opts.TempDir = t.TempDir()
	system, err := Open(place, opts)
	if err != nil {
		t.Fatal(err)
	}
	return system
}

func mustExport(t testing.TB, system *System, export format.ExportOptions) []*formattest.Received {
	t.Helper()
	got, err := formattest.Export(system, export)
	if err != nil {
		t.Fatal(err)
	}
	return got.Snapshots
}

// checkGroups fails if an object counts as linked that has one path.
func checkGroups(t testing.TB, l formattest.Listing) {
	t.Helper()
	for _, paths := range l.Groups() {
		if len(paths) == 1 {
			t.Errorf("%q is in a group of hard links, alone", paths[0])
		}
	}
}

// manifest reads what a tree was when the fixtures were made of it.
func manifest(t testing.TB, name string) map[string]formattest.Fields {
	t.Helper()
	return formattest.ParseManifest(formattest.Decompress(t, "testdata/"+name+".manifest.zst"))
}
