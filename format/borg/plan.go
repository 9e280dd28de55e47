package borg

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/internal/bitset"
	"github.com/bk-backup/bk/format/internal/loss"
	"github.com/bk-backup/bk/format/internal/spill"
)

// plan is what an export will send, in a log: chunks by numbers, in the order in
// which they are first sent, since the stream's ids are known only when they
// have been read. It is made first, so that it is known which chunks come again.
type plan struct {
	e         *exporter
	log       *spill.Log
	seen      *spill.Table // chunks, by borg's ids: number and size
	count     uint32       // of chunks
	again     bitset.Set   // chunks that refs name
	snapshots []planned
	buf       []byte

	// Of the file that is being planned.
	old map[objectID]uint64 // where the parent's version has a chunk
}

// planned is one snapshot of a plan.
type planned struct {
	start, end int64 // in the log
	entries    uint64
	bytes      uint64
	losses     loss.Counts
}

// What the log has: a removal and a path; an entry and its body; pieces of
// content after the entry of a file, the last of which is an end.
const (
	planRemove = iota
	planEntry
	planFile // an entry whose content follows
	planData // number, id, size, csize
	planRef  // number, size
	planCopy // offset, size
	planEnd  // size, error
)

// pieceMax bounds a piece: an entry's body, or what is small.
const pieceMax = format.BodySizeMax + 64<<10

func newPlan(e *exporter) *plan {
	return &plan{e: e, log: spill.NewLog(e.r.tempDir), seen: spill.NewTable(e.r.tempDir)}
}

func (p *plan) close() error { return errors.Join(p.log.Close(), p.seen.Close()) }

// begin starts a snapshot.
func (p *plan) begin(losses loss.Counts) *planned {
	p.snapshots = append(p.snapshots, planned{start: p.log.Size(), losses: losses.Clone()})
	return &p.snapshots[len(p.snapshots)-1]
}

// restart forgets the snapshots that were planned, but not the chunks.
func (p *plan) restart() error {
	p.snapshots = p.snapshots[:0]
	return p.log.Reset()
}

// piece appends one: its kind, and the rest that p.buf has.
func (p *plan) piece(kind byte, numbers ...uint64) {
	p.buf = append(p.buf, kind)
	for _, n := range numbers {
		p.buf = binary.AppendUvarint(p.buf, n)
	}
}

// change appends one difference.
func (p *plan) change(s *planned, c *change) error {
	p.buf = p.buf[:0]
	if c.entry == nil {
		p.piece(planRemove, uint64(len(c.path)))
		p.buf = append(p.buf, c.path...)
		return p.flush()
	}
	s.entries++
	var list []chunkRef
	eof := &format.EOF{}
	if c.file != nil {
		var err error
		if list, err = p.content(s, c, eof); err != nil {
			return fmt.Errorf("file %q: %w", "/"+c.path, err)
		}
		c.entry.Has |= format.HasSize
		if c.entry.Size = c.file.size; c.file.has&format.HasSize == 0 {
			c.entry.Size = eof.Size
		}
		s.bytes += eof.Size
	}
	body := c.entry.AppendBody(nil, true)
	if len(body) > format.BodySizeMax {
		return fmt.Errorf("file or directory %q: what is known of it takes %d bytes, more than %d", "/"+c.path, len(body), format.BodySizeMax)
	}
	kind := byte(planEntry)
	if c.file != nil {
		kind = planFile
	}
	p.piece(kind, uint64(len(body)))
	p.buf = append(p.buf, body...)
	if c.file != nil {
		if !p.e.opts.ListingOnly {
			if err := p.chunks(c, list); err != nil {
				return fmt.Errorf("file %q: %w", "/"+c.path, err)
			}
		}
		p.piece(planEnd, eof.Size, uint64(len(eof.Error)))
		p.buf = append(p.buf, eof.Error...)
	}
	return p.flush()
}

func (p *plan) flush() error {
	_, err := p.log.Write(p.buf)
	p.buf = p.buf[:0]
	return err
}

// content finds out what content a file has.
func (p *plan) content(s *planned, c *change, eof *format.EOF) (list []chunkRef, err error) {
	if c.file.orphan {
		eof.Error = "it is a hard link to a file that is not in the archive"
		s.losses.Add(format.LossUnreadable, c.path)
		return nil, nil
	}
	list, whole, err := c.file.content(func(chunk chunkRef) (bool, error) {
		_, err := p.e.r.find(p.e.out.Context(), chunk.id)
		if errors.Is(err, ErrMissing) {
			return false, nil
		}
		return err == nil, err
	})
	if err != nil {
		return nil, err
	}
	if !whole {
		s.losses.Add(format.LossDamaged, c.path)
	}
	eof.Size, err = contentSize(list)
	return list, err
}

