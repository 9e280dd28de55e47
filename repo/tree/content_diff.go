package tree

import (
	"context"
	"errors"
	"io"
	"slices"
	"sort"

	"github.com/bk-backup/bk/format"
)

// Segment is a run of a new content: bytes that the old content has too, or a
// chunk or a hole for which nothing was found there.
type Segment struct {
	Offset, Size uint64 // in the new content
	Same         bool
	From         uint64 // if Same, where the old content has these bytes
	Piece        Piece  // if not Same
}

// ContentDiff says for each byte of a new content where an old one has it. Lists
// that both have are not loaded. It finds a chunk of the old content again
// wherever it moved, as long as it did not move further than some 10,000 chunks
// against what surrounds it, and takes about 100 bytes of memory for each list
// of either content (of about 190 chunks) that the other does not have.
type ContentDiff struct {
	ctx    context.Context
	loader Loader
	parts  []part // of the new content, in order, all of depth 0 or 1
	next   int
	chunks []Piece // of the list that is being handed out
	offset uint64  // of the next chunk
	window window
	delta  int64 // how far the last match had moved: old minus new offset

	pending    Segment // not yet handed out, since another may continue it
	hasPending bool
	err        error
}

// part is a piece of a content and where it lies.
type part struct {
	piece  Piece
	offset uint64
	same   bool
	from   uint64 // if same, where the old content has it
}

// NewContentDiff compares two contents whose lists are in one set of chunks.
func NewContentDiff(ctx context.Context, l Loader, older, newer Content) (*ContentDiff, error) {
	d := &ContentDiff{ctx: ctx, loader: l}
	oldParts, newParts := partsOf(older), partsOf(newer)
	for depth := max(depthOf(oldParts), depthOf(newParts)); depth > 0; depth-- {
		match(oldParts, newParts, depth)
		if depth == 1 {
			break
		}
		var err error
		if oldParts, err = d.expand(oldParts, depth); err != nil {
			return nil, err
		}
		if newParts, err = d.expand(newParts, depth); err != nil {
			return nil, err
		}
	}
	d.parts = newParts
	d.window = window{parts: slices.DeleteFunc(oldParts, func(p part) bool { return p.same }), loaded: make(map[int][]Piece),
		offsets: make(map[format.ID]uint64), ids: make(map[uint64]format.ID)}
	return d, nil
}

func partsOf(c Content) []part {
	var parts []part
	offset := uint64(0)
	for _, p := range c.AppendPieces(nil) {
		parts = append(parts, part{piece: p, offset: offset})
		offset += p.Size
	}
	return parts
}

// depthOf returns the depth of the pieces of a content.
func depthOf(parts []part) uint8 {
	if len(parts) == 0 {
		return 0
	}
	return parts[0].piece.Depth
}

// match marks the lists of a depth that both contents have.
func match(older, newer []part, depth uint8) {
	at := make(map[format.ID]int)
	for i, p := range older {
		if p.piece.Depth == depth && !p.same {
			at[p.piece.ID] = i
		}
	}
	for i := range newer {
		p := &newer[i]
		if p.piece.Depth != depth || p.same {
			continue
		}
		if j, ok := at[p.piece.ID]; ok && older[j].piece == p.piece {
			p.same, p.from = true, older[j].offset
			older[j].same = true
		}
	}
}

// expand puts the pieces of lists of a depth that are not matched in their place.
func (d *ContentDiff) expand(parts []part, depth uint8) ([]part, error) {
	var out []part
	var pieces []Piece
	for _, p := range parts {
		if p.piece.Depth != depth || p.same {
			out = append(out, p)
			continue
		}
		var err error
		if pieces, err = loadList(d.ctx, d.loader, p.piece, pieces[:0]); err != nil {
			return nil, err
		}
		offset := p.offset
		for _, piece := range pieces {
			out = append(out, part{piece: piece, offset: offset})
			offset += piece.Size
		}
	}
	return out, nil
}

