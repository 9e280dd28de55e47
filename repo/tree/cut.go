package tree

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
)

// Constants of the layout (spec/repository.md, section 7).
const (
	itemsMin     = 16        // items before a node may end by the hash of a path
	itemsMax     = 256       // items of a node
	cutModulo    = 32        // one path in so many begins a node
	itemsSizeCut = 128 << 10 // bytes of encoded items from which on a node ends
	nodeSizeMax  = 256 << 10 // bytes of a node, which follows from the limits of its parts
	levelMax     = 32        // levels of inner nodes
	bodySizeMax  = 2 << 10   // bytes of an encoded body that stands in the item itself
)

// SplitKey is the group's secret that decides where nodes end, so that their
// sizes say nothing about names.
type SplitKey [32]byte

// cutter says where nodes end. The answer for an item depends on its path and
// on the items of the node being filled, never on what lies before that node or
// behind the item: this is what makes an update local.
type cutter struct {
	mac hash.Hash
	buf []byte

	min, max, size int
	modulo         uint32
}

func newCutter(key SplitKey) *cutter {
	return &cutter{mac: hmac.New(sha256.New, key[:]), min: itemsMin, max: itemsMax, size: itemsSizeCut, modulo: cutModulo}
}

// begins reports whether an item begins a new node at a level, given how many
// items, in how many bytes, the node being filled has.
func (c *cutter) begins(level int, path string, items, size int) bool {
	switch {
	case items == 0 || items >= c.max:
		return true
	case items >= 2 && size >= c.size:
		return true
	case items < c.min:
		return false
	}
	c.mac.Reset()
	c.buf = append(c.buf[:0], "bk tree"...)
	c.buf = append(c.buf, byte(level))
	c.buf = append(c.buf, path...)
	c.mac.Write(c.buf)
	c.buf = c.mac.Sum(c.buf[:0])
	return binary.BigEndian.Uint32(c.buf)%c.modulo == 0
}
