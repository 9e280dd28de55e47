//go:build linux

package disk

import (
	"context"
	"slices"
	"sync"

	"github.com/bk-backup/bk/format"
)

// load is what a worker gets at a time: files, or parts of large ones, with
// their content. Loads are numbered in the order of the stream, and a worker
// may wait for earlier ones, never for later ones.
type load struct {
	number   uint64
	pieces   []loadPiece
	items    []loadItem
	payload  int    // bytes of payloads that the load keeps
	weight   int    // these, and those of the chunks that are decoded from them
	wanted   uint64 // plain bytes that it refers to
	multiple int    // pieces of several chunks that are not in the load itself
}

// piece is a run of the content of one file.
type loadPiece struct {
	file *outFile
	from int // items[from:to] of the load
	to   int
	// whole: the piece is all of the file's content, nothing of it was written.
	whole bool
}

// itemKind says where a run of content comes from.
type itemKind uint8

const (
	itemData itemKind = iota
	itemRef
	itemCopy
	itemHole
	itemLost // a hole for what was lost at the source: what is there stays
)

// item is a run of a file's content.
type loadItem struct {
	kind    itemKind
	codec   format.Codec
	once    bool // of data: nothing refers to the chunk later
	checked bool
	offset  uint64
	size    uint64
	id      format.ID
	payload []byte
	place   format.Place // of data
	from    copyFrom
}

// copyFrom is a run of bytes of an earlier version.
type copyFrom struct {
	number uint64 // of the file; see history.open
	offset uint64
}

// Limits of one load, and of the weight of all that are queued or worked on
// together: one of any weight is always let through.
const (
	loadWeightMax   = 64 << 20
	loadPayloadMax  = 2 << 20
	loadWantedMax   = 16 << 20 // enough for a repository to read a whole pack at once
	loadPiecesMax   = 512
	loadItemsMax    = 8192
	loadMultipleMax = 128 // files that are open at a time while their chunks come
	linkItemsMax    = 65536
)

func (l *load) reset() {
	clear(l.pieces)
	clear(l.items)
	*l = load{pieces: l.pieces[:0], items: l.items[:0]}
}

// loadQueue hands loads to the workers and knows which are not done.
type loadQueue struct {
	ready   chan *load
	free    chan *load
	mu      sync.Mutex
	done    *sync.Cond
	running []uint64 // numbers of loads that were queued and are not done
	weight  int      // of these
	next    uint64
}

// begin gives a load its number, once there is room for its weight.
func (q *loadQueue) begin(l *load) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.running) > 0 && q.weight+l.weight > loadWeightMax {
		q.done.Wait()
	}
	q.next++
	l.number = q.next
	q.weight += l.weight
	q.running = append(q.running, l.number)
}

func (q *loadQueue) finished(l *load) {
	q.mu.Lock()
	i := slices.Index(q.running, l.number)
	q.running = slices.Delete(q.running, i, i+1)
	q.weight -= l.weight
	q.mu.Unlock()
	q.done.Broadcast()
}

// waitBefore waits until every load with a smaller number is done.
func (q *loadQueue) waitBefore(n uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for slices.ContainsFunc(q.running, func(m uint64) bool { return m < n }) {
		q.done.Wait()
	}
}

func (r *Restore) startWorkers() {
	n := r.opts.Workers
	r.loads.done = sync.NewCond(&r.loads.mu)
	r.loads.ready = make(chan *load, n+2)
	r.loads.free = make(chan *load, n+2)
	for range n + 2 {
		r.loads.free <- new(load)
	}
	r.load = <-r.loads.free
	for range n {
		r.wg.Go(func() {
			w := &worker{r: r, reader: chunkReader{r: r, fd: -1}}
			for l := range r.loads.ready {
				w.run(l)
				r.loads.finished(l)
				l.reset()
				r.loads.free <- l
			}
			w.reader.close()
		})
	}
}

// stopWorkers lets the workers finish what is queued, which is quick once the
// context is done, and ends them.
func (r *Restore) stopWorkers() {
	if r.loads.ready == nil {
		return
	}
	if r.current != nil {
		r.current.fail(context.Canceled)
		r.finishPiece()
		r.current = nil
	}
	r.send()
	close(r.loads.ready)
	r.wg.Wait()
}

// send queues the load that is being gathered and takes an empty one.
func (r *Restore) send() {
	if len(r.load.pieces) == 0 {
		return
	}
	q := &r.loads
	q.begin(r.load)
	q.ready <- r.load
	r.load = <-q.free
}

