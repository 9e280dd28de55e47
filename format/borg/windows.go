package borg

import (
	"context"
	"errors"
	"io"
	"math/bits"
	"sync"

	"golang.org/x/sync/semaphore"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/internal/spill"
)

const (
	windowBytesMax = 4 << 20  // plain content of one window
	windowItemsMax = 1024     // records of one window
	windowRefsMax  = 32 << 10 // chunks that the refs of one window name
	inFlightMax    = 40 << 20 // buffers for content that was asked for and is not yet consumed
)

// window is a run of records, those of data with what is still to be fetched.
type window struct {
	items []windowItem
	wants []want
	bytes int64 // taken from the semaphore
	plain int64 // bytes of content
	refs  int   // chunks that refs name
	ready chan struct{}
	err   error // why it could not be filled; ends the stream
}

// windowItem is a record, or what will be one.
type windowItem struct {
	rec   format.Record // of data: nil until it was fetched
	chunk bool          // it is the first use of a chunk, with the next number
	once  bool          // of data: no refs name it
	size  uint32        // of data
	id    format.ID     // of data
	of    format.ID     // of data: the snapshot
	refs  []uint64      // instead of a record: numbers and sizes of chunks that came before
}

func newWindow() *window { return &window{ready: make(chan struct{})} }

// windows is a source of records that one goroutine makes with emit and others
// complete with payloads while Next hands out earlier ones. What refs name by
// numbers gets its ids from the data records that were handed out before.
type windows struct {
	r      *Repository
	opts   format.ExportOptions
	ctx    context.Context
	cancel context.CancelCauseFunc

	// Of the goroutine that makes records.
	win   *window
	of    format.ID // the snapshot that is being made
	room  *semaphore.Weighted
	fills sync.WaitGroup

	// Of the consumer.
	queue chan *window
	cur   *window
	at    int
	last  *format.Data
	ids   *spill.Log // of chunks, in the order of their numbers
	err   error
}

func newWindows(ctx context.Context, r *Repository, opts format.ExportOptions) *windows {
	w := &windows{
		r: r, opts: opts, win: newWindow(), room: semaphore.NewWeighted(inFlightMax),
		queue: make(chan *window, 2*r.workers), ids: spill.NewLog(r.tempDir),
	}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	return w
}

// run calls produce, which emits all records, and ends the stream with its error.
func (w *windows) run(produce func() error) {
	defer close(w.queue)
	err := produce()
	if err == nil {
		err = w.send()
	}
	if err != nil {
		bad := newWindow()
		bad.err = err
		close(bad.ready)
		w.queue <- bad
	}
}

// Next implements format.Source.
func (w *windows) Next() (format.Record, error) {
	if w.err != nil {
		return nil, w.err
	}
	if w.last != nil {
		if !w.last.Taken() {
			format.FreePayload(w.last.Payload)
		}
		w.last = nil
	}
	for w.cur == nil || w.at == len(w.cur.items) {
		if w.cur != nil {
			w.room.Release(w.cur.bytes)
			w.cur = nil
		}
		win, ok := <-w.queue
		if !ok {
			w.err = io.EOF
			return nil, w.err
		}
		<-win.ready
		if win.err != nil {
			return nil, w.fail(win.err)
		}
		w.cur, w.at = win, 0
	}
	it := &w.cur.items[w.at]
	w.at++
	rec, err := w.record(it)
	if err != nil {
		return nil, w.fail(err)
	}
	*it = windowItem{}
	return rec, nil
}

func (w *windows) fail(err error) error {
	w.err = err
	w.cancel(err)
	return err
}

// record makes the record of an item.
func (w *windows) record(it *windowItem) (format.Record, error) {
	if it.chunk {
		if _, err := w.ids.Write(it.id[:]); err != nil {
			return nil, err
		}
	}
	if it.refs == nil {
		w.last, _ = it.rec.(*format.Data)
		return it.rec, nil
	}
	refs := &format.Refs{Chunks: make([]format.ChunkRef, len(it.refs))}
	for i, n := range it.refs {
		c := &refs.Chunks[i]
		c.Size = uint32(n)
		if _, err := w.ids.ReadAt(c.ID[:], int64(n>>32)*int64(len(c.ID))); err != nil {
			return nil, err
		}
	}
	return refs, nil
}

