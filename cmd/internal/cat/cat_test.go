package cat

import (
	"bytes"
	"errors"
	"testing"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/cmd/internal/systemtest"
	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo"
)

// TestSources reads every file from a repository and from a system that is none.
func TestSources(t *testing.T) {
	system := systemtest.Random(3, 4)
	snaps, _, err := cli.ListSnapshots(t.Context(), system.Repo(t))
	if err != nil {
		t.Fatal(err)
	}
	list, err := system.Snapshots(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	for n, listing := range system.Listings {
		own := snaps.Own(snaps.List[n])
		for path, want := range listing {
			for name, read := range map[string]func(w *bytes.Buffer) (string, error){
				"repo":   func(w *bytes.Buffer) (string, error) { return fromRepo(t.Context(), w, snaps.Repo, own, path) },
				"system": func(w *bytes.Buffer) (string, error) { return fromSystem(t.Context(), w, system, list[n], path) },
			} {
				var got bytes.Buffer
				short, err := read(&got)
				switch {
				case want.Entry.Type != format.TypeFile:
					if !errors.Is(err, repo.ErrNotFile) {
						t.Errorf("%s, %s, a %s: %v", name, path, want.Entry.Type, err)
					}
				case err != nil || short != "" || got.String() != want.Content:
					t.Errorf("%s, %s: %q, %q, %v; want %q", name, path, got.String(), short, err, want.Content)
				default:
					files++
				}
			}
		}
		if _, err := fromRepo(t.Context(), new(bytes.Buffer), snaps.Repo, own, "none"); !errors.Is(err, repo.ErrNoEntry) {
			t.Error(err)
		}
		if _, err := fromSystem(t.Context(), new(bytes.Buffer), system, list[n], "none"); !errors.Is(err, repo.ErrNoEntry) {
			t.Error(err)
		}
	}
	if files < 10 {
		t.Errorf("only %d files were read", files)
	}
}

func TestZeros(t *testing.T) {
	var b bytes.Buffer
	if err := writeZeros(&b, 150_000); err != nil || b.Len() != 150_000 || len(bytes.Trim(b.Bytes(), "\x00")) > 0 {
		t.Errorf("%d bytes, error %v", b.Len(), err)
	}
}
