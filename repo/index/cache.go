package index

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bk-backup/bk/repo/pack"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
)

const (
	batchRecordsMax = 1 << 20 // records sorted in memory at a time: 40 MiB
	runsMax         = 8       // runs that a lookup may have to ask before some are merged
)

// Cache is the index of one group: the runs of a local directory, and what this
// session has added. It is safe for concurrent use.
type Cache struct {
	dir  string
	warn func(error)

	mu      sync.RWMutex
	keeps   bool   // runs are written to dir
	unkept  error  // why they are not any more
	runs    []*Run // largest first
	mergeAt int    // more runs than these are merged
	marked  bool   // Marks name records by their places
	fetch   fetcher

	absent  atomic.Pointer[map[[32]byte]bool]
	pending pending
}

// fetcher returns the opened body of an index object.
type fetcher = func(ctx context.Context, name [32]byte) ([]byte, error)

// ErrSkip, returned by the fetch of Refresh, leaves an index object out: what it
// alone lists is not found.
var ErrSkip = errors.New("the index object is left out")

// Hit is a place where a chunk lies.
type Hit struct {
	Pack pack.Info
	Location
}

// partAge is how old a part of a run is that nobody is writing any more.
const partAge = 24 * time.Hour

// Open maps the runs in dir, which is made if it is missing. With an empty dir
// there is a cache for as long as it is open. So there is if dir cannot be used,
// then or later: warn, if it is not nil, is told why, once, with ErrNoCache.
func Open(dir string, warn func(error)) *Cache {
	c := &Cache{dir: dir, warn: warn, keeps: dir != "", mergeAt: runsMax}
	c.pending.init()
	if dir == "" {
		return c
	}
	err := os.MkdirAll(dir, 0o700)
	var files []os.DirEntry
	if err == nil {
		files, err = os.ReadDir(dir)
	}
	if err != nil {
		c.stopKeeping(fmt.Errorf("%w: %w", ErrNoCache, err))
		return c
	}
	for _, f := range files {
		path := filepath.Join(dir, f.Name())
		switch info, err := f.Info(); {
		case !f.Type().IsRegular(): // nobody's
		case strings.HasPrefix(f.Name(), "run-"):
			run, err := OpenRun(path)
			if err == nil {
				c.runs = append(c.runs, run)
			} else if !errors.Is(err, os.ErrNotExist) { // merged by another process meanwhile
				os.Remove(path) // built again from storage by Refresh
			}
		case strings.HasPrefix(f.Name(), ".run-") && err == nil && time.Since(info.ModTime()) > partAge:
			os.Remove(path) // whoever wrote it was killed
		}
	}
	c.order()
	return c
}

// order sorts the runs and drops those whose index objects others cover, which
// a merge in another process may have left.
func (c *Cache) order() {
	c.bySize()
	covered := make(map[[32]byte]bool)
	kept := c.runs[:0]
	for _, r := range c.runs {
		fresh := false
		r.Covers(func(name [32]byte) {
			if !covered[name] {
				fresh, covered[name] = true, true
			}
		})
		if fresh {
			kept = append(kept, r)
		} else {
			c.remove(r)
		}
	}
	c.runs = kept
}

// remove deletes a run's file. The mapping stays until nobody can be reading it.
func (c *Cache) remove(r *Run) {
	if r.shelf == shelfKept {
		os.Remove(r.path)
	}
	r.Close()
}

// Close unmaps everything. Nothing may use the cache afterwards.
func (c *Cache) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var first error
	for _, r := range c.runs {
		if err := r.Close(); err != nil && first == nil {
			first = err
		}
	}
	c.runs = nil
	return first
}

// Refresh makes the cache cover exactly the index objects that storage has.
// fetch returns the opened body of an index object. If one is not there any more,
// the others are covered before that is returned as the error, so that whoever
// lists again and calls again has to fetch only what is new.
func (c *Cache) Refresh(ctx context.Context, names [][32]byte, fetch fetcher) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	present := make(map[[32]byte]bool, len(names))
	for _, n := range names {
		present[n] = true
	}
	covered := c.dropVanished(present)
	c.fetch = fetch
	missing := make([][32]byte, 0, len(names))
	for _, name := range names {
		if !covered[name] {
			missing = append(missing, name)
		}
	}
	vanished, err := c.cover(ctx, missing)
	if err != nil {
		return err
	}
	return errors.Join(vanished, c.mergeSome(ctx))
}

// cover reads index objects into new runs. One that is not there any more is
// named by vanished.
func (c *Cache) cover(ctx context.Context, names [][32]byte) (vanished, err error) {
	var b batch
	for _, name := range names {
		body, err := c.fetch(ctx, name)
		if errors.Is(err, ErrSkip) {
			continue
		}
		if errors.Is(err, store.ErrNotFound) {
			vanished = err
			continue
		}
		if err != nil {
			return vanished, err
		}
		err = pack.ParseIndex(body, func(info pack.Info, entries []pack.Entry) error {
			b.addPack(info, entries)
			return nil
		})
		if err != nil {
			return vanished, fmt.Errorf("index %x: %w", name[:8], err)
		}
		b.names = append(b.names, name)
		if len(b.records) >= batchRecordsMax {
			if err := c.addRun(&b); err != nil {
				return vanished, err
			}
			b = batch{}
		}
	}
	if len(b.names) > 0 {
		err = c.addRun(&b)
	}
	return vanished, err
}

