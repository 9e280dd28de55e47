package tar

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format"
)

// writeArchive copies what is at a place into an archive.
func writeArchive(t testing.TB, from, to string, opts SinkOptions) Written {
	t.Helper()
	system, err := Open(context.Background(), from, Options{TempDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer system.Close()
	src, err := system.Export(context.Background(), format.ExportOptions{Flat: true})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	opts.TempDir = t.TempDir()
	sink, err := Create(context.Background(), to, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	if err := format.Copy(context.Background(), sink, src); err != nil {
		t.Fatal(err)
	}
	return sink.Summary()
}

// unpack writes an archive of the fixtures into a file.
func unpack(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	fixture(t, name, func(r io.Reader) {
		file, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(file, r); err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
	})
	return path
}

// TestRoundTrip reads the whole tricky tree, writes it, and reads it again.
func TestRoundTrip(t *testing.T) {
	for _, name := range []string{"snap1-gnutar-pax-sparse.tar", "snap1-bsdtar-pax.tar"} {
		for _, suffix := range []string{"", ".zst"} {
			if suffix != "" && name != "snap1-bsdtar-pax.tar" {
				continue
			}
			from := unpack(t, name)
			to := filepath.Join(t.TempDir(), "out.tar"+suffix)
			sum := writeArchive(t, from, to, SinkOptions{Strict: true})
			if len(sum.Losses) > 0 {
				t.Errorf("%s: losses %v", name, sum.Losses)
			}
			want, err := readPlace(t, from, Options{}, format.ExportOptions{})
			if err != nil {
				t.Fatal(err)
			}
			got, err := readPlace(t, to, Options{}, format.ExportOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if d := differences(want.lines(""), got.lines("")); len(d) > 0 {
				t.Errorf("%s%s changed on the way: %q", name, suffix, d)
			}
			for path, o := range want.objects {
				g := got.objects[path]
				if g == nil {
					continue
				}
				for _, x := range [][2]any{{o.User, g.User}, {o.Group, g.Group}, {o.Atime, g.Atime}, {o.Ctime, g.Ctime}, {o.Extents, g.Extents}, {o.Has, g.Has}} {
					if d := cmp.Diff(x[0], x[1]); d != "" {
						t.Errorf("%s: %q: %s", name, path, d)
					}
				}
			}
			left, err := os.ReadDir(filepath.Dir(to))
			if err != nil || len(left) != 1 {
				t.Errorf("beside the archive: %v, %v", left, err)
			}
		}
	}
}
