package repo

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/bk-backup/bk/repo/pack"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
)

const (
	// goneMax is how long it is remembered that a pack was deleted. A writer
	// that slept through its deletion could list it in an index once more.
	goneMax = 400 * 24 * time.Hour
	// indexEntriesMax is how many chunks one index lists, where several are
	// joined: 8 MB, and some times that in memory while it is made.
	indexEntriesMax = 1 << 18
	// indexSmall is the size of an index body below which it is joined with
	// others, if there are more than indexesMax indexes.
	indexSmall = 1 << 20
	indexesMax = 32
	// deletesAtOnce is how many objects are deleted at a time.
	deletesAtOnce = 8
	// planTriesMax is how often the next number of a plan is tried.
	planTriesMax = 8
)

// carryOut deletes the packs of the plans whose time has come, but for those
// that are needed again. First no index lists them, then they go, then it is
// written down that they went, then the plans go.
func (c *collector) carryOut() error {
	var due []*plan
	var doomed [][32]byte
	deleted := make(map[[32]byte]bool) // by a collection that was stopped behind that
	for _, p := range c.plans {
		if !p.active() {
			continue
		}
		if !c.due(p) {
			c.wait(p)
			continue
		}
		due = append(due, p)
		for _, name := range p.packs {
			st := c.packs[name]
			switch {
			case st == nil:
				deleted[name] = true
				doomed = append(doomed, name)
			case st.doomed: // by another plan, too
			case st.liveCount > 0 || st.foreign:
				c.sum.Spared.add(st.size)
			default:
				st.doomed = true
				doomed = append(doomed, name)
				if st.stored {
					c.sum.Deleted.add(st.size)
				}
			}
		}
	}
	if len(due) == 0 || c.opts.DryRun {
		return nil
	}
	if err := c.rewriteIndexes(deleted); err != nil {
		return err
	}
	if err := c.deletePacks(doomed); err != nil {
		return err
	}
	for _, name := range doomed {
		delete(c.packs, name)
	}
	return c.endPlans(due, doomed)
}

// wait sums up a plan whose time has not come.
func (c *collector) wait(p *plan) {
	for _, name := range p.packs {
		if st := c.packs[name]; st != nil {
			c.sum.Waiting.add(st.size)
		}
	}
	if at := p.created.Add(c.opts.Grace); c.sum.NextDue.IsZero() || at.Before(c.sum.NextDue) {
		c.sum.NextDue = at
	}
}

// rewriteIndexes replaces the indexes that list packs which are doomed or
// unlisted, or have gone, by ones that list the others; with Reseal also those of
// earlier epochs. Many small ones become one. One index and one new body are in
// memory at a time.
func (c *collector) rewriteIndexes(unlisted map[[32]byte]bool) error {
	w := indexRewriter{c: c, unlisted: unlisted}
	for _, st := range c.packs {
		st.relisted = false
	}
	w.body.Reset(len(c.indexes))
	for i, name := range c.indexes {
		c.progress("write indexes anew", i, len(c.indexes))
		object := seal.Name{Kind: seal.KindIndex, Sum: name}.String()
		body, h, err := c.r.openWhole(c.ctx, object, seal.KindIndex)
		switch {
		case errors.Is(err, store.ErrNotFound), errors.Is(err, errOtherGroup):
			continue // another collection was faster, or it is none of ours
		case errors.Is(err, seal.ErrDamaged):
			// What it listed is listed again by now. The object is left for
			// whoever wants to see what happened to it.
			continue
		case err != nil:
			return err
		}
		old := len(c.indexes) > indexesMax && len(body) < indexSmall || c.opts.Reseal && c.r.isOld(&h)
		staying := 0
		err = pack.ParseIndex(body, func(info pack.Info, entries []pack.Entry) error {
			if w.dropped(info.Name) {
				old = true
			} else {
				staying += len(entries)
			}
			return nil
		})
		if err == nil && old {
			err = w.replace(name, body, staying)
		}
		if err != nil {
			return fmt.Errorf("index %x: %w", name[:8], err)
		}
	}
	return w.finish()
}

// indexRewriter gathers the packs that stay.
type indexRewriter struct {
	c        *collector
	unlisted map[[32]byte]bool // packs that are to be listed no more
	body     pack.IndexBuilder
	late     map[[32]byte]bool // packs in new indexes that came after the packs were listed
	old      [][32]byte        // indexes all of whose packs that stay have been gathered
	done     [][32]byte        // of these, those that a new index says it stands in for
}

