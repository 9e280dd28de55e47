package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/tree"
)

// ErrCollected says that a snapshot needs a chunk which was there when it was
// begun, and which garbage collection has deleted since.
var ErrCollected = errors.New("garbage collection deleted what this snapshot relied on")

const (
	fencedTriesMax = 3  // sessions that a commit may lose to garbage collection
	rescueBatch    = 64 // chunks read from condemned packs at a time
)

// commit makes a snapshot visible whose listing exists already.
func (s *session) commit(ctx context.Context, snap *Snapshot) error {
	return s.commitOn(ctx, snap, snap.Root)
}

// commitOn makes a snapshot visible whose listing was made from that of base, a
// root, or from nothing, if base is zero. Everything it refers to is durable
// before, and lies where no plan of garbage collection condemns it.
func (s *session) commitOn(ctx context.Context, snap *Snapshot, base format.ID) error {
	for tries := 1; ; tries++ {
		if err := s.secure(ctx, snap.Root, base); err != nil {
			return err
		}
		err := s.create(ctx, snap)
		if !errors.Is(err, ErrFenced) || tries == fencedTriesMax {
			return err
		}
		s.r.opts.Log.Warn("garbage collection expired the session; going on in a new one", "session", s.id.String())
		if err := s.renew(ctx); err != nil {
			return err
		}
	}
}

// create takes the session's next slot for a snapshot.
func (s *session) create(ctx context.Context, snap *Snapshot) error {
	snap.Client, snap.Session, snap.Number = s.r.keys.Client(), s.id, s.next
	snap.Sequence = s.sequence + 1
	snap.Heads = nil
	for _, h := range s.heads {
		snap.Heads = append(snap.Heads, h.ids...)
	}
	sortIDs(snap.Heads)
	salt := make([]byte, 32)
	if _, err := io.ReadFull(s.r.opts.Rand, salt); err != nil {
		return fmt.Errorf("draw a snapshot's salt: %w", err)
	}
	body, err := s.r.encodeSnapshot(snap, salt)
	if err != nil {
		return err
	}
	snap.ID = format.SumID(body)
	snap.Meta.ID = snap.ID
	err = s.r.createObject(ctx, snap.slot().String(), seal.KindSnapshot, s.r.keys.SignSnapshot(body))
	if errors.Is(err, store.ErrExists) {
		return fmt.Errorf("commit a snapshot: %w: %w", ErrFenced, err)
	}
	if err != nil {
		return fmt.Errorf("commit a snapshot: %w", err)
	}
	s.next++
	s.saw(snap)
	s.r.sawCommit(snap)
	return nil
}

// renew goes on under another name, after the session was expired. What it has
// stored may have been condemned or deleted meanwhile.
func (s *session) renew(ctx context.Context) error {
	old := s.name()
	if err := s.announce(ctx); err != nil {
		return err
	}
	s.wary = true
	if err := s.r.store.Delete(ctx, old); err != nil && !errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("end the session that was expired: %w", err)
	}
	return nil
}

// secure makes durable what a listing needs, and makes sure that it stays: what
// lies in condemned packs is stored again.
func (s *session) secure(ctx context.Context, root, base format.ID) error {
	for {
		if err := s.flush(ctx); err != nil {
			return err
		}
		plans, version, err := s.r.readPlans(ctx)
		if err != nil {
			return err
		}
		if version != s.plansVersion {
			s.plansVersion, s.wary = version, true
		}
		if s.wary {
			clear(s.proven)
		} else if done, err := s.isProven(ctx, root, base, plans); done || err != nil {
			return err
		}
		rescued, err := s.rescue(ctx, root)
		if err != nil {
			return err
		}
		if rescued == 0 {
			s.proven[root] = true
			return nil
		}
		s.wary = true // until nothing more is found, with the plans of that moment
	}
}

// isProven reports whether nothing of a listing can be condemned: what was
// stored in this session is not, and what was taken from base is not if a
// snapshot of it stands in every plan as one that the plan was made from.
func (s *session) isProven(ctx context.Context, root, base format.ID, plans []*plan) (bool, error) {
	if base.IsZero() || s.proven[base] {
		s.proven[root] = true
		return true, nil
	}
snapshots:
	for _, name := range s.byRoot[base] {
		for _, p := range plans {
			if p.active() && !p.snapshots[name.id] {
				continue snapshots
			}
		}
		// It may have been forgotten, and collected, before this session began.
		switch _, err := s.r.store.Stat(ctx, name.object); {
		case errors.Is(err, store.ErrNotFound):
		case err != nil:
			return false, fmt.Errorf("see whether snapshot %s is still there: %w", name.id, err)
		default:
			s.proven[base], s.proven[root] = true, true
			return true, nil
		}
	}
	return false, nil
}

// rescue walks a listing and stores again what lies in condemned packs alone. It
// returns the number of such chunks.
func (s *session) rescue(ctx context.Context, root format.ID) (int, error) {
	var mu sync.Mutex
	lost := map[seal.ChunkKind][]format.ID{}
	miss := func(kind seal.ChunkKind, id format.ID) error {
		if s.lost[lostChunk{kind, id}] {
			return nil // it came from the base, and was beyond help before
		}
		label := s.r.label.LabelOf(kind, id)
		if _, live, err := s.r.index.FindLive(label); live || err != nil {
			return err
		}
		fresh, err := s.r.index.Claim(label)
		if fresh {
			mu.Lock()
			lost[kind] = append(lost[kind], id)
			mu.Unlock()
		}
		return err
	}
	walker := tree.Walker{
		Enter:    func(id format.ID) (bool, error) { return true, miss(seal.ChunkMeta, id) },
		Chunk:    func(id format.ID, _ uint64) error { return miss(seal.ChunkData, id) },
		Parallel: s.r.workers(),
	}
	if len(s.lost) > 0 {
		walker.Failed = func(err error) error {
			if s.lost.isPartOf(err) {
				return nil
			}
			return err
		}
	}
	err := walker.Walk(ctx, tree.Listing{Chunks: metaReader{s.r}, Root: root})
	if isLost(err) {
		err = fmt.Errorf("%w: %w", ErrCollected, err)
	}
	rescued := 0
	for kind, ids := range lost {
		for len(ids) > 0 {
			n := min(len(ids), rescueBatch)
			if err == nil {
				err = s.storeAgain(ctx, kind, ids[:n])
			}
			if err != nil {
				for _, id := range ids[:n] {
					s.r.index.Unclaim(s.r.label.LabelOf(kind, id))
				}
			}
			rescued += n
			ids = ids[n:]
		}
	}
	if err != nil {
		return 0, fmt.Errorf("make sure that listing %s stays whole: %w", root, err)
	}
	return rescued, nil
}

// storeAgain copies chunks that were claimed from wherever they still lie.
func (s *session) storeAgain(ctx context.Context, kind seal.ChunkKind, ids []format.ID) error {
	packer := s.data
	if kind == seal.ChunkMeta {
		packer = s.metas
	}
	return s.r.readPayloads(ctx, kind, ids, func(n int, p payload, err error) error {
		if isLost(err) {
			return fmt.Errorf("%w: %w", ErrCollected, err)
		}
		if err != nil {
			return err
		}
		defer format.FreePayload(p.bytes)
		return packer.add(ids[n], s.r.label.LabelOf(kind, ids[n]), p.codec, p.size, p.bytes)
	})
}
