package tree

import (
	"context"
	"errors"

	"github.com/bk-backup/bk/format"
)

// LostPart is a part of a listing that cannot be had, because one chunk cannot.
type LostPart struct {
	ID   format.ID // of that chunk
	What string    // "node", "list", "body" or "chunk"
	// Path is the entry that the chunk belongs to. Of a node it is where the
	// first entry that is lost with it lies, and all those before Before are
	// lost; all that follow, if Before is empty.
	Path, Before string
	// Offset is where a chunk or list lies in the content, Size its plain bytes.
	Offset, Size uint64
}

// IsRange reports whether a run of entries is lost, and not one alone.
func (p *LostPart) IsRange() bool { return p.What == "node" }

// LostFinder finds what of listings is lost with some chunks. It goes through
// the whole listing but for what it knows to be whole. Its functions are called
// from one goroutine.
type LostFinder struct {
	// Lost reports whether a chunk cannot be had: one of content, or (meta) a
	// node, list or long body. A meta chunk that turns out not to be readable
	// counts as lost, too.
	Lost func(meta bool, id format.ID) bool
	// IsWhole and SetWhole remember the nodes and lists below which nothing is
	// lost, so that what several listings share is read once.
	IsWhole  func(id format.ID) (bool, error)
	SetWhole func(id format.ID) error
	// Found is called with what is lost, in path order; an error of it ends the
	// search.
	Found func(LostPart) error
}

// Find goes through one listing.
func (f LostFinder) Find(ctx context.Context, l Listing) error {
	s := &lostSearch{LostFinder: f, ctx: ctx, l: l.Chunks}
	_, err := s.node(ref{id: l.Root, root: true})
	return err
}

type lostSearch struct {
	LostFinder
	ctx context.Context
	l   Loader
}

// found reports a loss. cause is why a chunk could not be read, nil if that was
// known before; what is no fault of the chunk ends the search.
func (s *lostSearch) found(part LostPart, cause error) error {
	if err := s.ctx.Err(); err != nil {
		return context.Cause(s.ctx)
	}
	var ne *NodeError
	if cause != nil && !errors.As(cause, &ne) {
		return cause
	}
	return s.Found(part)
}

// node reports whether all of a node and of what lies below it is whole.
func (s *lostSearch) node(r ref) (whole bool, err error) {
	part := LostPart{ID: r.id, What: "node", Path: r.path, Before: r.limit}
	if s.Lost(true, r.id) {
		return false, s.found(part, nil)
	}
	if whole, err := s.IsWhole(r.id); whole || err != nil {
		return whole, err
	}
	n, err := loadNode(s.ctx, s.l, r, nil)
	if err != nil {
		return false, s.found(part, err)
	}
	whole = true
	for i := range n.items {
		var ok bool
		if n.level > 0 {
			ok, err = s.node(n.child(i))
		} else {
			ok, err = s.entry(&n.items[i])
		}
		if err != nil {
			return false, err
		}
		whole = whole && ok
	}
	if whole {
		err = s.SetWhole(r.id)
	}
	return whole, err
}

func (s *lostSearch) entry(it *item) (whole bool, err error) {
	whole = true
	for _, b := range [][]byte{it.body(), it.raw[it.contentEnd:]} {
		ok, err := s.body(it.path, b)
		if err != nil {
			return false, err
		}
		whole = whole && ok
	}
	if len(it.content()) == 0 {
		return whole, nil
	}
	pieces, _ := appendPieces(nil, &wire{b: it.content()}, contentInlineMax)
	ok, err := s.pieces(it.path, pieces, 0)
	return whole && ok, err
}

// body looks at a long body, of which b is the id.
func (s *lostSearch) body(path string, b []byte) (whole bool, err error) {
	w := wire{b: b}
	if len(b) == 0 || w.isMap() {
		return true, nil
	}
	part := LostPart{ID: format.ID(w.id()), What: "body", Path: path}
	if w.err != nil {
		return false, w.err
	}
	if s.Lost(true, part.ID) {
		return false, s.found(part, nil)
	}
	if _, err := resolve(s.ctx, s.l, b); err != nil {
		return false, s.found(part, err)
	}
	return true, nil
}

func (s *lostSearch) pieces(path string, pieces []Piece, offset uint64) (whole bool, err error) {
	whole = true
	for _, p := range pieces {
		ok := true
		switch {
		case p.IsHole():
		case p.Depth > 0:
			if ok, err = s.list(path, p, offset); err != nil {
				return false, err
			}
		case s.Lost(false, p.ID):
			ok, err = false, s.found(LostPart{ID: p.ID, What: "chunk", Path: path, Offset: offset, Size: p.Size}, nil)
			if err != nil {
				return false, err
			}
		}
		whole = whole && ok
		offset += p.Size
	}
	return whole, nil
}

func (s *lostSearch) list(path string, p Piece, offset uint64) (whole bool, err error) {
	part := LostPart{ID: p.ID, What: "list", Path: path, Offset: offset, Size: p.Size}
	if s.Lost(true, p.ID) {
		return false, s.found(part, nil)
	}
	if whole, err := s.IsWhole(p.ID); whole || err != nil {
		return whole, err
	}
	pieces, err := loadList(s.ctx, s.l, p, nil)
	if err != nil {
		return false, s.found(part, err)
	}
	if whole, err = s.pieces(path, pieces, offset); whole {
		err = s.SetWhole(p.ID)
	}
	return whole, err
}
