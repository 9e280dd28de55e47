package repo

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/chunker"
	"github.com/bk-backup/bk/repo/tree"
)

// cutter makes the chunks of one file after another from runs of bytes: new ones,
// and known ones, which lie in a content that is stored.
//
// It goes by what spec/chunker.md says of most splitters: a cut depends on the
// bytes since the last cut alone. So a chunk of a stored content that the same
// splitter cut is one of the new file too if it begins at a cut and comes whole;
// where it does not, its bytes are read and cut, until a new cut meets an old one
// again. The last chunk before a hole or the end of a stored content may owe its
// length to that: it stands only where the new file has a hole or its end there
// as well. It is chunker.Resync for a sequence of runs that is not known
// beforehand, and may come from several contents. The cuts of buzhash depend on
// what follows, too, so that all is read and cut there.
type cutter struct {
	s        *Sink
	splitter chunker.Splitter
	name     string

	waiting chunker.Waiting
	shared  bool       // some of what waits may be asked for again
	run     run        // known bytes, as far as they are not taken yet
	tail    tree.Piece // the last chunk of a stored run, if what follows decides on it

	offset uint64     // in the file, of what comes next
	count  int        // chunks and holes of the file so far
	last   tree.Piece // the last of these, if a chunk
	recent recentChunks
	// Chunks that were read back together, the last time.
	fetched map[format.ID][]byte
}

// run is a run of bytes of a stored content, from lo to hi.
type run struct {
	of     *cutContent
	lo, hi uint64
	pieces pieceCursor // at the piece that has the byte lo
}

// begin starts a file.
func (c *cutter) begin(splitter chunker.Splitter, name string) {
	c.splitter, c.name = splitter, name
	c.offset, c.count, c.last, c.run = 0, 0, tree.Piece{}, run{}
}

// only returns the file's chunk if it has one and nothing else.
func (c *cutter) only() tree.Piece {
	if c.count != 1 {
		return tree.Piece{}
	}
	return c.last
}

// bytes takes new bytes, which are not kept. shared says that they may be asked
// for again.
func (c *cutter) bytes(plain []byte, shared bool) error {
	if err := c.advance(true); err != nil {
		return err
	}
	if err := c.readTail(); err != nil {
		return err
	}
	return c.add(plain, shared)
}

// add cuts what waits and plain behind it.
func (c *cutter) add(plain []byte, shared bool) error {
	c.shared = c.shared || shared
	err := c.waiting.Cut(c.splitter, plain, c.emit)
	if c.waiting.Len() == 0 {
		c.shared = false
	}
	return err
}

// emit stores a chunk.
func (c *cutter) emit(plain []byte) error {
	id := format.SumID(plain)
	c.s.sum.BytesCut += uint64(len(plain))
	if c.shared {
		c.recent.put(id, plain)
	}
	c.count++
	c.last = tree.Piece{ID: id, Size: uint64(len(plain))}
	return c.s.cut(id, plain)
}

// keep takes over a chunk that is stored.
func (c *cutter) keep(p tree.Piece) error {
	c.count++
	c.last = p
	return c.s.named(p.ID, p.Size)
}

// endRun ends a run of data: the file ends here, or has a hole.
func (c *cutter) endRun() error {
	if err := c.advance(true); err != nil {
		return err
	}
	return c.endData()
}

// hole takes a hole.
func (c *cutter) hole(size uint64) error {
	if err := c.endRun(); err != nil {
		return err
	}
	return c.addHole(size)
}

func (c *cutter) addHole(size uint64) error {
	c.count++
	c.last = tree.Piece{}
	return c.s.hole(size)
}

func (c *cutter) endData() error {
	if c.tail.Size > 0 {
		p := c.tail
		c.tail = tree.Piece{}
		return c.keep(p)
	}
	err := c.waiting.End(c.splitter, c.emit)
	c.shared = false
	return err
}

// readTail cuts the chunk whose end what follows decides on: more bytes follow.
func (c *cutter) readTail() error {
	if c.tail.Size == 0 {
		return nil
	}
	p := c.tail
	c.tail = tree.Piece{}
	return c.read(p, 0, p.Size)
}