// dropVanished removes runs that cover an index object which storage no longer
// has: what it listed may be gone. The rest of such a run is fetched again.
func (c *Cache) dropVanished(present map[[32]byte]bool) (covered map[[32]byte]bool) {
	covered = make(map[[32]byte]bool)
	kept := c.runs[:0]
	for _, r := range c.runs {
		whole := true
		r.Covers(func(name [32]byte) { whole = whole && present[name] })
		if !whole {
			c.remove(r)
			continue
		}
		r.Covers(func(name [32]byte) { covered[name] = true })
		kept = append(kept, r)
	}
	c.runs = kept
	return covered
}

func (c *Cache) addRun(b *batch) error {
	run, err := c.newRun(shelfKept, b.size(), b.write)
	if err != nil {
		return err
	}
	c.runs = append(c.runs, run)
	c.bySize()
	return nil
}

func (c *Cache) bySize() {
	sort.Slice(c.runs, func(i, j int) bool { return c.runs[i].count > c.runs[j].count })
}

// mergeSome keeps lookups short: beyond runsMax runs, the small ones become one.
// If there is no place for it, lookups take longer.
func (c *Cache) mergeSome(ctx context.Context) error {
	if len(c.runs) <= c.mergeAt {
		return nil
	}
	// Merge from the smallest up, as long as a run is not much larger than all
	// before it together: each record is then moved a logarithmic number of times.
	first, sum := len(c.runs)-1, c.runs[len(c.runs)-1].count
	for first > 0 && (c.runs[first-1].count <= 4*sum || len(c.runs)-first < runsMax/2) {
		first--
		sum += c.runs[first].count
	}
	old := append([]*Run(nil), c.runs[first:]...)
	size := uint64(0)
	for _, r := range old {
		size += uint64(len(r.file))
	}
	run, err := c.newRun(shelfKept, size, func(f *os.File, final string) (*Run, error) { return merge(f, final, old) })
	var bad *badRun
	switch {
	case errors.As(err, &bad):
		return c.rebuild(ctx, bad.run)
	case errors.Is(err, ErrNoCache):
		c.mergeAt = 2 * len(c.runs)
		return nil
	case err != nil:
		return err
	}
	c.mergeAt = runsMax
	c.runs = append(c.runs[:first], run)
	for _, r := range old {
		if run.shelf == shelfKept {
			c.remove(r)
		} else {
			r.Close() // the next program finds its file
		}
	}
	c.bySize()
	return nil
}

// SetAbsent names packs whose chunks count as missing for whoever stores
// chunks: a plan of garbage collection condemned them (spec/repository.md,
// section 9). Nothing may change the map afterwards.
func (c *Cache) SetAbsent(packs map[[32]byte]bool) { c.absent.Store(&packs) }

// anyAbsent reports whether SetAbsent named any pack.
func (c *Cache) anyAbsent() bool {
	packs := c.absent.Load()
	return packs != nil && len(*packs) > 0
}

func (c *Cache) isAbsent(name [32]byte) bool {
	packs := c.absent.Load()
	return packs != nil && (*packs)[name]
}

// Len returns the number of records, those that are listed twice counted twice.
func (c *Cache) Len() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	n := c.pending.len()
	for _, r := range c.runs {
		n += r.Len()
	}
	return n
}

// EachPack calls fn with every pack that an index lists, some perhaps twice.
func (c *Cache) EachPack(fn func(pack.Info) error) error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, r := range c.runs {
		if err := r.eachPack(fn); err != nil {
			return err
		}
	}
	return nil
}

// EachPending calls fn with every pack that Stored named and no index lists.
func (c *Cache) EachPending(fn func(pack.Info)) {
	c.pending.mu.Lock()
	defer c.pending.mu.Unlock()
	for i := range c.pending.packs {
		fn(c.pending.packs[i].info)
	}
}

// EachRecord calls fn with every record of every run.
func (c *Cache) EachRecord(fn func(label seal.Label, hit Hit) error) error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, r := range c.runs {
		err := r.All(func(label seal.Label, loc Location) error {
			if int(loc.Pack) >= r.Packs() {
				return fmt.Errorf("%s: %w", r.path, ErrDamaged)
			}
			return fn(label, Hit{r.Pack(loc.Pack), loc})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Find returns a place where the chunk lies, for reading. Packs that SetAbsent
// named come last.
func (c *Cache) Find(label seal.Label) (Hit, bool, error) {
	hit, found, err := c.FindLive(label)
	if found || err != nil || c.absent.Load() == nil {
		return hit, found, err
	}
	if hit, ok := c.pending.find(label); ok {
		return hit, true, nil
	}
	return c.findStored(label, lookAbsent|lookPack)
}

// FindLive returns a place where the chunk lies and will stay: not in a pack
// that SetAbsent named.
func (c *Cache) FindLive(label seal.Label) (Hit, bool, error) { return c.findLive(label, lookPack) }

// SizeLive is FindLive for whoever wants to know how many plain bytes the chunk
// has, and not where it lies: it looks at no pack as long as none is absent.
func (c *Cache) SizeLive(label seal.Label) (uint32, bool, error) {
	hit, found, err := c.findLive(label, 0)
	return hit.RawSize, found, err
}

func (c *Cache) findLive(label seal.Label, look lookFlags) (Hit, bool, error) {
	if hit, ok := c.findPending(label); ok {
		return hit, true, nil
	}
	hit, found, err := c.findStored(label, look)
	if found || err != nil {
		return hit, found, err
	}
	// Flush moves a chunk from pending to the runs: look once more if it did so
	// between the two looks.
	if hit, ok := c.findPending(label); ok {
		return hit, true, nil
	}
	return c.findStored(label, look)
}

func (c *Cache) findPending(label seal.Label) (Hit, bool) {
	hit, ok := c.pending.find(label)
	return hit, ok && !c.isAbsent(hit.Pack.Name)
}
