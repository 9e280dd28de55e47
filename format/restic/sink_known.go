package restic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/internal/snapshots"
)

// A snapshot that came from elsewhere keeps the id that it had in the stream as
// its original, a field that restic has for snapshots that it copied or rewrote
// and keeps through both. A field of our own, bk, holds all of the stream's
// record. restic passes over it, and leaves it out of a snapshot that it writes
// again: so its absence says that the snapshot was changed since it came.

// snapshotOut is a file of snapshots/ as it is written.
type snapshotOut struct {
	Time     time.Time `json:"time"`
	Parent   string    `json:"parent,omitempty"`
	Tree     string    `json:"tree"`
	Paths    []string  `json:"paths"`
	Hostname string    `json:"hostname,omitempty"`
	Username string    `json:"username,omitempty"`
	Tags     []string  `json:"tags,omitempty"`
	Original string    `json:"original,omitempty"`
	Program  string    `json:"program_version,omitempty"`
	BK       *bkFields `json:"bk,omitempty"`
}

// bkFields is what bk keeps in a snapshot of restic.
type bkFields struct {
	ID     string   `json:"id"`              // under which it came
	Record []byte   `json:"record"`          // body of the stream's snapshot record
	Recut  bool     `json:"recut,omitempty"` // content was cut by the repository's polynomial, otherwise cuts are as they came
	Losses []bkLoss `json:"losses,omitempty"`
}

type bkLoss struct {
	Kind  string   `json:"kind"`
	Count uint64   `json:"count"`
	Paths [][]byte `json:"paths,omitempty"`
}

// holding is a snapshot of the repository, by one of its ids.
type holding struct {
	name  format.ID // in the repository
	tree  format.ID
	claim claim
	recut bool
}

// claim says by what right a snapshot goes by an id.
type claim int

const (
	claimOwn      claim = iota // it is the snapshot's own
	claimImported              // it came under it, and is what it was
	claimOriginal              // it came under it, and was changed since, or came by other means
)

// learn notes the snapshots that there are.
func (s *Sink) learn() error {
	list, damage, err := s.r.list(s.ctx)
	if err != nil {
		return err
	}
	if len(damage) > 0 {
		return fmt.Errorf("find out what %s holds already: %w", s.r, damage[0])
	}
	s.known = make(map[format.ID]holding)
	for _, snap := range list {
		s.knows(snap)
	}
	return nil
}

// knows notes the ids of a snapshot; a stronger claim is never replaced.
func (s *Sink) knows(snap *snapshot) {
	for i, id := range snap.heldAs() {
		by := claimImported
		switch {
		case i == 0:
			by = claimOwn
		case id.Changed:
			by = claimOriginal
		}
		if old, ok := s.known[id.ID]; id.Through == "" && (!ok || by < old.claim) {
			s.known[id.ID] = holding{snap.record.ID, snap.tree, by, snap.recut}
		}
	}
}

// heldAs returns the ids that a snapshot goes by.
func (s *snapshot) heldAs() []format.HeldID {
	ids := format.HeldAs(s.record)
	if !s.original.IsZero() && s.original != s.imported {
		ids = append(ids, format.HeldID{ID: s.original, Changed: true})
	}
	return ids
}

// Imported returns, for each snapshot, the ids that it goes by, its own first, and
// the oldest snapshot first: for bk-import --list-imported.
func (r *Repository) Imported(ctx context.Context) ([][]format.HeldID, error) {
	return snapshots.Held(ctx, r, r.list, (*snapshot).heldAs)
}

