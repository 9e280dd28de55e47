package repo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/vmihailenco/msgpack/v5"
	"golang.org/x/sync/errgroup"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/internal/mp"
	"github.com/bk-backup/bk/repo/keyring"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
)

// Snapshot is a snapshot in a repository (spec/repository.md, section 8).
type Snapshot struct {
	ID       format.ID // SHA-256 of its signed body
	Client   seal.ClientID
	Session  seal.SessionID
	Number   uint64 // within its session
	Sequence uint64 // one more than the highest its writer saw
	Heads    []format.ID
	Root     format.ID // of the listing
	Entries  uint64    // in the listing
	Bytes    uint64    // plain bytes of content
	Losses   []format.Loss
	Imported format.ID // the id it had in the stream it came from; zero for a backup
	Received time.Time // when storage received it, by storage's clock

	object string // its name on storage, where that is not the slot's

	// Meta is what the stream's snapshot record says: time, host, tags ...
	Meta format.Snapshot
}

// slot is the name of the slot that the snapshot was committed into.
func (s *Snapshot) slot() seal.Name {
	return seal.Name{Kind: seal.KindSnapshot, Client: s.Client, Session: s.Session, Number: s.Number}
}

// objectName is the name of the snapshot's object on storage.
func (s *Snapshot) objectName() string {
	if s.object != "" {
		return s.object
	}
	return s.slot().String()
}

// Time returns when the snapshot was made: as it says, or when it was received.
func (s *Snapshot) Time() time.Time {
	if s.Meta.Time != nil {
		return s.Meta.Time.Time()
	}
	return s.Received
}

// snapshotBody is the signed body as msgpack has it, keys sorted.
type snapshotBody struct {
	Bytes      uint64             `msgpack:"bytes"`
	Client     []byte             `msgpack:"client"`
	Entries    uint64             `msgpack:"entries"`
	Group      []byte             `msgpack:"group"`
	Heads      [][]byte           `msgpack:"heads"`
	Imported   []byte             `msgpack:"imported,omitempty"`
	Losses     []lossBody         `msgpack:"losses,omitempty"`
	Number     uint64             `msgpack:"number"`
	Repository []byte             `msgpack:"repository"`
	Root       []byte             `msgpack:"root"`
	Salt       []byte             `msgpack:"salt"`
	Sequence   uint64             `msgpack:"sequence"`
	Session    []byte             `msgpack:"session"`
	Snapshot   msgpack.RawMessage `msgpack:"snapshot"`
}

type lossBody struct {
	Count uint64   `msgpack:"count"`
	Kind  string   `msgpack:"kind"`
	Paths [][]byte `msgpack:"paths,omitempty"`
}

var voidBody = []byte{0x91, 0xa4, 'v', 'o', 'i', 'd'}

// encodeSnapshot returns the body to sign.
func (r *Repository) encodeSnapshot(s *Snapshot, salt []byte) ([]byte, error) {
	repository, group := r.keys.Repository(), r.own.ID
	b := snapshotBody{
		Bytes: s.Bytes, Client: s.Client[:], Entries: s.Entries, Group: group[:],
		Heads: make([][]byte, len(s.Heads)), Number: s.Number, Repository: repository[:],
		Root: s.Root[:], Salt: salt, Sequence: s.Sequence, Session: s.Session[:],
	}
	info := s.Meta
	info.Parent, info.Estimate, info.Unsorted, info.Unstable = format.ID{}, nil, false, false
	if info.ID = s.Imported; info.ID.IsZero() {
		info.ID = format.ID(salt)
	}
	b.Snapshot = info.AppendBody(nil)
	for i := range s.Heads {
		b.Heads[i] = s.Heads[i][:]
	}
	if !s.Imported.IsZero() {
		b.Imported = s.Imported[:]
	}
	for _, l := range s.Losses {
		lb := lossBody{Count: l.Count, Kind: l.Kind}
		for _, p := range l.Paths {
			lb.Paths = append(lb.Paths, []byte(p))
		}
		b.Losses = append(b.Losses, lb)
	}
	return mp.Encode(&b), nil
}

// decodeSnapshot reads a body whose signature was verified.
func (r *Repository) decodeSnapshot(body []byte) (*Snapshot, error) {
	var b snapshotBody
	if err := mp.Decode(body, &b); err != nil {
		return nil, fmt.Errorf("snapshot body: %w", err)
	}
	s := &Snapshot{ID: format.SumID(body), Number: b.Number, Sequence: b.Sequence, Entries: b.Entries, Bytes: b.Bytes}
	if len(b.Client) != 16 || len(b.Session) != 16 || len(b.Root) != 32 || len(b.Repository) != 32 {
		return nil, errors.New("snapshot body: a key is missing or too short")
	}
	if seal.RepositoryID(b.Repository) != r.keys.Repository() {
		return nil, errors.New("the snapshot belongs to another repository")
	}
	s.Client, s.Session, s.Root = seal.ClientID(b.Client), seal.SessionID(b.Session), format.ID(b.Root)
	if len(b.Imported) == 32 {
		s.Imported = format.ID(b.Imported)
	}
	for _, h := range b.Heads {
		if len(h) == 32 {
			s.Heads = append(s.Heads, format.ID(h))
		}
	}
	for _, l := range b.Losses {
		loss := format.Loss{Kind: l.Kind, Count: l.Count}
		for _, p := range l.Paths {
			loss.Paths = append(loss.Paths, string(p))
		}
		s.Losses = append(s.Losses, loss)
	}
	if _, err := s.Meta.ParseBody(b.Snapshot); err != nil {
		return nil, fmt.Errorf("snapshot body: %w", err)
	}
	s.Meta.ID = s.ID
	return s, nil
}

