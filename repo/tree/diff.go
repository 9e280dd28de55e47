package tree

import (
	"context"
	"io"

	"github.com/bk-backup/bk/format"
)

// Change is a path at which two listings differ: Old is nil if the entry was
// added, New if it was removed. Items of one path that are both there differ in
// their encodings, be it only in keys that are informative.
type Change struct {
	Path     string
	Old, New *Item
}

// DiffOptions choose what a Diff hands out. The zero value is everything,
// loading one node at a time.
type DiffOptions struct {
	// Below is a path: only its entry and those below it are compared.
	Below string
	// ReadAhead is how many nodes of each listing are loaded at once before they
	// are needed.
	ReadAhead int
	// Lost, if set, names nodes that are known to be lost.
	Lost func(id format.ID) bool
	// OnGap, if set, is told of each node of one of the listings that is lost or
	// cannot be read. What lies there is not compared, in neither of them; the
	// walk goes on unless OnGap returns an error. Nodes that both have are never
	// read, so nobody is told of them. If it is nil, such a node is an error.
	OnGap func(newer bool, gap Gap) error
}

// Diff walks two listings at once and stops only where they differ. A subtree
// that both have is never loaded, wherever in the trees it stands: equal nodes
// begin with the same path, and the one of the two walks that stands at an
// earlier path, or else higher up, is the one that goes on.
type Diff struct {
	sides  [2]*diffSide
	end    bound
	change Change
	items  [2]Item
	err    error
	gaps   [2]*Gap // the last one of each side: nothing is compared there
}

// diffSide is the walk through one of the listings.
type diffSide struct {
	f      *fetcher
	frames []frame // the last one is at the head, an entry or a node not opened
	queue  []ref   // nodes to load ahead
}

// NewDiff opens two listings, which may lie in different repositories. Close
// must be called.
func NewDiff(ctx context.Context, older, newer Listing, opts DiffOptions) (*Diff, error) {
	d := &Diff{end: bound{opts.Below, afterBelow}}
	for i, l := range []Listing{older, newer} {
		s := &diffSide{f: newFetcher(ctx, l.Chunks, opts.ReadAhead)}
		s.f.lost = opts.Lost
		if opts.OnGap != nil {
			s.f.onGap = func(gap Gap) error {
				d.gaps[i] = &gap
				return opts.OnGap(i == 1, gap)
			}
		}
		d.sides[i] = s
		if err := s.open(l.Root, opts.Below); err != nil {
			d.Close()
			return nil, err
		}
	}
	return d, nil
}

// Close waits for nodes that are being loaded.
func (d *Diff) Close() {
	for _, s := range d.sides {
		if s != nil {
			s.f.close()
		}
	}
}

// Next returns the next change, in path order. It and its items are valid until
// the next call. At the end the error is io.EOF. An error is sticky.
func (d *Diff) Next() (*Change, error) {
	for d.err == nil {
		found, err := d.step()
		if err != nil {
			d.err = err
		} else if found {
			return &d.change, nil
		}
	}
	return nil, d.err
}

// step compares the heads of both sides and moves on.
func (d *Diff) step() (found bool, err error) {
	a, b := d.sides[0], d.sides[1]
	x, xLevel := a.headBeside(d.end, d.gaps[1])
	y, yLevel := b.headBeside(d.end, d.gaps[0])
	c := 0
	switch {
	case x == nil && y == nil:
		return false, io.EOF
	case x == nil:
		c = 1
	case y == nil:
		c = -1
	default:
		c = format.ComparePaths(x.path, y.path)
	}
	switch {
	case c < 0:
		return d.only(0, x, xLevel)
	case c > 0:
		return d.only(1, y, yLevel)
	case xLevel < 0 && yLevel < 0:
		same := sameItem(x, y)
		if !same {
			d.found(x, y)
		}
		a.pass()
		b.pass()
		return !same, nil
	case xLevel == yLevel && x.id == y.id:
		a.pass()
		b.pass()
		return false, nil
	case xLevel == yLevel:
		if err := a.enter(); err != nil {
			return false, err
		}
		if err := b.enter(); err != nil {
			return false, err
		}
		a.queueDifferent(b)
		b.queueDifferent(a)
		return false, nil
	case xLevel > yLevel:
		return false, a.enter()
	}
	return false, b.enter()
}