// Close stops the goroutines and waits for them.
func (w *windows) Close() error {
	w.cancel(errors.New("the export was closed"))
	for win := range w.queue {
		<-win.ready
	}
	w.fills.Wait()
	return w.ids.Close()
}

// emit appends a record.
func (w *windows) emit(rec format.Record) error {
	if s, ok := rec.(*format.Snapshot); ok {
		w.of = s.ID
	}
	return w.add(windowItem{rec: rec})
}

func (w *windows) add(it windowItem) error {
	w.win.items = append(w.win.items, it)
	if len(w.win.items) >= windowItemsMax {
		return w.send()
	}
	return nil
}

// emitRef appends a reference to a chunk that was emitted before.
func (w *windows) emitRef(number, size uint32) error {
	value := uint64(number)<<32 | uint64(size)
	if w.win.refs++; w.win.refs > windowRefsMax {
		if err := w.send(); err != nil {
			return err
		}
	}
	if n := len(w.win.items); n > 0 {
		if last := &w.win.items[n-1]; last.refs != nil && len(last.refs) < format.RefsMax {
			last.refs = append(last.refs, value)
			return nil
		}
	}
	return w.add(windowItem{refs: []uint64{value}})
}

// emitData appends a data record whose chunk is fetched later. once says that no
// ref names it.
func (w *windows) emitData(number uint32, once bool, chunk want) error {
	size := min(bufferSize(chunk.size)+bufferSize(chunk.csize), inFlightMax)
	if w.win.plain > 0 && w.win.plain+int64(chunk.size) > windowBytesMax {
		if err := w.send(); err != nil {
			return err
		}
	}
	if err := w.room.Acquire(w.ctx, size); err != nil {
		return context.Cause(w.ctx)
	}
	w.win.bytes += size
	w.win.plain += int64(chunk.size)
	chunk.number = len(w.win.items)
	w.win.wants = append(w.win.wants, chunk)
	return w.add(windowItem{chunk: !w.opts.Flat, once: once, size: chunk.size, of: w.of})
}

// bufferSize is what format.AllocPayload takes for n bytes.
func bufferSize(n uint32) int64 { return 1 << bits.Len32(n) }

// send hands the window on and begins to fetch what it needs.
func (w *windows) send() error {
	win := w.win
	w.win = newWindow()
	if len(win.wants) == 0 {
		close(win.ready)
	} else {
		w.fills.Go(func() {
			defer close(win.ready)
			win.err = w.fill(win)
		})
	}
	select {
	case w.queue <- win:
		return nil
	case <-w.ctx.Done():
		<-win.ready
		return context.Cause(w.ctx)
	}
}

// atReceiver reports whether the receiver is known to hold a chunk.
func (w *windows) atReceiver(it *windowItem) bool {
	return w.opts.HasChunk != nil && w.opts.HasChunk(it.id, it.size) || w.opts.Arrived != nil && w.opts.Arrived(it.of, it.id)
}

// fill fetches the chunks of a window.
func (w *windows) fill(win *window) error {
	return w.r.fetch(w.ctx, win.wants, func(want *want, object []byte) error {
		plain, frame, err := w.r.openWant(want, object)
		if err != nil {
			return err
		}
		it := &win.items[want.number]
		if w.r.keys.mode.keyed() {
			it.id = format.SumID(plain)
		} else {
			it.id = format.ID(want.id)
		}
		if w.opts.Held || !w.opts.Flat && w.atReceiver(it) {
			format.FreePayload(plain)
			it.rec = &format.Refs{Chunks: []format.ChunkRef{{ID: it.id, Size: it.size}}}
			return nil
		}
		d := &format.Data{ID: it.id, Size: it.size, Codec: format.CodecNone, Once: it.once, Payload: plain, Checked: true}
		if frame != nil && !w.opts.Plain {
			d.Codec, d.Payload = format.CodecZstd, frame
			if format.CheckPayload(d) == nil {
				d.Payload = format.AllocPayload(len(frame))
				copy(d.Payload, frame)
				format.FreePayload(plain)
			} else {
				d.Codec, d.Payload = format.CodecNone, plain
			}
		}
		it.rec = d
		return nil
	})
}
