package tree

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"

	"github.com/bk-backup/bk/format"
)

// Walker says what to do with the chunks that a listing is made of. Its
// functions are called from several goroutines at once, and again for a chunk
// that is met again.
type Walker struct {
	// Enter is called with each node, list and long body before it is read. If
	// it returns false the chunk is not read, nor anything that only it names.
	Enter func(id format.ID) (bool, error)
	// Chunk is called with each chunk of content.
	Chunk func(id format.ID, size uint64) error
	// Failed, if set, is called with a *NodeError for what cannot be read, and
	// the walk goes on beside it unless it returns an error. If it is nil, the
	// walk fails.
	Failed func(err error) error
	// Parallel is how many nodes are read at once; 0 means one.
	Parallel int
}

// Walk goes through the chunks that a listing needs, in no order.
func (w Walker) Walk(ctx context.Context, l Listing) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(w.Parallel, 1))
	k := &walking{Walker: w, ctx: ctx, l: l.Chunks, g: g}
	g.Go(func() error { return k.node(ref{id: l.Root, root: true}) })
	return g.Wait()
}

type walking struct {
	Walker
	ctx context.Context
	l   Loader
	g   *errgroup.Group
}

// enter reports whether a meta chunk is to be read.
func (k *walking) enter(id format.ID) (bool, error) {
	if err := k.ctx.Err(); err != nil {
		return false, context.Cause(k.ctx)
	}
	return k.Enter(id)
}

// failed decides about what cannot be read.
func (k *walking) failed(err error) error {
	var ne *NodeError
	if err == nil || k.Failed == nil || k.ctx.Err() != nil || !errors.As(err, &ne) {
		return err
	}
	return k.Failed(err)
}

func (k *walking) node(r ref) error {
	if ok, err := k.enter(r.id); !ok || err != nil {
		return err
	}
	n, err := loadNode(k.ctx, k.l, r, nil)
	if err != nil {
		return k.failed(err)
	}
	for i := range n.items {
		if n.level == 0 {
			err = k.entry(&n.items[i])
		} else if child := n.child(i); !k.g.TryGo(func() error { return k.node(child) }) {
			err = k.node(child)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (k *walking) entry(it *item) error {
	for _, b := range [][]byte{it.body(), it.raw[it.contentEnd:]} {
		if err := k.body(b); err != nil {
			return err
		}
	}
	if len(it.content()) == 0 {
		return nil
	}
	pieces, _ := appendPieces(nil, &wire{b: it.content()}, contentInlineMax)
	return k.pieces(pieces)
}

// body reads a long body, of which b is the id.
func (k *walking) body(b []byte) error {
	w := wire{b: b}
	if len(b) == 0 || w.isMap() {
		return nil
	}
	id := format.ID(w.id())
	if w.err != nil {
		return w.err
	}
	if ok, err := k.enter(id); !ok || err != nil {
		return err
	}
	_, err := resolve(k.ctx, k.l, b)
	return k.failed(err)
}

func (k *walking) pieces(pieces []Piece) error {
	for _, p := range pieces {
		switch {
		case p.IsHole():
		case p.Depth == 0:
			if err := k.Chunk(p.ID, p.Size); err != nil {
				return err
			}
		default:
			if err := k.list(p); err != nil {
				return err
			}
		}
	}
	return nil
}

func (k *walking) list(p Piece) error {
	if ok, err := k.enter(p.ID); !ok || err != nil {
		return err
	}
	pieces, err := loadList(k.ctx, k.l, p, nil)
	if err != nil {
		return k.failed(err)
	}
	return k.pieces(pieces)
}
