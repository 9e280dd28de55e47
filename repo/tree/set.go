package tree

import (
	"iter"
	"math/bits"
)

// Set is a set of listings, by their numbers from 0.
type Set []uint64

// NewSet returns an empty set for n listings.
func NewSet(n int) Set { return make(Set, (n+63)/64) }

// Add adds a listing.
func (s Set) Add(i int) { s[i/64] |= 1 << (i % 64) }

// Has reports whether a listing is in the set.
func (s Set) Has(i int) bool { return s[i/64]>>(i%64)&1 != 0 }

// With returns the union of two sets for equally many listings; it leaves both
// as they are.
func (s Set) With(other Set) Set {
	out := make(Set, len(s))
	for i := range s {
		out[i] = s[i] | other[i]
	}
	return out
}

// Runs yields the runs of consecutive numbers in the set, from the first to
// behind the last of each.
func (s Set) Runs() iter.Seq2[int, int] {
	return func(yield func(from, to int) bool) {
		for from := s.next(0, true); from < 64*len(s); {
			to := s.next(from, false)
			if !yield(from, to) {
				return
			}
			from = s.next(to, true)
		}
	}
}

// next returns the first number from i on that is in the set, or that is not.
func (s Set) next(i int, in bool) int {
	for ; i < 64*len(s); i = (i/64 + 1) * 64 {
		word := s[i/64]
		if !in {
			word = ^word
		}
		if word >>= i % 64; word != 0 {
			return i + bits.TrailingZeros64(word)
		}
	}
	return 64 * len(s)
}
