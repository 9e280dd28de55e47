package repo

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/index"
	"github.com/bk-backup/bk/repo/pack"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/tree"
)

// MaxUnusedDefault is the share of waste that a collection leaves where it is.
const MaxUnusedDefault = 0.05

// CollectOptions say how a collection goes. The zero value deletes at once what
// nobody needs, which expires everybody who is writing: give a Grace.
type CollectOptions struct {
	// Grace is how long packs stay condemned before they are deleted, and how
	// long a writer may be silent before it has to go on in a new session.
	Grace time.Duration
	// DryRun changes nothing.
	DryRun bool
	// MaxUnused is how much unneeded content may stay in packs that are needed
	// in part, as a share of what is needed: 0 means MaxUnusedDefault, a
	// negative number none.
	MaxUnused float64
	// MaxRepack bounds the bytes that one collection copies out of such packs,
	// and out of packs that are too small; 0: no bound.
	MaxRepack int64
	// Reseal moves everything that is sealed under an earlier epoch than the
	// current one (spec/repository.md, section 11).
	Reseal bool
	// MaxReseal bounds the bytes that Reseal copies out of packs in one
	// collection, but for one pack; 0: no bound.
	MaxReseal int64
	// MaxTime is how long after its begin a collection begins to copy out of
	// another pack, but for the first; 0: no bound.
	MaxTime time.Duration
	// OnProgress is told what is being done, and how much of it is done.
	OnProgress func(what string, done, total int)
}

// PackSum counts packs and their bytes on storage.
type PackSum struct {
	Packs int
	Bytes int64
}

func (s *PackSum) add(size int64) {
	s.Packs++
	s.Bytes += size
}

// Collected says what a collection found and did; with DryRun, what it would do.
type Collected struct {
	Snapshots int
	All       PackSum // packs on storage at the beginning
	Needed    int64   // stored bytes of chunks that snapshots need
	Missing   uint64  // chunks of content that snapshots need and no pack holds

	Deleted   PackSum // of earlier plans
	Spared    PackSum // of earlier plans, needed again by now
	Condemned PackSum // by the plan that was made now
	Repacked  PackSum // of these, packs that were needed in part
	Copied    int64   // stored bytes of chunks copied out of them
	Resealed  PackSum // of these, packs of earlier epochs
	Waiting   PackSum // condemned by earlier plans whose time has not come
	NextDue   time.Time
	Fenced    int // sessions that were expired

	// With Reseal, what is still there under earlier epochs at the end: packs,
	// those that are condemned included, and other objects.
	OldPacks   PackSum
	OldObjects int
}

// Collect removes what no snapshot needs, in two steps (spec/repository.md,
// section 9): packs are condemned by a plan, and deleted by a later collection,
// when the grace is over and everybody who was writing has taken note. Writers
// and readers go on meanwhile. It may be stopped at any point and run again.
//
// It fails without deleting anything if a snapshot, or the listing of one,
// cannot be read: what that one needs is then not known.
func (r *Repository) Collect(ctx context.Context, opts CollectOptions) (sum Collected, err error) {
	if err := r.keys.CheckWrite(); err != nil {
		return sum, err
	}
	c := &collector{survey: survey{r: r, ctx: ctx, onProgress: opts.OnProgress, sum: &sum}, opts: opts, begun: r.opts.Now()}
	if c.opts.MaxUnused == 0 {
		c.opts.MaxUnused = MaxUnusedDefault
	}
	if !opts.DryRun {
		if c.session, err = r.beginSession(ctx, nil); err != nil {
			return sum, err
		}
		defer func() { err = errors.Join(err, c.session.end()) }()
	}
	planned, err := c.round()
	if err == nil && planned && opts.Grace <= 0 {
		c.finishing = true
		_, err = c.round()
	}
	if err == nil && opts.Reseal {
		err = c.resealRest()
	}
	if err != nil {
		return sum, fmt.Errorf("collect garbage in %s: %w", r, err)
	}
	return sum, nil
}

// collector is one collection.
type collector struct {
	survey
	opts    CollectOptions
	session *session // its own; nil for a dry run
	begun   time.Time

	now     time.Time // by storage's clock
	writing []*writing
}

// survey is what lies on storage, and what of it snapshots need. Collection,
// checking and repairing begin with it: openIndex, listPacks, mark, measure.
type survey struct {
	r          *Repository
	ctx        context.Context
	onProgress func(what string, done, total int)
	sum        *Collected
	finishing  bool // only carry out the plan that was just made

	plans   []*plan
	snaps   []*Snapshot
	cache   *index.Cache
	indexes [][32]byte // that the cache covers
	packs   map[[32]byte]*packState
	adopted []store.Info // packs that no index lists and that can be read
	alien   []Damage     // those that cannot be read, or are another group's
	marks   *index.Marks
}

