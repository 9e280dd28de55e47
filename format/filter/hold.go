package filter

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/bk-backup/bk/format"
)

// holdMemoryMax is how many bytes of a file that is held back are in memory.
const holdMemoryMax = 1 << 20

// hold keeps a file back until its content decides: at first in memory, then
// on disk, encrypted.
type hold struct {
	entry  *format.Entry
	fate   fate
	size   uint64 // plain bytes of content
	memory []format.Record
	used   int // bytes of memory, nearly

	spool   *spool     // has the chunks that may be referred to
	chunks  *chunkFile // has those of this file alone
	records *cryptFile // where rest is
	rest    *run       // what did not fit into memory, chunks as their places; nil if all did
	listed  uint64     // size of the content that rest was told of
}

func newHold(dir string, random io.Reader, s *spool) *hold {
	return &hold{spool: s, chunks: newChunkFile(dir, random), records: newCryptFile(dir, random)}
}

// begin takes a file's entry; nothing else is held.
func (h *hold) begin(e *format.Entry, f fate) {
	h.entry, h.fate, h.size = e.Clone(), f, 0
}

// add keeps a record of the content. A chunk that the spool has is at that
// position there, otherwise spooled is negative.
func (h *hold) add(rec format.Record, spooled int64) error {
	h.size += contentSize(rec)
	if h.rest == nil {
		if h.used += recordMemory(rec); h.used <= holdMemoryMax {
			h.memory = append(h.memory, keepRecord(rec))
			return nil
		}
		if err := h.beginRest(); err != nil {
			return err
		}
	}
	if d, ok := rec.(*format.Data); ok {
		place := chunkPlace{h.spool.chunks, spooled}
		if spooled < 0 {
			at, err := h.chunks.write(d)
			if err != nil {
				return err
			}
			place = chunkPlace{h.chunks, at}
		}
		rec = h.placeRecord(place)
	}
	h.listed += contentSize(rec)
	return h.rest.w.Write(rec)
}

// chunkPlace is where a chunk is that was moved out of memory.
type chunkPlace struct {
	file *chunkFile
	at   int64
}

// placeRecordSize is the size of the payload that stands for a chunk's in rest:
// which file it is in, and where.
const placeRecordSize = 9

func (h *hold) placeRecord(p chunkPlace) *format.Data {
	payload := binary.BigEndian.AppendUint64(make([]byte, 0, placeRecordSize), uint64(p.at))
	var own byte
	if p.file == h.chunks {
		own = 1
	}
	return &format.Data{ID: runID, Size: placeRecordSize, Payload: append(payload, own)}
}

func (h *hold) placeOf(d *format.Data) chunkPlace {
	p := chunkPlace{h.spool.chunks, int64(binary.BigEndian.Uint64(d.Payload))}
	if d.Payload[placeRecordSize-1] == 1 {
		p.file = h.chunks
	}
	return p
}

func (h *hold) beginRest() (err error) {
	if h.rest, err = newRun(h.records, false); err != nil {
		return err
	}
	return h.rest.w.Write(&format.Entry{Path: "held", Type: format.TypeFile})
}

// finish ends the writing: from now on the content can be read.
func (h *hold) finish() error {
	if h.rest == nil || h.rest.w == nil {
		return nil
	}
	if err := h.rest.w.Write(&format.EOF{Size: h.listed}); err != nil {
		return err
	}
	return h.rest.finish()
}

// content returns a function that hands out the records of the content, in
// order, and neither a record nor a place after the last. Those in memory are
// not copies; a chunk that is not in memory comes as its place.
func (h *hold) content() (next func() (format.Record, chunkPlace, error), err error) {
	var rest *runReader
	if h.rest != nil {
		if rest, err = h.rest.open(); err != nil {
			return nil, err
		}
		if _, err := rest.next(); err != nil { // the entry
			return nil, err
		}
	}
	at := 0
	return func() (format.Record, chunkPlace, error) {
		if at < len(h.memory) {
			at++
			return h.memory[at-1], chunkPlace{}, nil
		}
		if rest == nil {
			return nil, chunkPlace{}, nil
		}
		rec, err := rest.next()
		switch r := rec.(type) {
		case *format.Data:
			return nil, h.placeOf(r), err
		case *format.EOF:
			rest, rec = nil, nil
		}
		return rec, chunkPlace{}, err
	}, nil
}

// pass hands all content to pass, chunks with their payloads.
func (h *hold) pass(pass func(format.Record) error) error {
	next, err := h.content()
	if err != nil {
		return err
	}
	for {
		rec, place, err := next()
		if err != nil {
			return err
		}
		if place.file == nil && rec == nil {
			return nil
		}
		if place.file == nil {
			if err := pass(rec); err != nil {
				return err
			}
			continue
		}
		d, err := place.file.load(place.at)
		if err != nil {
			return err
		}
		err = pass(d)
		if !d.Taken() {
			format.FreePayload(d.Payload)
		}
		if err != nil {
			return err
		}
	}
}

// discard forgets what is held.
func (h *hold) discard() error {
	for _, rec := range h.memory {
		if d, ok := rec.(*format.Data); ok && !d.Taken() {
			format.FreePayload(d.Payload)
		}
	}
	clear(h.memory)
	h.memory, h.used, h.size = h.memory[:0], 0, 0
	if h.rest == nil {
		return nil
	}
	h.rest, h.listed = nil, 0
	return errors.Join(h.chunks.reset(), h.records.reset())
}

func (h *hold) Close() error { return closeAll(h.chunks, h.records) }

// keepRecord makes a record one that may be kept. A payload is handed over, not
// copied.
func keepRecord(rec format.Record) format.Record {
	d, ok := rec.(*format.Data)
	if !ok {
		return format.Clone(rec)
	}
	head := format.Data{ID: d.ID, Size: d.Size, Codec: d.Codec, Once: d.Once, Extra: d.Extra}
	kept := format.Clone(&head).(*format.Data)
	kept.Payload, kept.Checked = d.Take(), d.Checked
	return kept
}

// contentSize returns how many bytes a record adds to its file.
func contentSize(rec format.Record) uint64 {
	switch r := rec.(type) {
	case *format.Data:
		return uint64(r.Size)
	case *format.Refs:
		var size uint64
		for _, ref := range r.Chunks {
			size += uint64(ref.Size)
		}
		return size
	case *format.CopyRange:
		return r.Size
	case *format.Hole:
		return r.Size
	}
	return 0
}

// recordMemory returns nearly how much memory a record of content takes.
func recordMemory(rec format.Record) int {
	size := 200
	var extra []format.Field
	switch r := rec.(type) {
	case *format.Data:
		// Buffers of the pool are as large as the next power of two.
		size, extra = size+cap(r.Payload), r.Extra
	case *format.Refs:
		size, extra = size+40*len(r.Chunks), r.Extra
	case *format.Extension:
		extra = r.Body
	case *format.Hole:
		extra = r.Extra
	case *format.CopyRange:
		extra = r.Extra
	}
	for i := range extra {
		size += 64 + len(extra[i].Key) + len(extra[i].Raw)
	}
	return size
}
