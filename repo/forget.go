package repo

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/internal/mp"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
)

// forgetBody is the signed body of a forget object (spec/repository.md, 9).
type forgetBody struct {
	Client     []byte   `msgpack:"client"`
	Named      [][]byte `msgpack:"named,omitempty"`
	Reason     []byte   `msgpack:"reason,omitempty"`
	Repository []byte   `msgpack:"repository"`
	Slots      []byte   `msgpack:"slots"`
	Snapshots  [][]byte `msgpack:"snapshots"`
	Time       []int64  `msgpack:"time"`
}

// Forget removes snapshots. A signed record of it is durable before the first
// of them is deleted, so that a snapshot which is missing without one was not
// removed by this client. Content that nothing else needs stays on storage.
//
// If deleting fails, the snapshots that could not be deleted are still there,
// and forgetting them again is all that there is to do.
func (r *Repository) Forget(ctx context.Context, snaps []*Snapshot, reason string) error {
	if len(snaps) == 0 {
		return nil
	}
	if err := r.keys.CheckWrite(); err != nil {
		return err
	}
	body := forgetBody{Reason: []byte(reason)}
	for _, s := range snaps {
		body.add(s.ID, s.slot())
	}
	if err := r.recordForget(ctx, body); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(2 * r.workers())
	for _, s := range snaps {
		g.Go(func() error {
			err := r.store.Delete(gctx, s.objectName())
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				return fmt.Errorf("forget snapshot %s: %w", s.ID, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return r.deleteTwins(ctx, snaps)
}

// add adds a snapshot, of which the id is zero if nobody knows it, to what is
// forgotten.
func (b *forgetBody) add(id format.ID, slot seal.Name) {
	b.Snapshots = append(b.Snapshots, id[:])
	b.Slots = append(append(b.Slots, slot.Client[:]...), slot.Session[:]...)
	b.Slots = binary.BigEndian.AppendUint64(b.Slots, slot.Number)
}

// eachSlot calls fn with the slots that were emptied.
func (b *forgetBody) eachSlot(fn func(i int, slot seal.Name)) {
	for i, left := 0, b.Slots; len(left) >= slotSize; i, left = i+1, left[slotSize:] {
		fn(i, seal.Name{
			Kind: seal.KindSnapshot, Client: seal.ClientID(left[:16]), Session: seal.SessionID(left[16:32]), Number: binary.BigEndian.Uint64(left[32:]),
		})
	}
}

// recordForget makes the signed record of what is forgotten durable. The body
// has all but who writes it, and when.
func (r *Repository) recordForget(ctx context.Context, body forgetBody) error {
	client, repository, now := r.keys.Client(), r.keys.Repository(), r.opts.Now()
	body.Client, body.Repository, body.Time = client[:], repository[:], []int64{now.Unix(), int64(now.Nanosecond())}
	session, err := r.newSessionID(now)
	if err != nil {
		return err
	}
	name := seal.Name{Kind: seal.KindForget, Client: client, Session: session}.String()
	if err := r.createObject(ctx, name, seal.KindForget, r.keys.SignForget(mp.Encode(&body))); err != nil {
		return fmt.Errorf("record what is forgotten: %w", err)
	}
	r.sawForget(name)
	return nil
}

// deleteTwins deletes objects of snapshots that were made since they were
// listed, because they were being sealed again under another epoch.
func (r *Repository) deleteTwins(ctx context.Context, snaps []*Snapshot) error {
	if n, _ := r.latest.group().CurrentEpoch(); n == 1 {
		return nil
	}
	gone := make(map[seal.Name]bool, len(snaps))
	for _, s := range snaps {
		gone[s.slot()] = true
	}
	return r.store.List(ctx, seal.KindSnapshot.Dir(), func(info store.Info) error {
		name, ok := seal.ParseName(info.Name)
		slot := name
		slot.Resealed = 0
		if !ok || name.Resealed == 0 || !gone[slot] {
			return nil
		}
		if err := r.store.Delete(ctx, info.Name); err != nil && !errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("forget what was sealed again: %w", err)
		}
		return nil
	})
}

// eachForget calls fn with every forget object of this client, or why it cannot
// be read, one after another. One that is being sealed again may come twice.
func (r *Repository) eachForget(ctx context.Context, fn func(*forgetBody, error) error) error {
	var mu sync.Mutex
	for names := (objectNames{r: r, prefix: r.forgetDir()}); names.more(); {
		infos, err := names.next(ctx)
		if err != nil {
			return fmt.Errorf("read what was forgotten: %w", err)
		}
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(2 * r.workers())
		for _, info := range infos {
			g.Go(func() error {
				body, err := r.readForget(gctx, info.Name)
				if gctx.Err() != nil {
					return context.Cause(gctx)
				}
				mu.Lock()
				defer mu.Unlock()
				if errors.Is(err, store.ErrNotFound) {
					names.vanished()
					return nil
				}
				return fn(body, err)
			})
		}
		if err := g.Wait(); err != nil {
			return fmt.Errorf("read what was forgotten: %w", err)
		}
	}
	return nil
}

// forgetDir is where this client's records lie.
func (r *Repository) forgetDir() string {
	client := r.keys.Client()
	return fmt.Sprintf("%s%x/", seal.KindForget.Dir(), client[:])
}

// readForget reads and verifies one record.
func (r *Repository) readForget(ctx context.Context, name string) (*forgetBody, error) {
	plain, err := r.getObject(ctx, name, seal.KindForget)
	if err != nil {
		return nil, err
	}
	signed, err := r.keys.VerifyForget(plain)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	body := new(forgetBody)
	if err := mp.Decode(signed, body); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return body, nil
}
