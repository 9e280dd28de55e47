package index

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/bk-backup/bk/repo/pack"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
)

// storage is index objects as they lie on storage, opened.
type storage map[[32]byte][]byte

func (s storage) names() [][32]byte {
	var names [][32]byte
	for n := range s {
		names = append(names, n)
	}
	return names
}

func (s storage) fetch(_ context.Context, name [32]byte) ([]byte, error) {
	body, ok := s[name]
	if !ok {
		return nil, fmt.Errorf("no index %x", name)
	}
	return body, nil
}

func (s storage) add(packs ...pack.Listed) [32]byte {
	body := pack.AppendIndex(nil, nil, packs)
	name := sha256.Sum256(body)
	s[name] = body
	return name
}

func labelOf(n int) seal.Label {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(n)))
	return seal.Label(sum[:seal.LabelSize])
}

// makePack lists chunks first to first+count-1.
func makePack(first, count int) pack.Listed {
	l := pack.Listed{Info: pack.Info{
		Name: sha256.Sum256(fmt.Appendf(nil, "pack %d", first)), Kind: seal.KindDataPack,
		Suite: seal.SuiteAES256GCM, Epoch: 1, Size: 1 << 24, Count: uint32(count),
		Salt: seal.Salt(sha256.Sum256([]byte{byte(first)})),
	}}
	offset := uint32(seal.HeaderSize)
	for n := first; n < first+count; n++ {
		size := uint32(100 + n%1000)
		raw := size - seal.Overhead
		if n%2 == 1 {
			raw *= 3
		}
		l.Entries = append(l.Entries, pack.Entry{Label: labelOf(n), Codec: pack.Codec(n % 2), RawSize: raw, StoredSize: size, Offset: offset})
		offset += size
	}
	return l
}

// check looks chunks up and compares all that is said of them.
func check(t *testing.T, c *Cache, l pack.Listed) {
	t.Helper()
	for i, e := range l.Entries {
		hit, found, err := c.Find(e.Label)
		if err != nil || !found {
			t.Fatalf("chunk %d of pack %x: found %v, error %v", i, l.Info.Name[:4], found, err)
		}
		want := Hit{l.Info, Location{Pack: hit.Location.Pack, Number: uint32(i), Offset: e.Offset, StoredSize: e.StoredSize, RawSize: e.RawSize, Codec: e.Codec}}
		if hit != want {
			t.Fatalf("chunk %d:\n got %+v\nwant %+v", i, hit, want)
		}
	}
}

