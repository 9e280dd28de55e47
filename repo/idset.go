package repo

import (
	"hash/maphash"

	"github.com/bk-backup/bk/format"
)

// idSet remembers chunks and their sizes in 12 bytes each, to answer which
// chunks a stream has carried so far. It keeps 64 keyed bits of an id: whoever
// makes a stream cannot aim at a collision, since the key is drawn anew for
// every set, and chance gives one among a thousand million chunks in forty.
type idSet struct {
	seed  maphash.Seed
	keys  []uint64
	sizes []uint32
	count int
}

func newIDSet() *idSet {
	return &idSet{seed: maphash.MakeSeed(), keys: make([]uint64, 1<<10), sizes: make([]uint32, 1<<10)}
}

func (s *idSet) key(id format.ID) uint64 {
	k := maphash.Bytes(s.seed, id[:])
	if k == 0 {
		k = 1 // 0 marks an empty slot
	}
	return k
}

// get returns the size of a chunk that was added.
func (s *idSet) get(id format.ID) (size uint32, ok bool) {
	k := s.key(id)
	for i := k & uint64(len(s.keys)-1); s.keys[i] != 0; i = (i + 1) & uint64(len(s.keys)-1) {
		if s.keys[i] == k {
			return s.sizes[i], true
		}
	}
	return 0, false
}

// add puts a chunk in, and reports whether it is new.
func (s *idSet) add(id format.ID, size uint32) bool {
	if 4*(s.count+1) > 3*len(s.keys) {
		s.grow()
	}
	return s.put(s.key(id), size)
}

func (s *idSet) put(k uint64, size uint32) bool {
	mask := uint64(len(s.keys) - 1)
	i := k & mask
	for ; s.keys[i] != 0; i = (i + 1) & mask {
		if s.keys[i] == k {
			return false
		}
	}
	s.keys[i], s.sizes[i] = k, size
	s.count++
	return true
}

func (s *idSet) grow() {
	old := *s
	s.keys, s.sizes, s.count = make([]uint64, 2*len(old.keys)), make([]uint32, 2*len(old.keys)), 0
	for i, k := range old.keys {
		if k != 0 {
			s.put(k, old.sizes[i])
		}
	}
}
