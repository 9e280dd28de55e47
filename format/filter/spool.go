package filter

import (
	"encoding/binary"
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
// encrypted and have no name (cryptfile.go, table.go).
type spool struct {
	dir    string
	random io.Reader
	chunks *cryptFile
	index  *table // id -> position in chunks, shifted, and whether it was sent
}

// The number that the index holds for a chunk.
const (
	spoolSent  = 1 << 0 // the output has it: it need not be sent again
	spoolShift = 1
)

// spoolHeadSize is the size of what stands before a chunk in the file: its plain
// size, the payload's and the unknown keys' sizes, codec and once.
const spoolHeadSize = 14

func newSpool(dir string, random io.Reader) *spool {
	return &spool{dir: dir, random: random, index: newTable(dir, random)}
}

// keep takes a chunk in. Sent says that the output has it all the same, and it
// is kept for a stage that looks at content. Keeping a chunk again costs a
// look-up.
func (s *spool) keep(d *format.Data, sent bool) error {
	value, held, err := s.index.get(d.ID)
	if err != nil {
		return err
	}
	if held {
		if sent && value&spoolSent == 0 {
			return s.index.put(d.ID, value|spoolSent)
		}
		return nil
	}
	if s.chunks == nil {
		if s.chunks, err = newCryptFile(s.dir, s.random); err != nil {
			return err
		}
	}
	value = uint64(s.chunks.end()) << spoolShift
	if sent {
		value |= spoolSent
	}
	if err := s.write(d); err != nil {
		return err
	}
	return s.index.put(d.ID, value)
}

func (s *spool) write(d *format.Data) error {
	extra := appendFields(nil, d.Extra)
	var head [spoolHeadSize]byte
	binary.BigEndian.PutUint32(head[0:], d.Size)
	binary.BigEndian.PutUint32(head[4:], uint32(len(d.Payload)))
	binary.BigEndian.PutUint32(head[8:], uint32(len(extra)))
	if d.Codec == format.CodecZstd {
		head[12] = 1
	}
	if d.Once {
		head[13] = 1
	}
	for _, part := range [][]byte{head[:], extra, d.Payload} {
		if _, err := s.chunks.Write(part); err != nil {
			return err
		}
	}
	return nil
}

// unsent reports whether the spool holds a chunk that the output does not have.
func (s *spool) unsent(id format.ID) (bool, error) {
	value, held, err := s.index.get(id)
	return held && value&spoolSent == 0, err
}

// holds reports whether the spool has the chunk, sent or not.
func (s *spool) holds(id format.ID) (bool, error) {
	_, held, err := s.index.get(id)
	return held, err
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

// load returns a chunk that the spool holds. Its payload is a buffer of
// format.AllocPayload, the caller's to free.
func (s *spool) load(ref format.ChunkRef) (*format.Data, error) {
	value, held, err := s.index.get(ref.ID)
	if err != nil {
		return nil, err
	}
	if !held {
		return nil, fmt.Errorf("the spool does not hold chunk %s", ref.ID)
	}
	at := int64(value >> spoolShift)
	var head [spoolHeadSize]byte
	if _, err := s.chunks.ReadAt(head[:], at); err != nil {
		return nil, spoolError(err)
	}
	d := &format.Data{ID: ref.ID, Size: binary.BigEndian.Uint32(head[0:]), Codec: format.CodecNone, Once: head[13] == 1}
	if head[12] == 1 {
		d.Codec = format.CodecZstd
	}
	if d.Size != ref.Size {
		return nil, format.Errorf(format.ClassReference,
			"chunk %s is referred to with %d bytes, but was sent with %d", ref.ID, ref.Size, d.Size)
	}
	at += spoolHeadSize
	if size := binary.BigEndian.Uint32(head[8:]); size > 0 {
		extra := make([]byte, size)
		if _, err := s.chunks.ReadAt(extra, at); err != nil {
			return nil, spoolError(err)
		}
		d.Extra = parseFields(extra)
		at += int64(size)
	}
	d.Payload = format.AllocPayload(int(binary.BigEndian.Uint32(head[4:])))
	if _, err := s.chunks.ReadAt(d.Payload, at); err != nil {
		format.FreePayload(d.Payload)
		return nil, spoolError(err)
	}
	return d, nil
}

// spoolError keeps an end of file in the spool from passing for the end of a
// stream.
func spoolError(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("read from the spool: it is shorter than what was written")
	}
	return err
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
	d, err := s.load(ref)
	if err != nil {
		return err
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
	if s == nil || s.chunks == nil {
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

// appendFields and parseFields carry unknown keys through the spool.
func appendFields(dst []byte, fields []format.Field) []byte {
	for _, f := range fields {
		dst = append(binary.AppendUvarint(dst, uint64(len(f.Key))), f.Key...)
		dst = append(binary.AppendUvarint(dst, uint64(len(f.Raw))), f.Raw...)
	}
	return dst
}

func parseFields(b []byte) []format.Field {
	var fields []format.Field
	next := func() []byte {
		n, size := binary.Uvarint(b)
		part := b[size : size+int(n)]
		b = b[size+int(n):]
		return part
	}
	for len(b) > 0 {
		key := string(next())
		fields = append(fields, format.Field{Key: key, Raw: next()})
	}
	return fields
}