func TestRefreshFindReopen(t *testing.T) {
	dir := t.TempDir()
	st := storage{}
	var packs []pack.Listed
	ctx := context.Background()
	for round := range 30 {
		l := makePack(round*1000, 200+round)
		packs = append(packs, l)
		st.add(l)
		c := Open(dir, nil)
		fetched := 0
		err := c.Refresh(ctx, st.names(), func(ctx context.Context, n [32]byte) ([]byte, error) {
			fetched++
			return st.fetch(ctx, n)
		})
		if err != nil {
			t.Fatal(err)
		}
		if fetched != 1 {
			t.Fatalf("round %d: %d index objects fetched, only one is new", round, fetched)
		}
		for _, l := range packs {
			check(t, c, l)
		}
		if _, found, _ := c.Find(labelOf(-1)); found {
			t.Fatal("found a chunk that nobody stored")
		}
		if len(c.runs) > runsMax {
			t.Fatalf("round %d: %d runs", round, len(c.runs))
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	files, _ := os.ReadDir(dir)
	if len(files) > runsMax {
		t.Errorf("%d files are left in the cache", len(files))
	}
}

func TestVanishedIndexIsForgotten(t *testing.T) {
	dir := t.TempDir()
	st := storage{}
	gone, stays := makePack(0, 100), makePack(1000, 100)
	name := st.add(gone)
	st.add(stays)
	c := Open(dir, nil)
	defer c.Close()
	if err := c.Refresh(context.Background(), st.names(), st.fetch); err != nil {
		t.Fatal(err)
	}
	check(t, c, gone)
	delete(st, name)
	if err := c.Refresh(context.Background(), st.names(), st.fetch); err != nil {
		t.Fatal(err)
	}
	check(t, c, stays)
	if _, found, _ := c.Find(gone.Entries[0].Label); found {
		t.Error("a chunk is found that no index on storage lists")
	}
}

func TestAbsentPacksAreLookedPast(t *testing.T) {
	st := storage{}
	a := makePack(0, 10)
	b := makePack(0, 10)
	b.Info.Name[0] ^= 1
	st.add(a)
	c := Open("", nil)
	defer c.Close()
	if err := c.Refresh(context.Background(), st.names(), st.fetch); err != nil {
		t.Fatal(err)
	}
	c.SetAbsent(map[[32]byte]bool{a.Info.Name: true})
	if _, found, _ := c.FindLive(a.Entries[3].Label); found {
		t.Fatal("a chunk of a condemned pack counts as held")
	}
	if hit, found, _ := c.Find(a.Entries[3].Label); !found || hit.Pack.Name != a.Info.Name {
		t.Fatal("a condemned pack cannot be read any more")
	}
	if fresh, err := c.Claim(a.Entries[3].Label); err != nil || !fresh {
		t.Fatalf("claim of a chunk that counts as absent: %v, %v", fresh, err)
	}
	c.Stored(b.Info, b.Entries)
	check(t, c, b)
	c.SetAbsent(map[[32]byte]bool{a.Info.Name: true, b.Info.Name: true})
	if fresh, err := c.Claim(b.Entries[3].Label); err != nil || !fresh {
		t.Fatalf("claim of a chunk of a pending pack that counts as absent: %v, %v", fresh, err)
	}
}

func TestIndexLeftOut(t *testing.T) {
	st := storage{}
	a, b := makePack(0, 10), makePack(10, 20)
	bad := st.add(a)
	st.add(b)
	c := Open("", nil)
	defer c.Close()
	err := c.Refresh(context.Background(), st.names(), func(ctx context.Context, name [32]byte) ([]byte, error) {
		if name == bad {
			return nil, ErrSkip
		}
		return st.fetch(ctx, name)
	})
	if err != nil {
		t.Fatal(err)
	}
	check(t, c, b)
	if err := c.Refresh(context.Background(), st.names(), st.fetch); err != nil {
		t.Fatal(err)
	}
	check(t, c, a)
	check(t, c, b)
}

// TestRefreshKeepsTheRest: an index that vanishes between listing and reading
// costs the others nothing.
func TestRefreshKeepsTheRest(t *testing.T) {
	s := storage{}
	for i := range 5 {
		s.add(makePack(100*i, 3))
	}
	names := s.names()
	c := Open(t.TempDir(), nil)
	defer c.Close()
	fetched := 0
	fetch := func(ctx context.Context, name [32]byte) ([]byte, error) {
		fetched++
		if name == names[2] {
			return nil, fmt.Errorf("index: %w", store.ErrNotFound)
		}
		return s.fetch(ctx, name)
	}
	if err := c.Refresh(t.Context(), names, fetch); !errors.Is(err, store.ErrNotFound) || fetched != 5 {
		t.Fatalf("%d were fetched: %v", fetched, err)
	}
	rest := slices.Delete(slices.Clone(names), 2, 3)
	if err := c.Refresh(t.Context(), rest, fetch); err != nil || fetched != 5 || c.Len() != 12 {
		t.Errorf("%d were fetched, %d chunks: %v", fetched, c.Len(), err)
	}
}

func TestClaimGoesToOne(t *testing.T) {
	c := Open("", nil)
	defer c.Close()
	const labels, claimants = 500, 8
	var got [labels]int
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range claimants {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range labels {
				fresh, err := c.Claim(labelOf(i))
				if err != nil {
					t.Error(err)
				}
				if fresh {
					mu.Lock()
					got[i]++
					mu.Unlock()
				}
			}
		}()
	}
	wg.Wait()
	for i, n := range got {
		if n != 1 {
			t.Fatalf("chunk %d was claimed %d times", i, n)
		}
	}
	c.Unclaim(labelOf(7))
	if fresh, _ := c.Claim(labelOf(7)); !fresh {
		t.Error("a claim that was given back cannot be taken again")
	}
}

func TestFlushWhileOthersStoreAndFind(t *testing.T) {
	dir := t.TempDir()
	st := storage{}
	c := Open(dir, nil)
	var packs []pack.Listed
	for n := range 40 {
		packs = append(packs, makePack(n*100, 50))
	}
	var wg sync.WaitGroup
	for _, l := range packs {
		wg.Add(1)
		go func() {
			defer wg.Done()
			c.Stored(l.Info, l.Entries)
			for _, e := range l.Entries {
				if _, found, err := c.Find(e.Label); !found || err != nil {
					t.Errorf("stored and not found: %v", err)
					return
				}
				if fresh, _ := c.Claim(e.Label); fresh {
					t.Error("a stored chunk could be claimed")
					return
				}
			}
		}()
	}
	flush := func() {
		err := c.Flush(func(listed []pack.Listed) ([32]byte, error) { return st.add(listed...), nil })
		if err != nil {
			t.Error(err)
		}
	}
	for range 10 {
		flush()
	}
	wg.Wait()
	flush()
	if n := c.Pending(); n != 0 {
		t.Errorf("%d chunks are pending after a flush", n)
	}
	for _, l := range packs {
		check(t, c, l)
	}
	c.Close()
	again := Open(dir, nil)
	defer again.Close()
	err := again.Refresh(context.Background(), st.names(), func(context.Context, [32]byte) ([]byte, error) {
		return nil, errors.New("nothing should have to be fetched")
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range packs {
		check(t, again, l)
	}
}

func TestFailedFlushKeepsAll(t *testing.T) {
	c := Open("", nil)
	defer c.Close()
	l := makePack(0, 20)
	c.Stored(l.Info, l.Entries)
	broken := errors.New("storage is full")
	if err := c.Flush(func([]pack.Listed) ([32]byte, error) { return [32]byte{}, broken }); !errors.Is(err, broken) {
		t.Fatalf("got %v", err)
	}
	check(t, c, l)
	if c.Pending() != 20 {
		t.Errorf("%d pending", c.Pending())
	}
}

// TestDamagedCacheIsBuiltAgain flips every byte of a small run in turn.
func TestDamagedCacheIsBuiltAgain(t *testing.T) {
	dir := t.TempDir()
	st := storage{}
	l := makePack(0, 60)
	st.add(l)
	c := Open(dir, nil)
	if err := c.Refresh(context.Background(), st.names(), st.fetch); err != nil {
		t.Fatal(err)
	}
	path := c.runs[0].path
	c.Close()
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	noticed := 0
	for i := 0; i < len(good); i += 3 {
		bad := append([]byte(nil), good...)
		bad[i] ^= 0x10
		if err := os.WriteFile(filepath.Join(dir, "run-bad"), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := OpenRun(filepath.Join(dir, "run-bad"))
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatalf("byte %d: %v", i, err)
			}
			noticed++
			continue
		}
		for n, e := range l.Entries {
			var got Location
			found := false
			err := r.Find(e.Label, func(loc Location) bool { got, found = loc, true; return false })
			switch {
			case errors.Is(err, ErrDamaged):
				noticed++
			case err != nil:
				t.Fatalf("byte %d: %v", i, err)
			case !found || got.Number != uint32(n) || got.Offset != e.Offset:
				t.Fatalf("byte %d flipped: chunk %d: found %v at %+v, and no error", i, n, found, got)
			}
		}
		r.Close()
	}
	if noticed < len(good)/6 {
		t.Errorf("only %d of %d flips were noticed", noticed, len(good)/3)
	}
	os.Remove(filepath.Join(dir, "run-bad"))
	bad := append([]byte(nil), good...)
	bad[len(bad)-200] ^= 1 // in the records: noticed at the first look-up
	os.WriteFile(path, bad, 0o600)
	c = Open(dir, nil)
	if _, _, err := c.Find(l.Entries[59].Label); !errors.Is(err, ErrDamaged) {
		t.Errorf("look-up in a damaged run: %v", err)
	}
	c.Close()
	if _, err := os.Stat(path); err == nil {
		t.Error("a damaged run stays in the cache")
	}
	for cut := range 5 {
		os.WriteFile(path, good[:len(good)*cut/5], 0o600)
		c := Open(dir, nil)
		if err := c.Refresh(context.Background(), st.names(), st.fetch); err != nil {
			t.Fatal(err)
		}
		check(t, c, l)
		c.Close()
	}
}

// BenchmarkFind looks up chunks in one run of a million: hits, then misses.
func BenchmarkFind(b *testing.B) {
	const packs, chunks = 250, 4000
	var bt batch
	for n := range packs {
		l := makePack(n*chunks, chunks)
		bt.addPack(l.Info, l.Entries)
	}
	c := Open("", nil)
	defer c.Close()
	if err := c.addRun(&bt); err != nil {
		b.Fatal(err)
	}
	labels := make([]seal.Label, 1<<16)
	for _, hits := range []bool{true, false} {
		for i := range labels {
			n := rand.IntN(packs * chunks)
			if !hits {
				n += packs * chunks
			}
			labels[i] = labelOf(n)
		}
		b.Run(fmt.Sprintf("hits=%v", hits), func(b *testing.B) {
			for i := range b.N {
				if _, found, _ := c.Find(labels[i%len(labels)]); found != hits {
					b.Fatal("wrong answer")
				}
			}
		})
	}
}

// BenchmarkOpen opens a cache of ten million chunks.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	f, final, err := shelfKept.file(dir)
	if err != nil {
		b.Fatal(err)
	}
	w, err := createRun(f, final, 10_000_000, appendPack(nil, makePack(0, 1).Info), [][32]byte{{1}})
	if err != nil {
		b.Fatal(err)
	}
	for n := range 10_000_000 {
		rec := makeRecord(seal.Label{}, Location{Number: uint32(n)})
		binary.BigEndian.PutUint64(rec[:], uint64(n)<<40)
		if err := w.add(&rec); err != nil {
			b.Fatal(err)
		}
	}
	run, err := w.finish()
	if err != nil {
		b.Fatal(err)
	}
	run.Close()
	b.ResetTimer()
	for range b.N {
		c := Open(dir, nil)
		if c.Len() != 10_000_000 {
			b.Fatal(c.Len())
		}
		c.Close()
	}
}

// TestOthersInTheSameCache opens and fills one cache directory from many sides:
// each removes what others wrote and it has itself.
func TestOthersInTheSameCache(t *testing.T) {
	dir := t.TempDir()
	st := storage{}
	for n := range 12 {
		st.add(makePack(10*n, 10))
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(9, uint64(i)))
			for range 40 {
				c := Open(dir, nil)
				names := st.names()
				rng.Shuffle(len(names), func(a, b int) { names[a], names[b] = names[b], names[a] })
				names = names[:1+rng.IntN(len(names))]
				if err := c.Refresh(context.Background(), names, st.fetch); err != nil {
					t.Errorf("refresh: %v", err)
				}
				if n := c.Len(); n < 10*len(names) {
					t.Errorf("%d records of %d index objects", n, len(names))
				}
				c.Close()
			}
		})
	}
	wg.Wait()
}

// TestLargeRuns runs tests with all runs handled as large ones.
func TestLargeRuns(t *testing.T) {
	defer func(old int) { largeMin = old }(largeMin)
	largeMin = 0
	t.Run("reopen", TestRefreshFindReopen)
	t.Run("absent", TestAbsentPacksAreLookedPast)
	t.Run("flush", TestFlushWhileOthersStoreAndFind)
	t.Run("damage", TestDamagedCacheIsBuiltAgain)
	t.Run("others", TestOthersInTheSameCache)
	t.Run("marks", TestMarks)
}
