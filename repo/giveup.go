package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
)

// GivenUp is an object of a snapshot that was removed because it is damaged.
type GivenUp struct {
	Object string
	// Snapshot is the id of the snapshot, zero if nobody knows it.
	Snapshot format.ID
	// Whole says that the snapshot has another object, which can be read, so that
	// nothing was given up but this one.
	Whole bool
}

// ErrReadable says that a snapshot was to be given up that can be read.
var ErrReadable = errors.New("it can be read")

// giveUpReason stands in the record.
const giveUpReason = "given up: it cannot be read"

// hopeless is a slot of which the snapshot is to be given up, and what lies there.
type hopeless struct {
	asked   []string // its objects that were named
	slot    seal.Name
	damaged []string  // those that go
	whole   *Snapshot // what another one says, which can be read
	void    bool
	// recorded says that it was given up before, or forgotten; known that it is
	// known which snapshot that was.
	recorded, known bool
}

// isUnread reports whether it goes, or went, without anybody knowing what it was.
func (h *hopeless) isUnread() bool { return h.whole == nil && !h.known }

// refuse says why there is nothing to be given up, if that is so.
func (h *hopeless) refuse() (err error) {
	switch {
	case len(h.damaged) > 0:
		return nil
	case h.whole != nil:
		err = fmt.Errorf("snapshot %s: %w", h.whole.ID, ErrReadable)
	case h.recorded:
		return nil
	case h.void:
		err = errors.New("it is whole, and no snapshot: garbage collection took this place from a session that it expired")
	default:
		err = fmt.Errorf("there is no such object; bk-check prints the names of those that are damaged: %w", store.ErrNotFound)
	}
	return fmt.Errorf("give up %s: %w", h.asked[0], err)
}

// checkGiveUps looks at the snapshots that are to be given up, and fails if one of
// them should not be. It comes before anything is changed.
func (r *Repository) checkGiveUps(ctx context.Context, opts *RepairOptions) error {
	list, err := r.hopeless(ctx, opts)
	for _, h := range list {
		if err == nil {
			err = h.refuse()
		}
	}
	return err
}

// hopeless finds out what lies in the slots that are to be given up.
func (r *Repository) hopeless(ctx context.Context, opts *RepairOptions) (list []*hopeless, err error) {
	if len(opts.GiveUp) == 0 {
		return nil, nil
	}
	gone, err := r.forgotten(ctx)
	if err != nil {
		return nil, err
	}
	client := r.keys.Client()
	dir := fmt.Sprintf("%s%x/", seal.KindSnapshot.Dir(), client[:])
	for _, asked := range opts.GiveUp {
		if !strings.Contains(asked, "/") {
			asked = dir + asked
		}
		slot, ok := seal.ParseName(asked)
		if !ok || slot.Kind != seal.KindSnapshot {
			return nil, fmt.Errorf("give up %s: no object of a snapshot can have this name; bk-check prints the names of those that are damaged", asked)
		}
		if slot.Client != client {
			return nil, fmt.Errorf("give up %s: it is another client's, who alone can tell whether it can be read", asked)
		}
		slot.Resealed = 0
		i := slices.IndexFunc(list, func(h *hopeless) bool { return h.slot == slot })
		if i < 0 {
			i = len(list)
			list = append(list, &hopeless{slot: slot})
			list[i].known, list[i].recorded = gone.slots[slot]
		}
		list[i].asked = append(list[i].asked, asked)
	}
	var infos []store.Info
	err = r.store.List(ctx, dir, func(info store.Info) error {
		infos = append(infos, info)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for what is to be given up: %w", err)
	}
	for _, h := range list {
		for _, info := range infos {
			if slotName(info.Name) != h.slot.String() {
				continue
			}
			if err := r.look(ctx, opts, h, info); err != nil {
				return nil, err
			}
		}
		if h.whole != nil { // the snapshot stays, and only what was named goes
			h.damaged = slices.DeleteFunc(h.damaged, func(name string) bool { return !slices.Contains(h.asked, name) })
		}
	}
	return list, nil
}

// look reads an object of a slot that is to be given up. What may only seem to be
// damaged, since storage fails or keys are missing, ends it.
func (r *Repository) look(ctx context.Context, opts *RepairOptions, h *hopeless, info store.Info) error {
	s, err := r.loadSnapshot(ctx, info)
	switch {
	case errors.Is(err, store.ErrNotFound):
	case err == nil && s == nil:
		h.void = true
	case err == nil:
		h.whole = s
	case ctx.Err() == nil && opts.isDamage(err):
		h.damaged = append(h.damaged, info.Name)
	default:
		return fmt.Errorf("give up %s: it may be whole: %w", h.asked[0], err)
	}
	return nil
}

// giveUp removes the snapshots that are to be given up, but for those that a copy
// has brought back by now. As when snapshots are forgotten, a signed record is
// durable before the first of them is deleted. In the end a void lies in the slot
// of each: what lay there may have been one, which kept a session from writing.
func (r *Repository) giveUp(ctx context.Context, opts *RepairOptions, out *Repaired) error {
	list, err := r.hopeless(ctx, opts)
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(h *hopeless) bool {
		had := func(object string) bool { return slices.Contains(out.Objects, object) }
		return len(h.damaged) == 0 && h.whole != nil || opts.DryRun && slices.ContainsFunc(h.damaged, had)
	})
	if len(list) == 0 {
		return nil
	}
	body, err := r.giveUpRecord(ctx, list)
	if err != nil {
		return err
	}
	for _, h := range list {
		if err := h.refuse(); err != nil {
			return err
		}
		for _, object := range h.damaged {
			out.GivenUp = append(out.GivenUp, GivenUp{object, body.idOf(h.slot), h.whole != nil})
		}
	}
	if opts.DryRun {
		return nil
	}
	if err := r.fenceGivenUp(ctx, list); err != nil {
		return err
	}
	if len(body.Snapshots) > 0 {
		if err := r.recordForget(ctx, *body); err != nil {
			return err
		}
	}
	for _, h := range list {
		for _, object := range h.damaged {
			if err := r.store.Delete(ctx, object); err != nil && !errors.Is(err, store.ErrNotFound) {
				return fmt.Errorf("give up %s: %w", h.asked[0], err)
			}
		}
		if h.isUnread() && !h.void {
			if err := r.createVoid(ctx, h.slot.String()); err != nil && !errors.Is(err, store.ErrExists) {
				return fmt.Errorf("give up %s: %w", h.asked[0], err)
			}
		}
	}
	return nil
}

