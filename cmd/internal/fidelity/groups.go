package fidelity

import (
	"crypto/sha256"

	"github.com/bk-backup/bk/format"
)

// links are the groups of hard links of one listing, with the first path of each.
// What a group is called is each side's own affair (spec/stream.md, "Hard links"),
// and a group of one is none. It holds 32 bytes for each group.
type links map[hashed]hashed

// hashed is the beginning of a hash of a group's name, or of a path.
type hashed [16]byte

func hashName(name string) hashed {
	sum := sha256.Sum256([]byte(name))
	return hashed(sum[:16])
}

// first returns the first path of the entry's group, or its own.
func (l links) first(e *format.Entry) hashed {
	own := hashName(e.Path)
	if e.Hardlink == "" {
		return own
	}
	group := hashName(e.Hardlink)
	path, ok := l[group]
	if !ok {
		path = own
		l[group] = path
	}
	return path
}
