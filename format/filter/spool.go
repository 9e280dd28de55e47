package filter

import (
	"errors"
	"fmt"
	"io"

	"github.com/bk-backup/bk/format"
)

// spool keeps chunks, encoded as they came, that are not in the output and that
// a later refs may name. It needs an index of those alone: an id that it does
// not hold was sent before, or is for others to find fault with.
//
// Neither file nor index take memory that grows with the stream; both are
// encrypted and have no name (chunkfile.go, table.go).
type spool struct {
	chunks *chunkFile
	index  *table // id -> position in chunks, shifted, and whether it was sent
}

// The number that the index holds for a chunk.
const (
	spoolSent  = 1 << 0 // the output has it: it need not be sent again
	spoolShift = 1
)

func newSpool(dir string, random io.Reader) *spool {
	return &spool{chunks: newChunkFile(dir, random), index: newTable(dir, random)}
}

// keep takes a chunk in and returns its position in s.chunks. Sent says that the
// output has it all the same, and it is kept for a stage that looks at content.
// Keeping a chunk again costs a look-up.
func (s *spool) keep(d *format.Data, sent bool) (at int64, err error) {
	value, held, err := s.index.get(d.ID)
	if err != nil {
		return 0, err
	}
	if held {
		at = int64(value >> spoolShift)
		if sent && value&spoolSent == 0 {
			return at, s.index.put(d.ID, value|spoolSent)
		}
		return at, nil
	}
	if at, err = s.chunks.write(d); err != nil {
		return 0, err
	}
	value = uint64(at) << spoolShift
	if sent {
		value |= spoolSent
	}
	return at, s.index.put(d.ID, value)
}

// unsent reports whether the spool holds a chunk that the output does not have.
func (s *spool) unsent(id format.ID) (bool, error) {
	value, held, err := s.index.get(id)
	return held && value&spoolSent == 0, err
}

// noteSent says that the output has the chunk now, if the spool holds it.
func (s *spool) noteSent(id format.ID) error {
	if s.index.count() == 0 {
		return nil
	}
	value, held, err := s.index.get(id)
	if err != nil || !held || value&spoolSent != 0 {
		return err
	}
	return s.index.put(id, value|spoolSent)
}

// find returns the position of a chunk in s.chunks, and whether it is there.
func (s *spool) find(id format.ID) (at int64, held bool, err error) {
	value, held, err := s.index.get(id)
	return int64(value >> spoolShift), held, err
}

// sizeError is a reference that says another size than the chunk has.
func sizeError(ref format.ChunkRef, d *format.Data) error {
	return format.Errorf(format.ClassReference,
		"chunk %s is referred to with %d bytes, but was sent with %d", ref.ID, ref.Size, d.Size)
}

// sendRefs emits the chunks of a refs record: those that the output has as
// refs, the others as data. A refs record that needs no change goes as it is.
func (s *spool) sendRefs(r *format.Refs, emit func(format.Record) error) (resent int, err error) {
	if s.index.count() == 0 {
		return 0, emit(r)
	}
	from, extra := 0, r.Extra
	pass := func(to int) error {
		if from == to {
			return nil
		}
		part := &format.Refs{Chunks: r.Chunks[from:to], Extra: extra}
		if from == 0 && to == len(r.Chunks) {
			part = r
		}
		extra = nil
		return emit(part)
	}
	for i, ref := range r.Chunks {
		unsent, err := s.unsent(ref.ID)
		if err != nil {
			return resent, err
		}
		if !unsent {
			continue
		}
		if err := pass(i); err != nil {
			return resent, err
		}
		from = i + 1
		if err := s.send(ref, emit); err != nil {
			return resent, err
		}
		resent++
	}
	return resent, pass(len(r.Chunks))
}

// send emits a chunk that the output does not have yet.
func (s *spool) send(ref format.ChunkRef, emit func(format.Record) error) error {
	at, held, err := s.find(ref.ID)
	if err != nil {
		return err
	}
	if !held {
		return fmt.Errorf("the spool does not hold chunk %s", ref.ID)
	}
	d, err := s.chunks.load(at)
	if err != nil {
		return err
	}
	if d.Size != ref.Size {
		format.FreePayload(d.Payload)
		return sizeError(ref, d)
	}
	err = emit(d)
	if !d.Taken() {
		format.FreePayload(d.Payload)
	}
	if err != nil {
		return err
	}
	return s.noteSent(ref.ID)
}

// Size returns how many bytes the spool's chunks take, on disk.
func (s *spool) Size() int64 {
	if s == nil {
		return 0
	}
	return s.chunks.end()
}

func (s *spool) Close() error {
	if s == nil {
		return nil
	}
	return errors.Join(s.chunks.Close(), s.index.Close())
}
