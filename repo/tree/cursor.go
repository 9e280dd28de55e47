package tree

import (
	"context"
	"sort"
	"sync"

	"github.com/bk-backup/bk/format"
)

// bound is a place between two paths.
type bound struct {
	path string
	kind boundKind
}

type boundKind uint8

const (
	before     boundKind = iota // right before path
	after                       // right behind path, before what is below it
	afterBelow                  // behind path and all that is below it
	atEnd                       // behind everything
)

// over reports whether p lies before the bound.
func (b bound) over(p string) bool {
	switch b.kind {
	case before:
		return format.ComparePaths(p, b.path) < 0
	case after:
		return format.ComparePaths(p, b.path) <= 0
	case afterBelow:
		return format.ComparePaths(p, b.path) <= 0 || format.IsBelow(p, b.path)
	}
	return true
}

// first returns the index of the first of n's items behind the bound.
func (n *node) first(b bound) int {
	return sort.Search(len(n.items), func(i int) bool { return !b.over(n.items[i].path) })
}

// fetcher loads nodes: from a few that it remembers, from those whose loading
// was begun ahead, or from the chunks. It belongs to one goroutine.
type fetcher struct {
	ctx    context.Context
	cancel context.CancelFunc
	loader Loader
	loads  int

	recent    []*node // inner nodes or all, most recent last
	recentMax int
	leaves    bool // whether leaves are remembered too

	ahead   int // nodes being loaded, or loaded and not yet asked for, at most
	pending map[format.ID]*pending
	jobs    chan *pending
	workers int // goroutines that take jobs: at most as many as nodes ahead
	wg      sync.WaitGroup
	free    []*node

	gapOptions
	told map[format.ID]bool // nodes that OnGap was told of
}

type pending struct {
	ref  ref
	into *node // to be filled, or nil
	done chan struct{}
	node *node
	err  error
}

func newFetcher(ctx context.Context, l Loader, ahead int) *fetcher {
	f := &fetcher{loader: l, recentMax: 16, ahead: ahead}
	f.ctx, f.cancel = context.WithCancel(ctx)
	if ahead > 0 {
		f.pending = make(map[format.ID]*pending)
		f.jobs = make(chan *pending, ahead)
	}
	return f
}

// close waits until nothing is being loaded any more. It may be called again.
func (f *fetcher) close() {
	f.cancel()
	if f.jobs != nil {
		close(f.jobs)
		f.jobs, f.ahead = nil, 0
	}
	f.wg.Wait()
}

// release says that nobody uses a leaf any more.
func (f *fetcher) release(n *node) {
	if n.level == 0 && len(f.free) <= f.ahead && f.remembered(n.id) == nil {
		f.free = append(f.free, n)
	}
}

// unused returns a node for loadNode to fill, or nil.
func (f *fetcher) unused() *node {
	if len(f.free) == 0 {
		return nil
	}
	n := f.free[len(f.free)-1]
	f.free = f.free[:len(f.free)-1]
	return n
}

// want begins to load a node unless it is there or there is no room.
func (f *fetcher) want(r ref) *pending {
	if p, ok := f.pending[r.id]; ok {
		return p
	}
	if len(f.pending) >= f.ahead || f.remembered(r.id) != nil || f.isLost(r.id) {
		return nil
	}
	p := &pending{ref: r, into: f.unused(), done: make(chan struct{})}
	f.pending[r.id] = p
	if f.workers < f.ahead {
		f.workers++
		jobs := f.jobs // which close takes away
		f.wg.Go(func() { f.work(jobs) })
	}
	f.jobs <- p
	return p
}

// work loads nodes until no more are wanted. The goroutines stay, so that their
// stacks grow once.
func (f *fetcher) work(jobs <-chan *pending) {
	for p := range jobs {
		p.node, p.err = loadNode(f.ctx, f.loader, p.ref, p.into)
		close(p.done)
	}
}

// ready returns the node if it has been loaded.
func (p *pending) ready() *node {
	select {
	case <-p.done:
		return p.node
	default:
		return nil
	}
}

func (f *fetcher) remembered(id format.ID) *node {
	for i := len(f.recent) - 1; i >= 0; i-- {
		if n := f.recent[i]; n.id == id {
			copy(f.recent[i:], f.recent[i+1:])
			f.recent[len(f.recent)-1] = n
			return n
		}
	}
	return nil
}

// node returns the node that r refers to.
func (f *fetcher) node(r ref) (*node, error) {
	if n := f.remembered(r.id); n != nil {
		return n, nil
	}
	if err := context.Cause(f.ctx); err != nil {
		return nil, err
	}
	n, err := f.load(r)
	if err != nil {
		return nil, err
	}
	if n.level > 0 || f.leaves {
		if len(f.recent) >= f.recentMax {
			copy(f.recent, f.recent[1:])
			f.recent = f.recent[:len(f.recent)-1]
		}
		f.recent = append(f.recent, n)
	}
	return n, nil
}