// only handles a head that comes before the other side's.
func (d *Diff) only(side int, it *item, level int) (found bool, err error) {
	s := d.sides[side]
	if level >= 0 {
		return false, s.enter()
	}
	if side == 0 {
		d.found(it, nil)
	} else {
		d.found(nil, it)
	}
	s.pass()
	return true, nil
}

func (d *Diff) found(older, newer *item) {
	d.change = Change{}
	if older != nil {
		d.items[0].set(d.sides[0].f.loader, older)
		d.change.Old, d.change.Path = &d.items[0], d.items[0].Path
	}
	if newer != nil {
		d.items[1].set(d.sides[1].f.loader, newer)
		d.change.New, d.change.Path = &d.items[1], d.items[1].Path
	}
}

func sameItem(x, y *item) bool {
	return x.n == y.n && x.bodyEnd == y.bodyEnd && string(x.raw) == string(y.raw)
}

// open loads the root and skips what lies before below.
func (s *diffSide) open(root format.ID, below string) error {
	top, err := openRoot(s.f, root)
	if err != nil {
		return err
	}
	s.frames = []frame{{top, 0}}
	if below == "" {
		return nil
	}
	cur := cursor{f: s.f, top: top}
	if len(top.items) == 0 {
		return nil
	}
	if err := cur.seek(bound{below, after}); err != nil {
		return err
	}
	s.frames = cur.frames
	// The frames above the last one are at the child that leads to it; a head
	// is in the last frame, so those go on behind that child.
	for i := range s.frames[:len(s.frames)-1] {
		s.frames[i].i++
	}
	last := &s.frames[len(s.frames)-1]
	last.i = last.node.first(bound{below, before})
	return nil
}

// head returns what comes next, an entry (level -1) or a node of the level, or
// nil at the end.
func (s *diffSide) head(end bound) (*item, int) {
	for len(s.frames) > 0 {
		fr := &s.frames[len(s.frames)-1]
		if fr.i < len(fr.node.items) {
			it := &fr.node.items[fr.i]
			if !end.over(it.path) {
				break
			}
			return it, fr.node.level - 1
		}
		s.f.release(fr.node)
		s.frames = s.frames[:len(s.frames)-1]
	}
	s.frames = s.frames[:0]
	return nil, 0
}

// headBeside is head, but for what lies in a gap of the other side.
func (s *diffSide) headBeside(end bound, gap *Gap) (*item, int) {
	for {
		it, level := s.head(end)
		if it == nil || gap == nil || !gap.covers(it.path) {
			return it, level
		}
		if fr := &s.frames[len(s.frames)-1]; level >= 0 && !gap.coversAll(fr.node.child(fr.i)) {
			return it, level
		}
		s.pass()
	}
}

// pass moves behind the head.
func (s *diffSide) pass() { s.frames[len(s.frames)-1].i++ }

// enter opens the node at the head.
func (s *diffSide) enter() error {
	fr := &s.frames[len(s.frames)-1]
	r := fr.node.child(fr.i)
	fr.i++
	for len(s.queue) > 0 && format.ComparePaths(s.queue[0].path, r.path) <= 0 {
		s.queue = s.queue[1:]
	}
	n, err := s.f.node(r)
	if err != nil {
		return err
	}
	s.f.forget(r.path, false)
	s.frames = append(s.frames, frame{n, 0})
	s.loadAhead()
	return nil
}

// loadAhead has the nodes loaded that come next, but few inner ones, so that
// there is room for the leaves below the first of them.
func (s *diffSide) loadAhead() {
	inner := 0
	for _, r := range s.queue {
		if r.level > 0 {
			inner++
		}
		if inner > 2 || s.f.want(r) == nil {
			return
		}
	}
}

// queueDifferent has those children of the node just entered loaded ahead that
// the node which the other side just entered would have, but has not: of what
// lies behind that node nothing is known yet.
func (s *diffSide) queueDifferent(other *diffSide) {
	n := s.frames[len(s.frames)-1].node
	if n.level == 0 || s.f.ahead == 0 {
		return
	}
	theirs := other.frames[len(other.frames)-1].node
	known := make(map[format.ID]bool)
	for _, it := range theirs.items {
		known[it.id] = true
	}
	var queue []ref
	for i := range n.items {
		if theirs.limit != "" && format.ComparePaths(n.items[i].path, theirs.limit) >= 0 {
			break
		}
		if !known[n.items[i].id] {
			queue = append(queue, n.child(i))
		}
	}
	s.queue = append(queue, s.queue...)
	s.loadAhead()
}
