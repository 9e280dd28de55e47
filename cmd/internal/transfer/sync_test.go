package transfer

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/cmd/internal/fidelity"
	"github.com/bk-backup/bk/cmd/internal/historytest"
	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/filter"
	"github.com/bk-backup/bk/repo"
)

// sync brings target up to date in this process.
func sync(t testing.TB, source format.System, target *repo.Repository, opts filter.Options) (repo.Imported, int, error) {
	t.Helper()
	ctx := context.Background()
	list, err := source.Snapshots(ctx)
	if err != nil {
		t.Fatal(err)
	}
	known, _, err := target.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	app := &cli.App{Name: "bk-sync", Stderr: io.Discard, Common: cli.Common{Quiet: true}}
	s := syncer{app: app, source: source, target: target, filter: opts, known: known}
	runs, kept, err := plan(choose(list, &s.filter), heldBy(target, known), opts.Description())
	if err != nil {
		return repo.Imported{}, kept, err
	}
	err = s.all(ctx, runs)
	return s.sum, kept, err
}

// equal fails unless two systems hold equal snapshots.
func equal(t testing.TB, a, b format.System) {
	t.Helper()
	ctx := context.Background()
	listA, errA := a.Snapshots(ctx)
	listB, errB := b.Snapshots(ctx)
	if err := errors.Join(errA, errB); err != nil {
		t.Fatal(err)
	}
	report, err := fidelity.Compare(ctx, a, b, listA, listB, fidelity.Options{OnDifference: func(d fidelity.Difference) {
		t.Errorf("snapshot %s, %q: %s", d.A.ID.Short(), d.Path, d.What)
	}})
	if err != nil {
		t.Fatal(err)
	}
	if !report.Same() || report.Pairs != len(listA) {
		t.Fatalf("not equal: %+v", report)
	}
}

