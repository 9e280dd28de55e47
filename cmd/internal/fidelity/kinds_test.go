package fidelity_test

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/bk-backup/bk/cmd/internal/historytest"
	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/restic"
	bktar "github.com/bk-backup/bk/format/tar"
	"github.com/bk-backup/bk/repo"
	"github.com/bk-backup/bk/repo/store/dir"
)

// resticFixture opens a repository that restic made.
func resticFixture(t *testing.T) format.System {
	t.Helper()
	f, err := os.Open(filepath.FromSlash("../../../format/restic/testdata/restic-v2.tar.zst"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zr, err := zstd.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	defer zr.Close()
	place := t.TempDir()
	for tr := tar.NewReader(zr); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(place, filepath.FromSlash(h.Name))
		if h.Typeflag == tar.TypeDir {
			err = os.MkdirAll(name, 0o700)
		} else {
			var content []byte
			if content, err = io.ReadAll(tr); err == nil {
				err = os.WriteFile(name, content, 0o600)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	st, err := dir.Open(filepath.Join(place, "repo"), dir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := restic.Open(context.Background(), st, restic.Options{
		Passphrase: func(context.Context) (string, error) { return "restic set-a passphrase", nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// move sends everything from a system into a sink.
func move(t *testing.T, from format.System, opts format.ExportOptions, sink interface {
	format.Sink
	io.Closer
}) {
	t.Helper()
	ctx := context.Background()
	src, err := from.Export(ctx, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if err := errors.Join(format.Copy(ctx, sink, src), sink.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestKindsOfSystems compares a repository of restic, one of bk that was made of
// it with other cuts, and the archives that were made of that.
func TestKindsOfSystems(t *testing.T) {
	ctx := context.Background()
	old, bk := resticFixture(t), historytest.Repository(t, "gear:16KiB")
	sink, err := bk.Import(ctx, repo.ImportOptions{ChunkerFor: historytest.Splitters(t, bk, "gear:16KiB")})
	if err != nil {
		t.Fatal(err)
	}
	list, err := old.Snapshots(ctx)
	if err != nil {
		t.Fatal(err)
	}
	old = &newestOnly{old, list[len(list)-1]}
	move(t, old, format.ExportOptions{Snapshots: []format.ID{list[len(list)-1].ID}}, sink)
	place := filepath.Join(t.TempDir(), "archives") + "/"
	archives, err := bktar.Create(ctx, place, bktar.SinkOptions{})
	if err != nil {
		t.Fatal(err)
	}
	move(t, bk, format.ExportOptions{Flat: true}, archives)
	tars, err := bktar.Open(ctx, place, bktar.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer tars.Close()
	for name, pair := range map[string][2]format.System{
		"restic and bk": {old, bk}, "bk and tar": {bk, tars}, "tar and restic": {tars, old},
	} {
		t.Run(name, func(t *testing.T) {
			report, found := compare(t, pair[0], pair[1])
			if !report.Same() || report.Equal != 1 || report.Entries == 0 {
				t.Errorf("%+v: %q", report, found)
			}
		})
	}

	// One byte of one file, and the time of another.
	changed := &stageSystem{System: bk, stage: func(rec format.Record) {
		switch rec := rec.(type) {
		case *format.Data:
			if rec.Codec == format.CodecNone && rec.Size > 1 {
				rec.Payload[0] ^= 1
				rec.ID, rec.Checked = format.SumID(rec.Payload), true
			}
		case *format.Entry:
			if rec.Type == format.TypeSymlink {
				rec.Mtime.Sec++
			}
		}
	}}
	if report, found := compare(t, changed, tars); report.Same() || len(found) < 2 {
		t.Errorf("changed content and times were not found: %+v, %q", report, found)
	}
}

// newestOnly is a system of which one snapshot is shown.
type newestOnly struct {
	format.System
	newest *format.Snapshot
}

// Snapshots implements format.System.
func (n *newestOnly) Snapshots(context.Context) ([]*format.Snapshot, error) {
	return []*format.Snapshot{n.newest}, nil
}

// stageSystem changes the records of a system.
type stageSystem struct {
	format.System
	stage func(format.Record)
}

// Export implements format.System.
func (s *stageSystem) Export(ctx context.Context, opts format.ExportOptions) (format.SourceCloser, error) {
	opts.Plain = true
	src, err := s.System.Export(ctx, opts)
	return &stageSource{src, s.stage}, err
}

type stageSource struct {
	format.SourceCloser
	stage func(format.Record)
}

// Next implements format.Source.
func (s *stageSource) Next() (format.Record, error) {
	rec, err := s.SourceCloser.Next()
	if err == nil {
		s.stage(rec)
	}
	return rec, err
}
