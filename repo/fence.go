package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
)

// clockSlack is how much apart two of storage's times may be and still be in
// either order: twice the coarsest resolution of a store.
const clockSlack = 2 * time.Second

// slotSize is what a forget object has for each snapshot slot that was emptied.
const slotSize = 16 + 16 + 8

// writing is the session of somebody who writes, or who did and was killed.
type writing struct {
	client  seal.ClientID
	session seal.SessionID
	begun   time.Time // by storage's clock
	next    uint64    // number of the slot that it takes next
	last    time.Time // when it last took a slot; zero if it never did
}

func (w *writing) name() string {
	return seal.Name{Kind: seal.KindSession, Client: w.client, Session: w.session}.String()
}

// silentSince reports whether the session has neither begun nor committed
// anything after a time.
func (w *writing) silentSince(t time.Time) bool {
	t = t.Add(clockSlack)
	return !w.begun.After(t) && !w.last.After(t)
}

// openSessions returns the sessions of the own group that have not ended, but
// for one.
func (r *Repository) openSessions(ctx context.Context, except seal.SessionID) ([]*writing, error) {
	var open []*writing
	err := r.store.List(ctx, seal.KindSession.Dir(), func(info store.Info) error {
		name, ok := seal.ParseName(info.Name)
		if !ok || name.Session == except {
			return nil
		}
		var header [seal.HeaderSize]byte
		err := r.store.ReadAt(ctx, info.Name, header[:], 0)
		if errors.Is(err, store.ErrNotFound) {
			return nil // it has ended
		}
		if err != nil {
			return err
		}
		// A header that cannot be read may be anybody's, so it counts.
		if h, err := seal.ParseHeader(header[:]); err == nil && h.Owner != r.own.ID {
			return nil
		}
		open = append(open, &writing{client: name.Client, session: name.Session, begun: info.Created})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list who is writing: %w", err)
	}
	for _, w := range open {
		if err := r.findSlots(ctx, w); err != nil {
			return nil, fmt.Errorf("list what session %s committed: %w", w.session, err)
		}
	}
	return open, nil
}

// findSlots finds out which slots a session has taken.
func (r *Repository) findSlots(ctx context.Context, w *writing) error {
	prefix := fmt.Sprintf("%s%x/", seal.KindSnapshot.Dir(), w.client[:])
	return r.store.List(ctx, prefix, func(info store.Info) error {
		name, ok := seal.ParseName(info.Name)
		if ok && name.Session == w.session {
			w.next = max(w.next, name.Number+1)
			if info.Created.After(w.last) {
				w.last = info.Created
			}
		}
		return nil
	})
}

// forgottenSlots moves next of sessions behind the slots whose snapshots were
// forgotten.
func (r *Repository) forgottenSlots(ctx context.Context, open []*writing) error {
	return r.eachForget(ctx, func(b *forgetBody, err error) error {
		if err != nil {
			return err
		}
		b.eachSlot(func(_ int, slot seal.Name) {
			for _, w := range open {
				if slot.Client == w.client && slot.Session == w.session {
					w.next = max(w.next, slot.Number+1)
				}
			}
		})
		return nil
	})
}

// fenceSilent expires the sessions that have been silent since a time, and
// returns those that stay and how many were expired. Whoever is fenced and still
// there goes on in a new session.
func (r *Repository) fenceSilent(ctx context.Context, open []*writing, since time.Time) (stay []*writing, fenced int, err error) {
	var silent []*writing
	for _, w := range open {
		if w.silentSince(since) {
			silent = append(silent, w)
		} else {
			stay = append(stay, w)
		}
	}
	if len(silent) == 0 {
		return stay, 0, nil
	}
	if err := r.forgottenSlots(ctx, silent); err != nil {
		return nil, 0, err
	}
	for _, w := range silent {
		ok, err := r.fence(ctx, w)
		if err != nil {
			return nil, fenced, fmt.Errorf("expire session %s: %w", w.session, err)
		}
		if ok {
			fenced++
		} else {
			stay = append(stay, w)
		}
	}
	return stay, fenced, nil
}

// fence takes the next slot of a session, so that the session cannot. It
// reports false if the session was faster.
func (r *Repository) fence(ctx context.Context, w *writing) (bool, error) {
	if w.next > 0 {
		void, err := r.isVoid(ctx, w.slot(w.next-1))
		if err != nil {
			return false, err
		}
		if void { // an earlier collection took it, and was stopped
			return true, r.deleteSession(ctx, w)
		}
	}
	err := r.createVoid(ctx, w.slot(w.next))
	if errors.Is(err, store.ErrExists) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, r.deleteSession(ctx, w)
}

func (r *Repository) deleteSession(ctx context.Context, w *writing) error {
	if err := r.store.Delete(ctx, w.name()); err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	return nil
}

func (w *writing) slot(number uint64) string {
	return seal.Name{Kind: seal.KindSnapshot, Client: w.client, Session: w.session, Number: number}.String()
}

// isVoid reports whether a slot was taken by garbage collection.
func (r *Repository) isVoid(ctx context.Context, name string) (bool, error) {
	plain, err := r.getObject(ctx, name, seal.KindSnapshot)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil // forgotten
	}
	return err == nil && bytes.Equal(plain, voidBody), err
}