// giveUpRecord returns the record of those that no record names yet. An id is
// known if this machine remembers the snapshot. Otherwise it is one of those that
// others name and that are missing now, or none of them names it.
func (r *Repository) giveUpRecord(ctx context.Context, list []*hopeless) (*forgetBody, error) {
	body := &forgetBody{Reason: []byte(giveUpReason)}
	snaps, damage, err := r.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, d := range damage { // what it names must not be left out of the record
		if isFailure(d.Err) {
			return nil, fmt.Errorf("give up %s: another snapshot cannot be read now: %w", list[0].asked[0], d.Err)
		}
	}
	gone, err := r.forgotten(ctx)
	if err != nil {
		return nil, err
	}
	var heads []seenHead
	if was := r.loadSeen(); was != nil {
		heads = was.heads
	}
	for _, h := range list {
		if !h.isUnread() || h.recorded {
			continue
		}
		id := format.ID{}
		for _, head := range heads {
			if head.object == h.slot.String() {
				id = head.id
				gone.ids[id] = true
			}
		}
		body.add(id, h.slot)
	}
	if len(body.Snapshots) > 0 {
		gone.settle(snaps)
		for _, m := range gone.missingHeads(snaps) {
			body.Named = append(body.Named, m.id[:])
		}
	}
	return body, nil
}

// idOf returns the id that a record has for a slot.
func (b *forgetBody) idOf(want seal.Name) (id format.ID) {
	b.eachSlot(func(i int, slot seal.Name) {
		if slot == want {
			id = format.ID(b.Snapshots[i])
		}
	})
	return id
}

// fenceGivenUp expires the sessions that are open and whose last slot is given up:
// by the void in that slot, others take them for expired already.
func (r *Repository) fenceGivenUp(ctx context.Context, list []*hopeless) error {
	given := make(map[seal.Name]bool, len(list))
	sessions := make(map[seal.SessionID]bool, len(list))
	for _, h := range list {
		if h.isUnread() {
			given[h.slot], sessions[h.slot.Session] = true, true
		}
	}
	open, err := r.openSessions(ctx, seal.SessionID{})
	if err != nil {
		return err
	}
	open = slices.DeleteFunc(open, func(w *writing) bool { return !sessions[w.session] })
	if len(open) == 0 {
		return nil
	}
	if err := r.forgottenSlots(ctx, open); err != nil {
		return err
	}
	for _, w := range open {
		last := seal.Name{Kind: seal.KindSnapshot, Client: w.client, Session: w.session, Number: w.next - 1}
		if w.next == 0 || !given[last] {
			continue
		}
		if err := r.createVoid(ctx, w.slot(w.next)); err != nil && !errors.Is(err, store.ErrExists) {
			return fmt.Errorf("expire session %s: %w", w.session, err)
		}
	}
	return nil
}
