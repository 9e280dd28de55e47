package tree

import (
	"context"
	"errors"
	"sync"

	"github.com/bk-backup/bk/format"
)

// BatchLoader reads several meta chunks at once, which costs less than one by one
// if they lie close together.
type BatchLoader interface {
	Loader
	// LoadBatch calls fn for each of the chunks, from several goroutines at once
	// and in no order, with its plain bytes, checked against the id, or why it
	// cannot be had. The bytes are fn's: it may give them to format.FreePayload.
	// It returns an error if it stopped before it had called fn for all.
	LoadBatch(ctx context.Context, ids []format.ID, fn func(number int, plain []byte, err error)) error
}

const (
	batchMax      = 16 // nodes that are loaded as one batch
	innerAheadMax = 32 // inner nodes that are loaded ahead
)

// errLost says that a node is known to be lost.
var errLost = errors.New("it is known to be lost")

// unionLoader loads the nodes of a Union: those that come next in path order are
// loaded ahead, in batches. It belongs to one goroutine but for what workers do.
type unionLoader struct {
	ctx    context.Context
	cancel context.CancelFunc
	chunks BatchLoader
	lost   func(format.ID) bool

	known  map[format.ID]*aheadNode // that wait in a queue, are loaded, or wait to be used
	inner  aheadQueue
	leaves aheadQueue
	slots  chan struct{} // one for each batch being loaded
	wg     sync.WaitGroup

	mu   sync.Mutex
	free []*node
}

// aheadNode is a node that will be needed.
type aheadNode struct {
	ref   ref
	done  chan struct{} // nil: its loading was not begun
	taken bool          // and it is not waited for any more
	node  *node
	err   error
}

// aheadQueue are nodes to be loaded, those that come first on top.
type aheadQueue struct {
	heap    []*aheadNode
	loading int // or loaded and not used yet
	max     int
}

func newUnionLoader(ctx context.Context, c BatchLoader, opts UnionOptions) *unionLoader {
	l := &unionLoader{chunks: c, lost: opts.Lost, known: make(map[format.ID]*aheadNode), slots: make(chan struct{}, max(opts.ReadAhead/batchMax, 1))}
	l.ctx, l.cancel = context.WithCancel(ctx)
	l.inner.max, l.leaves.max = min(opts.ReadAhead, innerAheadMax), opts.ReadAhead
	return l
}

func (l *unionLoader) close() {
	l.cancel()
	l.wg.Wait()
}

// queueOf returns the queue that a node waits in.
func (l *unionLoader) queueOf(r ref) *aheadQueue {
	if r.level > 0 {
		return &l.inner
	}
	return &l.leaves
}

// queue says that a node will be needed.
func (l *unionLoader) queue(r ref) {
	if l.known[r.id] != nil || l.isLost(r.id) {
		return
	}
	a := &aheadNode{ref: r}
	l.known[r.id] = a
	l.queueOf(r).push(a)
}

func (l *unionLoader) isLost(id format.ID) bool { return l.lost != nil && l.lost(id) }

// more begins to load batches as far as there is room.
func (l *unionLoader) more() {
	for _, q := range []*aheadQueue{&l.inner, &l.leaves} {
		for len(q.heap) > 0 && q.loading+min(batchMax, len(q.heap)) <= q.max {
			var batch []*aheadNode
			for len(batch) < batchMax && len(q.heap) > 0 {
				if a := q.pop(); !a.taken {
					a.done = make(chan struct{})
					batch = append(batch, a)
				}
			}
			if len(batch) > 0 {
				q.loading += len(batch)
				l.wg.Go(func() { l.batch(batch) })
			}
		}
	}
}

// batch loads nodes.
func (l *unionLoader) batch(batch []*aheadNode) {
	l.slots <- struct{}{}
	defer func() { <-l.slots }()
	ids := make([]format.ID, len(batch))
	for i, a := range batch {
		ids[i] = a.ref.id
	}
	err := l.chunks.LoadBatch(l.ctx, ids, func(number int, plain []byte, err error) {
		a := batch[number]
		a.node, a.err = l.parse(a.ref, plain, err)
		close(a.done)
	})
	for _, a := range batch {
		if a.node == nil && a.err == nil {
			a.err = &NodeError{a.ref.id, "node", err}
			close(a.done)
		}
	}
}

func (l *unionLoader) parse(r ref, plain []byte, err error) (*node, error) {
	if err != nil {
		return nil, &NodeError{r.id, "node", err}
	}
	n := l.unused()
	n.id, n.limit, n.plain = r.id, r.limit, plain
	if err = n.parse(plain); err == nil {
		err = n.check(r)
	}
	if err != nil {
		return nil, &NodeError{r.id, "node", err}
	}
	return n, nil
}

// node returns a node that is needed now, and not again. The error is errLost if
// it is known to be lost.
func (l *unionLoader) node(r ref) (*node, error) {
	if l.isLost(r.id) {
		return nil, &NodeError{r.id, "node", errLost}
	}
	a := l.known[r.id]
	delete(l.known, r.id)
	if a == nil {
		a = &aheadNode{ref: r}
	}
	if a.taken = true; a.done == nil {
		a.done = make(chan struct{})
		l.batch([]*aheadNode{a})
	} else {
		<-a.done
		l.queueOf(r).loading--
	}
	l.more()
	return a.node, a.err
}

// drop says that a node is not needed after all.
func (l *unionLoader) drop(r ref) {
	a := l.known[r.id]
	if a == nil {
		return
	}
	delete(l.known, r.id)
	if a.taken = true; a.done != nil {
		l.queueOf(r).loading--
	}
}

// unused returns a node to be filled.
func (l *unionLoader) unused() *node {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.free) == 0 {
		return new(node)
	}
	n := l.free[len(l.free)-1]
	l.free = l.free[:len(l.free)-1]
	return n
}

// release says that nobody uses a node any more.
func (l *unionLoader) release(n *node) {
	format.FreePayload(n.plain)
	n.plain = nil
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.free) < l.leaves.max {
		l.free = append(l.free, n)
	}
}

// less orders nodes as a Union opens them.
func (q *aheadQueue) less(i, j int) bool {
	a, b := &q.heap[i].ref, &q.heap[j].ref
	if c := format.ComparePaths(a.path, b.path); c != 0 {
		return c < 0
	}
	return a.level > b.level
}

func (q *aheadQueue) push(a *aheadNode) { heapPush(&q.heap, a, q.less) }
func (q *aheadQueue) pop() *aheadNode   { return heapPop(&q.heap, q.less) }
