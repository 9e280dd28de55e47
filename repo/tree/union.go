package tree

import (
	"context"
	"errors"
	"io"
	"slices"

	"github.com/bk-backup/bk/format"
)

// UnionOptions choose what a Union hands out.
type UnionOptions struct {
	// Want reports whether entries at a path are asked for; nil means all are.
	Want func(path string) bool
	// Skip reports whether nothing at or below a directory is asked for: nodes
	// that hold nothing else are not loaded. Nil means that there is no such.
	Skip func(dir string) bool
	// ReadAhead is how many leaves are loaded before they are needed.
	ReadAhead int
	// Lost, if set, names nodes that are known to be lost.
	Lost func(id format.ID) bool
	// OnGap, if set, is told of each node that is lost or cannot be read, and the
	// walk goes on beside it unless it returns an error. If it is nil, the walk
	// fails.
	OnGap func(UnionGap) error
}

// UnionGap is a gap in some of the listings of a Union.
type UnionGap struct {
	Gap
	In Set
}

// Variant is an entry at a path as some of the listings have it.
type Variant struct {
	Item Item
	In   Set
}

// Union walks many listings at once, in path order, as if they were one in which
// an entry may have several variants. Each node is loaded once, however many of
// the listings share it (and twice at most, if it is also a root): so the
// listings of a history cost one of them and what differs.
//
// It holds a strand for each node that is open. Strands whose heads are the same
// child go on as one, the strand of that child; they wait until it is over.
type Union struct {
	opts    UnionOptions
	load    *unionLoader
	heads   strandHeap
	out     []*strand // at the path that was handed out last
	variant []Variant
	path    string
	err     error
}

// strand is a walk through one node on behalf of all listings that have it there.
type strand struct {
	node    *node
	i       int
	in      Set
	parents []*strand // which go on when it is over
}

func (r *strand) item() *item { return &r.node.items[r.i] }

// NewUnion opens listings of the same chunks by their roots; in a Set they go by
// their place in roots. Close must be called.
func NewUnion(ctx context.Context, c BatchLoader, roots []format.ID, opts UnionOptions) (*Union, error) {
	u := &Union{opts: opts, load: newUnionLoader(ctx, c, opts)}
	in := make(map[format.ID]Set)
	for i, root := range roots {
		if in[root] == nil {
			in[root] = NewSet(len(roots))
			u.load.queue(ref{id: root, level: levelMax, root: true})
		}
		in[root].Add(i)
	}
	for _, root := range roots {
		set := in[root]
		if set == nil {
			continue
		}
		delete(in, root)
		n, err := u.load.node(ref{id: root, level: levelMax, root: true})
		if err != nil {
			err = u.failed(UnionGap{Gap{ID: root}, set}, err)
		}
		if err != nil {
			u.Close()
			return nil, err
		}
		if n != nil {
			u.begin(&strand{node: n, in: set})
		}
	}
	return u, nil
}

// Close waits for nodes that are being loaded.
func (u *Union) Close() { u.load.close() }

// begin adds a strand at its first item.
func (u *Union) begin(r *strand) {
	if r.node.level > 0 {
		for i := range r.node.items {
			if c := r.node.child(i); !u.skips(c) {
				u.load.queue(c)
			}
		}
		u.load.more()
	}
	u.put(r)
}

// put adds a strand to the heads, or, if it is over, those that waited for it.
func (u *Union) put(r *strand) {
	if r.i < len(r.node.items) {
		u.heads.push(r)
		return
	}
	u.load.release(r.node)
	for _, p := range r.parents {
		u.put(p)
	}
}

// Next returns the next path that is asked for, and its variants, of which no two
// have equal encodings. They are valid until the next call; the path may be kept.
// At the end the error is io.EOF. An error is sticky.
func (u *Union) Next() (path string, variants []Variant, err error) {
	for _, r := range u.out {
		r.i++
		u.put(r)
	}
	u.out = u.out[:0]
	for u.err == nil {
		var found bool
		if found, u.err = u.step(); found {
			return u.path, u.variant, nil
		}
	}
	return "", nil, u.err
}

// step goes on from the head that comes first, or the highest of those.
func (u *Union) step() (found bool, err error) {
	if err := u.load.ctx.Err(); err != nil {
		return false, context.Cause(u.load.ctx)
	}
	if len(u.heads) == 0 {
		return false, io.EOF
	}
	first := u.heads.pop()
	if first.node.level == 0 && (len(u.heads) == 0 || u.heads[0].item().path != first.item().path) {
		return u.alone(first), nil
	}
	same := append(u.out[:0], first)
	for len(u.heads) > 0 && u.heads[0].node.level == first.node.level && u.heads[0].item().path == first.item().path {
		same = append(same, u.heads.pop())
	}
	u.out = same[:0]
	if first.node.level > 0 {
		return false, u.enter(slices.Clone(same))
	}
	if !u.wants(first.item().path) {
		for _, r := range same {
			r.i++
			u.put(r)
		}
		return false, nil
	}
	u.out = same
	u.gather()
	return true, nil
}

