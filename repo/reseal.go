package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/keyring"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
)

// resealRest moves to the current epoch what is not in packs, and counts what is
// left under earlier ones (spec/repository.md, section 11). Packs were copied and
// condemned like any that are repacked. Indexes and plans come when no pack of
// an earlier epoch is left: until then they change anyway.
func (c *collector) resealRest() error {
	if c.opts.DryRun {
		return c.countOld()
	}
	if err := c.resealSigned(seal.KindSnapshot); err != nil {
		return err
	}
	if err := c.resealSigned(seal.KindForget); err != nil {
		return err
	}
	if err := c.resealSigned(seal.KindDamage); err != nil {
		return err
	}
	if err := c.dropOldPartials(); err != nil {
		return err
	}
	if err := c.countOld(); err != nil || c.sum.OldPacks.Packs > 0 || c.sum.OldObjects == 0 {
		return err
	}
	if err := c.resealIndexes(); err != nil {
		return err
	}
	if err := c.resealPlans(); err != nil {
		return err
	}
	return c.countOld()
}

// isOld reports whether an object of the own group is sealed under an earlier
// epoch than the current one.
func (r *Repository) isOld(h *seal.Header) bool {
	current, _ := r.latest.group().CurrentEpoch()
	return h.Owner == r.own.ID && h.Epoch != 0 && h.Epoch < current
}

// readHeader reads the beginning of an object. It returns nil for one that is
// gone, or that nobody can tell the epoch of because its header is damaged.
func (r *Repository) readHeader(ctx context.Context, name string) (*seal.Header, error) {
	var header [seal.HeaderSize]byte
	err := r.store.ReadAt(ctx, name, header[:], 0)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	h, err := seal.ParseHeader(header[:])
	if err != nil {
		return nil, nil
	}
	return &h, nil
}

// countOld counts what is left under earlier epochs, by what storage lists.
func (c *collector) countOld() error {
	c.sum.OldPacks, c.sum.OldObjects = PackSum{}, 0
	current, _ := c.r.latest.group().CurrentEpoch()
	var unknown []store.Info
	for name, st := range c.packs {
		switch {
		case st.foreign:
			unknown = append(unknown, store.Info{Name: seal.Name{Kind: seal.KindDataPack, Sum: name}.String(), Size: st.size})
		case st.stored && st.epoch < current:
			c.sum.OldPacks.add(st.size)
		}
	}
	old, err := c.old(unknown)
	if err != nil {
		return err
	}
	for _, info := range old {
		c.sum.OldPacks.add(info.Size)
	}
	for _, kind := range []seal.Kind{
		seal.KindIndex, seal.KindSnapshot, seal.KindSession, seal.KindPlan, seal.KindForget, seal.KindPartial, seal.KindDamage,
	} {
		old, err := c.listOld(kind)
		if err != nil {
			return err
		}
		c.sum.OldObjects += len(old)
	}
	return nil
}

