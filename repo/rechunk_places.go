package repo

import (
	"io"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/tree"
)

// cutContent is a content whose bytes the repository holds, and the name of the
// splitter with the own group's secret that cut it; "" if that is not known.
type cutContent struct {
	content tree.Content
	chunk   tree.Piece // instead of content, if it is a single chunk
	list    *pieceList // instead of content, if its pieces are in memory
	by      string
}

// reader returns a reader of what is not a single chunk, at the piece that has the
// byte at offset.
func (c *cutContent) reader(s *Sink, offset uint64) (pieceReader, error) {
	if c.list != nil {
		return &listReader{list: c.list, next: c.list.find(offset)}, nil
	}
	rd := tree.NewContentReader(s.ctx, s.saver, c.content)
	return rd, rd.Seek(offset)
}

// pieceReader hands out pieces and their offsets; at the end the error is io.EOF.
type pieceReader interface {
	Next() (tree.Piece, uint64, error)
}

type listReader struct {
	list *pieceList
	next int
}

// Next implements pieceReader.
func (r *listReader) Next() (tree.Piece, uint64, error) {
	n := r.next
	if n >= len(r.list.pieces) {
		return tree.Piece{}, r.list.size, io.EOF
	}
	r.next++
	return r.list.pieces[n], r.list.begins[n], nil
}

func chunkContent(id format.ID, size uint32, by string) *cutContent {
	return &cutContent{chunk: tree.Piece{ID: id, Size: uint64(size)}, by: by}
}

func (c *cutContent) size() uint64 {
	if c.chunk.Size > 0 {
		return c.chunk.Size
	}
	if c.list != nil {
		return c.list.size
	}
	return c.content.Size()
}

// places says where the bytes of the chunks that a stream has carried lie by now.
// Those which came with once are not asked for again and not noted, so its
// memory grows with what is repeated: about 50 bytes for each such chunk, and for
// each file that has one the at most 32 pieces that stand in its listing.
//
// A chunk that is used again moves to where it was used last. So the chunks of a
// file that changed a little lie together, in the version before, however often
// it has changed.
type places struct {
	at       map[placeKey]place
	contents []*cutContent // by number; nil: unused, or the file that is arriving
	uses     []uint32      // places in each of them
	free     []uint32

	current    uint32 // number of the file that is arriving, if it has one
	hasCurrent bool
	first      placed // the first chunk of that file, not in the table yet
	hasFirst   bool
	moved      []placed // chunks that were used again in that file
}

// placeKey is the beginning of an id: enough to tell chunks apart by chance and
// against everybody who cannot do 2^64 hashes.
type placeKey [16]byte

type place struct {
	offset uint64
	number uint32
}

type placed struct {
	key    placeKey
	offset uint64
}

// movedMax bounds the chunks that wait for the end of the file.
const movedMax = 1 << 16

func newPlaces() *places { return &places{at: make(map[placeKey]place)} }

func keyOf(id format.ID) placeKey { return placeKey(id[:16]) }

// begin says that another file is arriving.
func (p *places) begin() {
	p.hasCurrent, p.hasFirst = false, false
	p.moved = p.moved[:0]
}

// came notes a new chunk at an offset of the file that is arriving.
func (p *places) came(id format.ID, offset uint64) {
	one := placed{keyOf(id), offset}
	if !p.hasCurrent && !p.hasFirst && offset == 0 {
		p.first, p.hasFirst = one, true
		return
	}
	p.settleFirst()
	p.put(one)
}

func (p *places) settleFirst() {
	if p.hasFirst {
		p.hasFirst = false
		p.put(p.first)
	}
}

func (p *places) put(one placed) {
	if !p.hasCurrent {
		p.hasCurrent = true
		p.current = p.number(nil)
	}
	p.set(one.key, place{one.offset, p.current})
}

// number gives a content a number.
func (p *places) number(c *cutContent) (n uint32) {
	if last := len(p.free) - 1; last >= 0 {
		n, p.free = p.free[last], p.free[:last]
	} else {
		n = uint32(len(p.contents))
		p.contents, p.uses = append(p.contents, nil), append(p.uses, 0)
	}
	p.contents[n] = c
	return n
}

func (p *places) set(key placeKey, to place) {
	if old, ok := p.at[key]; ok {
		p.drop(old.number)
	}
	p.at[key] = to
	p.uses[to.number]++
}

// drop forgets a content when nothing lies in it any more.
func (p *places) drop(n uint32) {
	if p.uses[n]--; p.uses[n] == 0 && !(p.hasCurrent && n == p.current) {
		p.contents[n] = nil
		p.free = append(p.free, n)
	}
}

// find returns where a chunk lies; a nil content is the file that is arriving.
func (p *places) find(id format.ID) (content *cutContent, offset uint64, found bool) {
	key := keyOf(id)
	if p.hasFirst && p.first.key == key {
		p.settleFirst()
	}
	at, ok := p.at[key]
	if !ok {
		return nil, 0, false
	}
	return p.contents[at.number], at.offset, true
}

// used notes that a chunk was used again in the file that is arriving.
func (p *places) used(id format.ID, offset uint64) {
	p.settleFirst()
	p.moved = append(p.moved, placed{keyOf(id), offset})
	if len(p.moved) == movedMax {
		p.move()
	}
}

// move gives the chunks that were used again their new place. The first use
// counts, as the chunks behind it follow there.
func (p *places) move() {
	for _, m := range p.moved {
		old, ok := p.at[m.key]
		if !ok || p.hasCurrent && old.number == p.current {
			continue
		}
		p.put(m)
	}
	p.moved = p.moved[:0]
}

// end says what became of the file; only is its chunk if it has a single one.
func (p *places) end(c *cutContent, only tree.Piece) {
	p.move()
	if p.hasFirst && keyOf(only.ID) == p.first.key {
		c = &cutContent{chunk: only, by: c.by}
	}
	p.settleFirst()
	if !p.hasCurrent {
		return
	}
	p.hasCurrent = false
	if p.uses[p.current] == 0 {
		p.free = append(p.free, p.current)
		return
	}
	p.contents[p.current] = c
}