// packState is what is known of a pack. There is one for every pack that there
// is, so it is small: 64 bytes, and as much again for its place in the map.
type packState struct {
	size        int64
	created     int64 // microseconds since 1970, by storage's clock, rounded down
	live, total int64 // stored bytes of needed chunks, and of all
	plan        uint64
	liveCount   uint32
	epoch       uint32
	run         int32 // of the index, where its records were first met; -1: nowhere yet
	kind        seal.Kind
	stored      bool // it is on storage
	foreign     bool // neither listed by an index nor readable: another group's, or damaged
	planned     bool // plan is the number of an active plan that names it
	gone        bool // a plan was carried out that named it
	adopted     bool // no index lists it; it says itself what it holds
	doomed      bool // it is being deleted
	relisted    bool // an index that is written anew lists it
}

func (c *survey) progress(what string, done, total int) {
	if c.onProgress != nil {
		c.onProgress(what, done, total)
	}
}

// round carries out the plans whose time has come, and makes a new one. The
// order of the steps is what makes it safe: who may still write without having
// taken note of a plan is settled before the snapshots are listed, so that they
// are all that there will be of such writers.
func (c *collector) round() (planned bool, err error) {
	c.packs, c.marks, c.snaps = nil, nil, nil // of the round before: it would be held beside this one's
	if c.now, err = c.r.store.Now(c.ctx); err != nil {
		return false, err
	}
	for _, step := range []func() error{c.settle, c.list, c.openIndex, c.listPacks, c.mark, c.measure} {
		if err == nil {
			err = step()
		}
	}
	if c.cache != nil {
		defer c.cache.Close()
	}
	if err != nil {
		return false, err
	}
	if err := c.carryOut(); err != nil || c.finishing {
		return false, err
	}
	return c.makePlan()
}

// settle expires the sessions that were silent for the time of grace, then reads
// the plans.
func (c *collector) settle() (err error) {
	var own seal.SessionID
	if c.session != nil {
		own = c.session.id
	}
	since := c.now.Add(-c.opts.Grace)
	if c.writing, err = c.r.openSessions(c.ctx, own); err != nil {
		return err
	}
	if !c.opts.DryRun {
		var fenced int
		c.writing, fenced, err = c.r.fenceSilent(c.ctx, c.writing, since)
		c.sum.Fenced += fenced
		if err != nil {
			return err
		}
	}
	c.plans, _, err = c.r.readPlans(c.ctx)
	return err
}

// due reports whether a plan's time has come: whoever has been writing without
// it was expired by settle, or has committed since.
func (c *collector) due(p *plan) bool {
	since := c.now.Add(-c.opts.Grace)
	if !p.active() || p.created.After(since) {
		return false
	}
	for _, w := range c.writing { // in a dry run, or if a session was faster than its fence
		if w.silentSince(p.created) {
			return false
		}
	}
	return true
}

// openIndex opens a view of the index of this collection's own: marks name
// records by their places, which must not move.
func (c *survey) openIndex() (err error) {
	if c.cache != nil {
		c.cache.Close()
	}
	c.cache = index.Open(c.r.indexDir, c.r.cacheFailed)
	if c.indexes, err = c.r.refresh(c.ctx, c.cache, nil); err == nil {
		err = c.cache.Verify(c.ctx)
	}
	if err != nil {
		return fmt.Errorf("read the index: %w", err)
	}
	return nil
}

// listPacks lists the packs on storage. It comes after the index was read, so
// that every pack that the index lists is there, unless it is lost. Packs that
// no index lists say themselves what they hold.
func (c *survey) listPacks() error {
	c.packs = make(map[[32]byte]*packState)
	err := c.cache.EachPack(func(info pack.Info) error {
		c.packs[info.Name] = &packState{size: info.Size, kind: info.Kind, epoch: info.Epoch, run: -1}
		return nil
	})
	if err != nil {
		return err
	}
	var unlisted []store.Info
	all := PackSum{}
	err = c.r.store.List(c.ctx, seal.KindDataPack.Dir(), func(info store.Info) error {
		name, ok := seal.ParseName(info.Name)
		if !ok {
			return nil
		}
		all.add(info.Size)
		st := c.packs[name.Sum]
		if st == nil {
			st = &packState{foreign: true, run: -1}
			c.packs[name.Sum] = st
			unlisted = append(unlisted, info)
		}
		st.size, st.created, st.stored = info.Size, info.Created.UnixMicro(), true
		return nil
	})
	if err != nil {
		return fmt.Errorf("list the packs: %w", err)
	}
	if !c.finishing {
		c.sum.All = all
	}
	for _, p := range c.plans {
		for _, name := range p.packs {
			if st := c.packs[name]; st != nil {
				st.plan, st.planned = p.number, p.active()
			}
		}
		for _, g := range p.gone {
			for _, name := range g.packs {
				if st := c.packs[name]; st != nil {
					st.gone = true
				}
			}
		}
	}
	return c.adopt(unlisted)
}

// adopt reads the directories of packs that no index lists.
func (c *survey) adopt(unlisted []store.Info) error {
	var adopted []pack.Listed
	c.adopted, c.alien = nil, nil
	for i, info := range unlisted {
		c.progress("read packs that no index lists", i, len(unlisted))
		listed, err := c.r.readDirectory(c.ctx, info)
		if c.ctx.Err() != nil {
			return context.Cause(c.ctx)
		}
		if err != nil {
			c.r.opts.Log.Warn("a pack that no index lists cannot be read and is left alone", "error", err)
			c.alien = append(c.alien, Damage{info.Name, err})
			continue
		}
		st := c.packs[listed.Info.Name]
		st.foreign, st.adopted, st.kind, st.epoch = false, true, listed.Info.Kind, listed.Info.Epoch
		adopted = append(adopted, listed)
		c.adopted = append(c.adopted, info)
	}
	return c.cache.Adopt(adopted)
}