// known takes bytes that lie in a stored content.
func (c *cutter) known(of *cutContent, offset, size uint64) error {
	if c.run.of != of || c.run.hi != offset {
		if err := c.advance(true); err != nil {
			return err
		}
		c.run = run{of: of, lo: offset, hi: offset}
		if err := c.run.pieces.seek(c.s, of, offset); err != nil {
			return err
		}
	}
	c.run.hi += size
	return c.advance(false)
}

// advance takes what is known of the run: whole chunks, and if no more of it
// comes also the rest.
func (c *cutter) advance(final bool) error {
	r := &c.run
	for r.lo < r.hi {
		at := &r.pieces
		if !at.ok {
			return fmt.Errorf("a stored content ends before byte %d: %w", r.hi, io.ErrUnexpectedEOF)
		}
		p, end := at.piece, at.offset+at.piece.Size
		if r.hi < end && !final && !p.IsHole() {
			return nil
		}
		to := min(r.hi, end)
		if err := c.takePiece(p, r.lo-at.offset, to-at.offset); err != nil {
			return err
		}
		r.lo = to
		if to == end {
			if err := at.next(); err != nil {
				return err
			}
		}
	}
	return nil
}

// takePiece takes a part of the piece at the cursor.
func (c *cutter) takePiece(p tree.Piece, lo, hi uint64) error {
	if p.IsHole() {
		if err := c.endData(); err != nil {
			return err
		}
		return c.addHole(hi - lo)
	}
	if err := c.readTail(); err != nil {
		return err
	}
	whole := lo == 0 && hi == p.Size
	if !whole || c.waiting.Len() > 0 || !c.sameCuts() {
		return c.read(p, lo, hi)
	}
	if c.run.pieces.last() {
		c.tail = p
		return nil
	}
	return c.keep(p)
}

// sameCuts reports whether chunks of the run may stand as they are.
func (c *cutter) sameCuts() bool {
	return c.run.of.by == c.name && !strings.HasPrefix(c.name, string(chunker.Buzhash))
}

// read cuts a part of a stored chunk.
func (c *cutter) read(p tree.Piece, lo, hi uint64) error {
	plain, err := c.plain(p)
	if err != nil {
		return fmt.Errorf("cut %q anew: %w", c.s.cur.entry.Path, err)
	}
	return c.add(plain[lo:hi], false)
}

// plain returns the bytes of a stored chunk, valid until the next call.
func (c *cutter) plain(p tree.Piece) ([]byte, error) {
	if plain := c.recent.byID[p.ID]; plain != nil {
		return plain, nil
	}
	if plain := c.fetched[p.ID]; plain != nil {
		return plain, nil
	}
	refs, err := c.readAhead(p)
	if err != nil {
		return nil, err
	}
	plains := make([][]byte, len(refs))
	err = c.s.readBackAll(refs, func(n int, plain []byte) { plains[n] = append([]byte(nil), plain...) })
	if err != nil {
		return nil, err
	}
	clear(c.fetched)
	for n, ref := range refs {
		c.s.sum.BytesReadBack += uint64(len(plains[n]))
		c.fetched[ref.ID] = plains[n]
	}
	return c.fetched[p.ID], nil
}

// readAheadMax bounds the plain bytes that are read back together.
const readAheadMax = 4 << 20

// readAhead returns the chunks to read together with p: where all of a run is to
// be cut again, those that follow in it.
func (c *cutter) readAhead(p tree.Piece) ([]format.ChunkRef, error) {
	refs := []format.ChunkRef{{ID: p.ID, Size: uint32(p.Size)}}
	r := &c.run
	if r.of == nil || c.sameCuts() || r.of.chunk.Size > 0 || r.lo >= r.hi || r.pieces.piece != p {
		return refs, nil
	}
	pieces, err := r.of.reader(c.s, r.pieces.offset+p.Size)
	if err != nil {
		return nil, err
	}
	for bytes := p.Size; bytes < readAheadMax; {
		next, offset, err := pieces.Next()
		if errors.Is(err, io.EOF) || err == nil && offset >= r.hi {
			break
		}
		if err != nil {
			return nil, err
		}
		if !next.IsHole() && c.recent.byID[next.ID] == nil {
			refs = append(refs, format.ChunkRef{ID: next.ID, Size: uint32(next.Size)})
			bytes += next.Size
		}
	}
	return refs, nil
}

