package repo

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/semaphore"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/chunker"
	"github.com/bk-backup/bk/repo/tree"
)

const rechunkQueue = 256 // records that may wait to be cut

// rechunkWaiting is how many plain bytes may wait to be cut, if no chunk alone
// has more.
func rechunkWaiting(workers int) int64 { return min(4+2*int64(workers), 16) << 20 }

// rechunker is the part of a sink that cuts content anew. Records go through it
// in order; one goroutine takes them and alone works on the sink then:
//
//	Write -> put -> workers decode -> queue -> take: cut, hash -> Sink
//
// New bytes come as data. Whatever else a stream can say of content names bytes
// that the repository has by now, in cuts of its own (places.go says where): the
// cutter takes these cuts over and reads only where they cannot be the new ones.
type rechunker struct {
	s        *Sink
	ctx      context.Context
	cancel   context.CancelCauseFunc
	room     *semaphore.Weighted
	roomSize int64
	workers  *pool
	queue    chan *queued
	done     chan struct{}
	err      error // of the goroutine, once done is closed
	closing  bool  // the queue is closed

	// Of the goroutine.
	splitters map[string]chunker.Splitter
	places    *places
	cut       cutter
	old       *cutContent // that copy records of the current file take from
	oldPath   string
}

// queued is a record on its way to the cutter; data has its plain bytes once
// ready is closed.
type queued struct {
	rec    format.Record
	ready  chan struct{}
	plain  []byte
	err    error
	weight int64
}

func newRechunker(s *Sink) *rechunker {
	c := &rechunker{s: s, roomSize: rechunkWaiting(s.r.workers()), queue: make(chan *queued, rechunkQueue), done: make(chan struct{})}
	c.room = semaphore.NewWeighted(c.roomSize)
	c.ctx, c.cancel = context.WithCancelCause(s.ctx)
	c.workers = newPool(c.ctx, s.r.workers())
	c.splitters = make(map[string]chunker.Splitter)
	c.places = newPlaces()
	c.cut.s = s
	c.cut.recent.byID, c.cut.fetched = make(map[format.ID][]byte), make(map[format.ID][]byte)
	go c.run()
	return c
}

// put takes a record as Sink.Write does. It returns before the record is
// stored, but for the end, and with what went wrong with those before.
func (c *rechunker) put(rec format.Record) error {
	q := &queued{}
	switch rec := rec.(type) {
	case *format.Data:
		if err := c.decode(q, rec); err != nil {
			return c.failure(err)
		}
	default:
		q.rec = format.Clone(rec)
	}
	select {
	case c.queue <- q:
	case <-c.done:
		return c.failure(errors.New("import: a record behind the end"))
	}
	if _, ok := rec.(*format.End); ok {
		<-c.done
		return c.err
	}
	return nil
}

// failure returns what stopped the goroutine, or else err.
func (c *rechunker) failure(err error) error {
	select {
	case <-c.done:
		if c.err != nil {
			return c.err
		}
	default:
	}
	return err
}

// decode has a worker decode and check a chunk.
func (c *rechunker) decode(q *queued, rec *format.Data) error {
	q.weight = min(int64(rec.Size), c.roomSize)
	if err := c.room.Acquire(c.ctx, q.weight); err != nil {
		return context.Cause(c.ctx)
	}
	d := rec.Detach()
	q.rec, q.ready = d, make(chan struct{})
	return c.workers.do(len(d.Payload), func() error {
		defer close(q.ready)
		q.plain, q.err = format.DecodeTaken(d)
		return nil
	})
}

// close takes what was put so far and ends the goroutine.
func (c *rechunker) close() error {
	if !c.closing {
		c.closing = true
		close(c.queue)
	}
	<-c.done
	c.workers.close()
	c.cancel(context.Canceled)
	return c.err
}

func (c *rechunker) run() {
	defer close(c.done)
	for q := range c.queue {
		if c.err = c.take(q); c.err != nil {
			c.cancel(c.err)
			return
		}
		if _, ok := q.rec.(*format.End); ok {
			return
		}
	}
}