// alone goes through the entries of a leaf that come before any other head.
func (u *Union) alone(r *strand) (found bool) {
	end := len(r.node.items)
	if len(u.heads) > 0 {
		end = r.node.first(bound{u.heads[0].item().path, before})
	}
	for ; r.i < end; r.i++ {
		if u.wants(r.item().path) {
			u.out = append(u.out[:0], r)
			u.gather()
			return true
		}
	}
	u.put(r)
	return false
}

func (u *Union) wants(path string) bool { return u.opts.Want == nil || u.opts.Want(path) }

// gather makes the variants of the strands in out, whose heads have one path.
func (u *Union) gather() {
	u.path = u.out[0].item().path
	u.variant = u.variant[:0]
	for _, r := range u.out {
		it := r.item()
		i := 0
		for i < len(u.variant) && !u.variant[i].Item.is(it) {
			i++
		}
		if i < len(u.variant) {
			u.variant[i].In = u.variant[i].In.With(r.in)
			continue
		}
		u.variant = append(u.variant, Variant{In: r.in})
		u.variant[i].Item.set(u.load.chunks, it)
	}
}

// enter opens the children at the heads of strands, each once. They stand at one
// path and level.
func (u *Union) enter(strands []*strand) error {
	slices.SortStableFunc(strands, func(a, b *strand) int { return a.item().id.Compare(b.item().id) })
	for len(strands) > 0 {
		n := 1
		for n < len(strands) && strands[n].item().id == strands[0].item().id {
			n++
		}
		if err := u.open(strands[:n:n]); err != nil {
			return err
		}
		strands = strands[n:]
	}
	return nil
}

// open opens the child that all strands have at their heads.
func (u *Union) open(parents []*strand) error {
	r := parents[0].node.child(parents[0].i)
	for _, p := range parents[1:] {
		if limit := p.node.child(p.i).limit; limit != "" && (r.limit == "" || format.ComparePaths(limit, r.limit) < 0) {
			r.limit = limit
		}
	}
	if u.skips(r) {
		u.load.drop(r)
		u.pass(parents)
		return nil
	}
	n, err := u.load.node(r)
	if err != nil {
		err = u.failed(UnionGap{Gap{ID: r.id, Path: r.path, Before: r.limit}, union(parents)}, err)
		u.pass(parents)
		return err
	}
	if n == nil {
		u.pass(parents)
		return nil
	}
	// What the others say of it must be true as well.
	agree := parents[:0:0]
	for _, p := range parents {
		c := p.node.child(p.i)
		if err := n.check(c); err != nil {
			err = u.failed(UnionGap{Gap{ID: r.id, Path: c.path, Before: c.limit}, p.in}, &NodeError{r.id, "node", err})
			if err != nil {
				return err
			}
			u.pass([]*strand{p})
			continue
		}
		agree = append(agree, p)
	}
	if len(agree) == 0 {
		u.load.release(n)
		return nil
	}
	n.limit = r.limit
	for _, p := range agree {
		p.i++
	}
	u.begin(&strand{node: n, in: union(agree), parents: agree})
	return nil
}

// pass moves strands behind their heads.
func (u *Union) pass(strands []*strand) {
	for _, r := range strands {
		r.i++
		u.put(r)
	}
}

// union returns the listings of several strands.
func union(strands []*strand) Set {
	in := strands[0].in
	for _, r := range strands[1:] {
		in = in.With(r.in)
	}
	return in
}

// failed decides about a node that cannot be had.
func (u *Union) failed(gap UnionGap, err error) error {
	if ctxErr := u.load.ctx.Err(); ctxErr != nil {
		return context.Cause(u.load.ctx)
	}
	if u.opts.OnGap == nil {
		return err
	}
	if !errors.Is(err, errLost) {
		gap.Err = err
	}
	return u.opts.OnGap(gap)
}

// skips reports whether a node can hold nothing that is asked for: all of it lies
// below a directory of which nothing is.
func (u *Union) skips(r ref) bool {
	if u.opts.Skip == nil || r.limit == "" {
		return false
	}
	n := sharedLength(r.path, r.limit)
	dir := r.path[:n]
	if n < len(r.path) || n < len(r.limit) && r.limit[n] != '/' {
		for n > 0 && dir[n-1] != '/' {
			n--
		}
		dir = dir[:max(n-1, 0)]
	}
	return dir != "" && u.opts.Skip(dir)
}

// strandHeap has the strand with the first head on top; of heads at one path, the
// highest.
type strandHeap []*strand

func (h *strandHeap) less(i, j int) bool {
	a, b := (*h)[i], (*h)[j]
	if c := format.ComparePaths(a.item().path, b.item().path); c != 0 {
		return c < 0
	}
	return a.node.level > b.node.level
}

func (h *strandHeap) push(r *strand) { heapPush((*[]*strand)(h), r, h.less) }
func (h *strandHeap) pop() *strand   { return heapPop((*[]*strand)(h), h.less) }