func (f *fetcher) load(r ref) (*node, error) {
	f.loads++
	if f.isLost(r.id) {
		return f.passOver(r, nil)
	}
	var n *node
	var err error
	if p, ok := f.pending[r.id]; ok {
		<-p.done
		delete(f.pending, r.id)
		n, err = p.node, p.err
	} else {
		n, err = loadNode(f.ctx, f.loader, r, f.unused())
	}
	if err != nil && f.ctx.Err() == nil && f.onGap != nil {
		return f.passOver(r, err)
	}
	return n, err
}

// passOver returns a leaf without entries in the place of a node that cannot be
// had, whatever its level is. Err is nil if it is known to be lost.
func (f *fetcher) passOver(r ref, err error) (*node, error) {
	if f.onGap != nil && !f.told[r.id] {
		if f.told == nil {
			f.told = make(map[format.ID]bool)
		}
		f.told[r.id] = true
		if err := f.onGap(Gap{ID: r.id, Path: r.path, Before: r.limit, Err: err}); err != nil {
			return nil, err
		}
	}
	return &node{id: r.id, limit: r.limit}, nil
}

// forget drops what was loaded ahead for places before the path p, since it was
// skipped, or everything.
func (f *fetcher) forget(p string, everything bool) {
	for id, w := range f.pending {
		if everything || format.ComparePaths(w.ref.path, p) < 0 {
			delete(f.pending, id)
		}
	}
}

// frame is a place in a node.
type frame struct {
	node *node
	i    int
}

// cursor stands at a node of one level of a tree. The first frame is a node
// above the root that has the root as its only child, the last one is at the
// node; those between are at the child that leads there.
type cursor struct {
	f      *fetcher
	level  int
	top    *node
	frames []frame
}

// openRoot returns the node above the root that cursors start from. It has no
// items if the listing is empty.
func openRoot(f *fetcher, root format.ID) (*node, error) {
	n, err := f.node(ref{id: root, root: true})
	if err != nil {
		return nil, err
	}
	if n.level == 0 && !f.leaves {
		f.recent = append(f.recent, n)
	}
	top := &node{level: n.level + 1, entries: n.entries, bytes: n.bytes}
	if len(n.items) > 0 {
		r := ref{id: root, level: n.level, path: n.items[0].path, entries: n.entries, bytes: n.bytes}
		top.items = []item{{path: r.path, raw: appendChild(nil, r), n: 5, id: root, entries: n.entries, bytes: n.bytes}}
	}
	return top, nil
}

// seek moves to the last node of the level that begins before the bound, or to
// the first one if none does.
func (c *cursor) seek(b bound) error {
	c.frames = append(c.frames[:0], frame{c.top, 0})
	for n := c.top; n.level > c.level; {
		i := max(n.first(b)-1, 0)
		c.frames[len(c.frames)-1].i = i
		var err error
		if n, err = c.f.node(n.child(i)); err != nil {
			return err
		}
		c.frames = append(c.frames, frame{n, 0})
	}
	return nil
}

// node returns the node that the cursor stands at.
func (c *cursor) node() *node { return c.frames[len(c.frames)-1].node }

// nextPath returns where the next node of the level begins, without loading it.
func (c *cursor) nextPath() (string, bool) {
	for i := len(c.frames) - 2; i >= 0; i-- {
		if fr := c.frames[i]; fr.i+1 < len(fr.node.items) {
			return fr.node.items[fr.i+1].path, true
		}
	}
	return "", false
}

// next moves to the next node of the level, which nextPath found.
func (c *cursor) next() error {
	up := len(c.frames) - 2
	for c.frames[up].i+1 >= len(c.frames[up].node.items) {
		up--
	}
	c.frames[up].i++
	c.frames = c.frames[:up+1]
	for n := c.frames[up].node; n.level > c.level; {
		var err error
		if n, err = c.f.node(n.child(c.frames[len(c.frames)-1].i)); err != nil {
			return err
		}
		c.frames = append(c.frames, frame{n, 0})
	}
	return nil
}

// readAhead begins to load the leaves that come next, as far as there is room
// and the inner nodes above them are known.
func (c *cursor) readAhead() {
	for j := len(c.frames) - 2; j >= 0; j-- {
		fr := c.frames[j]
		if !c.f.wantChildren(fr.node, fr.i+1) {
			return
		}
	}
}

// wantChildren reports whether all that is below n's children from i on has
// been asked for.
func (f *fetcher) wantChildren(n *node, i int) bool {
	for ; i < len(n.items); i++ {
		r := n.child(i)
		if r.level == 0 {
			if f.want(r) == nil {
				return false
			}
			continue
		}
		inner := f.remembered(r.id)
		if inner == nil {
			p := f.want(r)
			if p == nil {
				return false
			}
			if inner = p.ready(); inner == nil {
				return false
			}
		}
		if !f.wantChildren(inner, 0) {
			return false
		}
	}
	return true
}
