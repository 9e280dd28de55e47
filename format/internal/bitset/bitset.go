// Package bitset has a set of numbers in a bit each, for chunks that are
// numbered densely. Start at Set. Any package below format may import it; it
// imports nothing of this module.
package bitset

// Set is a set of numbers from 0. The zero value is empty.
type Set []uint64

// Has reports whether a number is in the set.
func (s Set) Has(n int) bool { return n/64 < len(s) && s[n/64]>>(n%64)&1 != 0 }

// Add puts a number into the set.
func (s *Set) Add(n int) {
	for n/64 >= len(*s) {
		*s = append(*s, 0)
	}
	(*s)[n/64] |= 1 << (n % 64)
}

// Clear empties the set and keeps its memory.
func (s Set) Clear() { clear(s) }
