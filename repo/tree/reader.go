package tree

import (
	"context"
	"io"

	"github.com/bk-backup/bk/format"
)

// ReaderOptions choose what a Reader hands out. The zero value is everything,
// loading one node at a time.
type ReaderOptions struct {
	// Below is a path: only its entry and those below it are handed out. It is
	// "" for the whole listing.
	Below string
	// ReadAhead is how many nodes are loaded at once before they are needed; a
	// node takes about 30 KiB. It is worth its goroutines where Load is slow.
	ReadAhead int
	// Lost, if set, names nodes that are known to be lost: they are passed over.
	Lost func(id format.ID) bool
	// OnGap, if set, is told of each node that is lost or cannot be read, once and
	// in path order; it is passed over unless OnGap returns an error. If it is
	// nil, a node that cannot be read is an error.
	OnGap func(Gap) error
}

// Reader hands out the entries of a listing in path order. It checks every node
// that it reads: what it returns is in order, each path once.
//
// Directories may be absent although entries lie below them; they are implied
// and have no metadata (spec/stream.md). The Reader does not make them up.
type Reader struct {
	f     *fetcher
	cur   *cursor // nil for an empty listing
	i     int     // next item in the leaf
	below string
	last  string // path of the entry that was handed out last
	item  Item
	err   error
}

// NewReader opens a listing and stands at its first entry, or at the first that
// is at or below opts.Below. Close must be called.
func NewReader(ctx context.Context, l Listing, opts ReaderOptions) (*Reader, error) {
	r := &Reader{f: newFetcher(ctx, l.Chunks, opts.ReadAhead), below: opts.Below}
	r.f.gapOptions = gapOptions{opts.Lost, opts.OnGap}
	top, err := openRoot(r.f, l.Root)
	if err == nil && len(top.items) > 0 {
		r.cur = &cursor{f: r.f, top: top}
		err = r.move(bound{opts.Below, before}, bound{opts.Below, after})
	}
	if err != nil {
		r.f.close()
		return nil, err
	}
	return r, nil
}

// Close waits for nodes that are being loaded.
func (r *Reader) Close() { r.f.close() }

// Next returns the next entry. The item is valid until the next call; its path
// may be kept. At the end the error is io.EOF. An error is sticky until Seek.
func (r *Reader) Next() (*Item, error) {
	if r.err != nil {
		return nil, r.err
	}
	if r.cur == nil {
		return nil, io.EOF
	}
	n := r.cur.node()
	for r.i == len(n.items) {
		if r.err = r.nextLeaf(n); r.err != nil {
			return nil, r.err
		}
		n = r.cur.node()
	}
	it := &n.items[r.i]
	if r.below != "" && it.path != r.below && !format.IsBelow(it.path, r.below) {
		r.err = io.EOF
		return nil, io.EOF
	}
	r.i++
	r.item.set(r.f.loader, it)
	r.last = r.item.Path
	return &r.item, nil
}

// nextLeaf moves to the leaf behind n.
func (r *Reader) nextLeaf(n *node) error {
	path, ok := r.cur.nextPath()
	if !ok || r.below != "" && !(bound{r.below, afterBelow}).over(path) {
		return io.EOF
	}
	r.f.release(n)
	r.i = 0
	if err := r.cur.next(); err != nil {
		return err
	}
	r.cur.readAhead()
	return nil
}

// Seek moves, forward or back, so that the next entry is the first one whose
// path is not before path, within what the options chose.
func (r *Reader) Seek(path string) error {
	if r.below != "" && format.ComparePaths(path, r.below) < 0 {
		path = r.below
	}
	if r.cur == nil {
		return nil
	}
	r.f.forget("", format.ComparePaths(path, r.last) < 0)
	r.err = r.move(bound{path, before}, bound{path, after})
	return r.err
}

// SkipBelow moves past all that lies below the entry that Next returned last,
// without loading the nodes that hold nothing else.
func (r *Reader) SkipBelow() error {
	if r.cur == nil || r.err != nil {
		return nil
	}
	b := bound{r.last, afterBelow}
	n := r.cur.node()
	if !b.over(n.items[len(n.items)-1].path) {
		for r.i < len(n.items) && b.over(n.items[r.i].path) {
			r.i++
		}
		return nil
	}
	r.err = r.move(b, b)
	return r.err
}

// move goes to the first item behind the bound to, which lies in or right behind
// the last leaf that begins before the bound in.
func (r *Reader) move(to, in bound) error {
	if err := r.cur.seek(in); err != nil {
		return err
	}
	n := r.cur.node()
	if len(n.items) > 0 { // otherwise it is lost
		r.f.forget(n.items[0].path, false)
	}
	r.i = n.first(to)
	r.cur.readAhead()
	return nil
}

// Get returns the entry at a path, or nil if the listing has none.
func Get(ctx context.Context, l Listing, path string) (*Item, error) {
	f := newFetcher(ctx, l.Chunks, 0)
	defer f.close()
	top, err := openRoot(f, l.Root)
	if err != nil || len(top.items) == 0 {
		return nil, err
	}
	cur := &cursor{f: f, top: top}
	if err := cur.seek(bound{path, after}); err != nil {
		return nil, err
	}
	n := cur.node()
	i := n.first(bound{path, before})
	if i == len(n.items) || n.items[i].path != path {
		return nil, nil
	}
	it := new(Item)
	it.set(l.Chunks, &n.items[i])
	return it, nil
}

// Totals returns the number of entries of a listing and the plain bytes of
// their content, which its root knows.
func Totals(ctx context.Context, l Listing) (entries, bytes uint64, err error) {
	f := newFetcher(ctx, l.Chunks, 0)
	defer f.close()
	top, err := openRoot(f, l.Root)
	if err != nil {
		return 0, 0, err
	}
	return top.entries, top.bytes, nil
}
