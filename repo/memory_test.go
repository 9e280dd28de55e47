package repo

import (
	"context"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/pack"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
)

// TestLongEditsAreFew holds that few edits wait for the listing if they are long.
func TestLongEditsAreFew(t *testing.T) {
	q := newEditQueue()
	taken := make(chan int)
	go func() {
		n := 0
		for q.put(edit{path: "p", entry: &format.Entry{Xattrs: []format.Xattr{{Name: "user.a", Value: strings.Repeat("x", 1<<20)}}}}) == nil {
			n++
		}
		taken <- n
	}()
	for len(q.batches) < queueDepth {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(10 * time.Millisecond) // until put waits
	q.err = errAbandoned
	close(q.done)
	if n := <-taken; n > queueDepth+1 {
		t.Errorf("%d edits of 1 MiB wait", n)
	}
}

// TestMetaPacksAreSentEarly holds that chunks which compress to next to nothing
// are not gathered, since their plain bytes are kept until they are stored.
func TestMetaPacksAreSentEarly(t *testing.T) {
	r := newRepo(t, 1)
	stored := 0
	p := newPacker(t.Context(), r, seal.ChunkMeta, func(ids []format.ID) { stored += len(ids) })
	const size, count = 1 << 20, 100
	for i := range count {
		id := format.ID{byte(i)}
		if err := p.add(id, r.label.LabelOf(seal.ChunkMeta, id), pack.CodecZstd, size, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
	}
	p.wg.Wait()
	if waiting := (count - stored) * size; waiting > p.rawMax {
		t.Errorf("%d bytes wait to be stored", waiting)
	}
	if err := p.flush(); err != nil || stored != count {
		t.Errorf("%d chunks are stored, %v", stored, err)
	}
}

// TestDeletionIsSmall holds that what a collection has in memory while it deletes
// is a little for each pack that there is, however many go, and an index twice.
func TestDeletionIsSmall(t *testing.T) {
	if raceEnabled {
		t.Skip("memory is another with the race detector")
	}
	const packs, perPackMax = 20_000, 250
	for _, deletes := range []int{packs / 200, packs / 2} {
		st := collectGhosts(t, packs, deletes)
		most := packs*perPackMax + 2*st.indexMax
		t.Logf("%d of %d packs are deleted with %d bytes in memory, an index is %d", deletes, packs, st.peak, st.indexMax)
		if st.peak > most {
			t.Errorf("it takes %d bytes in memory to delete %d of %d packs; at most %d are expected", st.peak, deletes, packs, most)
		}
	}
}

// collectGhosts collects in a repository of which packs are not there.
func collectGhosts(t *testing.T, packs, deletes int) *heapStore {
	r := makeSynthetic(t, filepath.Join(t.TempDir(), "repo"), synthetic{
		chunks: 2 * packs, inPack: 2, unneeded: func(pack int) bool { return pack < deletes }, noFiles: true,
	})
	st := &heapStore{Store: r.store}
	err := r.index.EachPack(func(info pack.Info) error {
		if info.Size > 2*syntheticStored {
			st.packs = append(st.packs, store.Info{Name: info.ObjectName(), Size: info.Size})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	r.store = st
	sum, err := r.Collect(t.Context(), CollectOptions{MaxRepack: 1})
	if err != nil || sum.Deleted.Packs < deletes {
		t.Fatalf("%+v, %v", sum, err)
	}
	return st
}

// heapStore has data packs that are not there, and keeps how much more lives on
// the heap than at first, at most, when an object is made and when a thousandth
// pack is deleted.
type heapStore struct {
	store.Store
	packs        []store.Info
	before, peak int64
	indexMax     int64 // size of the largest index that was made
	deletes      atomic.Int64
}

func (s *heapStore) measure() {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	if s.before == 0 {
		s.before = int64(m.HeapAlloc)
	}
	s.peak = max(s.peak, int64(m.HeapAlloc)-s.before)
}

func (s *heapStore) List(ctx context.Context, prefix string, fn func(store.Info) error) error {
	err := s.Store.List(ctx, prefix, fn)
	for i := 0; err == nil && prefix == seal.KindDataPack.Dir() && i < len(s.packs); i++ {
		err = fn(s.packs[i])
	}
	return err
}

func (s *heapStore) Create(ctx context.Context, name string, data ...[]byte) error {
	s.measure()
	if strings.HasPrefix(name, seal.KindIndex.Dir()) {
		s.indexMax = max(s.indexMax, int64(len(data[0])))
	}
	return s.Store.Create(ctx, name, data...)
}

func (s *heapStore) Delete(ctx context.Context, name string) error {
	if !strings.HasPrefix(name, seal.KindDataPack.Dir()) {
		return s.Store.Delete(ctx, name)
	}
	if s.deletes.Add(1)%1000 == 0 {
		s.measure()
	}
	return nil
}
