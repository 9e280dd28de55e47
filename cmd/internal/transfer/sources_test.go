package transfer

import (
	"context"
	crand "crypto/rand"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/bk-backup/bk/cmd/internal/historytest"
	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/borg"
	"github.com/bk-backup/bk/format/filter"
	"github.com/bk-backup/bk/format/restic"
	"github.com/bk-backup/bk/format/tar"
	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/store/dir"
	"github.com/bk-backup/bk/repo/store/mem"
)

// fill sends everything of a repository into the sink of another system.
func fill(t *testing.T, from format.System, opts format.ExportOptions, sink format.SinkCloser, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	src, err := from.Export(context.Background(), opts)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if err := errors.Join(format.Copy(context.Background(), sink, src), sink.Close()); err != nil {
		t.Fatal(err)
	}
}

// systems are the history of a repository in other systems.
func systems(t *testing.T, from format.System) map[string]format.System {
	t.Helper()
	ctx := context.Background()
	out := make(map[string]format.System)
	keep := func(name string, s format.System, err error) {
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		out[name] = s
	}
	passphrase := func(context.Context) (string, error) { return "p", nil }

	place := filepath.Join(t.TempDir(), "archives") + "/"
	archives, err := tar.Create(ctx, place, tar.SinkOptions{})
	fill(t, from, format.ExportOptions{Flat: true}, archives, err)
	tars, err := tar.Open(ctx, place, tar.Options{})
	keep("tar", tars, err)

	var st store.Store = mem.New()
	into, err := restic.OpenSink(ctx, st, restic.SinkOptions{Passphrase: passphrase})
	fill(t, from, format.ExportOptions{}, into, err)
	r, err := restic.Open(ctx, st, restic.Options{Passphrase: passphrase})
	keep("restic", r, err)

	borgDir := filepath.Join(t.TempDir(), "borg")
	if err := borg.Init(ctx, borgDir, borg.InitOptions{Encryption: "none", Now: time.Now, Rand: crand.Reader}); err != nil {
		t.Fatal(err)
	}
	open := func() store.Store {
		files, err := dir.Open(borgDir, dir.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	archive, err := borg.OpenSink(ctx, borgDir, open(), borg.Options{}, borg.SinkOptions{Now: time.Now, Rand: crand.Reader})
	fill(t, from, format.ExportOptions{}, archive, err)
	b, err := borg.Open(ctx, open(), borg.Options{})
	keep("borg", b, err)
	return out
}

// TestOtherSourcesInterrupted is TestPipeInterrupted for sources of other kinds.
func TestOtherSourcesInterrupted(t *testing.T) {
	tr := historytest.New(t, 13)
	first := historytest.Repository(t, "gear:16KiB")
	tr.History(t, first, "gear:16KiB", 2)
	for name, source := range systems(t, first) {
		t.Run(name, func(t *testing.T) {
			whole := historytest.Repository(t, "gear:16KiB")
			if _, err := importStream(t, whole, piped(t, source, whole, filter.Options{})); err != nil {
				t.Fatal(err)
			}
			for seed := range uint64(4) {
				rng := rand.New(rand.NewPCG(seed, 14))
				target := historytest.Repository(t, "gear:16KiB")
				sent := make(map[[2]format.ID]bool)
				for round := 0; ; round++ {
					stream := piped(t, source, target, filter.Options{})
					if stream == nil {
						break
					}
					if end := rng.IntN(len(stream)); round < 3 {
						stream = stream[:end]
					}
					for _, chunk := range chunksSent(stream) {
						if sent[chunk] {
							t.Fatalf("seed %d: chunk %s was sent twice with snapshot %s", seed, chunk[1], chunk[0])
						}
						sent[chunk] = true
					}
					if _, err := importStream(t, target, stream); err != nil && format.ClassOf(err) != format.ClassCut {
						t.Fatal(err)
					}
				}
				equal(t, whole, target)
			}
		})
	}
}