// Next returns the next segment; together they are the new content. At its end
// the error is io.EOF. An error is sticky.
func (d *ContentDiff) Next() (Segment, error) {
	for d.err == nil {
		s, err := d.segment()
		if err != nil {
			d.err = err
			break
		}
		if !d.hasPending {
			d.pending, d.hasPending = s, true
			continue
		}
		if last := &d.pending; last.Same && s.Same && last.From+last.Size == s.From {
			last.Size += s.Size
			continue
		}
		s, d.pending = d.pending, s
		return s, nil
	}
	if d.hasPending && errors.Is(d.err, io.EOF) {
		d.hasPending = false
		return d.pending, nil
	}
	return Segment{}, d.err
}

// segment returns the next part or chunk as a segment.
func (d *ContentDiff) segment() (Segment, error) {
	for len(d.chunks) == 0 {
		if d.next == len(d.parts) {
			return Segment{}, io.EOF
		}
		p := d.parts[d.next]
		d.next++
		if p.same {
			d.delta = int64(p.from) - int64(p.offset)
			return Segment{Offset: p.offset, Size: p.piece.Size, Same: true, From: p.from}, nil
		}
		d.offset = p.offset
		if p.piece.Depth == 0 {
			d.chunks = []Piece{p.piece}
			break
		}
		var err error
		if d.chunks, err = loadList(d.ctx, d.loader, p.piece, nil); err != nil {
			return Segment{}, err
		}
	}
	p := d.chunks[0]
	d.chunks = d.chunks[1:]
	s := Segment{Offset: d.offset, Size: p.Size, Piece: p}
	d.offset += p.Size
	if p.IsHole() {
		return s, nil
	}
	expected := uint64(max(int64(s.Offset)+d.delta, 0))
	if err := d.window.move(d.ctx, d.loader, expected); err != nil {
		return Segment{}, err
	}
	if from, ok := d.window.find(p.ID, expected); ok {
		d.delta = int64(from) - int64(s.Offset)
		s = Segment{Offset: s.Offset, Size: p.Size, Same: true, From: from}
	}
	return s, nil
}

// window knows the chunks of some of the old content's parts that the new one
// does not have as a whole: those around a place.
type window struct {
	parts   []part
	loaded  map[int][]Piece
	offsets map[format.ID]uint64 // where a chunk lies
	ids     map[uint64]format.ID // which chunk begins at an offset
}

// windowReach is how many parts to either side of a place the window knows, and
// twice that is how many it keeps.
const windowReach = 32

// move has the window know the parts around an offset.
func (w *window) move(ctx context.Context, l Loader, offset uint64) error {
	at := sort.Search(len(w.parts), func(i int) bool { return w.parts[i].offset+w.parts[i].piece.Size > offset })
	lo, hi := max(at-windowReach, 0), min(at+windowReach, len(w.parts))
	for i := lo; i < hi; i++ {
		if _, ok := w.loaded[i]; ok {
			continue
		}
		if err := w.load(ctx, l, i); err != nil {
			return err
		}
	}
	if len(w.loaded) > 4*windowReach {
		for i := range w.loaded {
			if i < lo || i >= hi {
				w.unload(i)
			}
		}
	}
	return nil
}

func (w *window) load(ctx context.Context, l Loader, i int) (err error) {
	p := w.parts[i]
	pieces := []Piece{p.piece}
	if p.piece.Depth > 0 {
		if pieces, err = loadList(ctx, l, p.piece, nil); err != nil {
			return err
		}
	}
	w.loaded[i] = pieces
	offset := p.offset
	for _, piece := range pieces {
		if !piece.IsHole() {
			w.offsets[piece.ID] = offset
			w.ids[offset] = piece.ID
		}
		offset += piece.Size
	}
	return nil
}

func (w *window) unload(i int) {
	offset := w.parts[i].offset
	for _, piece := range w.loaded[i] {
		if w.offsets[piece.ID] == offset {
			delete(w.offsets, piece.ID)
		}
		delete(w.ids, offset)
		offset += piece.Size
	}
	delete(w.loaded, i)
}

// find returns where a chunk lies: at the offset expected if it does.
func (w *window) find(id format.ID, expected uint64) (uint64, bool) {
	if w.ids[expected] == id {
		return expected, true
	}
	from, ok := w.offsets[id]
	return from, ok
}
