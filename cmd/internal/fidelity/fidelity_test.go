package fidelity_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/bk-backup/bk/cmd/internal/fidelity"
	"github.com/bk-backup/bk/cmd/internal/historytest"
	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo"
)

func compare(t *testing.T, a, b format.System) (*fidelity.Report, []string) {
	t.Helper()
	ctx := context.Background()
	listA, err := a.Snapshots(ctx)
	if err != nil {
		t.Fatal(err)
	}
	listB, err := b.Snapshots(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	report, err := fidelity.Compare(ctx, a, b, listA, listB, fidelity.Options{OnDifference: func(d fidelity.Difference) {
		found = append(found, fmt.Sprintf("%s: %s", filepath.Base(d.Path), d.What))
	}})
	if err != nil {
		t.Fatal(err)
	}
	return report, found
}

// noChunks is a system that cannot be asked for chunks.
type noChunks struct{ format.System }

func TestCopiesAreEqual(t *testing.T) {
	tr := historytest.New(t, 1)
	a, b := historytest.Repository(t, "gear:16KiB"), historytest.Repository(t, "gear:16KiB")
	tr.History(t, a, "gear:16KiB", 3)
	convert(t, a, b)
	for name, other := range map[string]format.System{"by ids": b, "from the stream": noChunks{b}} {
		t.Run(name, func(t *testing.T) {
			report, found := compare(t, a, other)
			if !report.Same() || report.Equal != 3 || report.Entries == 0 || report.Hashed != 0 {
				t.Fatalf("%+v: %v", report, found)
			}
		})
	}
}

func convert(t *testing.T, from, to *repo.Repository) {
	t.Helper()
	ctx := context.Background()
	src, err := from.Export(ctx, format.ExportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	sink, err := to.Import(ctx, repo.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := format.Copy(ctx, sink, src); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOtherCutsAreHashed(t *testing.T) {
	tr := historytest.New(t, 2)
	a, b := historytest.Repository(t, "gear:16KiB"), historytest.Repository(t, "gear:16KiB")
	// Both are backups of the same tree, so time, host and roots say what belongs
	// together.
	for range 3 {
		s := tr.Backup(t, a, "gear:16KiB")
		backupAt(t, tr, b, "fixed:20000", s)
		tr.Change(t)
	}
	for name, other := range map[string]format.System{"by ids": b, "from the stream": noChunks{b}} {
		t.Run(name, func(t *testing.T) {
			report, found := compare(t, a, other)
			if !report.Same() || report.Equal != 3 || report.Hashed == 0 {
				t.Fatalf("%+v: %v", report, found)
			}
		})
	}
}

// backupAt makes a backup that says the same time as another.
func backupAt(t *testing.T, tr *historytest.Tree, r *repo.Repository, spec string, as *repo.Snapshot) {
	t.Helper()
	tr.At(as.Meta.Time.Sec)
	tr.Backup(t, r, spec)
}

func TestDifferencesAreFound(t *testing.T) {
	for name, test := range map[string]struct {
		change func(t *testing.T, dir string) error
		want   []string
	}{
		"content": {func(t *testing.T, dir string) error {
			path := filepath.Join(dir, "large/1.bin")
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fi, err := os.Stat(path)
			if err != nil {
				return err
			}
			b[len(b)/2] ^= 1
			if err := os.WriteFile(path, b, 0o644); err != nil {
				return err
			}
			return os.Chtimes(path, fi.ModTime(), fi.ModTime())
		}, []string{"1.bin: content"}},
		"longer": {func(t *testing.T, dir string) error {
			return os.Truncate(filepath.Join(dir, "sparse"), 4<<20)
		}, []string{"sparse: metadata, content"}},
		"mode": {func(t *testing.T, dir string) error {
			return os.Chmod(filepath.Join(dir, "empty"), 0o600)
		}, []string{"empty: metadata"}},
		"gone": {func(t *testing.T, dir string) error {
			return os.Remove(filepath.Join(dir, "d0/e0/f0.txt"))
		}, []string{"e0: metadata", "f0.txt: only in A"}},
		"new": {func(t *testing.T, dir string) error {
			return os.WriteFile(filepath.Join(dir, "d0/e0/f1.txt"), []byte("x"), 0o644)
		}, []string{"e0: metadata", "f1.txt: only in B"}},
		"type": {func(t *testing.T, dir string) error {
			path := filepath.Join(dir, "d0/e0/f0.txt")
			if err := os.Remove(path); err != nil {
				return err
			}
			return os.Mkdir(path, 0o755)
		}, []string{"e0: metadata", "f0.txt: a file in A, a dir in B"}},
	} {
		t.Run(name, func(t *testing.T) {
			tr := historytest.New(t, 3)
			a, b := historytest.Repository(t, "gear:16KiB"), historytest.Repository(t, "gear:16KiB")
			s := tr.Backup(t, a, "gear:16KiB")
			if err := test.change(t, tr.Dir); err != nil {
				t.Fatal(err)
			}
			backupAt(t, tr, b, "gear:32KiB", s)
			report, found := compare(t, a, b)
			if !slices.Equal(found, test.want) || report.Same() || report.Equal != 0 {
				t.Errorf("found %v, want %v", found, test.want)
			}
		})
	}
}

func TestMissingSnapshots(t *testing.T) {
	tr := historytest.New(t, 4)
	a, b := historytest.Repository(t, "gear:16KiB"), historytest.Repository(t, "gear:16KiB")
	tr.History(t, a, "gear:16KiB", 2)
	convert(t, a, b)
	tr.Backup(t, a, "gear:16KiB")
	tr.Host = "other"
	tr.Backup(t, b, "gear:16KiB")
	report, _ := compare(t, a, b)
	if report.Same() || report.Pairs != 2 || report.Equal != 2 || len(report.OnlyA) != 1 || len(report.OnlyB) != 1 {
		t.Errorf("%+v", report)
	}
}