// dropped reports whether a pack is to be listed no more, or is to go, or has gone.
func (w *indexRewriter) dropped(name [32]byte) bool {
	st := w.c.packs[name]
	return w.unlisted[name] || st != nil && (st.doomed || st.gone && st.liveCount == 0)
}

// fresh reports, once for each pack, that no new index lists it yet.
func (w *indexRewriter) fresh(name [32]byte) bool {
	if st := w.c.packs[name]; st != nil {
		again := st.relisted
		st.relisted = true
		return !again
	}
	if w.late == nil {
		w.late = make(map[[32]byte]bool)
	}
	again := w.late[name]
	w.late[name] = true
	return !again
}

// replace takes over what stays of an index: so many entries at most.
func (w *indexRewriter) replace(name [32]byte, body []byte, staying int) error {
	if w.body.Packs() > 0 && w.body.Entries()+staying > indexEntriesMax {
		if err := w.write(); err != nil {
			return err
		}
	}
	err := pack.ParseIndex(body, func(info pack.Info, entries []pack.Entry) error {
		if !w.dropped(info.Name) && w.fresh(info.Name) {
			w.body.Add(info, entries)
		}
		return nil
	})
	w.old = append(w.old, name)
	return err
}

func (w *indexRewriter) write() error {
	if w.body.Packs() > 0 {
		if _, err := w.c.r.createIndexOf(w.c.ctx, w.body.Body(w.old)); err != nil {
			return err
		}
	}
	w.done = append(w.done, w.old...)
	w.old = nil
	w.body.Reset(len(w.c.indexes))
	return nil
}

// finish deletes the old indexes when the new ones are there.
func (w *indexRewriter) finish() error {
	if err := w.write(); err != nil {
		return err
	}
	for _, name := range w.done {
		object := seal.Name{Kind: seal.KindIndex, Sum: name}.String()
		if err := w.c.r.store.Delete(w.c.ctx, object); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	return nil
}

// deletePacks deletes those of some packs that are on storage.
func (c *collector) deletePacks(names [][32]byte) error {
	g, ctx := errgroup.WithContext(c.ctx)
	g.SetLimit(deletesAtOnce)
	n := 0
	for _, name := range names {
		if st := c.packs[name]; st == nil || !st.stored {
			continue
		}
		c.progress("delete packs", n, len(names))
		n++
		g.Go(func() error {
			object := seal.Name{Kind: seal.KindDataPack, Sum: name}.String()
			if err := c.r.store.Delete(ctx, object); err != nil && !errors.Is(err, store.ErrNotFound) {
				return err
			}
			return nil
		})
	}
	return g.Wait()
}

// endPlans writes down what was deleted, in an object that takes the next number
// and the place of all those that wait for nothing more.
func (c *collector) endPlans(due []*plan, packs [][32]byte) error {
	ended := make(map[uint64]bool)
	for _, p := range due {
		ended[p.number] = true
	}
	slices.SortFunc(packs, compareNames)
	deleted := goneGroup{second: c.now.Unix(), packs: slices.Compact(packs)}
	for tries := 1; ; tries++ {
		plans, _, err := c.r.readPlans(c.ctx)
		if err != nil {
			return err
		}
		next := &plan{}
		if len(deleted.packs) > 0 {
			next.gone = []goneGroup{deleted}
		}
		var old []*plan
		for _, p := range plans {
			next.number = p.number + 1
			if p.active() && !ended[p.number] {
				continue
			}
			old = append(old, p)
			for _, g := range p.gone {
				if c.now.Sub(time.Unix(g.second, 0)) < goneMax {
					next.gone = append(next.gone, g)
				}
			}
		}
		err = c.r.createPlan(c.ctx, next)
		if errors.Is(err, store.ErrExists) && tries < planTriesMax {
			continue
		}
		if err != nil {
			return fmt.Errorf("write down what was deleted: %w", err)
		}
		for _, p := range old {
			if err := c.r.store.Delete(c.ctx, planName(p.number)); err != nil && !errors.Is(err, store.ErrNotFound) {
				return err
			}
		}
		c.plans, _, err = c.r.readPlans(c.ctx)
		return err
	}
}
