package repo

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"

	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
)

// Subset is a part of the packs, of which one way to say it is set. The zero
// value is none of them.
type Subset struct {
	All bool
	// Part of Parts, from 1, by the packs' names: after Parts checks of one part
	// each, every pack that was there all the time has been in one.
	Part, Parts uint32
	Share       float64 // packs drawn at random that have this share of the bytes
	Bytes       int64   // packs drawn at random, until they have so many bytes
}

// IsZero reports whether it is none.
func (s Subset) IsZero() bool { return s == Subset{} }

// choose returns the names of the packs that are in the subset.
func (s Subset) choose(packs []store.Info, random io.Reader) (map[string]bool, error) {
	chosen := make(map[string]bool)
	switch {
	case s.IsZero():
		return chosen, nil
	case s.All || s.Parts > 0:
		for _, info := range packs {
			name, _ := seal.ParseName(info.Name)
			if s.All || binary.BigEndian.Uint32(name.Sum[:])%s.Parts == s.Part-1 {
				chosen[info.Name] = true
			}
		}
		return chosen, nil
	}
	wanted := s.Bytes
	if s.Share > 0 {
		for _, info := range packs {
			wanted += int64(s.Share * float64(info.Size))
		}
	}
	var seed [32]byte
	if _, err := io.ReadFull(random, seed[:]); err != nil {
		return nil, fmt.Errorf("draw packs: %w", err)
	}
	for _, i := range rand.New(rand.NewChaCha8(seed)).Perm(len(packs)) {
		if wanted <= 0 {
			break
		}
		chosen[packs[i].Name] = true
		wanted -= packs[i].Size
	}
	return chosen, nil
}
