package restic

import (
	"context"
	"errors"
	"io"
	"sync"

	"golang.org/x/sync/semaphore"

	"github.com/bk-backup/bk/format"
)

const (
	windowBytesMax = 4 << 20  // payloads of one window
	windowItemsMax = 1024     // records of one window
	inFlightMax    = 32 << 20 // payloads that were asked for and are not yet consumed
)

// window is a run of records, those of data with what is still to be fetched.
type window struct {
	records []format.Record
	wants   []want
	data    []*format.Data // what the wants are for
	bytes   int64          // taken from the semaphore
	ready   chan struct{}
	err     error // why it could not be filled; ends the stream
}

func newWindow() *window { return &window{ready: make(chan struct{})} }

// windows is a source of records that one goroutine makes with emit and others
// complete with payloads while Next hands out earlier ones.
type windows struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	fill   func(*window) error // fetches the payloads of a window

	// Of the goroutine that makes records.
	win   *window
	room  *semaphore.Weighted
	fills sync.WaitGroup

	// Of the consumer.
	queue chan *window
	cur   *window
	at    int
	last  *format.Data
	err   error
}

func newWindows(ctx context.Context, count int, fill func(*window) error) *windows {
	w := &windows{fill: fill, win: newWindow(), room: semaphore.NewWeighted(inFlightMax), queue: make(chan *window, count)}
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
	for w.cur == nil || w.at == len(w.cur.records) {
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
			w.err = win.err
			w.cancel(win.err)
			return nil, w.err
		}
		w.cur, w.at = win, 0
	}
	rec := w.cur.records[w.at]
	w.cur.records[w.at] = nil
	w.at++
	w.last, _ = rec.(*format.Data)
	return rec, nil
}

// Close stops the goroutines and waits for them.
func (w *windows) Close() error {
	w.cancel(errors.New("the export was closed"))
	for win := range w.queue {
		<-win.ready
	}
	w.fills.Wait()
	return nil
}

// emit appends a record.
func (w *windows) emit(rec format.Record) error {
	w.win.records = append(w.win.records, rec)
	if len(w.win.records) >= windowItemsMax {
		return w.send()
	}
	return nil
}

// emitData appends a data record whose payload is fetched later.
func (w *windows) emitData(d *format.Data, at place) error {
	size := min(int64(at.stored), inFlightMax)
	if w.win.bytes > 0 && w.win.bytes+size > windowBytesMax {
		if err := w.send(); err != nil {
			return err
		}
	}
	if err := w.room.Acquire(w.ctx, size); err != nil {
		return context.Cause(w.ctx)
	}
	w.win.bytes += size
	w.win.wants = append(w.win.wants, want{at, len(w.win.data)})
	w.win.data = append(w.win.data, d)
	return w.emit(d)
}

// send hands the window on and begins to fetch what it needs.
func (w *windows) send() error {
	win := w.win
	w.win = newWindow()
	if len(win.data) == 0 {
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
