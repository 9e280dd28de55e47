package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/bk-backup/bk/repo/internal/mp"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
)

// objectKinds are the kinds of objects that are checked one by one, besides
// packs, indexes and the client's own snapshots.
var objectKinds = []seal.Kind{
	seal.KindConfig, seal.KindCredential, seal.KindClient, seal.KindSnapshot,
	seal.KindSession, seal.KindPlan, seal.KindForget, seal.KindPartial, seal.KindDamage,
}

// objects reads every small object.
func (k *checker) objects() error {
	var infos []store.Info
	for _, kind := range objectKinds {
		err := k.r.store.List(k.ctx, kind.Dir(), func(info store.Info) error {
			name, ok := seal.ParseName(info.Name)
			if ok && (kind != seal.KindSnapshot || name.Client != k.r.keys.Client()) {
				infos = append(infos, info)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("list %s: %w", kind.Dir(), err)
		}
	}
	g, ctx := errgroup.WithContext(k.ctx)
	g.SetLimit(2 * k.r.workers())
	for i, info := range infos {
		k.progress("read small objects", i, len(infos))
		g.Go(func() error {
			err := k.r.checkObject(ctx, info)
			switch {
			case ctx.Err() != nil:
				return context.Cause(ctx)
			case err != nil && !errors.Is(err, store.ErrNotFound):
				k.find(info.Name, Damaged, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// checkObject reads a small object, and opens it if it is of the own group.
func (r *Repository) checkObject(ctx context.Context, info store.Info) error {
	name, _ := seal.ParseName(info.Name)
	stored, err := r.store.Get(ctx, info.Name, seal.ObjectSizeMax)
	if err != nil {
		return err
	}
	if err := seal.Scrub(info.Name, stored); err != nil {
		return err
	}
	h, err := seal.ParseHeader(stored)
	if err != nil || h.Owner != r.own.ID {
		return err
	}
	plain, err := r.getObject(ctx, info.Name, h.Kind)
	if err != nil {
		return err
	}
	switch name.Kind {
	case seal.KindForget:
		_, err = r.keys.VerifyForget(plain)
	case seal.KindDamage:
		_, err = r.keys.VerifyDamage(plain)
	case seal.KindPlan:
		_, err = r.loadPlan(ctx, name.Number, info.Created)
	case seal.KindSession:
		var b sessionBody
		if err = mp.Decode(plain, &b); err == nil && (!bytes.Equal(b.Client, name.Client[:]) || !bytes.Equal(b.Session, name.Session[:])) {
			err = fmt.Errorf("%w: it is another session's", seal.ErrDamaged)
		}
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", info.Name, err)
	}
	return err
}

// readPlans reads which packs were deleted as garbage: a writer that was slow may
// have listed one in an index afterwards, on which nobody relies. Plans that are
// damaged are findings already.
func (k *checker) readPlans() error {
	for tries := 0; ; tries++ {
		k.plans = nil
		err := k.r.store.List(k.ctx, seal.KindPlan.Dir(), func(info store.Info) error {
			name, ok := seal.ParseName(info.Name)
			if !ok {
				return nil
			}
			p, err := k.r.loadPlan(k.ctx, name.Number, info.Created)
			if errors.Is(err, store.ErrNotFound) || k.ctx.Err() != nil {
				return err
			}
			if err == nil {
				k.plans = append(k.plans, p)
			}
			return nil
		})
		if !errors.Is(err, store.ErrNotFound) || tries == indexTriesMax {
			return err // otherwise one was replaced by a later one meanwhile
		}
	}
}

// chain compares the snapshots with each other and with what was forgotten: each
// of them names those before it.
func (k *checker) chain() error {
	gone, err := k.r.forgotten(k.ctx)
	if err != nil {
		return err
	}
	for _, s := range k.snaps {
		if gone.ids[s.ID] {
			if _, err := k.r.store.Stat(k.ctx, s.objectName()); err == nil {
				k.find(s.objectName(), Returned, fmt.Errorf("snapshot %s was forgotten and is there: bk-forget was interrupted, or storage brought it back", s.ID))
			}
		}
	}
	gone.settle(k.snaps)
	if err := k.expectReceipts(gone); err != nil {
		return err
	}
	for _, f := range k.findings {
		name, ok := seal.ParseName(f.Object)
		if ok && f.What == Damaged && (name.Kind == seal.KindSnapshot || name.Kind == seal.KindForget) {
			return nil // others miss for good reason what cannot be read
		}
	}
	for _, m := range gone.missingHeads(k.snaps) {
		f := k.findAbout("snapshot "+m.id.String(), "", Hidden, fmt.Errorf("snapshot %s, which %s names as the one before it, is neither there nor forgotten%s", m.id, m.by.ID.Short(), gone.note()))
		f.Snapshot = m.id
	}
	return nil
}

// expectReceipts looks for the snapshots that receipts name.
func (k *checker) expectReceipts(gone *forgottenSet) error {
	for _, receipt := range k.opts.Expect {
		err := k.r.findReceipt(receipt, k.snaps, gone)
		switch {
		case errors.Is(err, ErrRolledBack):
			k.findAbout("receipt "+receipt.String(), "", Hidden, err)
		case err != nil:
			return err
		}
	}
	return nil
}
