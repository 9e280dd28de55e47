package fidelity

import (
	"crypto/sha256"

	"github.com/bk-backup/bk/format"
)

// groups compares which entries of two listings are hard links of one object.
// What a group is called is each side's own affair (spec/stream.md, "Hard links"):
// the names have to correspond. It holds 32 bytes for each group of either side.
type groups struct{ inB, inA map[groupKey]groupKey }

// groupKey is the beginning of a hash of a group's name.
type groupKey [16]byte

func keyOf(name string) groupKey {
	sum := sha256.Sum256([]byte(name))
	return groupKey(sum[:16])
}

// match reports whether two entries of one path are in groups that correspond, or
// both in none.
func (g *groups) match(a, b *format.Entry) bool {
	if a.Hardlink == "" || b.Hardlink == "" {
		return a.Hardlink == b.Hardlink
	}
	if g.inB == nil {
		g.inB, g.inA = make(map[groupKey]groupKey), make(map[groupKey]groupKey)
	}
	ka, kb := keyOf(a.Hardlink), keyOf(b.Hardlink)
	toB, knownA := g.inB[ka]
	toA, knownB := g.inA[kb]
	if !knownA && !knownB {
		g.inB[ka], g.inA[kb] = kb, ka
		return true
	}
	return knownA && knownB && toB == kb && toA == ka
}