func patterns(t testing.TB, drop string) *filter.Patterns {
	t.Helper()
	p, err := filter.NewPatterns([]filter.Rule{{Pattern: drop}}, false)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func filters(t testing.TB) map[string]filter.Options {
	large := uint64(300_000)
	return map[string]filter.Options{
		"no filter":  {},
		"by path":    {Paths: patterns(t, "*cat.jpg")},
		"by size":    {Attributes: filter.Attributes{LargerThan: &large}},
		"by content": {Magic: []string{"image/png"}},
		"changes":    {Changes: filter.Changes{SetHost: "elsewhere", AddTags: []string{"old"}}},
	}
}

// TestSyncDaily converts each snapshot when it is made, and compares with the
// whole history converted at once.
func TestSyncDaily(t *testing.T) {
	for name, opts := range filters(t) {
		t.Run(name, func(t *testing.T) {
			tr := historytest.New(t, 5)
			source := historytest.Repository(t, "gear:16KiB")
			daily, once := historytest.Repository(t, "gear:16KiB"), historytest.Repository(t, "gear:16KiB")
			for day := range 5 {
				tr.Backup(t, source, "gear:16KiB")
				if _, kept, err := sync(t, source, daily, opts); err != nil || kept != day {
					t.Fatalf("day %d: %d were held: %v", day, kept, err)
				}
				tr.Change(t)
			}
			if _, _, err := sync(t, source, once, opts); err != nil {
				t.Fatal(err)
			}
			equal(t, once, daily)
			if name == "no filter" {
				equal(t, source, daily)
			}
			if _, kept, err := sync(t, source, daily, opts); err != nil || kept != 5 {
				t.Fatalf("nothing new: %d held, %v", kept, err)
			}
		})
	}
}

// TestSyncReadsWhatIsNew counts what a second run reads at the source.
func TestSyncReadsWhatIsNew(t *testing.T) {
	tr := historytest.New(t, 6)
	source, target := historytest.Repository(t, "gear:16KiB"), historytest.Repository(t, "gear:16KiB")
	tr.Backup(t, source, "gear:16KiB")
	if _, _, err := sync(t, source, target, filter.Options{}); err != nil {
		t.Fatal(err)
	}
	before := source.Stats().DataChunksRead.Load()
	tr.Write(t, "new", tr.Random(3000))
	tr.Write(t, "again", []byte("a copy"))
	tr.Backup(t, source, "gear:16KiB")
	if _, _, err := sync(t, source, target, filter.Options{}); err != nil {
		t.Fatal(err)
	}
	if n := source.Stats().DataChunksRead.Load() - before; n != 2 {
		t.Errorf("%d chunks were read for two new files", n)
	}
}

func TestSyncRefusesAnotherFilter(t *testing.T) {
	tr := historytest.New(t, 7)
	source, target := historytest.Repository(t, "gear:16KiB"), historytest.Repository(t, "gear:16KiB")
	tr.History(t, source, "gear:16KiB", 2)
	if _, _, err := sync(t, source, target, filter.Options{Paths: patterns(t, "*cat.jpg")}); err != nil {
		t.Fatal(err)
	}
	for _, other := range []filter.Options{{}, {Paths: patterns(t, "*.txt")}} {
		if _, _, err := sync(t, source, target, other); err == nil {
			t.Error("another filter was taken")
		}
	}
}

// cutSource is a system whose streams break off after a number of records.
type cutSource struct {
	format.System
	left int
}

var errCut = errors.New("broken off")

func (c *cutSource) Export(ctx context.Context, opts format.ExportOptions) (format.SourceCloser, error) {
	src, err := c.System.Export(ctx, opts)
	return &cutStream{src, c}, err
}

type cutStream struct {
	format.SourceCloser
	c *cutSource
}

func (s *cutStream) Next() (format.Record, error) {
	if s.c.left--; s.c.left < 0 {
		return nil, errCut
	}
	return s.SourceCloser.Next()
}

// TestSyncInterrupted breaks off at many places, goes on, and compares with a
// run that was not interrupted.
func TestSyncInterrupted(t *testing.T) {
	tr := historytest.New(t, 8)
	source := historytest.Repository(t, "gear:16KiB")
	tr.History(t, source, "gear:16KiB", 3)
	whole := historytest.Repository(t, "gear:16KiB")
	all, _, err := sync(t, source, whole, filter.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for cut := 1; ; cut += 9 {
		target := historytest.Repository(t, "gear:16KiB")
		first, _, err := sync(t, &cutSource{source, cut}, target, filter.Options{})
		if err == nil {
			break
		}
		if !errors.Is(err, errCut) {
			t.Fatal(err)
		}
		second, _, err := sync(t, source, target, filter.Options{})
		if err != nil {
			t.Fatal(err)
		}
		equal(t, whole, target)
		if first.NewChunks+second.NewChunks != all.NewChunks {
			t.Fatalf("cut after %d records: %d and then %d chunks were stored, not %d", cut, first.NewChunks, second.NewChunks, all.NewChunks)
		}
		// What arrived is not sent again.
		if first.DataChunks+second.DataChunks != all.DataChunks {
			t.Fatalf("cut after %d records: %d and then %d chunks were sent, not %d", cut, first.DataChunks, second.DataChunks, all.DataChunks)
		}
	}
}

// TestPipeIncremental is bk-export --have | bk-filter | bk-import through bytes.
func TestPipeIncremental(t *testing.T) {
	tr := historytest.New(t, 9)
	source, target := historytest.Repository(t, "gear:16KiB"), historytest.Repository(t, "gear:16KiB")
	tr.History(t, source, "gear:16KiB", 4)
	list, _, err := source.List(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	opts := filter.Options{Paths: patterns(t, "*cat.jpg")}
	pipe := func(opts filter.Options, base *repo.Snapshot, snaps ...*repo.Snapshot) error {
		ctx := context.Background()
		out := format.ExportOptions{}
		if base != nil {
			out.Base = base.ID
		}
		for _, s := range snaps {
			out.Snapshots = append(out.Snapshots, s.ID)
		}
		src, err := source.Export(ctx, out)
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		stage, err := filter.New(opts)
		if err != nil {
			t.Fatal(err)
		}
		defer stage.Close()
		var stream bytes.Buffer
		if err := format.Copy(ctx, format.NewWriter(&stream, format.WriterOptions{}), src, stage); err != nil {
			t.Fatal(err)
		}
		sink, err := target.Import(ctx, repo.ImportOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return errors.Join(format.Copy(ctx, sink, format.NewReader(&stream, format.ReaderOptions{})), sink.Close())
	}
	if err := pipe(opts, nil, list[:2]...); err != nil {
		t.Fatal(err)
	}
	if err := pipe(filter.Options{Paths: patterns(t, "*.txt")}, list[1], list[2:]...); format.ClassOf(err) != format.ClassParent {
		t.Fatalf("a difference through another filter: %v", err)
	}
	if err := pipe(opts, list[1], list[2:]...); err != nil {
		t.Fatal(err)
	}
	whole := historytest.Repository(t, "gear:16KiB")
	if _, _, err := sync(t, source, whole, opts); err != nil {
		t.Fatal(err)
	}
	equal(t, whole, target)
}

// listImported is bk-import --list-imported.
func listImported(t testing.TB, r *repo.Repository) *have {
	t.Helper()
	var out bytes.Buffer
	w := bufio.NewWriter(&out)
	if err := writeImported(context.Background(), w, r); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "have")
	if err := os.WriteFile(file, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	h, err := readHave(file)
	if err != nil {
		t.Fatal(err)
	}
	return &h
}

// piped is bk-export --all --have | bk-filter, as bytes; nil if nothing is new.
func piped(t testing.TB, source format.System, target *repo.Repository, opts filter.Options) []byte {
	t.Helper()
	ctx := context.Background()
	list, err := source.Snapshots(ctx)
	if err != nil {
		t.Fatal(err)
	}
	h := listImported(t, target)
	rest, base := h.leaveOut(list)
	if len(rest) == 0 {
		return nil
	}
	out := format.ExportOptions{Base: base, NoCopy: !opts.TakesCopy()}
	for _, s := range rest {
		out.Snapshots = append(out.Snapshots, s.ID)
	}
	if opts.TakesHeld() && h.arrived.of(out.Snapshots) { // without --no-held
		out.Arrived = h.arrived.has
	}
	src, err := source.Export(ctx, out)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	stage, err := filter.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	defer stage.Close()
	var stream bytes.Buffer
	if err := format.Copy(ctx, format.NewWriter(&stream, format.WriterOptions{}), src, stage); err != nil {
		t.Fatal(err)
	}
	return stream.Bytes()
}

// chunksSent returns the data records of a stream or of its beginning, by snapshot.
func chunksSent(stream []byte) (sent [][2]format.ID) {
	rd := format.NewReader(bytes.NewReader(stream), format.ReaderOptions{})
	var snapshot format.ID
	for {
		rec, err := rd.Next()
		if err != nil {
			return sent
		}
		switch rec := rec.(type) {
		case *format.Snapshot:
			snapshot = rec.ID
		case *format.Data:
			sent = append(sent, [2]format.ID{snapshot, rec.ID})
		}
	}
}

// TestPipeInterrupted cuts bk-export --have | bk-filter | bk-import off at random
// places, goes on as often as it takes, and compares with a pipe that was not
// interrupted. What came of a snapshot is not sent again, unless a filter has to
// see all content.
func TestPipeInterrupted(t *testing.T) {
	for name, opts := range filters(t) {
		t.Run(name, func(t *testing.T) {
			tr := historytest.New(t, 11)
			source := historytest.Repository(t, "gear:16KiB")
			tr.History(t, source, "gear:16KiB", 3)
			whole := historytest.Repository(t, "gear:16KiB")
			if _, err := importStream(t, whole, piped(t, source, whole, opts)); err != nil {
				t.Fatal(err)
			}
			cuts := 0
			for seed := range uint64(4) {
				rng := rand.New(rand.NewPCG(seed, 12))
				target := historytest.Repository(t, "gear:16KiB")
				sent := make(map[[2]format.ID]bool)
				for round := 0; ; round++ {
					stream := piped(t, source, target, opts)
					if stream == nil {
						break
					}
					if end := rng.IntN(len(stream)); round < 4 {
						stream = stream[:end]
						cuts++
					}
					for _, chunk := range chunksSent(stream) {
						if sent[chunk] && opts.TakesHeld() {
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
			t.Logf("%d cuts", cuts)
		})
	}
}

func importStream(t testing.TB, r *repo.Repository, stream []byte) (repo.Imported, error) {
	t.Helper()
	sink, err := r.Import(context.Background(), repo.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	err = format.Copy(context.Background(), sink, format.NewReader(bytes.NewReader(stream), format.ReaderOptions{}))
	return sink.Summary(), errors.Join(err, sink.Close())
}
