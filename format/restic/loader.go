package restic

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/bk-backup/bk/format"
)

const (
	aheadBytesMax = 16 << 20 // JSON of trees that were read ahead and wait
	aheadBatch    = 64       // trees read ahead together
)

// treeLoader reads trees for a walk, many ahead of when they are needed. load
// and ahead are for one goroutine.
type treeLoader struct {
	r       *Repository
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	waiting map[format.ID]*treeFuture
	bytes   atomic.Int64 // of those
}

// treeFuture is a tree that is being read.
type treeFuture struct {
	ready chan struct{}
	tree  *tree
	err   error
	size  int64
}

func newTreeLoader(ctx context.Context, r *Repository) *treeLoader {
	l := &treeLoader{r: r, waiting: make(map[format.ID]*treeFuture)}
	l.ctx, l.cancel = context.WithCancel(ctx)
	return l
}

// close waits until nothing is being read.
func (l *treeLoader) close() {
	l.cancel()
	l.running.Wait()
}

// load returns a tree, which must not be changed.
func (l *treeLoader) load(id format.ID) (*tree, error) {
	if f := l.waiting[id]; f != nil {
		delete(l.waiting, id)
		<-f.ready
		l.bytes.Add(-f.size)
		return f.tree, f.err
	}
	w, err := l.want(id)
	if err != nil {
		return nil, err
	}
	var t *tree
	err = l.r.fetch(l.ctx, treeBlob, []want{w}, func(w *want, opened []byte) error {
		t, err = l.parse(w, opened)
		return err
	})
	return t, err
}

func (l *treeLoader) want(id format.ID) (want, error) {
	n, at, err := l.r.find(l.ctx, treeBlob, id)
	if err != nil {
		return want{}, err
	}
	return want{place: l.r.index.Load().place(treeBlob, n, at)}, nil
}

func (l *treeLoader) parse(w *want, opened []byte) (*tree, error) {
	b, err := l.r.loadTree(w, opened)
	if err != nil {
		return nil, err
	}
	t, err := parseTree(b)
	if err != nil {
		return nil, fmt.Errorf("tree %s: %w", w.id, err)
	}
	return t, nil
}

// ahead begins to read trees, until it has enough, and returns how many of ids
// it need not be asked for again. One that cannot be found is left for load.
func (l *treeLoader) ahead(ids []format.ID) int {
	var list []want
	var futures []*treeFuture
	n := 0
	for ; n < len(ids) && len(list) < aheadBatch; n++ {
		if l.waiting[ids[n]] != nil {
			continue
		}
		w, err := l.want(ids[n])
		if err != nil {
			continue
		}
		size := int64(w.size())
		if l.bytes.Load()+size > aheadBytesMax {
			break
		}
		l.bytes.Add(size)
		f := &treeFuture{ready: make(chan struct{}), size: size}
		l.waiting[w.id] = f
		w.number = len(list)
		list, futures = append(list, w), append(futures, f)
	}
	if len(list) > 0 {
		l.running.Go(func() { l.readAhead(list, futures) })
	}
	return n
}

// readAhead keeps every promise that ahead made.
func (l *treeLoader) readAhead(list []want, futures []*treeFuture) {
	err := l.r.fetch(l.ctx, treeBlob, list, func(w *want, opened []byte) error {
		f := futures[w.number]
		futures[w.number] = nil
		f.tree, f.err = l.parse(w, opened)
		close(f.ready)
		return nil
	})
	for _, f := range futures {
		if f != nil {
			// Which of them failed is not known: load finds out, where it matters.
			f.err = err
			close(f.ready)
		}
	}
}
