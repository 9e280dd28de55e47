package tree

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/bk-backup/bk/format"
)

// ContentWriter makes a Content of pieces that are given one by one, and saves
// lists as they fill. It keeps at most 1,024 pieces of each depth, so about
// 200 KiB for a file of any length. It can be used for one file after another.
type ContentWriter struct {
	ctx    context.Context
	chunks Chunks
	levels []listLevel
	size   uint64
	hole   uint64 // not yet added, since another may follow
	plain  []byte
}

// listLevel is the sequence of pieces of one depth.
type listLevel struct {
	pieces []Piece // not yet in a list
	lists  bool    // whether a list of this depth was saved
}

// NewContentWriter returns a writer that saves lists into chunks.
func NewContentWriter(ctx context.Context, chunks Chunks) *ContentWriter {
	return &ContentWriter{ctx: ctx, chunks: chunks}
}

// Chunk appends a chunk of 1 byte to format.ChunkSizeMax.
func (w *ContentWriter) Chunk(id format.ID, size uint64) error {
	if size == 0 || size > format.ChunkSizeMax || id.IsZero() {
		return format.Errorf(format.ClassLimit, "chunk %s has %d bytes, not 1 to %d", id, size, format.ChunkSizeMax)
	}
	if err := w.grow(size); err != nil {
		return err
	}
	if err := w.endHole(); err != nil {
		return err
	}
	return w.add(0, Piece{ID: id, Size: size})
}

// Hole appends zeros that are not stored. Holes that follow each other are one.
func (w *ContentWriter) Hole(size uint64) error {
	if err := w.grow(size); err != nil {
		return err
	}
	w.hole += size
	return nil
}

func (w *ContentWriter) grow(size uint64) error {
	if size > format.FileSizeMax-w.size {
		return format.Errorf(format.ClassLimit, "a content has more than %d bytes", uint64(format.FileSizeMax))
	}
	w.size += size
	return nil
}

func (w *ContentWriter) endHole() error {
	if w.hole == 0 {
		return nil
	}
	size := w.hole
	w.hole = 0
	return w.add(0, Piece{Size: size})
}

// Size returns the plain bytes so far.
func (w *ContentWriter) Size() uint64 { return w.size }

// add appends a piece to the sequence of its depth and ends the list if the
// rule says so.
func (w *ContentWriter) add(depth int, p Piece) error {
	if depth == len(w.levels) {
		w.levels = append(w.levels, listLevel{})
	}
	l := &w.levels[depth]
	l.pieces = append(l.pieces, p)
	if n := len(l.pieces); n >= listMax || n >= listMin && endsList(p) {
		return w.endList(depth)
	}
	return nil
}

// endsList reports whether a list that is long enough ends after the piece.
func endsList(p Piece) bool {
	return !p.IsHole() && binary.BigEndian.Uint32(p.ID[:])%listModulo == 0
}

// endList saves the pieces of a depth as a list.
func (w *ContentWriter) endList(depth int) error {
	if depth == listDepthMax {
		return fmt.Errorf("a content needs lists deeper than %d", listDepthMax)
	}
	l := &w.levels[depth]
	w.plain = appendStr(append(w.plain[:0], 0x92), "list")
	w.plain = appendArray(w.plain, len(l.pieces))
	list := Piece{Depth: uint8(depth + 1)}
	for _, p := range l.pieces {
		w.plain = appendPiece(w.plain, p)
		list.Size += p.Size
	}
	var err error
	if list.ID, err = w.chunks.Save(w.ctx, w.plain); err != nil {
		return fmt.Errorf("save a list of a content: %w", err)
	}
	l.pieces = l.pieces[:0]
	l.lists = true
	return w.add(depth+1, list)
}

// Reader returns a reader of what was given since the last content. It can be
// used while more is given, and knows nothing of that.
func (w *ContentWriter) Reader() *ContentReader {
	var top []Piece
	for i := len(w.levels) - 1; i >= 0; i-- {
		top = append(top, w.levels[i].pieces...)
	}
	if w.hole > 0 {
		top = append(top, Piece{Size: w.hole})
	}
	return &ContentReader{ctx: w.ctx, loader: w.chunks, size: w.size, top: top, stack: []listFrame{{pieces: top}}}
}

// Finish returns the content and begins the next one. After an error of any
// call, Reset does that.
func (w *ContentWriter) Finish() (Content, error) {
	if err := w.endHole(); err != nil {
		return Content{}, err
	}
	for depth := 0; depth < len(w.levels); depth++ {
		l := &w.levels[depth]
		if !l.lists && len(l.pieces) <= contentInlineMax {
			c := contentOf(l.pieces)
			w.Reset()
			return c, nil
		}
		if len(l.pieces) > 0 {
			if err := w.endList(depth); err != nil {
				return Content{}, err
			}
		}
	}
	w.Reset()
	return Content{}, nil
}

// Reset forgets what was given since the last content.
func (w *ContentWriter) Reset() {
	for i := range w.levels {
		w.levels[i].pieces = w.levels[i].pieces[:0]
		w.levels[i].lists = false
	}
	w.size, w.hole = 0, 0
}