// take gives one record to the cutter or the sink.
func (c *rechunker) take(q *queued) error {
	s := c.s
	switch rec := q.rec.(type) {
	case *format.Entry:
		if rec.Type == format.TypeFile {
			c.begin(rec)
		}
	case *format.Data:
		return c.data(rec, q)
	case *format.Refs:
		return c.refs(rec)
	case *format.CopyRange:
		return c.copyRange(rec)
	case *format.Hole:
		c.cut.offset += rec.Size
		return c.cut.hole(rec.Size)
	case *format.EOF:
		return c.eof(rec)
	}
	return s.write(q.rec)
}

// begin prepares for the content of a file.
func (c *rechunker) begin(rec *format.Entry) {
	makeSplitter, name := c.s.opts.ChunkerFor(rec.Path, rec.Size)
	splitter := c.splitters[name]
	if splitter == nil {
		splitter = makeSplitter()
		c.splitters[name] = splitter
	}
	rec.Chunker = name
	c.cut.begin(splitter, name)
	c.places.begin()
	c.old = nil
}

// data takes bytes that are new to the stream.
func (c *rechunker) data(rec *format.Data, q *queued) error {
	select {
	case <-q.ready:
	case <-c.ctx.Done():
		return context.Cause(c.ctx)
	}
	if q.err != nil {
		return q.err
	}
	if err := c.s.came(rec); err != nil {
		return err
	}
	c.s.arrivals.chunkOf(rec, c.cut.name, c.cut.offset)
	if !rec.Once {
		c.places.came(rec.ID, c.cut.offset)
	}
	c.cut.offset += uint64(rec.Size)
	err := c.cut.bytes(q.plain, !rec.Once)
	format.FreePayload(q.plain)
	c.room.Release(q.weight)
	return err
}

// refs takes chunks as the source cut them, whose bytes lie in other cuts here.
func (c *rechunker) refs(rec *format.Refs) error {
	for _, ref := range rec.Chunks {
		before, err := c.s.checkRef(ref)
		if err != nil {
			return err
		}
		if err := c.ref(ref, before); err != nil {
			return err
		}
		c.places.used(ref.ID, c.cut.offset)
		c.cut.offset += uint64(ref.Size)
	}
	return nil
}

func (c *rechunker) ref(ref format.ChunkRef, before *arrivedPlace) error {
	if before != nil {
		c.places.came(ref.ID, c.cut.offset)
		if before.of == nil {
			return c.cut.known(chunkContent(ref.ID, ref.Size, ""), 0, uint64(ref.Size))
		}
		return c.cut.known(before.of, before.offset, uint64(ref.Size))
	}
	content, offset, found := c.places.find(ref.ID)
	switch {
	case found && content == nil:
		return c.cut.again(offset, uint64(ref.Size))
	case found:
		return c.cut.known(content, offset, uint64(ref.Size))
	case c.s.opts.Held:
		return c.cut.known(chunkContent(ref.ID, ref.Size, ""), 0, uint64(ref.Size))
	}
	return c.s.streamError(format.ClassReference, "refs name chunk %s, which was sent as one that comes once", ref.ID)
}

// copyRange takes a run of the parent's version of a file.
func (c *rechunker) copyRange(rec *format.CopyRange) error {
	from := c.s.cur.entry.Path
	if rec.HasFrom {
		from = rec.From
	}
	if c.old == nil || c.oldPath != from || rec.Size > c.old.size() || rec.Offset > c.old.size()-rec.Size {
		item, err := c.s.copySource(rec)
		if err != nil {
			return err
		}
		if c.old, err = c.contentOf(item); err != nil {
			return fmt.Errorf("copy from the parent's version of %q: %w", from, err)
		}
		c.oldPath = from
	} else {
		c.s.progress.Bytes += rec.Size
	}
	c.cut.offset += rec.Size
	return c.cut.known(c.old, rec.Offset, rec.Size)
}

func (c *rechunker) contentOf(item *tree.Item) (*cutContent, error) {
	var e format.Entry
	if err := item.Decode(c.s.ctx, &e); err != nil {
		return nil, err
	}
	return &cutContent{content: item.Content().Clone(), by: e.Chunker}, nil
}

// eof ends a file. From now on its content is where its bytes lie.
func (c *rechunker) eof(rec *format.EOF) error {
	if err := c.cut.endRun(); err != nil {
		return err
	}
	content, err := c.s.eof(rec)
	if err != nil {
		return err
	}
	c.s.arrivals.endFile(content)
	c.places.end(&cutContent{content: content, by: c.cut.name}, c.cut.only())
	return nil
}
