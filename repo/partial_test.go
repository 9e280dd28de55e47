package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/internal/mp"
	"github.com/bk-backup/bk/repo/pack"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/store/mem"
	"github.com/bk-backup/bk/repo/tree"
)

// partialsOf returns which chunks came of which snapshot, as an exporter asks.
func partialsOf(t testing.TB, r *Repository) (has func(snapshot, chunk format.ID) bool, chunks int) {
	t.Helper()
	came := make(map[[2]format.ID]bool)
	err := r.Partials(context.Background(), func(p Partial) error {
		for _, ref := range p.Chunks {
			came[[2]format.ID{p.IDs[0], ref.ID}] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return func(snapshot, chunk format.ID) bool { return came[[2]format.ID{snapshot, chunk}] }, len(came)
}

// partialObjects counts the notes on storage.
func partialObjects(t testing.TB, r *Repository) (n int) {
	t.Helper()
	err := r.store.List(context.Background(), seal.KindPartial.Dir(), func(store.Info) error { n++; return nil })
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// next exports what a target lacks, as bk-export --have does with what bk-import
// --list-imported says.
func next(t testing.TB, from, to *Repository) []byte {
	t.Helper()
	ctx := context.Background()
	list, _, err := from.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	held, _, err := to.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	has := make(map[format.ID]bool)
	for _, s := range held {
		has[s.Imported] = true
	}
	var opts format.ExportOptions
	for _, s := range list {
		if has[s.ID] {
			opts.Base = s.ID
		} else {
			opts.Snapshots = append(opts.Snapshots, s.ID)
		}
	}
	if len(opts.Snapshots) == 0 {
		return nil
	}
	opts.Arrived, _ = partialsOf(t, to)
	src, err := from.Export(ctx, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	var stream bytes.Buffer
	if err := format.Copy(ctx, format.NewWriter(&stream, format.WriterOptions{}), src); err != nil {
		t.Fatal(err)
	}
	return stream.Bytes()
}

// sentIn counts the data records of a stream, or of its beginning, by snapshot and
// chunk, and the bytes of those that were counted before.
func sentIn(stream []byte, into map[[2]format.ID]int) (again uint64) {
	rd := format.NewReader(bytes.NewReader(stream), format.ReaderOptions{})
	var snapshot format.ID
	for {
		rec, err := rd.Next()
		if err != nil {
			return again
		}
		switch rec := rec.(type) {
		case *format.Snapshot:
			snapshot = rec.ID
		case *format.Data:
			key := [2]format.ID{snapshot, rec.ID}
			if into[key]++; into[key] > 1 {
				again += uint64(rec.Size)
			}
		}
	}
}

// state is what two repositories with the same keys must have in common if they
// hold the same.
func state(t testing.TB, r *Repository) (out []string) {
	t.Helper()
	list, damage, err := r.List(context.Background())
	if err != nil || len(damage) > 0 {
		t.Fatal(err, damage)
	}
	for _, s := range list {
		out = append(out, fmt.Sprint(s.Imported, s.Root, s.Entries, s.Bytes, s.Meta.Via))
	}
	return out
}

// chunkOptions has content cut anew by a splitter, if one is named.
func chunkOptions(t testing.TB, r *Repository, spec string) (in ImportOptions) {
	if spec != "" {
		in.ChunkerFor = chunkersOf(t, r, spec)
	}
	return in
}

// TestCutOffIsNotSentAgain cuts streams off at random places, goes on as often as
// it takes, and compares with an import that nobody interrupted: the outcome is the
// same, no chunk of a snapshot is sent twice, and none is stored twice. Where content
// is cut anew, what waits for its next cut when the stream ends is sent again.
func TestCutOffIsNotSentAgain(t *testing.T) {
	t.Parallel()
	const waitingMax = 1<<10 + 1<<11 // a chunk of the longest of these splitters, and one of the source
	for name, specs := range map[string][]string{
		"kept": {""}, "cut anew": {"gear:64,256,1KiB"}, "fixed": {"fixed:300"},
		"kept, then cut anew": {"", "gear:64,256,1KiB"}, "cut anew, then kept": {"fixed:300", ""}, "cut in two ways": {"fixed:37", "gear:64,256,1KiB"},
	} {
		t.Run(name, func(t *testing.T) {
			cuts := 0
			for seed := range underRace(uint64(4), 1) {
				rng := rand.New(rand.NewPCG(seed, 31))
				a, empty := newRepo(t, 1), initStore(t)
				importModel(t, a, rechunkHistory(rng, 3, 12))
				last := specs[len(specs)-1]
				whole := mustOpen(t, empty.Clone())
				all, _ := transfer(t, a, whole, format.ExportOptions{}, chunkOptions(t, whole, last))

				b := mustOpen(t, empty.Clone())
				sent, stored, waiting := make(map[[2]format.ID]int), uint64(0), uint64(0)
				for round := 0; ; round++ {
					stream := next(t, a, b)
					if len(stream) == 0 {
						break
					}
					spec := specs[min(round, len(specs)-1)]
					end := rng.IntN(len(stream))
					if round >= 4+len(specs) {
						end = len(stream)
					}
					again := sentIn(stream[:end], sent)
					if again > waiting {
						t.Fatalf("seed %d: %d bytes were sent a second time", seed, again)
					}
					waiting -= again
					if spec != "" {
						waiting += waitingMax
					}
					sink, err := b.Import(context.Background(), chunkOptions(t, b, spec))
					if err != nil {
						t.Fatal(err)
					}
					err = format.Copy(context.Background(), sink, format.NewReader(bytes.NewReader(stream[:end]), format.ReaderOptions{}))
					if end < len(stream) && format.ClassOf(err) != format.ClassCut {
						t.Fatalf("seed %d: cut at %d of %d: %v", seed, end, len(stream), err)
					}
					if err := sink.Close(); err != nil {
						t.Fatal(err)
					}
					cuts++
					stored += sink.Summary().NewChunks
				}
				if len(specs) == 1 {
					if diff := cmp.Diff(state(t, whole), state(t, b)); diff != "" {
						t.Fatalf("seed %d: uninterrupted (-), interrupted (+): %s", seed, diff)
					}
					if stored != all.NewChunks {
						t.Errorf("seed %d: %d chunks were stored, %d without interruption", seed, stored, all.NewChunks)
					}
				}
				if diff := cmp.Diff(expand(t, whole, format.ExportOptions{}), expand(t, b, format.ExportOptions{})); diff != "" {
					t.Fatalf("seed %d: content: %s", seed, diff[:min(len(diff), 2000)])
				}
				if n := partialObjects(t, b); n != 0 {
					t.Errorf("seed %d: %d notes stay behind", seed, n)
				}
			}
			t.Logf("%d cuts", cuts)
		})
	}
}

// TestKilledImport copies the storage at random moments of an import, which is
// what a killed one leaves, and goes on there: the outcome is that of an import
// that was not killed, no pack that was on storage is stored again, and what was
// noted is not sent again.
func TestKilledImport(t *testing.T) {
	t.Parallel()
	for name, spec := range map[string]string{"kept": "", "cut anew": "gear:64,256,1KiB"} {
		t.Run(name, func(t *testing.T) {
			spared, kills := 0, 0
			// Packs are stored in the background: on a busy machine it may take more
			// kills to see one that left something.
			for seed := uint64(0); seed < underRace(uint64(8), 3) || spared == 0 && seed < 200; seed++ {
				rng := rand.New(rand.NewPCG(seed, 32))
				a, empty := newRepo(t, 1), initStore(t)
				importModel(t, a, rechunkHistory(rng, 3, 12))
				whole := mustOpen(t, empty.Clone())
				all, _ := transfer(t, a, whole, format.ExportOptions{}, chunkOptions(t, whole, spec))
				st := empty.Clone()
				killed := killImport(t, rng, st, next(t, a, mustOpen(t, st)), spec)

				b := mustOpen(t, killed)
				arrived, noted := partialsOf(t, b)
				stream := next(t, a, b)
				if len(stream) == 0 {
					continue
				}
				kills++
				sent := make(map[[2]format.ID]int)
				sentIn(stream, sent)
				for chunk := range sent {
					if arrived(chunk[0], chunk[1]) {
						t.Errorf("seed %d: chunk %s had come and was sent again", seed, chunk[1])
					}
				}
				spared += noted
				onStorage := dataChunksOn(t, killed.Clone())
				sink, err := b.Import(context.Background(), chunkOptions(t, b, spec))
				if err != nil {
					t.Fatal(err)
				}
				if err := format.Copy(context.Background(), sink, format.NewReader(bytes.NewReader(stream), format.ReaderOptions{})); err != nil {
					t.Fatal(err)
				}
				if err := sink.Close(); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(state(t, whole), state(t, b)); diff != "" {
					t.Fatalf("seed %d: not killed (-), killed (+): %s", seed, diff)
				}
				if n := sink.Summary().NewChunks; n+onStorage != all.NewChunks {
					t.Errorf("seed %d: %d chunks were on storage, %d were stored then, %d without a kill", seed, onStorage, n, all.NewChunks)
				}
				if n := partialObjects(t, b); n != 0 {
					t.Errorf("seed %d: %d notes stay behind", seed, n)
				}
			}
			t.Logf("%d kills; %d chunks need not be sent again", kills, spared)
			if spared == 0 {
				t.Error("nothing was noted in any of them")
			}
		})
	}
}

// killImport imports a stream in small packs, with a note after each, and returns
// what is on storage at a random moment.
func killImport(t *testing.T, rng *rand.Rand, st *mem.Store, stream []byte, spec string) *mem.Store {
	t.Helper()
	r := mustOpen(t, st)
	in := chunkOptions(t, r, spec)
	in.NoteBytes = 1
	sink, err := r.Import(context.Background(), in)
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	sink.session.data.sizeAim = 8 << 10
	rd := format.NewReader(bytes.NewReader(stream[:rng.IntN(len(stream))]), format.ReaderOptions{})
	for {
		rec, err := rd.Next()
		if err != nil {
			break
		}
		if err := sink.Write(rec); err != nil {
			t.Fatal(err)
		}
		// Packs are stored, and content is cut, in the background: a test is faster
		// with records than anything that makes them.
		for len(sink.session.data.uploads) > 0 || sink.anew != nil && len(sink.anew.queue) > 0 {
			time.Sleep(50 * time.Microsecond)
		}
	}
	return st.Clone()
}

// dataChunksOn counts the chunks of content in packs on storage.
func dataChunksOn(t testing.TB, st *mem.Store) (n uint64) {
	t.Helper()
	r := mustOpen(t, st)
	if _, err := r.adoptUnlisted(context.Background()); err != nil {
		t.Fatal(err)
	}
	seen := make(map[seal.Label]bool)
	count := func(listed pack.Listed) {
		if listed.Info.Kind == seal.KindDataPack {
			for _, e := range listed.Entries {
				if !seen[e.Label] {
					seen[e.Label] = true
					n++
				}
			}
		}
	}
	err := r.store.List(context.Background(), seal.KindDataPack.Dir(), func(info store.Info) error {
		listed, err := r.readDirectory(context.Background(), info)
		count(listed)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestCollectKeepsWhatArrived collects garbage between an import that was cut off
// and the next: within the grace what came stays, and later it goes.
func TestCollectKeepsWhatArrived(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 33))
	a := newRepo(t, 1)
	importModel(t, a, rechunkHistory(rng, 2, 12))
	clock := time.Unix(1_700_000_000, 0)
	st := initStore(t)
	st.SetClock(func() time.Time { return clock })
	stream := next(t, a, mustOpen(t, st))
	b := mustOpen(t, st)
	sink, err := b.Import(context.Background(), ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := format.Copy(context.Background(), sink, format.NewReader(bytes.NewReader(stream[:len(stream)/3]), format.ReaderOptions{})); format.ClassOf(err) != format.ClassCut {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	_, came := partialsOf(t, b)
	const grace = 24 * time.Hour
	for range 3 { // two phases, and one more
		clock = clock.Add(grace / 4)
		if _, err := mustOpen(t, st).Collect(context.Background(), CollectOptions{Grace: grace}); err != nil {
			t.Fatal(err)
		}
	}
	if _, n := partialsOf(t, mustOpen(t, st)); n != came || came == 0 {
		t.Fatalf("%d chunks had come, %d are there after collecting", came, n)
	}
	for range 3 {
		clock = clock.Add(2 * grace)
		if _, err := mustOpen(t, st).Collect(context.Background(), CollectOptions{Grace: grace}); err != nil {
			t.Fatal(err)
		}
	}
	r := mustOpen(t, st)
	if n := partialObjects(t, r); n != 0 {
		t.Errorf("%d notes stay behind", n)
	}
	if n := dataChunksOn(t, st); n != 0 {
		t.Errorf("%d chunks that nobody needs are there still", n)
	}
	// What was collected is sent again, and nothing is missed.
	transfer(t, a, r, format.ExportOptions{}, ImportOptions{})
	if diff := cmp.Diff(expand(t, a, format.ExportOptions{}), expand(t, r, format.ExportOptions{})); diff != "" {
		t.Error(diff[:min(len(diff), 2000)])
	}
}

// TestArrivedElsewhere refuses refs to what came with another snapshot.
func TestArrivedElsewhere(t *testing.T) {
	st := initStore(t)
	plain := []byte("a chunk of some bytes")
	id, entry := format.SumID(plain), modelEntry("one", format.TypeFile)
	send := func(snapshot format.ID, content format.Record) error {
		sink, err := mustOpen(t, st).Import(context.Background(), ImportOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, rec := range []format.Record{
			&format.Header{Version: 1, Features: []format.Feature{format.FeatureHeld}}, &format.Snapshot{ID: snapshot}, &entry, content,
		} {
			if err := sink.Write(rec); err != nil {
				return errors.Join(err, sink.Close())
			}
		}
		return sink.Close()
	}
	data := func() format.Record {
		return &format.Data{ID: id, Size: uint32(len(plain)), Payload: append(format.AllocPayload(len(plain))[:0], plain...)}
	}
	refs := &format.Refs{Chunks: []format.ChunkRef{{ID: id, Size: uint32(len(plain))}}}
	if err := send(format.ID{9}, data()); err != nil {
		t.Fatal(err)
	}
	if err := send(format.ID{8}, refs); format.ClassOf(err) != format.ClassReference {
		t.Errorf("a ref to what came with another snapshot: %v", err)
	}
	if err := send(format.ID{9}, &format.Refs{Chunks: []format.ChunkRef{{ID: id, Size: 7}}}); format.ClassOf(err) != format.ClassReference {
		t.Errorf("a ref of another size: %v", err)
	}
	if err := send(format.ID{9}, refs); err != nil {
		t.Errorf("a ref to what came: %v", err)
	}
}

// FuzzPartial reads partial objects of any bytes.
func FuzzPartial(f *testing.F) {
	list := new(pieceList)
	list.add(tree.Piece{ID: format.ID{3}, Size: 5})
	list.add(tree.Piece{Size: 4096})
	for _, run := range []arrivedRun{
		{came: []format.ChunkRef{{ID: format.ID{1}, Size: 7}, {ID: format.ID{2}, Size: 9}}},
		{came: []format.ChunkRef{{ID: format.ID{1}, Size: 7}}, at: []uint64{2}, stored: list, by: "fixed:5"},
	} {
		id := format.ID{1}
		f.Add(mp.Encode(&partialBody{Runs: []partialRun{run.encode()}, Snapshot: id[:], Via: [][]byte{id[:]}}))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := decodePartial(b)
		if err != nil {
			return
		}
		for i := range p.runs {
			run := &p.runs[i]
			back, err := decodeRun(new(run.encode()))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(run, &back, cmp.AllowUnexported(arrivedRun{}, pieceList{})); diff != "" {
				t.Fatal(diff)
			}
			for n := range run.came {
				if run.stored != nil && run.stored.find(run.at[n]) >= len(run.stored.pieces) {
					t.Fatal("a chunk begins behind the end")
				}
			}
		}
	})
}
