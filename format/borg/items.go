package borg

import (
	"context"
	"fmt"
	"sync"
)

const itemsAhead = 8 // objects of items that are read before they are needed

// itemStream reads the objects of an archive's stream of items, some of them
// ahead. load is for one goroutine and goes forward only.
type itemStream struct {
	ctx     context.Context
	r       *Repository
	ids     []objectID
	cached  map[objectID]bool // most likely not needed
	waiting map[int]*itemsFuture
	asked   int // objects up to this one were asked for, or are not needed
	running sync.WaitGroup
}

// itemsFuture is an object that is being read.
type itemsFuture struct {
	ready chan struct{}
	plain []byte
	err   error
}

// load returns the content of the ith object. It must not be changed.
func (s *itemStream) load(i int) ([]byte, error) {
	for n := range s.waiting {
		if n < i-1 {
			delete(s.waiting, n)
		}
	}
	if s.waiting[i] == nil {
		s.ask(i)
	}
	for s.asked = max(s.asked, i+1); s.asked < len(s.ids) && len(s.waiting) < itemsAhead; s.asked++ {
		if !s.cached[s.ids[s.asked]] && s.waiting[s.asked] == nil {
			s.ask(s.asked)
		}
	}
	f := s.waiting[i]
	select {
	case <-f.ready:
	case <-s.ctx.Done():
		return nil, context.Cause(s.ctx)
	}
	if f.err != nil {
		return nil, fmt.Errorf("its list of files: %w", f.err)
	}
	return f.plain, nil
}

// ask begins to read an object.
func (s *itemStream) ask(i int) {
	f := &itemsFuture{ready: make(chan struct{})}
	if s.waiting == nil {
		s.waiting = make(map[int]*itemsFuture)
	}
	s.waiting[i] = f
	s.running.Go(func() {
		defer close(f.ready)
		f.plain, f.err = s.r.plain(s.ctx, s.ids[i])
	})
}

// extend appends the objects behind the ith one, of which ends are the ends of
// those that were appended already, to end an item that begins at a place in b.
func (s *itemStream) extend(i int, b []byte, at int, ends []int) ([]byte, []int, error) {
	// By halves, so that an item of very many objects is not read over and over.
	enough, had := at+(len(b)-at)*3/2, len(b)
	for next := i + 1 + len(ends); len(b) <= enough && next < len(s.ids) && len(b)-at <= itemSizeMax; next++ {
		more, err := s.load(next)
		if err != nil {
			return nil, nil, err
		}
		b = append(b[:len(b):len(b)], more...)
		ends = append(ends, len(b))
	}
	if len(b) == had {
		return nil, nil, fmt.Errorf("object %s of items: its last item is cut off: %w", s.ids[i], ErrDamaged)
	}
	return b, ends, nil
}

// close waits until nothing is being read.
func (s *itemStream) close() { s.running.Wait() }
