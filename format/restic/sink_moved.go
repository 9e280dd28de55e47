package restic

import (
	"encoding/binary"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/internal/spill"
)

// moved knows in which chunks of the repository the bytes of chunks of the
// stream lie.
type moved struct {
	table *spill.Table // place in log; or, with a high bit, that a chunk stays as it is
	log   *spill.Log

	// Of the file that is being cut:
	spans  []span // chunks of the stream that are not stored to their ends
	recent []stay // chunks that were cut, from the first span on
}

// span is where in the file a chunk of the stream lies.
type span struct {
	id         format.ID
	begin, end uint64
}

// stay is a chunk as it is stored, and where in the file it begins.
type stay struct {
	piece
	begin uint64
}

// What a value of the table says besides a place.
const (
	staysWhole = 1 << 63
	staysCut   = 1 << 62 // and it ends where its content says so
)

// stays notes that a chunk is stored as it came.
func (m *moved) stays(ref format.ChunkRef, cut bool) error {
	v := uint64(staysWhole) | uint64(ref.Size)
	if cut {
		v |= staysCut
	}
	return m.table.Put(blobKey(&ref.ID), v)
}

// add takes a chunk that was cut, and writes down the chunks of the stream that
// end in it.
func (m *moved) add(s stay) error {
	m.recent = append(m.recent, s)
	end := s.begin + uint64(s.Size)
	for len(m.spans) > 0 && m.spans[0].end <= end {
		if err := m.write(m.spans[0]); err != nil {
			return err
		}
		m.spans = m.spans[1:]
	}
	if len(m.spans) == 0 {
		m.spans, m.recent = nil, m.recent[:0]
		return nil
	}
	for len(m.recent) > 0 && m.recent[0].begin+uint64(m.recent[0].Size) <= m.spans[0].begin {
		m.recent = append(m.recent[:0], m.recent[1:]...)
	}
	return nil
}

// rowSize is what the log has of each chunk: id, size, and whether it ends at a
// cut.
const movedRowSize = 32 + 4 + 1

// write notes where a chunk of the stream lies.
func (m *moved) write(s span) error {
	key := blobKey(&s.id)
	if _, ok, err := m.table.Get(key); ok || err != nil {
		return err
	}
	row := make([]byte, 8, 8+2*movedRowSize)
	count := uint32(0)
	for i := range m.recent {
		b := &m.recent[i]
		if b.begin+uint64(b.Size) <= s.begin || b.begin >= s.end {
			continue
		}
		if count == 0 {
			binary.LittleEndian.PutUint32(row[4:], uint32(s.begin-b.begin))
		}
		count++
		row = append(row, b.ID[:]...)
		row = binary.LittleEndian.AppendUint32(row, b.Size)
		if b.cut {
			row = append(row, 1)
		} else {
			row = append(row, 0)
		}
	}
	binary.LittleEndian.PutUint32(row, count)
	at := m.log.Size()
	if _, err := m.log.Write(row); err != nil {
		return err
	}
	return m.table.Put(key, uint64(at))
}

// get returns the chunks in which a chunk of the stream lies, from offset of the
// first one on.
func (m *moved) get(id *format.ID) (list []piece, offset uint64, ok bool, err error) {
	v, ok, err := m.table.Get(blobKey(id))
	if !ok || err != nil {
		return nil, 0, false, err
	}
	if v&staysWhole != 0 {
		ref := format.ChunkRef{ID: *id, Size: uint32(v)}
		return []piece{{ChunkRef: ref, cut: v&staysCut != 0}}, 0, true, nil
	}
	var head [8]byte
	if _, err := m.log.ReadAt(head[:], int64(v)); err != nil {
		return nil, 0, false, err
	}
	rows := make([]byte, int(binary.LittleEndian.Uint32(head[:]))*movedRowSize)
	if _, err := m.log.ReadAt(rows, int64(v)+int64(len(head))); err != nil {
		return nil, 0, false, err
	}
	for ; len(rows) > 0; rows = rows[movedRowSize:] {
		ref := format.ChunkRef{ID: format.ID(rows[:32]), Size: binary.LittleEndian.Uint32(rows[32:])}
		list = append(list, piece{ChunkRef: ref, cut: rows[36] != 0})
	}
	return list, uint64(binary.LittleEndian.Uint32(head[4:])), true, nil
}