// commit makes the snapshot visible, unless the repository holds it already.
func (s *Sink) commit(r *format.Commit) error {
	if len(r.Extra) > 0 {
		s.lost(format.LossExtension, errors.New("unknown keys of the commit"))
	}
	if s.sorter != nil {
		if err := s.sorter.replay(&s.tree); err != nil {
			return err
		}
		s.sorter = nil
	}
	root, err := s.tree.end()
	if err != nil {
		return err
	}
	if err := s.jobs.wait(); err != nil {
		return err
	}
	snap := s.snapshot
	s.snapshot = nil
	s.progress.Snapshots++
	s.prev, s.prevTree = snap.ID, root
	s.here.Merge(r.Losses)
	if held, err := s.heldAlready(snap, root); held || err != nil {
		return err
	}
	if err := s.w.flush(s.ctx); err != nil {
		return err
	}
	out, err := s.compose(snap, root)
	if err != nil {
		return err
	}
	s.losses.Merge(s.here)
	b, err := json.Marshal(out)
	if err != nil {
		return err
	}
	if s.err != nil {
		return s.err
	}
	if s.prevName, err = s.w.saveFile(s.ctx, "snapshots/", b); err != nil {
		return fmt.Errorf("store snapshot %s in %s: %w", snap.ID, s.r, err)
	}
	s.known[snap.ID] = holding{s.prevName, root, claimImported, s.opts.Recut}
	s.sum.Snapshots++
	return s.err
}

// heldAlready looks for a snapshot with the id that came. If its listing is
// another one, two sources claim one id: the newcomer gets a derived one. Trees
// say that only if content was cut alike for both.
func (s *Sink) heldAlready(snap *format.Snapshot, root format.ID) (bool, error) {
	for id := snap.ID; ; {
		h, ok := s.known[id]
		if !ok {
			if id != snap.ID && s.opts.OnWarning != nil {
				s.opts.OnWarning(fmt.Sprintf("snapshot %s is held already with another listing; imported as %s", snap.ID, id))
			}
			snap.ID = id
			return false, nil
		}
		if h.claim != claimImported || h.tree == root || h.recut != s.opts.Recut {
			if h.claim != claimOriginal {
				s.prevTree = h.tree
			}
			s.prevName = h.name
			s.sum.Held++
			return true, nil
		}
		id = format.SumID(append(id[:], root[:]...))
	}
}

// compose makes restic's snapshot of a record.
func (s *Sink) compose(snap *format.Snapshot, root format.ID) (*snapshotOut, error) {
	s.path = ""
	body := *snap
	body.Parent, body.Estimate, body.Unsorted = format.ID{}, nil, false
	out := &snapshotOut{
		Tree: root.String(), Paths: []string{}, Hostname: snap.Host, Username: snap.User, Tags: snap.Tags,
		Original: snap.ID.String(), Program: s.opts.Program,
		BK: &bkFields{ID: snap.ID.String(), Record: body.AppendBody(nil), Recut: s.opts.Recut},
	}
	if !s.baseName.IsZero() {
		out.Parent = s.baseName.String()
	}
	if !utf8.ValidString(snap.Host) || !utf8.ValidString(snap.User) {
		s.lost(format.LossSnapshot, fmt.Errorf("its host %q or user %q is not UTF-8", snap.Host, snap.User))
	}
	for _, root := range snap.Roots {
		out.Paths = append(out.Paths, "/"+root)
	}
	switch when := snap.Time; {
	case when == nil:
		s.lost(format.LossSnapshot, errors.New("its time is not known, and restic cannot leave that open"))
		out.Time = time.Unix(0, 0).UTC()
	case when.Sec < timeMin || when.Sec > timeMax:
		s.lost(format.LossSnapshot, errors.New("its time is not in the years 0 to 9999"))
		out.Time = time.Unix(min(max(when.Sec, timeMin), timeMax), 0).UTC()
	default:
		out.Time = time.Unix(when.Sec, int64(when.Nsec)).UTC()
	}
	for _, l := range s.here {
		one := bkLoss{Kind: l.Kind, Count: l.Count}
		for _, path := range l.Paths {
			one.Paths = append(one.Paths, []byte(path))
		}
		out.BK.Losses = append(out.BK.Losses, one)
	}
	return out, nil
}
