package repo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/index"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
)

// makePlan condemns what no snapshot needs, and packs that are needed in part,
// once the part is copied. It reports whether there is a new plan.
func (c *collector) makePlan() (bool, error) {
	dead, partly := c.choose()
	for _, name := range dead {
		c.sum.Condemned.add(c.packs[name].size)
	}
	if c.opts.DryRun {
		for _, name := range partly {
			c.sum.Condemned.add(c.packs[name].size)
			c.sum.Repacked.add(c.packs[name].size)
			c.sum.Copied += c.packs[name].live
		}
		return false, nil
	}
	if err := c.listAdopted(); err != nil {
		return false, err
	}
	copied, err := c.repack(partly)
	if err != nil {
		return false, err
	}
	if len(dead)+len(copied) == 0 {
		return false, nil
	}
	p := &plan{packs: append(dead, copied...), snapshots: make(map[format.ID]bool, len(c.snaps))}
	for _, other := range c.plans {
		p.number = other.number + 1
	}
	// A number is never used twice: if plans have come and gone since they were
	// read, theirs is not free.
	if now, _, err := c.r.readPlans(c.ctx); err != nil {
		return false, err
	} else if !slices.EqualFunc(now, c.plans, func(a, b *plan) bool { return a.number == b.number }) {
		return false, c.outrun()
	}
	for _, s := range c.snaps {
		p.snapshots[s.ID] = true
	}
	err = c.r.createPlan(c.ctx, p)
	if errors.Is(err, store.ErrExists) {
		return false, c.outrun()
	}
	if err != nil {
		return false, fmt.Errorf("make a plan: %w", err)
	}
	return true, nil
}

// outrun gives up making a plan. Two plans that do not know of each other could
// condemn both copies of a chunk. What was copied here is of use to nobody, and
// found by the next collection.
func (c *collector) outrun() error {
	c.r.opts.Log.Warn("another collection made a plan meanwhile; this one makes none")
	c.sum.Condemned, c.sum.Repacked = PackSum{}, PackSum{}
	return nil
}

// choose returns the packs that nobody needs, and those that are worth copying
// out of. Packs that somebody may be filling are left for later.
func (c *collector) choose() (dead, partly [][32]byte) {
	before := c.now
	for _, w := range c.writing {
		if w.begun.Before(before) {
			before = w.begun
		}
	}
	waste, needed := int64(0), int64(0)
	for name, st := range c.packs {
		needed += st.live
		switch {
		case !st.stored || st.foreign || st.planned || !st.created.Before(before):
		case st.liveCount == 0:
			dead = append(dead, name)
		case st.total > st.live:
			waste += st.total - st.live
			partly = append(partly, name)
		}
	}
	compare := func(a, b [32]byte) int { return slices.Compare(a[:], b[:]) }
	slices.SortFunc(dead, compare)
	share := func(name [32]byte) float64 {
		st := c.packs[name]
		return float64(st.total-st.live) / float64(st.total)
	}
	slices.SortFunc(partly, func(a, b [32]byte) int {
		return cmp.Or(cmp.Compare(share(b), share(a)), compare(a, b))
	})
	allowed := int64(max(c.opts.MaxUnused, 0) * float64(needed))
	chosen, copied := 0, int64(0)
	for _, name := range partly {
		st := c.packs[name]
		if waste <= allowed || c.opts.MaxRepack > 0 && copied+st.live > c.opts.MaxRepack {
			break
		}
		waste -= st.total - st.live
		copied += st.live
		chosen++
	}
	return dead, partly[:chosen]
}

// listAdopted lists the packs that are needed and that no index lists.
func (c *collector) listAdopted() error {
	for _, info := range c.adopted {
		name, _ := seal.ParseName(info.Name)
		if c.packs[name.Sum] == nil || c.packs[name.Sum].liveCount == 0 {
			continue
		}
		l, err := c.r.readDirectory(c.ctx, info)
		if err != nil {
			return err
		}
		c.r.index.Stored(l.Info, l.Entries)
	}
	return c.session.flush(c.ctx)
}

// repack copies what is needed out of packs, and returns those out of which all
// of it could be copied. The copies are durable and listed then.
func (c *collector) repack(names [][32]byte) (copied [][32]byte, err error) {
	if len(names) == 0 {
		return nil, nil
	}
	chosen := make(map[[32]byte][]wanted, len(names))
	for _, name := range names {
		chosen[name] = nil
	}
	err = c.marks.Each(func(_ int, label seal.Label, hit index.Hit, marked bool) error {
		if list, ok := chosen[hit.Pack.Name]; ok && marked {
			chosen[hit.Pack.Name] = append(list, wanted{label: label, hit: hit})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i, name := range names {
		c.progress("copy what is needed out of packs", i, len(names))
		err := c.copyOut(chosen[name])
		if c.ctx.Err() != nil {
			return nil, context.Cause(c.ctx)
		}
		if errors.Is(err, seal.ErrDamaged) {
			c.r.opts.Log.Warn("a pack is damaged and stays as it is", "error", err)
			continue
		}
		if err != nil {
			return nil, err
		}
		st := c.packs[name]
		c.sum.Condemned.add(st.size)
		c.sum.Repacked.add(st.size)
		c.sum.Copied += st.live
		copied = append(copied, name)
	}
	return copied, c.session.flush(c.ctx)
}

// copyOut stores chunks of one pack again.
func (c *collector) copyOut(list []wanted) error {
	slices.SortFunc(list, func(a, b wanted) int { return cmp.Compare(a.hit.Offset, b.hit.Offset) })
	packer, kind := c.session.data, seal.ChunkData
	if list[0].hit.Pack.Kind == seal.KindMetaPack {
		packer, kind = c.session.metas, seal.ChunkMeta
	}
	for i := range list {
		list[i].number = i
	}
	for lo := 0; lo < len(list); {
		hi := runEnd(list, lo)
		err := c.r.readRun(c.ctx, kind, list[lo:hi], func(n int, p payload, err error) error {
			if err != nil {
				return err
			}
			defer format.FreePayload(p.bytes)
			return packer.add(list[n].id, list[n].label, p.codec, p.size, p.bytes)
		})
		if err != nil {
			return err
		}
		lo = hi
	}
	return nil
}
