package transfer

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/cmd/internal/historytest"
	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/filter"
	"github.com/bk-backup/bk/repo"
	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/store/mem"
)

// rewriteAll is bk-rewrite --all, and with forget what it was made from goes.
func rewriteAll(t *testing.T, r *repo.Repository, opts filter.Options, forget bool) *rewriter {
	t.Helper()
	ctx := context.Background()
	list, _, err := r.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	app := &cli.App{Name: "bk-rewrite", Stderr: io.Discard, Common: cli.Common{Quiet: true}}
	w := &rewriter{app: app, r: r, filter: opts, list: list}
	var chosen []*format.Snapshot
	for _, s := range list {
		chosen = append(chosen, &s.Meta)
	}
	if err := w.run(ctx, chosen); err != nil {
		t.Fatal(err)
	}
	if forget {
		if err := w.forget(ctx, chosen); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// chunksOf returns the chunks of the files that have a name, and those of all
// others, in all snapshots.
func chunksOf(t *testing.T, r *repo.Repository, isName func(path string) bool) (named, others map[format.ChunkRef]bool) {
	t.Helper()
	src, err := r.Export(context.Background(), format.ExportOptions{Full: true, Held: true})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	named, others = make(map[format.ChunkRef]bool), make(map[format.ChunkRef]bool)
	path := ""
	for {
		rec, err := src.Next()
		if errors.Is(err, io.EOF) {
			return named, others
		}
		if err != nil {
			t.Fatal(err)
		}
		switch rec := rec.(type) {
		case *format.Entry:
			path = rec.Path
		case *format.Refs:
			for _, ref := range rec.Chunks {
				if isName(path) {
					named[ref] = true
				} else {
					others[ref] = true
				}
			}
		}
	}
}

// packBytes is what storage holds in packs.
func packBytes(t *testing.T, st store.Store) (n int64) {
	t.Helper()
	if err := st.List(context.Background(), "packs/", func(info store.Info) error { n += info.Size; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestRewriteInPlace drops a file from a whole history within its repository: no
// content is read or stored; when the originals are forgotten and garbage is
// collected, the content of that file is in no pack on storage, and all else is.
func TestRewriteInPlace(t *testing.T) {
	ctx := context.Background()
	st := mem.New()
	r := historytest.RepositoryIn(t, st, "gear:16KiB")
	tr := historytest.New(t, 21)
	for range 5 {
		tr.Write(t, "pictures/cat.jpg", tr.Random(400_000))
		tr.Backup(t, r, "gear:16KiB")
		tr.Change(t)
	}
	isCat := func(path string) bool { return strings.HasSuffix(path, "/cat.jpg") }
	cats, others := chunksOf(t, r, isCat)
	opts := filter.Options{Paths: patterns(t, "*cat.jpg")}
	before := packBytes(t, st)
	w := rewriteAll(t, r, opts, false)
	if w.read != 0 || w.sum.NewChunks != 0 || w.sum.DataChunks != 0 || len(w.sum.Snapshots) != 5 {
		t.Errorf("%d chunks of content were read, %d came, %d were stored for %d snapshots", w.read, w.sum.DataChunks, w.sum.NewChunks, len(w.sum.Snapshots))
	}
	if n := rewriteAll(t, r, opts, true).forgotten; n != 5 {
		t.Errorf("%d snapshots were forgotten", n)
	}
	if read := r.Stats().DataChunksRead.Load(); read != 0 {
		t.Errorf("%d chunks of content were read", read)
	}
	if _, err := r.Collect(ctx, repo.CollectOptions{MaxUnused: -1}); err != nil {
		t.Fatal(err)
	}

	left := historytest.Reopen(t, st)
	if list, _, err := left.List(ctx); err != nil || len(list) != 5 {
		t.Fatalf("%d snapshots, %v", len(list), err)
	}
	if named, rest := chunksOf(t, left, isCat); len(named) != 0 || len(rest) != len(others) {
		t.Errorf("%d chunks of dropped files, %d of others, which had %d", len(named), len(rest), len(others))
	}
	for ref := range cats {
		if others[ref] {
			continue
		}
		// What no index lists is looked for in the directory of every other pack.
		err := left.ReadChunks(ctx, []format.ChunkRef{ref}, func(_ int, _ []byte, err error) error { return err })
		if !errors.Is(err, repo.ErrMissing) {
			t.Fatalf("chunk %s of a dropped file: %v", ref.ID, err)
		}
	}
	for ref := range others {
		if err := left.ReadChunks(ctx, []format.ChunkRef{ref}, func(_ int, _ []byte, err error) error { return err }); err != nil {
			t.Fatal(err)
		}
	}
	// Packs are padded: how much, hangs on what the keys of the day cut.
	if after := packBytes(t, st); after > before-5*400_000+before/32 {
		t.Errorf("packs had %d bytes and have %d, without 5 pictures of 400,000", before, after)
	}
}