// again takes bytes that came earlier in the same file.
func (c *cutter) again(offset, size uint64) error {
	if err := c.advance(true); err != nil {
		return err
	}
	if err := c.readTail(); err != nil {
		return err
	}
	plain := make([]byte, 0, size)
	stored := c.s.content.Size()
	if offset < stored {
		pieces := c.s.content.Reader()
		if err := pieces.Seek(offset); err != nil {
			return err
		}
		for end := min(offset+size, stored); offset < end; {
			p, at, err := pieces.Next()
			if err != nil {
				return err
			}
			to := min(end, at+p.Size)
			if err := c.copyBytes(&plain, p, offset-at, to-at); err != nil {
				return err
			}
			offset = to
		}
	}
	if missing := int(size) - len(plain); missing > 0 {
		plain = append(plain, c.waiting.Bytes()[offset-stored:][:missing]...)
	}
	return c.add(plain, true)
}

// copyBytes appends a part of a stored piece to plain.
func (c *cutter) copyBytes(plain *[]byte, p tree.Piece, lo, hi uint64) error {
	if p.IsHole() {
		*plain = append(*plain, make([]byte, hi-lo)...)
		return nil
	}
	stored, err := c.plain(p)
	if err == nil {
		*plain = append(*plain, stored[lo:hi]...)
	}
	return err
}

// pieceCursor walks a stored content and sees one piece ahead.
type pieceCursor struct {
	rd      pieceReader // nil for a single chunk
	piece   tree.Piece
	offset  uint64 // where piece begins
	ok      bool   // there is a piece
	ahead   tree.Piece
	aheadOK bool
}

// seek moves to the piece that has the byte at offset.
func (p *pieceCursor) seek(s *Sink, of *cutContent, offset uint64) (err error) {
	*p = pieceCursor{}
	if of.chunk.Size > 0 {
		p.piece, p.ok = of.chunk, offset < of.chunk.Size
		return nil
	}
	if p.rd, err = of.reader(s, offset); err != nil {
		return err
	}
	if p.piece, p.offset, p.ok, err = p.fetch(); err != nil || !p.ok {
		return err
	}
	p.ahead, _, p.aheadOK, err = p.fetch()
	return err
}

func (p *pieceCursor) fetch() (piece tree.Piece, offset uint64, ok bool, err error) {
	if p.rd == nil {
		return tree.Piece{}, 0, false, nil
	}
	piece, offset, err = p.rd.Next()
	if errors.Is(err, io.EOF) {
		return tree.Piece{}, 0, false, nil
	}
	return piece, offset, err == nil, err
}

// next moves to the next piece.
func (p *pieceCursor) next() (err error) {
	p.offset += p.piece.Size
	if p.piece, p.ok = p.ahead, p.aheadOK; !p.ok {
		return nil
	}
	p.ahead, _, p.aheadOK, err = p.fetch()
	return err
}

// last reports whether a run of data ends with the piece.
func (p *pieceCursor) last() bool { return !p.aheadOK || p.ahead.IsHole() }

// recentMax bounds the plain bytes of chunks that are kept at hand.
const recentMax = 8 << 20

// recentChunks keeps the chunks that were made last of bytes that may be asked
// for again: until they are on storage they could not be read otherwise.
type recentChunks struct {
	byID  map[format.ID][]byte
	order []format.ID
	bytes int
}

func (r *recentChunks) put(id format.ID, plain []byte) {
	if r.byID[id] != nil {
		return
	}
	r.byID[id] = append([]byte(nil), plain...)
	r.order = append(r.order, id)
	r.bytes += len(plain)
	for r.bytes > recentMax && len(r.order) > 1 {
		r.bytes -= len(r.byID[r.order[0]])
		delete(r.byID, r.order[0])
		r.order = r.order[1:]
	}
}
