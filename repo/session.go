package repo

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/internal/mp"
	"github.com/bk-backup/bk/repo/pack"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
)

// ErrFenced says that garbage collection expired a session that slept too long.
var ErrFenced = errors.New("garbage collection expired this session, which was silent for too long")

// session is somebody writing: packs, indexes and snapshots under one name.
type session struct {
	r        *Repository
	id       seal.SessionID
	next     uint64 // number of the next snapshot slot
	sequence uint64 // highest seen
	heads    map[seal.ClientID]headSeen
	data     *packer
	metas    *packer

	byRoot       map[format.ID][]listedSnapshot // snapshots known at the beginning
	proven       map[format.ID]bool             // roots of which nothing is condemned
	plansVersion int                            // of the plans that the session has taken note of
	wary         bool                           // a plan came after the session began
	lost         lostSet                        // chunks that were beyond help when the session began
}

// listedSnapshot is a snapshot that a session may take a listing from.
type listedSnapshot struct {
	id     format.ID
	object string
}

type headSeen struct {
	sequence uint64
	ids      []format.ID
}

// sessionBody is the content of a session object.
type sessionBody struct {
	Begun   []int64 `msgpack:"begun"`
	Client  []byte  `msgpack:"client"`
	Host    []byte  `msgpack:"host,omitempty"`
	Pid     int     `msgpack:"pid"`
	Program string  `msgpack:"program,omitempty"`
	Session []byte  `msgpack:"session"`
}

// beginSession announces a writer. known are the snapshots it saw.
func (r *Repository) beginSession(ctx context.Context, known []*Snapshot) (*session, error) {
	s := &session{
		r: r, heads: make(map[seal.ClientID]headSeen),
		byRoot: make(map[format.ID][]listedSnapshot), proven: make(map[format.ID]bool),
	}
	for _, snap := range known {
		s.saw(snap)
		s.byRoot[snap.Root] = append(s.byRoot[snap.Root], listedSnapshot{snap.ID, snap.objectName()})
	}
	s.data = newPacker(ctx, r, seal.ChunkData, nil)
	s.metas = newPacker(ctx, r, seal.ChunkMeta, r.meta.unpin)
	if err := s.announce(ctx); err != nil {
		if s.id != (seal.SessionID{}) {
			err = errors.Join(err, s.end())
		}
		return nil, fmt.Errorf("begin to write: %w", err)
	}
	return s, nil
}

// announce creates the session's object, under a new name, and takes note of
// what garbage collection has done or means to do. The order matters: from the
// first step on collection waits for this session, so what the next two say
// stays true until the plans are read again.
func (s *session) announce(ctx context.Context) error {
	r, now := s.r, s.r.opts.Now()
	id, err := r.newSessionID(now)
	if err != nil {
		return err
	}
	client := r.keys.Client()
	body := mp.Encode(&sessionBody{
		Begun: []int64{now.Unix(), int64(now.Nanosecond())}, Client: client[:], Host: []byte(r.opts.Host),
		Pid: os.Getpid(), Program: r.opts.Program, Session: id[:],
	})
	if err := r.reloadKeys(ctx); err != nil {
		return err
	}
	if err := r.checkKeys(ctx); err != nil {
		return err
	}
	s.id, s.next = id, 0
	if err := r.createObject(ctx, s.name(), seal.KindSession, body); err != nil {
		return err
	}
	if _, s.plansVersion, err = r.readPlans(ctx); err != nil {
		return err
	}
	if err := r.refreshIndex(ctx, nil); err != nil {
		return fmt.Errorf("read the index of %s: %w", r.store, err)
	}
	if s.lost == nil {
		if s.lost, err = r.knownLost(ctx); err != nil {
			return err
		}
	}
	adopt := r.recovery.indexDamaged.Load()
	if !adopt {
		// A session that is still there may have been killed before it could list
		// its packs.
		if adopt, err = r.othersWrite(ctx, id); err != nil {
			return err
		}
	}
	if adopt {
		_, err = r.adoptUnlisted(ctx)
	}
	return err
}

// errFound stops a listing.
var errFound = errors.New("found")

// othersWrite reports whether this client has sessions beside the given one.
func (r *Repository) othersWrite(ctx context.Context, own seal.SessionID) (bool, error) {
	client := r.keys.Client()
	err := r.store.List(ctx, fmt.Sprintf("%s%x/", seal.KindSession.Dir(), client[:]), func(info store.Info) error {
		if name, ok := seal.ParseName(info.Name); ok && name.Session != own {
			return errFound
		}
		return nil
	})
	if errors.Is(err, errFound) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("list who writes: %w", err)
	}
	return false, nil
}

// newSessionID draws the name of a session that begins now.
func (r *Repository) newSessionID(now time.Time) (id seal.SessionID, err error) {
	binary.BigEndian.PutUint64(id[:8], uint64(now.UnixNano()))
	if _, err := io.ReadFull(r.opts.Rand, id[8:]); err != nil {
		return id, fmt.Errorf("draw a session's name: %w", err)
	}
	return id, nil
}

func (s *session) name() string {
	return seal.Name{Kind: seal.KindSession, Client: s.r.keys.Client(), Session: s.id}.String()
}

// saw keeps track of sequence numbers and heads.
func (s *session) saw(snap *Snapshot) {
	s.sequence = max(s.sequence, snap.Sequence)
	h := s.heads[snap.Client]
	switch {
	case snap.Sequence > h.sequence || h.ids == nil:
		h = headSeen{snap.Sequence, []format.ID{snap.ID}}
	case snap.Sequence == h.sequence:
		h.ids = append(h.ids, snap.ID)
	}
	s.heads[snap.Client] = h
}

// flush makes all chunks saved so far durable and lists them in an index.
func (s *session) flush(ctx context.Context) error {
	if err := s.data.flush(); err != nil {
		return err
	}
	if err := s.metas.flush(); err != nil {
		return err
	}
	return s.writeIndex(ctx)
}

// writeIndex lists the packs that no index lists.
func (s *session) writeIndex(ctx context.Context) error {
	return s.r.index.Flush(func(packs []pack.Listed) ([32]byte, error) {
		return s.r.createIndex(ctx, nil, packs)
	})
}

// createIndex stores an index object, which stands in for others.
func (r *Repository) createIndex(ctx context.Context, superseded [][32]byte, packs []pack.Listed) ([32]byte, error) {
	body := make([]byte, 0, pack.IndexSize(superseded, packs))
	return r.createIndexOf(ctx, pack.AppendIndex(body, superseded, packs))
}

// createIndexOf is createIndex for a body that is there already.
func (r *Repository) createIndexOf(ctx context.Context, body []byte) ([32]byte, error) {
	h, secret := r.header(seal.KindIndex)
	stored, err := seal.SealObject(secret, h, body, r.opts.Rand)
	if err != nil {
		return [32]byte{}, fmt.Errorf("seal an index: %w", err)
	}
	sum := [32]byte(format.SumID(stored))
	name := seal.Name{Kind: seal.KindIndex, Sum: sum}.String()
	if err := r.store.Create(ctx, name, stored); err != nil {
		return sum, fmt.Errorf("store an index: %w", err)
	}
	return sum, nil
}

// end says that nothing more will be written. What is not committed stays
// unreferenced until it is collected.
func (s *session) end() error {
	s.data.wg.Wait()
	s.metas.wg.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.r.store.Delete(ctx, s.name()); err != nil && !errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("end the session: %w", err)
	}
	return nil
}

func sortIDs(ids []format.ID) { slices.SortFunc(ids, format.ID.Compare) }
