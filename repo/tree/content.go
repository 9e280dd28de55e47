package tree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/bk-backup/bk/format"
)

// Constants of the layout (spec/repository.md, section 7).
const (
	contentInlineMax = 32       // pieces that stand in the item
	listMin          = 64       // pieces before a list may end by an id
	listMax          = 1024     // pieces of a list
	listModulo       = 128      // one id in so many ends a list
	listDepthMax     = 10       // lists inside each other
	listSizeMax      = 64 << 10 // bytes of a list, which follows from listMax
)

// Piece is a part of a file's content: a chunk, a hole, or a list of pieces.
type Piece struct {
	ID    format.ID // of the chunk or of the list; zero for a hole
	Size  uint64    // plain bytes
	Depth uint8     // 0 for chunks and holes; a list's pieces have one less than it
}

// IsHole reports whether the piece is zeros that are not stored.
func (p Piece) IsHole() bool { return p.ID.IsZero() }

// Content is what a file consists of: at most 32 pieces, of which all or none
// are lists. The zero value is empty. ContentReader expands the lists.
type Content struct {
	raw  []byte // as it stands in an item; empty for no pieces
	size uint64
}

// Size returns the plain bytes.
func (c Content) Size() uint64 { return c.size }

// Equal reports whether two contents consist of the same chunks and holes.
func (c Content) Equal(other Content) bool {
	if c.size == 0 || other.size == 0 {
		return c.size == other.size
	}
	return bytes.Equal(c.raw, other.raw)
}

// Clone returns a copy that stays valid whatever it came from.
func (c Content) Clone() Content { return Content{slices.Clone(c.raw), c.size} }

// AppendPieces appends the pieces to dst.
func (c Content) AppendPieces(dst []Piece) []Piece {
	if len(c.raw) == 0 {
		return dst
	}
	// The bytes were checked when they were read, or written here.
	dst, _ = appendPieces(dst, &wire{b: c.raw}, contentInlineMax)
	return dst
}

// appendTo appends the encoding to dst.
func (c Content) appendTo(dst []byte) []byte {
	if len(c.raw) == 0 {
		return append(dst, 0x90)
	}
	return append(dst, c.raw...)
}

func contentOf(pieces []Piece) Content {
	var c Content
	c.raw = appendArray(nil, len(pieces))
	for _, p := range pieces {
		c.raw = appendPiece(c.raw, p)
		c.size += p.Size
	}
	return c
}

func appendPiece(dst []byte, p Piece) []byte {
	switch {
	case p.IsHole():
		return appendUint(append(dst, 0x91), p.Size)
	case p.Depth == 0:
		dst = append(dst, 0x92)
	default:
		dst = append(dst, 0x93)
	}
	dst = appendUint(dst, p.Size)
	dst = append(append(dst, 0xc4, byte(len(p.ID))), p.ID[:]...)
	if p.Depth > 0 {
		dst = append(dst, p.Depth)
	}
	return dst
}

// piece reads one piece.
func (w *wire) piece() (p Piece) {
	n := w.array(3)
	switch n {
	case 1:
		p.Size = w.uint(format.FileSizeMax)
	case 2:
		p.Size = w.uint(format.ChunkSizeMax)
		p.ID = w.id()
	case 3:
		p.Size = w.uint(format.FileSizeMax)
		p.ID = w.id()
		if p.Depth = uint8(w.uint(listDepthMax)); p.Depth == 0 {
			w.fail("a list has the depth 0")
		}
	default:
		w.fail("a piece has no elements")
	}
	if p.Size == 0 {
		w.fail("a piece has no bytes")
	}
	if n > 1 && p.ID.IsZero() {
		w.fail("a piece has the id zero")
	}
	return p
}

// appendPieces reads an array of pieces, which have one depth. It returns dst
// and the sum of their sizes.
func appendPieces(dst []Piece, w *wire, limit int) ([]Piece, uint64) {
	sum, depth := uint64(0), uint8(0)
	for i, n := 0, w.array(limit); i < n && w.err == nil; i++ {
		p := w.piece()
		if i == 0 {
			depth = p.Depth
		}
		if p.Depth != depth {
			w.fail("pieces have the depths %d and %d", depth, p.Depth)
		}
		if sum += p.Size; sum > format.FileSizeMax {
			w.fail("a content has more than %d bytes", uint64(format.FileSizeMax))
		}
		dst = append(dst, p)
	}
	return dst, sum
}

// checkPieces moves past an array of pieces and returns the sum of their sizes.
func checkPieces(w *wire, limit int) uint64 {
	var room [contentInlineMax]Piece
	_, sum := appendPieces(room[:0], w, limit)
	return sum
}

// loadList loads the list p and appends its pieces to dst.
func loadList(ctx context.Context, l Loader, p Piece, dst []Piece) ([]Piece, error) {
	plain, err := l.Load(ctx, p.ID)
	if err != nil {
		return dst, &NodeError{p.ID, "list", err}
	}
	if dst, err = parseList(plain, p, dst); err != nil {
		return dst, &NodeError{p.ID, "list", err}
	}
	return dst, nil
}

func parseList(plain []byte, p Piece, dst []Piece) ([]Piece, error) {
	if len(plain) > listSizeMax {
		return dst, fmt.Errorf("it has %d bytes, more than %d", len(plain), listSizeMax)
	}
	w := wire{b: plain}
	if n := w.array(2); w.err == nil && n != 2 {
		w.fail("it is an array of %d elements, not 2", n)
	}
	w.tag("list")
	start := len(dst)
	dst, sum := appendPieces(dst, &w, listMax)
	w.end()
	switch {
	case w.err != nil:
		return dst, w.err
	case len(dst) == start:
		return dst, errors.New("it has no pieces")
	case dst[start].Depth != p.Depth-1:
		return dst, fmt.Errorf("its pieces have the depth %d in a list of the depth %d", dst[start].Depth, p.Depth)
	case sum != p.Size:
		return dst, fmt.Errorf("its pieces have %d bytes, not %d as the one above says", sum, p.Size)
	}
	return dst, nil
}
