package index

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/bk-backup/bk/repo/pack"
	"github.com/bk-backup/bk/repo/seal"
)

// Adopt adds packs that no index object lists, as a run that is not kept. The
// cache must not be refreshed or written to afterwards.
func (c *Cache) Adopt(packs []pack.Listed) error {
	if len(packs) == 0 {
		return nil
	}
	var b batch
	for _, p := range packs {
		b.addPack(p.Info, p.Entries)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	run, err := c.newRun(shelfTemp, b.size(), b.write)
	if err == nil {
		c.runs = append(c.runs, run)
	}
	return err
}

// Marks is a bit for each record of a cache: the places of chunks that are
// needed. It takes an eighth of a byte for each record and 4 bytes for each
// pack. The cache must not be refreshed or written to while it is in use. It is
// safe for concurrent use.
type Marks struct {
	runs []markedRun
}

type markedRun struct {
	run   *Run
	ranks []int32 // of each pack
	bits  []atomic.Uint64
}

// NewMarks returns marks of which none is set. rank says how much a pack is
// liked: of several places of a chunk the one of the lowest rank is marked.
func (c *Cache) NewMarks(rank func(pack.Info) int32) *Marks {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.marked = true
	m := &Marks{runs: make([]markedRun, len(c.runs))}
	for i, r := range c.runs {
		mr := markedRun{run: r, ranks: make([]int32, r.Packs()), bits: make([]atomic.Uint64, (r.count+63)/64)}
		for n := range mr.ranks {
			mr.ranks[n] = rank(r.Pack(uint32(n)))
		}
		r.giveBack()
		m.runs[i] = mr
	}
	return m
}

// Mark marks the best place of a chunk. fresh says that it was not marked, and
// found that there is a place at all.
func (m *Marks) Mark(label seal.Label) (fresh, found bool, err error) {
	best, at, err := m.best(label)
	if best < 0 || err != nil {
		return false, false, err
	}
	word, bit := &m.runs[best].bits[at/64], uint64(1)<<(at%64)
	return word.Or(bit)&bit == 0, true, nil
}

// Marked reports whether the best place of a chunk is marked.
func (m *Marks) Marked(label seal.Label) (bool, error) {
	best, at, err := m.best(label)
	if best < 0 || err != nil {
		return false, err
	}
	return m.runs[best].bits[at/64].Load()&(1<<(at%64)) != 0, nil
}

// best returns the run and the record of a chunk's best place; -1 if it has none.
func (m *Marks) best(label seal.Label) (best int, at uint64, err error) {
	best = -1
	bestRank := int32(0)
	for i := range m.runs {
		mr := &m.runs[i]
		err := mr.run.find(label, func(n uint64, loc Location) bool {
			if rank := mr.ranks[loc.Pack]; best < 0 || rank < bestRank {
				best, at, bestRank = i, n, rank
			}
			return true
		})
		if err != nil {
			return -1, 0, mr.run.beyondHelp(err)
		}
	}
	return best, at, nil
}

// batchMax is how many labels a Batch gathers: 5 MiB.
const batchMax = 1 << 18

// Batch marks chunks in the order of their labels, many at a time, so that runs
// are walked through and not jumped about in. It is safe for concurrent use.
type Batch struct {
	marks   *Marks
	missing func(seal.Label)
	mu      sync.Mutex
	labels  []seal.Label
}

// NewBatch returns a batch. missing is called, perhaps from several goroutines,
// with chunks that have no place.
func (m *Marks) NewBatch(missing func(seal.Label)) *Batch {
	return &Batch{marks: m, missing: missing}
}

// Mark marks a chunk, when the batch is full or flushed.
func (b *Batch) Mark(label seal.Label) error {
	b.mu.Lock()
	b.labels = append(b.labels, label)
	if len(b.labels) < batchMax {
		b.mu.Unlock()
		return nil
	}
	full := b.labels
	b.labels = make([]seal.Label, 0, batchMax)
	b.mu.Unlock()
	return b.markAll(full)
}

// Flush marks what was gathered.
func (b *Batch) Flush() error {
	b.mu.Lock()
	rest := b.labels
	b.labels = nil
	b.mu.Unlock()
	return b.markAll(rest)
}

func (b *Batch) markAll(labels []seal.Label) error {
	slices.SortFunc(labels, func(x, y seal.Label) int { return bytes.Compare(x[:], y[:]) })
	for _, label := range slices.Compact(labels) {
		_, found, err := b.marks.Mark(label)
		if err != nil {
			return err
		}
		if !found {
			b.missing(label)
		}
	}
	return nil
}

// MarkedIn reports whether the place of a chunk in a pack is marked.
func (m *Marks) MarkedIn(label seal.Label, pack [32]byte) (marked bool, err error) {
	for i := range m.runs {
		mr := &m.runs[i]
		err := mr.run.find(label, func(n uint64, loc Location) bool {
			if mr.bits[n/64].Load()&(1<<(n%64)) != 0 && mr.run.Pack(loc.Pack).Name == pack {
				marked = true
			}
			return !marked
		})
		if marked || err != nil {
			return marked, err
		}
	}
	return false, nil
}

// Each calls fn with every record, the number of the run that it is in, and
// whether it is marked. A run has a record once; several runs may have the same.
func (m *Marks) Each(fn func(run int, label seal.Label, hit Hit, marked bool) error) error {
	for i := range m.runs {
		mr := &m.runs[i]
		n := uint64(0)
		err := mr.run.All(func(label seal.Label, loc Location) error {
			if int(loc.Pack) >= len(mr.ranks) {
				return fmt.Errorf("%s: %w", mr.run.path, ErrDamaged)
			}
			marked := mr.bits[n/64].Load()&(1<<(n%64)) != 0
			n++
			return fn(i, label, Hit{mr.run.Pack(loc.Pack), loc}, marked)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