// listOld lists the objects of a kind that are sealed under earlier epochs.
func (c *collector) listOld(kind seal.Kind) ([]store.Info, error) {
	var infos []store.Info
	err := c.r.store.List(c.ctx, kind.Dir(), func(info store.Info) error {
		if _, ok := seal.ParseName(info.Name); ok {
			infos = append(infos, info)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list objects of earlier epochs: %w", err)
	}
	return c.old(infos)
}

// old returns those of some objects that are sealed under earlier epochs.
func (c *collector) old(infos []store.Info) ([]store.Info, error) {
	isOld := make([]bool, len(infos))
	g, ctx := errgroup.WithContext(c.ctx)
	g.SetLimit(deletesAtOnce)
	for i, info := range infos {
		g.Go(func() error {
			h, err := c.r.readHeader(ctx, info.Name)
			isOld[i] = h != nil && c.r.isOld(h)
			return err
		})
	}
	err := g.Wait()
	kept := infos[:0]
	for i, info := range infos {
		if isOld[i] {
			kept = append(kept, info)
		}
	}
	return kept, err
}

// resealSigned seals snapshots, forget objects or lists of damage again, each under a name that
// says the epoch, before the old one is deleted. Snapshots of sessions that are
// open stay: whoever expires a session takes the slot behind its last.
func (c *collector) resealSigned(kind seal.Kind) error {
	infos, err := c.listOld(kind)
	if err != nil || len(infos) == 0 {
		return err
	}
	open := make(map[seal.SessionID]bool)
	if kind == seal.KindSnapshot {
		// After the snapshots were listed: a session of theirs that is not open
		// now has ended.
		writing, err := c.r.openSessions(c.ctx, seal.SessionID{})
		if err != nil {
			return err
		}
		for _, w := range writing {
			open[w.session] = true
		}
	}
	g, ctx := errgroup.WithContext(c.ctx)
	g.SetLimit(deletesAtOnce)
	for i, info := range infos {
		name, _ := seal.ParseName(info.Name)
		if name.Client != c.r.keys.Client() || open[name.Session] {
			continue
		}
		c.progress("seal again: "+kind.Dir(), i, len(infos))
		g.Go(func() error {
			err := c.r.resealOne(ctx, info, name)
			if errors.Is(err, seal.ErrDamaged) {
				c.r.opts.Log.Warn("an object is damaged and stays as it is", "error", err)
				return nil
			}
			return err
		})
	}
	return g.Wait()
}

// dropOldPartials deletes the notes of unfinished imports under earlier epochs:
// what they name is sent again if it should be wanted.
func (c *collector) dropOldPartials() error {
	infos, err := c.listOld(seal.KindPartial)
	if err != nil {
		return err
	}
	for _, info := range infos {
		if err := c.r.store.Delete(c.ctx, info.Name); err != nil && !errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("remove the note of an unfinished import: %w", err)
		}
	}
	return nil
}

// resealOne moves one snapshot or forget object to the current epoch.
func (r *Repository) resealOne(ctx context.Context, info store.Info, name seal.Name) error {
	plain, err := r.getObject(ctx, info.Name, name.Kind)
	if errors.Is(err, store.ErrNotFound) {
		return nil // another collection or bk-forget was faster
	}
	if err != nil {
		return err
	}
	again, err := keyring.Resealed(plain, info.Created)
	if err != nil {
		return fmt.Errorf("%s: %w", info.Name, err)
	}
	body, _ := keyring.SignedBody(again)
	twin := name
	twin.Resealed, _ = r.latest.group().CurrentEpoch()
	err = r.createObject(ctx, twin.String(), name.Kind, again)
	if errors.Is(err, store.ErrExists) {
		err = r.checkTwin(ctx, twin, body)
	}
	if err != nil {
		return fmt.Errorf("seal %s again: %w", info.Name, err)
	}
	err = r.store.Delete(ctx, info.Name)
	if errors.Is(err, store.ErrNotFound) && name.Kind == seal.KindSnapshot {
		return r.dropIfForgotten(ctx, twin, format.SumID(body))
	}
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// checkTwin checks that what somebody has sealed again is the same.
func (r *Repository) checkTwin(ctx context.Context, twin seal.Name, want []byte) error {
	plain, err := r.getObject(ctx, twin.String(), twin.Kind)
	if err != nil {
		return err
	}
	got, err := keyring.SignedBody(plain)
	if err != nil {
		return fmt.Errorf("%s: %w", twin, err)
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%s: %w: it is not what lies in that slot", twin, seal.ErrDamaged)
	}
	return nil
}

// dropIfForgotten deletes what was sealed again while it was being forgotten:
// whoever forgot it has deleted the object that there was, and knew of no other.
func (r *Repository) dropIfForgotten(ctx context.Context, twin seal.Name, id format.ID) error {
	forgotten, err := r.forgotten(ctx)
	if err != nil || !forgotten.ids[id] {
		return err
	}
	if err := r.store.Delete(ctx, twin.String()); err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	return nil
}

// resealIndexes writes the indexes of earlier epochs anew.
func (c *collector) resealIndexes() (err error) {
	if c.indexes, err = listIndexes(c.ctx, c.r.store); err != nil {
		return err
	}
	return c.rewriteIndexes(nil)
}

// resealPlans writes down anew what plans of earlier epochs say was deleted.
// Those that wait to be carried out are replaced when they are.
func (c *collector) resealPlans() error {
	for _, p := range c.plans {
		h, err := c.r.readHeader(c.ctx, planName(p.number))
		if err != nil {
			return err
		}
		if h != nil && c.r.isOld(h) && !p.active() {
			return c.endPlans(nil, nil)
		}
	}
	return nil
}
