package filter

import (
	"io"

	"github.com/bk-backup/bk/format"
)

// Judge decides by a file's content whether it is dropped. It need not read all
// of the content. An error stops the stream.
type Judge func(e *format.Entry, content io.Reader) (drop bool, err error)

// contentRules drop files by what is in them.
type contentRules struct {
	magic []string // content types, see matchMagic
	ask   Judge
}

func (c *contentRules) empty() bool { return len(c.magic) == 0 && c.ask == nil }

// enough reports whether the first size bytes of a file are all that is needed.
func (c *contentRules) enough(size uint64) bool { return c.ask == nil && size >= magicSize }

// drop decides on the file that is held.
func (c *contentRules) drop(h *hold) (bool, error) {
	if err := h.finish(); err != nil {
		return false, err
	}
	if len(c.magic) > 0 {
		head := make([]byte, magicSize)
		content := newContentReader(h)
		n, err := io.ReadFull(content, head)
		content.Close()
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return false, err
		}
		if matchMagic(c.magic, head[:n]) {
			return true, nil
		}
	}
	if c.ask == nil {
		return false, nil
	}
	content := newContentReader(h)
	defer content.Close()
	drop, err := c.ask(h.entry, content)
	if content.failed != nil {
		return false, content.failed
	}
	return drop, err
}

// contentReader reads the plain bytes of a file that is held. Chunks that the
// file only refers to come from the spool.
type contentReader struct {
	hold   *hold
	next   func() (format.Record, chunkPlace, error)
	refs   []format.ChunkRef // still to come
	plain  []byte            // still to come, of buf
	buf    []byte
	chunk  io.ReadCloser // still to come, of a chunk that is not in memory; or nil
	hole   uint64        // zeros still to come
	atEnd  bool
	failed error // what went wrong, but for the content coming to its end
}

func newContentReader(h *hold) *contentReader {
	r := &contentReader{hold: h}
	r.next, r.failed = h.content()
	return r
}

// Read gives up at the first error; the content's end is io.EOF.
func (r *contentReader) Read(p []byte) (int, error) {
	for len(p) > 0 {
		switch {
		case r.failed != nil:
			return 0, r.failed
		case r.atEnd:
			return 0, io.EOF
		case len(r.plain) > 0:
			n := copy(p, r.plain)
			r.plain = r.plain[n:]
			return n, nil
		case r.hole > 0:
			n := int(min(uint64(len(p)), r.hole))
			clear(p[:n])
			r.hole -= uint64(n)
			return n, nil
		case r.chunk != nil:
			n, err := r.chunk.Read(p)
			if err == io.EOF {
				err = r.chunk.Close()
				r.chunk = nil
			}
			if r.failed = err; n > 0 {
				return n, nil
			}
		case len(r.refs) > 0:
			r.failed = r.fetch(r.refs[0])
			r.refs = r.refs[1:]
		default:
			r.failed = r.advance()
		}
	}
	return 0, nil
}

// advance makes the next record the one that is read.
func (r *contentReader) advance() error {
	rec, place, err := r.next()
	if err != nil {
		return err
	}
	if place.file != nil {
		_, r.chunk, err = place.file.open(place.at)
		return err
	}
	switch rec := rec.(type) {
	case nil:
		r.atEnd = true
	case *format.Data:
		return r.decode(rec)
	case *format.Refs:
		r.refs = rec.Chunks
	case *format.Hole:
		r.hole = rec.Size
	}
	return nil
}

func (r *contentReader) decode(d *format.Data) error {
	if cap(r.buf) < int(d.Size) {
		format.FreePayload(r.buf)
		r.buf = format.AllocPayload(int(d.Size))
	}
	plain, err := format.DecodePayload(r.buf[:0], d)
	r.plain = plain
	return err
}

// fetch reads a chunk that came before.
func (r *contentReader) fetch(ref format.ChunkRef) error {
	at, held, err := r.hold.spool.find(ref.ID)
	if err != nil {
		return err
	}
	if !held {
		return format.Errorf(format.ClassReference, "chunk %s is referred to but did not come before, or was marked as never to be referred to", ref.ID)
	}
	d, plain, err := r.hold.spool.chunks.open(at)
	if err != nil {
		return err
	}
	r.chunk = plain
	if d.Size != ref.Size {
		return sizeError(ref, d)
	}
	return nil
}

// Close gives the buffer back.
func (r *contentReader) Close() {
	format.FreePayload(r.buf)
	r.buf, r.plain = nil, nil
	if r.chunk != nil {
		r.chunk.Close()
		r.chunk = nil
	}
}
