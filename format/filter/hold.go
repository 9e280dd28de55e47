package filter

import (
	"io"

	"github.com/bk-backup/bk/format"
)

// holdMemoryMax is how many bytes of a file that is held back are in memory.
const holdMemoryMax = 1 << 20

// hold keeps a file back until its content decides: at first in memory, then
// on disk, encrypted.
type hold struct {
	dir    string
	random io.Reader

	entry  *format.Entry
	fate   fate
	size   uint64 // plain bytes of content
	memory []format.Record
	used   int // bytes of memory, nearly

	file     *cryptFile
	rest     *run   // what did not fit into memory, nil if all did
	restSize uint64 // plain bytes of content in rest
}

func newHold(dir string, random io.Reader) *hold { return &hold{dir: dir, random: random} }

// begin takes a file's entry; nothing else is held.
func (h *hold) begin(e *format.Entry, f fate) {
	h.entry, h.fate, h.size = e.Clone(), f, 0
}

// add keeps a record of the content and takes its payload over.
func (h *hold) add(rec format.Record) error {
	size := contentSize(rec)
	h.size += size
	if h.rest == nil {
		if h.used += recordMemory(rec); h.used <= holdMemoryMax {
			h.memory = append(h.memory, keepRecord(rec))
			return nil
		}
		if err := h.beginRest(); err != nil {
			return err
		}
	}
	h.restSize += size
	return h.rest.w.Write(rec)
}

func (h *hold) beginRest() (err error) {
	if h.file == nil {
		if h.file, err = newCryptFile(h.dir, h.random); err != nil {
			return err
		}
	}
	if h.rest, err = newRun(h.file, false); err != nil {
		return err
	}
	return h.rest.w.Write(&format.Entry{Path: "held", Type: format.TypeFile})
}

// finish ends the writing: from now on the content can be read.
func (h *hold) finish() error {
	if h.rest == nil || h.rest.w == nil {
		return nil
	}
	if err := h.rest.w.Write(&format.EOF{Size: h.restSize}); err != nil {
		return err
	}
	return h.rest.finish()
}

// records returns a function that hands out the records of the content, in
// order, and nil after the last. They are those that are held, not copies.
func (h *hold) records() (next func() (format.Record, error), err error) {
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
	return func() (format.Record, error) {
		if at < len(h.memory) {
			at++
			return h.memory[at-1], nil
		}
		if rest == nil {
			return nil, nil
		}
		rec, err := rest.next()
		if _, atEnd := rec.(*format.EOF); atEnd {
			rest, rec = nil, nil
		}
		return rec, err
	}, nil
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
	h.rest, h.restSize = nil, 0
	return h.file.reset(h.random)
}

func (h *hold) Close() error { return h.file.Close() }

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
