package repo

import (
	"errors"
	"fmt"
	"slices"

	"github.com/bk-backup/bk/format"
)

// holding is a snapshot of the repository and by what right it goes by an id.
type holding struct {
	*Snapshot
	claim claim
}

// claim says how much there is to the id of a snapshot: its own cannot be given
// to another, the others are what a stream said.
type claim int

const (
	claimOwn claim = iota
	claimImported
	claimVia
)

// knows notes the ids under which a snapshot can be a parent. A weaker claim
// never takes an id from a stronger one, or the maker of a stream could have the
// differences to somebody else's snapshot applied to a listing of theirs; nor
// does a later one from an earlier.
func (s *Sink) knows(snap *Snapshot) {
	for _, id := range snap.SameIDs() {
		h := holding{snap, claimVia}
		switch id {
		case snap.ID:
			h.claim = claimOwn
		case snap.Imported:
			h.claim = claimImported
		}
		if old, ok := s.known[id]; !ok || h.claim < old.claim {
			s.known[id] = h
		}
	}
}

// unchanged reports whether a snapshot that stages made of one of this repository
// says and holds what that does.
func (s *Sink) unchanged(snap *Snapshot) bool {
	via := snap.Meta.Via
	if len(via) == 0 {
		return false
	}
	old, ok := s.known[via[len(via)-1].From]
	return ok && old.claim == claimOwn && old.Root == snap.Root &&
		slices.Equal(saidBy(old.Snapshot), saidBy(snap)) &&
		slices.EqualFunc(old.Losses, snap.Losses, func(a, b format.Loss) bool {
			return a.Kind == b.Kind && a.Count == b.Count && slices.Equal(a.Paths, b.Paths)
		})
}

// saidBy encodes what a snapshot says of itself but for its identity.
func saidBy(snap *Snapshot) []byte {
	said := *snap.Meta.Clone()
	said.ID, said.Parent, said.Origin, said.Via, said.Estimate, said.Unsorted, said.Unstable = snap.Root, format.ID{}, nil, nil, nil, false, false
	return said.AppendBody(nil)
}

// heldAlready looks for a snapshot with the id that came. If its listing is
// another one, two sources claim one id: the newcomer gets a derived one.
func (s *Sink) heldAlready(snap *Snapshot, streamID format.ID) (bool, error) {
	for tries := 0; ; tries++ {
		old, ok := s.known[snap.Imported]
		switch {
		case !ok:
			return false, nil
		case old.Root == snap.Root:
			s.sum.HeldAlready++
			return true, nil
		case tries > 8:
			return false, errors.New("import: no free id for the snapshot")
		}
		snap.Imported = format.SumID(append(snap.Imported[:], snap.Root[:]...))
		if s.opts.OnWarning != nil {
			s.opts.OnWarning(fmt.Sprintf("snapshot %s is held already with another listing; imported as %s", streamID, snap.Imported))
		}
	}
}
