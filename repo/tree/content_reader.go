package tree

import (
	"context"
	"fmt"
	"io"

	"github.com/bk-backup/bk/format"
)

// ContentReader hands out the chunks and holes of a content in order.
type ContentReader struct {
	ctx    context.Context
	loader Loader
	size   uint64
	top    []Piece
	stack  []listFrame // from the content's pieces to a list's of depth 1
	offset uint64      // of the next piece

	lost func(id format.ID) bool
}

// listFrame is a place in a list.
type listFrame struct {
	pieces []Piece
	i      int
}

// NewContentReader returns a reader that stands at the content's beginning. The
// content is not used after the call.
func NewContentReader(ctx context.Context, l Loader, c Content) *ContentReader {
	r := &ContentReader{ctx: ctx, loader: l, size: c.size, top: c.AppendPieces(nil)}
	r.stack = []listFrame{{pieces: r.top}}
	return r
}

// PassLost names lists that are known to be lost. Next then returns such a list
// as one piece, whose depth is not 0, instead of what is in it.
func (r *ContentReader) PassLost(lost func(id format.ID) bool) { r.lost = lost }

// Next returns the next chunk or hole and the offset in the file where it
// begins. At the content's end the error is io.EOF.
func (r *ContentReader) Next() (p Piece, offset uint64, err error) {
	for {
		fr := &r.stack[len(r.stack)-1]
		if fr.i == len(fr.pieces) {
			if len(r.stack) == 1 {
				return Piece{}, r.size, io.EOF
			}
			r.stack = r.stack[:len(r.stack)-1]
			continue
		}
		p = fr.pieces[fr.i]
		if p.Depth > 0 && (r.lost == nil || !r.lost(p.ID)) {
			if err := r.open(p); err != nil {
				return Piece{}, 0, err
			}
			continue
		}
		fr.i++
		offset = r.offset
		r.offset += p.Size
		return p, offset, nil
	}
}

// open goes into the list at the current place, which is counted as passed.
func (r *ContentReader) open(p Piece) error {
	r.stack[len(r.stack)-1].i++
	n := len(r.stack)
	var room []Piece
	if n < cap(r.stack) {
		room = r.stack[:n+1][n].pieces[:0]
	}
	pieces, err := loadList(r.ctx, r.loader, p, room)
	if err != nil {
		return err
	}
	r.stack = append(r.stack, listFrame{pieces: pieces})
	return nil
}

// Seek moves to the chunk or hole that has the byte at offset, so that the next
// call of Next returns it, and loads only the lists that lead there. The
// content's size is a valid offset; Next then returns io.EOF.
func (r *ContentReader) Seek(offset uint64) error {
	if offset > r.size {
		return fmt.Errorf("offset %d lies behind the end of a content of %d bytes", offset, r.size)
	}
	r.stack = append(r.stack[:0], listFrame{pieces: r.top})
	r.offset = 0
	for {
		fr := &r.stack[len(r.stack)-1]
		for fr.i < len(fr.pieces) && offset-r.offset >= fr.pieces[fr.i].Size {
			r.offset += fr.pieces[fr.i].Size
			fr.i++
		}
		if fr.i == len(fr.pieces) || fr.pieces[fr.i].Depth == 0 {
			return nil
		}
		if err := r.open(fr.pieces[fr.i]); err != nil {
			return err
		}
	}
}