// Ranks of the places of a chunk, the best first: a pack that stays, and of
// these one of the current epoch, so that copies which an interrupted collection
// made are not made again; one that is condemned, the latest plan first, since a
// plan treats the packs of earlier ones as absent; one that was deleted and is
// there again; one that is lost.
const (
	rankOld     = 1
	rankPlanned = 1 << 20
	rankGone    = 1 << 29
	rankLost    = 1 << 30
)

func (c *survey) rank(info pack.Info) int32 {
	last := uint64(0)
	for _, p := range c.plans {
		last = max(last, p.number)
	}
	current, _ := c.r.latest.group().CurrentEpoch()
	switch st := c.packs[info.Name]; {
	case st == nil || !st.stored:
		return rankLost
	case st.gone:
		return rankGone
	case st.planned:
		return rankPlanned + int32(min(last-st.plan, rankPlanned))
	case st.epoch < current:
		return rankOld
	}
	return 0
}

// mark marks what the snapshots need.
func (c *survey) mark() error {
	c.marks = c.cache.NewMarks(c.rank)
	c.sum.Missing = 0
	var missing atomic.Uint64
	// What is known to be lost needs nothing any more, and keeps nobody waiting.
	lost, err := c.r.knownLost(c.ctx)
	if err != nil {
		return err
	}
	lostData := make(map[seal.Label]bool)
	for chunk := range lost {
		if chunk.kind == seal.ChunkData {
			lostData[c.r.label.LabelOf(chunk.kind, chunk.id)] = true
		}
	}
	walker, batch := c.marker(func(label seal.Label) {
		if !lostData[label] {
			missing.Add(1)
		}
	})
	if len(lost) > 0 {
		walker.Failed = func(err error) error {
			if lost.isPartOf(err) {
				return nil
			}
			return err
		}
	}
	for i := range c.snaps {
		c.progress("mark what snapshots need", i, len(c.snaps))
		s := c.snaps[len(c.snaps)-1-i]
		if err := walker.Walk(c.ctx, tree.Listing{Chunks: metaReader{c.r}, Root: s.Root}); err != nil {
			return fmt.Errorf("what snapshot %s needs is not known: %w", s.ID, err)
		}
	}
	err = batch.Flush()
	c.sum.Missing = missing.Load()
	return err
}

// mark marks what is needed of what a collection must leave.
func (c *collector) mark() error {
	if err := c.survey.mark(); err != nil {
		return err
	}
	return c.markPartials()
}

// markPartials marks what came of snapshots whose import was cut off, as far as it
// is there, so that going on with the import need not send it again. What was noted
// longer than the grace ago counts no more, and the note is removed.
func (c *collector) markPartials() error {
	since := c.now.Add(-c.opts.Grace)
	return c.r.eachPartial(c.ctx, func(info store.Info, p *partial) error {
		if !info.Created.After(since) {
			if c.opts.DryRun {
				return nil
			}
			if err := c.r.store.Delete(c.ctx, info.Name); err != nil && !errors.Is(err, store.ErrNotFound) {
				return fmt.Errorf("remove the note of an unfinished import: %w", err)
			}
			return nil
		}
		for i := range p.runs {
			for _, id := range p.runs[i].ids() {
				if _, _, err := c.marks.Mark(c.r.label.LabelOf(seal.ChunkData, id)); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// marker walks listings and marks what they need, chunks of content when the
// batch is flushed; a node that is marked already is not read again. missing is
// called with chunks of content that have no place, from several goroutines.
func (c *survey) marker(missing func(seal.Label)) (tree.Walker, *index.Batch) {
	label := c.r.label
	batch := c.marks.NewBatch(missing)
	return tree.Walker{
		Parallel: c.r.workers(),
		Enter: func(id format.ID) (bool, error) {
			fresh, found, err := c.marks.Mark(label.LabelOf(seal.ChunkMeta, id))
			return fresh || !found, err // what is not found fails when it is read
		},
		Chunk: func(id format.ID, _ uint64) error { return batch.Mark(label.LabelOf(seal.ChunkData, id)) },
	}, batch
}

// measure sums up the marks by packs.
func (c *survey) measure() error {
	c.sum.Needed = 0
	return c.marks.Each(func(run int, _ seal.Label, hit index.Hit, marked bool) error {
		st := c.packs[hit.Pack.Name]
		if st.run < 0 {
			st.run = int32(run)
		}
		if st.run == int32(run) {
			st.total += int64(hit.StoredSize)
		}
		if marked {
			st.live += int64(hit.StoredSize)
			st.liveCount++
			c.sum.Needed += int64(hit.StoredSize)
			if !st.stored {
				c.sum.Missing++
			}
		}
		return nil
	})
}