// chunks appends the content of a file.
func (p *plan) chunks(c *change, list []chunkRef) error {
	p.old = nil
	var run format.CopyRange
	for i := range list {
		chunk := &list[i]
		if chunk.size == 0 {
			continue
		}
		if chunk.size > format.ChunkSizeMax {
			return fmt.Errorf("chunk %s has %d bytes, and the stream holds up to %d", chunk.id, chunk.size, format.ChunkSizeMax)
		}
		number, sent, err := p.number(chunk)
		if err != nil {
			return err
		}
		if offset, ok := p.inOld(c, chunk, sent); ok {
			if run.Size > 0 && run.Offset+run.Size != offset {
				p.piece(planCopy, run.Offset, run.Size)
				run.Size = 0
			}
			if run.Size == 0 {
				run.Offset = offset
			}
			run.Size += uint64(chunk.size)
			continue
		}
		if run.Size > 0 {
			p.piece(planCopy, run.Offset, run.Size)
			run.Size = 0
		}
		if sent && !p.e.opts.Flat {
			p.again.Add(int(number))
			p.piece(planRef, uint64(number), uint64(chunk.size))
		} else {
			if !sent {
				if err := p.first(chunk); err != nil {
					return err
				}
			}
			p.piece(planData, uint64(number))
			p.buf = append(p.buf, chunk.id[:]...)
			p.buf = binary.AppendUvarint(p.buf, uint64(chunk.size))
			p.buf = binary.AppendUvarint(p.buf, uint64(chunk.csize))
		}
		if len(p.buf) >= 1<<20 {
			if err := p.flush(); err != nil {
				return err
			}
		}
	}
	if run.Size > 0 {
		p.piece(planCopy, run.Offset, run.Size)
	}
	return nil
}

// number returns the number of a chunk that was sent, or the next one.
func (p *plan) number(chunk *chunkRef) (number uint32, sent bool, err error) {
	value, ok, err := p.seen.Get(spillKey(&chunk.id))
	if err != nil || !ok {
		return p.count, false, err
	}
	if size := uint32(value); size != chunk.size {
		return 0, false, fmt.Errorf("chunk %s has %d bytes here and %d elsewhere: %w", chunk.id, chunk.size, size, ErrDamaged)
	}
	return uint32(value >> 32), true, nil
}

// first gives the next number to a chunk.
func (p *plan) first(chunk *chunkRef) error {
	if p.count == math.MaxUint32 {
		return errors.New("there are more than 2^32-1 chunks")
	}
	value := uint64(p.count)<<32 | uint64(chunk.size)
	p.count++
	return p.seen.Put(spillKey(&chunk.id), value)
}

// inOld finds a chunk in the parent's version of the file, if that can be said.
func (p *plan) inOld(c *change, chunk *chunkRef, sent bool) (offset uint64, ok bool) {
	if c.old == nil || !p.e.opts.Copies() || sent && !p.e.opts.Copy {
		return 0, false
	}
	if p.old == nil {
		p.old = make(map[objectID]uint64, len(c.old.chunks))
		at := uint64(0)
		for i := range c.old.chunks {
			o := &c.old.chunks[i]
			if _, twice := p.old[o.id]; !twice {
				p.old[o.id] = at
			}
			at += uint64(o.size)
		}
	}
	offset, ok = p.old[chunk.id]
	return offset, ok
}

// planReader reads a snapshot of a plan back.
type planReader struct {
	in  *bufio.Reader
	err error
}

func (p *plan) reader(s *planned) *planReader {
	return &planReader{in: bufio.NewReaderSize(io.NewSectionReader(p.log, s.start, s.end-s.start), 64<<10)}
}

// kind reads what the next piece is; false at the end.
func (r *planReader) kind() (byte, bool) {
	if r.err != nil {
		return 0, false
	}
	k, err := r.in.ReadByte()
	if err != nil && err != io.EOF {
		r.err = err
	}
	return k, err == nil
}

func (r *planReader) number() uint64 {
	if r.err != nil {
		return 0
	}
	n, err := binary.ReadUvarint(r.in)
	if err != nil {
		r.err = fmt.Errorf("read what is to be sent back from a temporary file: %w", err)
	}
	return n
}

// bytes reads as many bytes as the number before them says.
func (r *planReader) bytes() []byte {
	n := r.number()
	if n > pieceMax && r.err == nil {
		r.err = errors.New("what is to be sent was not found again in a temporary file")
	}
	if r.err != nil {
		return nil
	}
	return r.fill(make([]byte, n))
}

func (r *planReader) fill(b []byte) []byte {
	if r.err == nil {
		_, r.err = io.ReadFull(r.in, b)
	}
	return b
}
