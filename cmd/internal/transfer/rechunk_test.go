package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/cmd/internal/historytest"
	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/filter"
	"github.com/bk-backup/bk/repo"
)

// syncAnew is sync with content cut anew, in one stream or, daily, with a base.
func syncAnew(t *testing.T, source, target *repo.Repository, opts filter.Options, spec string, only func(*format.Snapshot) bool) repo.Imported {
	t.Helper()
	ctx := context.Background()
	list, err := source.Snapshots(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var chosen []*format.Snapshot
	for _, snap := range list {
		if only(snap) {
			chosen = append(chosen, snap)
		}
	}
	known, _, err := target.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	app := &cli.App{Name: "bk-sync", Stderr: io.Discard, Common: cli.Common{Quiet: true}}
	s := syncer{app: app, source: source, target: target, filter: opts, known: known, arrived: make(arrived)}
	s.in.ChunkerFor = historytest.Splitters(t, target, spec)
	runs, _, err := plan(chosen, heldBy(target, known), opts.Description())
	if err == nil {
		err = s.all(ctx, runs)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s.sum
}

// checkCuts fails unless every file of every snapshot is cut as its splitter cuts
// it from its beginning.
func checkCuts(t *testing.T, r *repo.Repository, spec string) (files int) {
	t.Helper()
	ctx := context.Background()
	src, err := r.Export(ctx, format.ExportOptions{Full: true, Held: true})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	newSplitter := historytest.Splitters(t, r, spec)
	splitter, name := newSplitter("", 0)
	var entry *format.Entry
	var run []format.ChunkRef
	check := func() {
		plains := make([][]byte, len(run))
		err := r.ReadChunks(ctx, run, func(n int, plain []byte, err error) error {
			plains[n] = append([]byte(nil), plain...)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		var all []byte
		for _, plain := range plains {
			all = append(all, plain...)
		}
		cut := splitter()
		for i, ref := range run {
			if n := cut.Cut(all, true); n != int(ref.Size) {
				t.Fatalf("%q: chunk %d has %d bytes, and %d if the file is cut from its beginning", entry.Path, i, ref.Size, n)
			}
			all = all[ref.Size:]
		}
		run = nil
	}
	for {
		rec, err := src.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		switch rec := rec.(type) {
		case *format.Entry:
			entry = rec.Clone()
		case *format.Refs:
			run = append(run, rec.Chunks...)
		case *format.Hole:
			check()
		case *format.EOF:
			check()
			files++
			if entry.Chunker != name {
				t.Fatalf("%q was cut by %q", entry.Path, entry.Chunker)
			}
		}
	}
}

// TestRechunkThroughFilters cuts histories anew behind filters, daily and at once:
// the outcome is that of cutting every file from its beginning, the contents are
// those of a conversion that keeps the cuts, and nothing is done for a day on which
// nothing changed.
func TestRechunkThroughFilters(t *testing.T) {
	specs := []string{"gear:2KiB,8KiB,32KiB", "fixed:10000", "gear:64KiB"}
	seed := uint64(0)
	for name, opts := range filters(t) {
		for range 3 {
			seed++
			spec := specs[seed%3]
			t.Run(fmt.Sprint(name, " ", spec), func(t *testing.T) {
				tr := historytest.New(t, 100+seed)
				source := historytest.Repository(t, "gear:16KiB")
				tr.History(t, source, "gear:16KiB", 4)
				kept, once, daily := historytest.Repository(t, "gear:16KiB"), historytest.Repository(t, "gear:16KiB"), historytest.Repository(t, "gear:16KiB")
				if _, _, err := sync(t, source, kept, opts); err != nil {
					t.Fatal(err)
				}
				all := func(*format.Snapshot) bool { return true }
				syncAnew(t, source, once, opts, spec, all)
				list, err := source.Snapshots(context.Background())
				if err != nil {
					t.Fatal(err)
				}
				for _, snap := range list {
					syncAnew(t, source, daily, opts, spec, func(s *format.Snapshot) bool { return s.Time.Sec <= snap.Time.Sec })
				}
				for _, r := range []*repo.Repository{once, daily} {
					if checkCuts(t, r, spec) == 0 {
						t.Fatal("no files")
					}
					equal(t, kept, r)
				}
				tr.Backup(t, source, "gear:16KiB")
				tr.Backup(t, source, "gear:16KiB")
				syncAnew(t, source, daily, opts, spec, all)
				tr.Backup(t, source, "gear:16KiB")
				if sum := syncAnew(t, source, daily, opts, spec, all); sum.BytesCut != 0 || sum.BytesReadBack != 0 || sum.DataBytes != 0 || len(sum.Snapshots) != 1 {
					t.Errorf("nothing changed, and %d bytes were cut, %d read again, %d sent", sum.BytesCut, sum.BytesReadBack, sum.DataBytes)
				}
			})
		}
	}
}
