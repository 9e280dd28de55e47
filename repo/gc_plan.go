package repo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/index"
	"github.com/bk-backup/bk/repo/pack"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
)

// makePlan condemns what no snapshot needs, and packs that are needed in part,
// once the part is copied. It reports whether there is a new plan.
func (c *collector) makePlan() (bool, error) {
	dead, partly := c.choose()
	current, _ := c.r.latest.group().CurrentEpoch()
	for _, name := range dead {
		c.sum.Condemned.add(c.packs[name].size)
	}
	if c.opts.DryRun {
		for _, name := range partly {
			c.sum.Condemned.add(c.packs[name].size)
			c.sum.Repacked.add(c.packs[name].size)
			c.sum.Copied += c.packs[name].live
			if c.packs[name].epoch < current {
				c.sum.Resealed.add(c.packs[name].size)
			}
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
	c.sum.Condemned, c.sum.Repacked, c.sum.Resealed = PackSum{}, PackSum{}, PackSum{}
	return nil
}

// choose returns the packs that nobody needs, and those that are to be copied out
// of. Packs that somebody may be filling are left for later.
func (c *collector) choose() (dead, partly [][32]byte) {
	first := c.now
	for _, w := range c.writing {
		if w.begun.Before(first) {
			first = w.begun
		}
	}
	before := first.UnixMicro() // of two times that are rounded down, the lesser is earlier
	current, _ := c.r.latest.group().CurrentEpoch()
	needed, waste := int64(0), int64(0)
	var old [][32]byte
	small := make(map[seal.Kind][][32]byte)
	for name, st := range c.packs {
		needed += st.live
		switch {
		case !st.stored || st.foreign || st.planned || st.created >= before:
		case st.liveCount == 0:
			dead = append(dead, name)
		case c.opts.Reseal && st.epoch < current:
			old = append(old, name)
		case st.total > st.live:
			waste += st.total - st.live
			partly = append(partly, name)
		case st.isSmall():
			small[st.kind] = append(small[st.kind], name)
		}
	}
	slices.SortFunc(dead, compareNames)
	c.mostWasteFirst(partly)
	c.mostWasteFirst(old)
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
	for _, name := range partly[chosen:] {
		if st := c.packs[name]; st.isSmall() {
			small[st.kind] = append(small[st.kind], name)
		}
	}
	partly = append(partly[:chosen:chosen], c.worthMerging(small, copied)...)
	return dead, append(partly, c.upTo(old, c.opts.MaxReseal)...)
}

func compareNames(a, b [32]byte) int { return slices.Compare(a[:], b[:]) }

// mostWasteFirst sorts packs by the share of them that nobody needs.
func (c *collector) mostWasteFirst(names [][32]byte) {
	share := func(name [32]byte) float64 {
		st := c.packs[name]
		return float64(st.total-st.live) / float64(max(st.total, 1))
	}
	slices.SortFunc(names, func(a, b [32]byte) int {
		return cmp.Or(cmp.Compare(share(b), share(a)), compareNames(a, b))
	})
}

// sizeAim is the size that packs of a kind should have.
func sizeAim(kind seal.Kind) int64 {
	if kind == seal.KindMetaPack {
		return pack.MetaSizeAim
	}
	return pack.DataSizeAim
}

// isSmall reports whether a pack is one of those that many short sessions leave.
func (st *packState) isSmall() bool { return st.live < sizeAim(st.kind)/2 }

// worthMerging returns the small packs of each kind, if together they fill a
// pack: so each byte moves a number of times that is logarithmic in that of
// sessions. copied is how much is copied already.
func (c *collector) worthMerging(small map[seal.Kind][][32]byte, copied int64) (chosen [][32]byte) {
	for _, kind := range []seal.Kind{seal.KindDataPack, seal.KindMetaPack} {
		sum := int64(0)
		for _, name := range small[kind] {
			sum += c.packs[name].live
		}
		if sum < sizeAim(kind) || c.opts.MaxRepack > 0 && copied+sum > c.opts.MaxRepack {
			continue
		}
		copied += sum
		slices.SortFunc(small[kind], compareNames)
		chosen = append(chosen, small[kind]...)
	}
	return chosen
}

// upTo returns the first of several packs, as many as have so many needed bytes;
// at least one, so that every collection gets further.
func (c *collector) upTo(names [][32]byte, bytesMax int64) [][32]byte {
	sum := int64(0)
	for i, name := range names {
		if sum += c.packs[name].live; i > 0 && bytesMax > 0 && sum > bytesMax {
			return names[:i]
		}
	}
	return names
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
	current, _ := c.r.latest.group().CurrentEpoch()
	for i, name := range names {
		if len(copied) > 0 && c.opts.MaxTime > 0 && c.r.opts.Now().Sub(c.begun) > c.opts.MaxTime {
			c.r.opts.Log.Info("the time for copying is over; the rest is left for the next collection", "packs", len(names)-i)
			break
		}
		c.progress("copy what is needed out of packs", i, len(names))
		err := c.copyOut(name)
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
		if st.epoch < current {
			c.sum.Resealed.add(st.size)
		}
		copied = append(copied, name)
	}
	if len(names) == 0 {
		return nil, nil
	}
	return copied, c.session.flush(c.ctx)
}

// copyOut stores the needed chunks of one pack again. Which they are the pack
// says itself, so that nothing has to be kept for all packs at once.
func (c *collector) copyOut(name [32]byte) error {
	object := seal.Name{Kind: seal.KindDataPack, Sum: name}.String()
	listed, err := c.r.readDirectory(c.ctx, store.Info{Name: object, Size: c.packs[name].size})
	if err != nil {
		return err
	}
	packer, kind := c.session.data, seal.ChunkData
	if listed.Info.Kind == seal.KindMetaPack {
		packer, kind = c.session.metas, seal.ChunkMeta
	}
	var list []wanted
	for i, e := range listed.Entries {
		marked, err := c.marks.MarkedIn(e.Label, name)
		if err != nil {
			return err
		}
		if marked {
			list = append(list, wanted{number: len(list), label: e.Label, hit: index.Hit{Pack: listed.Info, Location: index.Location{
				Number: uint32(i), Offset: e.Offset, StoredSize: e.StoredSize, RawSize: e.RawSize, Codec: e.Codec,
			}}})
		}
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
