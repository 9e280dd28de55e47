package prefetch

import (
	"context"
	"errors"
	"io"
	"sync"

	"golang.org/x/sync/semaphore"

	"github.com/bk-backup/bk/format"
)

const (
	// SizeMax is how much content a window has, but for one that has a single
	// greater chunk.
	SizeMax = 4 << 20

	itemsMax = 1024 // items of a window
)

// Options are what a Source is made with.
type Options[T, W any] struct {
	// Fill fetches what wants name and completes the items of their window. It
	// is called for several windows at once, and may reorder wants.
	Fill func(ctx context.Context, items []T, wants []W) error
	// Record makes the record of an item. It is called from Next, in order.
	Record func(item *T) (format.Record, error)

	WindowsMax int   // windows that wait for Next
	WeightMax  int64 // of what was asked for and is not yet consumed
}

// WeightMax is an Options.WeightMax, in bytes and at most most MiB: enough for the
// workers, and not more, since what lies in memory in vain has the collector run
// the more often.
func WeightMax(workers int, most int64) int64 { return min(8+4*int64(workers), most) << 20 }

// Source is a format.SourceCloser. One goroutine, that of Run, gives it items
// with Add; others complete them, a window at a time, while Next hands out the
// records of earlier ones. T is a record, or what will be one; W is what is to
// be fetched for it.
type Source[T, W any] struct {
	opts   Options[T, W]
	ctx    context.Context
	cancel context.CancelCauseFunc

	// Of the goroutine that makes items.
	open  *window[T, W]
	room  *semaphore.Weighted
	fills sync.WaitGroup

	// Of the consumer.
	queue chan *window[T, W]
	cur   *window[T, W]
	at    int
	last  *format.Data
	err   error
}

// window is a run of items and what is to be fetched for them.
type window[T, W any] struct {
	items  []T
	wants  []W
	size   int64
	weight int64 // taken from the semaphore
	ready  chan struct{}
	err    error // why it could not be filled; ends the stream
}

func newWindow[T, W any]() *window[T, W] { return &window[T, W]{ready: make(chan struct{})} }

// New returns a source that ends when ctx does. It has to be run.
func New[T, W any](ctx context.Context, opts Options[T, W]) *Source[T, W] {
	s := &Source[T, W]{
		opts: opts, open: newWindow[T, W](), room: semaphore.NewWeighted(opts.WeightMax),
		queue: make(chan *window[T, W], opts.WindowsMax),
	}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	return s
}

// Context is done when nobody needs what is being made any more.
func (s *Source[T, W]) Context() context.Context { return s.ctx }

// Run calls produce, which adds all items, and ends the stream with its error.
func (s *Source[T, W]) Run(produce func() error) {
	defer close(s.queue)
	err := produce()
	if err == nil {
		err = s.Send()
	}
	if err != nil {
		bad := newWindow[T, W]()
		bad.err = err
		close(bad.ready)
		s.queue <- bad
	}
}

// Next implements format.Source.
func (s *Source[T, W]) Next() (format.Record, error) {
	if s.err != nil {
		return nil, s.err
	}
	if s.last != nil {
		if !s.last.Taken() {
			format.FreePayload(s.last.Payload)
		}
		s.last = nil
	}
	for s.cur == nil || s.at == len(s.cur.items) {
		if s.cur != nil {
			s.room.Release(s.cur.weight)
			s.cur = nil
		}
		win, ok := <-s.queue
		if !ok {
			s.err = io.EOF
			return nil, s.err
		}
		<-win.ready
		if win.err != nil {
			return nil, s.fail(win.err)
		}
		s.cur, s.at = win, 0
	}
	item := &s.cur.items[s.at]
	s.at++
	rec, err := s.opts.Record(item)
	if err != nil {
		return nil, s.fail(err)
	}
	var none T
	*item = none // the rest of the window may stay for long
	s.last, _ = rec.(*format.Data)
	return rec, nil
}

func (s *Source[T, W]) fail(err error) error {
	s.err = err
	s.cancel(err)
	return err
}

// Close stops the goroutines and waits for them.
func (s *Source[T, W]) Close() error {
	s.cancel(errors.New("the export was closed"))
	for win := range s.queue {
		<-win.ready
	}
	s.fills.Wait()
	return nil
}

// Room waits until there is room for an item with content of a size, and
// returns the number that it will have in its window if it is added next.
// weight is the memory that its content takes until it was consumed.
func (s *Source[T, W]) Room(size, weight int64) (number int, err error) {
	weight = min(weight, s.opts.WeightMax)
	w := s.open
	// What the open window holds itself becomes free only after it was sent.
	if w.size > 0 && w.size+size > SizeMax || w.weight+weight > s.opts.WeightMax {
		if err := s.Send(); err != nil {
			return 0, err
		}
	}
	if weight > 0 {
		if err := s.room.Acquire(s.ctx, weight); err != nil {
			return 0, context.Cause(s.ctx)
		}
	}
	s.open.size += size
	s.open.weight += weight
	return len(s.open.items), nil
}

// Add appends an item, and what is to be fetched for it.
func (s *Source[T, W]) Add(item T, wants ...W) error {
	s.open.items = append(s.open.items, item)
	s.open.wants = append(s.open.wants, wants...)
	if len(s.open.items) >= itemsMax {
		return s.Send()
	}
	return nil
}

// Last returns the last item if it was not yet sent, to add to it, or nil.
func (s *Source[T, W]) Last() *T {
	if n := len(s.open.items); n > 0 {
		return &s.open.items[n-1]
	}
	return nil
}

// Send hands the window on and begins to fetch what it needs.
func (s *Source[T, W]) Send() error {
	win := s.open
	s.open = newWindow[T, W]()
	if len(win.wants) == 0 {
		close(win.ready)
	} else {
		s.fills.Go(func() {
			defer close(win.ready)
			win.err = s.opts.Fill(s.ctx, win.items, win.wants)
		})
	}
	select {
	case s.queue <- win:
		return nil
	case <-s.ctx.Done():
		<-win.ready
		return context.Cause(s.ctx)
	}
}
