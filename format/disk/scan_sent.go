package disk

import (
	"sync"

	"github.com/bk-backup/bk/format"
)

// sentIDsMax is how many ids one half of a sentSet holds, about 20 MB of memory.
const sentIDsMax = 1 << 18

// sentSet remembers the chunks that were sent last, between sentIDsMax and twice
// as many. Any number of goroutines may use it.
type sentSet struct {
	mu       sync.Mutex
	new, old map[format.ID]struct{}
}

func newSentSet() *sentSet { return &sentSet{new: make(map[format.ID]struct{})} }

// has reports whether the id was added and not yet forgotten, and keeps it from
// being forgotten soon.
func (s *sentSet) has(id format.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.new[id]; ok {
		return true
	}
	if _, ok := s.old[id]; ok {
		s.insert(id)
		return true
	}
	return false
}

func (s *sentSet) add(id format.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.insert(id)
}

func (s *sentSet) insert(id format.ID) {
	if len(s.new) == sentIDsMax {
		s.old, s.new = s.new, make(map[format.ID]struct{}, sentIDsMax)
	}
	s.new[id] = struct{}{}
}
