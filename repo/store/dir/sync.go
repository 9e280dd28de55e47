package dir

import (
	"fmt"
	"os"
	"sync"
)

// syncs makes directories durable for many callers at once. Those who come
// while a round of syncing is under way share the next round, which syncs each
// of their directories once. A round may not take in anyone who comes after it
// began, since their change may come too late for it.
type syncs struct {
	file func(*os.File) error // makes one file or directory durable
	turn chan struct{}        // full while a round is syncing
	mu   sync.Mutex
	next *round // those who wait for their turn
}

func newSyncs(file func(*os.File) error) *syncs {
	return &syncs{file: file, turn: make(chan struct{}, 1)}
}

type round struct {
	directories map[string]*os.File
	done        chan struct{}
	err         error
}

// sync returns after every change of a directory that was made before the call
// is durable. The file is the open directory, and stays open during the call.
func (s *syncs) sync(name string, directory *os.File) error {
	s.mu.Lock()
	r := s.next
	first := r == nil
	if first {
		r = &round{directories: map[string]*os.File{}, done: make(chan struct{})}
		s.next = r
	}
	r.directories[name] = directory
	s.mu.Unlock()
	if !first {
		<-r.done
		return r.err
	}

	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	s.mu.Lock()
	s.next = nil
	s.mu.Unlock()
	defer close(r.done)
	for name, directory := range r.directories {
		if err := s.file(directory); err != nil {
			r.err = fmt.Errorf("make directory %s durable: %w", name, cause(err))
			break
		}
	}
	return r.err
}
