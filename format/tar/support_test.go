package tar

import (
	"bytes"
	"context"
	"io"
	"testing"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/formattest"
)

// readAll reads an archive from a stream.
func readAll(t testing.TB, archive io.Reader, opts Options, export format.ExportOptions) (*formattest.Receiver, error) {
	t.Helper()
	opts.Stdin = archive
	return readPlace(t, "-", opts, export)
}

// readPlace returns what came, before an error too.
func readPlace(t testing.TB, place string, opts Options, export format.ExportOptions) (*formattest.Receiver, error) {
	t.Helper()
	opts.TempDir = t.TempDir()
	system, err := Open(context.Background(), place, opts)
	if err != nil {
		return nil, err
	}
	defer system.Close()
	return formattest.Export(system, export)
}

func mustRead(t testing.TB, archive []byte) *formattest.Receiver {
	t.Helper()
	l, err := readAll(t, bytes.NewReader(archive), Options{}, format.ExportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// manifest reads what a tree was when the fixtures were made of it.
func manifest(t testing.TB, name string) map[string]formattest.Fields {
	t.Helper()
	return formattest.ParseManifest(formattest.Decompress(t, "testdata/"+name+".manifest.zst"))
}

// fixture calls fn with one of the archives in tar-files.tar.zst.
func fixture(t testing.TB, name string, fn func(r io.Reader)) {
	t.Helper()
	found := false
	fixtures(t, func(other string, r io.Reader) bool {
		if found = other == name; found {
			fn(r)
		}
		return !found
	})
	if !found {
		t.Fatalf("there is no fixture %s", name)
	}
}

// fixtures calls fn with each of the archives, which takes a while, until it
// returns false.
func fixtures(t testing.TB, fn func(name string, r io.Reader) bool) {
	t.Helper()
	formattest.EachFile(t, "testdata/tar-files.tar.zst", fn)
}