// Damage is an object that could not be opened while others could.
type Damage struct {
	Name string
	Err  error
}

// unreadable returns the failure of storage to hand out an object, as opposed to
// an object that is damaged: the object may be whole, and nobody can tell what
// it says.
func unreadable(damage []Damage) error {
	for _, d := range damage {
		var se *store.Error
		if errors.As(d.Err, &se) {
			return d.Err
		}
	}
	return nil
}

// List returns the client's snapshots, oldest first; those of other clients are
// passed over. Objects that cannot be opened are left out and returned as damage.
// So are, with ErrRolledBack, those that were there when this machine looked last
// and are neither there nor forgotten now: storage went back (seen.go). A snapshot
// that is being sealed again may have two objects; it comes once.
func (r *Repository) List(ctx context.Context) ([]*Snapshot, []Damage, error) {
	seen := r.loadSeen()
	var all []store.Info
	var list []*Snapshot
	var damage []Damage
	names := objectNames{r: r, prefix: seal.KindSnapshot.Dir()}
	for names.more() {
		infos, err := names.next(ctx)
		if err != nil {
			return nil, nil, fmt.Errorf("list the snapshots of %s: %w", r.store, err)
		}
		all = append(all, infos...)
		var mu sync.Mutex
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(2 * r.workers())
		for _, info := range infos {
			g.Go(func() error {
				s, err := r.loadSnapshot(gctx, info)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case errors.Is(err, store.ErrNotFound): // forgotten meanwhile, or sealed again
					names.vanished()
				case gctx.Err() != nil:
					return gctx.Err()
				case err != nil:
					damage = append(damage, Damage{info.Name, err})
				case s != nil:
					list = append(list, s)
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			return nil, nil, err
		}
	}
	hidden, err := r.compareSeen(ctx, seen, all, list)
	if err != nil {
		return nil, nil, fmt.Errorf("compare %s with what was seen of it before: %w", r.store, err)
	}
	damage = append(damage, hidden...)
	slices.SortFunc(list, compareSnapshots)
	slices.SortFunc(damage, func(a, b Damage) int { return slices.Compare([]byte(a.Name), []byte(b.Name)) })
	return withoutTwins(list), damage, nil
}

// withoutTwins drops all but the last object of each snapshot of a sorted list.
func withoutTwins(list []*Snapshot) []*Snapshot {
	kept := list[:0]
	for _, s := range list {
		if n := len(kept); n > 0 && kept[n-1].ID == s.ID {
			kept[n-1] = s
		} else {
			kept = append(kept, s)
		}
	}
	return kept
}

func compareSnapshots(a, b *Snapshot) int {
	if c := a.Time().Compare(b.Time()); c != 0 {
		return c
	}
	if a.Sequence != b.Sequence {
		if a.Sequence < b.Sequence {
			return -1
		}
		return 1
	}
	if c := a.ID.Compare(b.ID); c != 0 {
		return c
	}
	// Of several objects of a snapshot the one that was sealed last.
	return cmp.Or(cmp.Compare(len(a.object), len(b.object)), cmp.Compare(a.object, b.object))
}

// loadSnapshot reads one object; nil without error for a void.
func (r *Repository) loadSnapshot(ctx context.Context, info store.Info) (*Snapshot, error) {
	plain, err := r.getObject(ctx, info.Name, seal.KindSnapshot)
	if err != nil {
		return nil, err
	}
	if slices.Equal(plain, voidBody) {
		return nil, nil
	}
	body, err := r.keys.VerifySnapshot(plain)
	if err != nil {
		return nil, err
	}
	s, err := r.decodeSnapshot(body)
	if err != nil {
		return nil, err
	}
	name, _ := seal.ParseName(info.Name)
	slot := s.slot()
	slot.Resealed = name.Resealed
	if slot != name {
		return nil, fmt.Errorf("the snapshot belongs under the name %s: %w", slot, seal.ErrDamaged)
	}
	s.Received, s.object = info.Created, info.Name
	if name.Resealed > 0 {
		if s.Received, err = keyring.Received(plain); err == nil && s.Received.IsZero() {
			err = fmt.Errorf("%w: it does not say when it was received", seal.ErrDamaged)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", info.Name, err)
		}
	}
	return s, nil
}