// drain waits until everything that was taken so far is written.
func (r *Restore) drain() error {
	if r.loads.ready == nil {
		return nil
	}
	if r.current != nil {
		r.splitPiece()
	}
	r.send()
	r.loads.waitBefore(r.loads.next + 1)
	if r.current != nil {
		r.openPiece()
	}
	return context.Cause(r.ctx)
}

// worker writes loads. It is one goroutine.
type worker struct {
	r      *Restore
	reader chunkReader
	load   *load
	wanted wantedChunks
	plain  []byte      // of the chunk that is being decoded
	chunk  format.Data // the chunk that is being decoded
	copier []byte
}

// wantedChunks are the chunks that a load needs from the content source.
type wantedChunks struct {
	index  map[format.ID]int
	refs   []format.ChunkRef
	places [][]target // for each ref, where it goes
	came   []bool
}

// target is where in a file a chunk goes.
type target struct {
	file   *outFile
	offset uint64
}

func (w *worker) run(l *load) {
	w.load = l
	if w.r.ctx.Err() != nil {
		for _, p := range l.pieces {
			p.file.fail(context.Canceled)
			w.r.unpend(p.file)
		}
		w.freePayloads()
		return
	}
	for _, p := range l.pieces {
		if !p.isLink() {
			w.piece(p)
		}
	}
	w.fetch()
	// Links come last: the first members of their groups are there now, or are
	// in earlier loads.
	for _, p := range l.pieces {
		if p.isLink() {
			w.link(p)
		}
	}
	w.fetch()
	w.freePayloads()
}

func (p loadPiece) isLink() bool { return p.whole && p.file.linked }

func (w *worker) freePayloads() {
	for i := range w.load.items {
		if b := w.load.items[i].payload; b != nil {
			format.FreePayload(b)
		}
	}
}

// piece writes what is at hand, and notes down what has to be fetched.
func (w *worker) piece(p loadPiece) {
	f := p.file
	w.r.decide(f)
	for i := p.from; i < p.to; i++ {
		w.item(f, &w.load.items[i])
	}
	w.r.unpend(f)
}

func (w *worker) item(f *outFile, it *loadItem) {
	switch it.kind {
	case itemData:
		w.data(f, it)
	case itemRef:
		w.ref(f, it)
	case itemCopy:
		w.copy(f, it)
	case itemHole:
		w.hole(f, it)
	}
}

// want notes a chunk down for fetch.
func (w *worker) want(f *outFile, ref format.ChunkRef, offset uint64) {
	q := &w.wanted
	if q.index == nil {
		q.index = make(map[format.ID]int)
	}
	i, ok := q.index[ref.ID]
	if !ok {
		i = len(q.refs)
		q.index[ref.ID] = i
		q.refs = append(q.refs, ref)
		q.came = append(q.came, false)
		if i < cap(q.places) {
			q.places = q.places[:i+1]
		} else {
			q.places = append(q.places, nil)
		}
	}
	if q.refs[i].Size != ref.Size {
		f.fail(format.Errorf(format.ClassReference, "chunk %s is referred to with %d and %d bytes", ref.ID, q.refs[i].Size, ref.Size))
		return
	}
	f.pending.Add(1)
	q.places[i] = append(q.places[i], target{f, offset})
}

// fetch has the content source deliver what is wanted.
func (w *worker) fetch() {
	q := &w.wanted
	if len(q.refs) == 0 {
		return
	}
	err := w.r.opts.Content.ReadChunks(w.r.ctx, q.refs, func(i int, plain []byte, err error) error {
		q.came[i] = true
		if err == nil && len(plain) != int(q.refs[i].Size) {
			err = format.Errorf(format.ClassReference, "chunk %s has %d bytes, not %d", q.refs[i].ID, len(plain), q.refs[i].Size)
		}
		for _, p := range q.places[i] {
			if err != nil {
				p.file.damage(err)
			} else {
				w.r.store(p.file, plain, p.offset)
			}
			w.r.unpend(p.file)
		}
		return context.Cause(w.r.ctx)
	})
	if err != nil {
		w.r.cancel(err)
	}
	for i, came := range q.came {
		if came {
			continue
		}
		for _, p := range q.places[i] {
			p.file.fail(context.Canceled)
			w.r.unpend(p.file)
		}
	}
	for i := range q.places {
		clear(q.places[i])
		q.places[i] = q.places[i][:0]
	}
	q.refs, q.came = q.refs[:0], q.came[:0]
	clear(q.index)
}
