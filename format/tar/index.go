package tar

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/internal/spill"
)

// index remembers every member of an archive that is being read, since a hard
// link may name any of them: its entry and which chunks its content is made of.
// It also knows which paths are not directories. Memory does not grow with it.
type index struct {
	table *spill.Table // of paths to values
	log   *spill.Log   // records
	okDir string       // a path of which all ancestors, and itself, are no leaf
	buf   []byte
}

// The spaces of names in the table.
const (
	spacePath  = 'p'
	spaceGroup = 'g' // paths whose member has begun a group of hard links
)

// A value in the table is that of a directory, or a record's place in the log
// shifted by one.
const valueDir = 0

// record is what the log has of a member that is no directory.
type record struct {
	place   int64
	pieces  int64 // where its pieces begin in the log
	at      int64 // where the member is in the archive
	dropped bool  // it is not in the listing, and its content was not read
	group   string
	entry   format.Entry
}

// A record in the log: a byte that says whether it was dropped, the group's
// name or zeros, at, the size of the entry, the entry, and pieces up to
// pieceEnd.
const (
	recordGroup    = 1
	recordHeadSize = 1 + sha256.Size + 8 + 4

	pieceEnd   = 0
	pieceHole  = 1 // and its size
	pieceChunk = 2 // and its size and id
)

func newIndex(tempDir string) *index {
	return &index{table: spill.NewTable(tempDir), log: spill.NewLog(tempDir)}
}

func (x *index) reset() error {
	x.okDir = ""
	return errors.Join(x.table.Reset(), x.log.Reset())
}

func (x *index) close() error { return errors.Join(x.table.Close(), x.log.Close()) }

// putDir remembers a directory.
func (x *index) putDir(path string) error {
	return x.table.Put(spill.KeyOf(spacePath, path), valueDir)
}

// put remembers another member. Its pieces follow, with addHole and addChunk,
// and end.
func (x *index) put(e *format.Entry, at int64, dropped bool) error {
	place := x.log.Size()
	head := [recordHeadSize]byte{}
	if dropped {
		head[0] = 1
	}
	binary.LittleEndian.PutUint64(head[1+sha256.Size:], uint64(at))
	x.buf = append(x.buf[:0], head[:]...)
	x.buf = e.AppendBody(x.buf, true)
	binary.LittleEndian.PutUint32(x.buf[recordHeadSize-4:], uint32(len(x.buf)-recordHeadSize))
	if _, err := x.log.Write(x.buf); err != nil {
		return err
	}
	return x.alias(e.Path, place, dropped)
}

// alias lets a path lead to the record at a place in the log.
func (x *index) alias(path string, place int64, dropped bool) error {
	if !dropped && (x.okDir == path || format.IsBelow(x.okDir, path)) {
		x.okDir = ""
	}
	return x.table.Put(spill.KeyOf(spacePath, path), uint64(place)<<1|1)
}

func (x *index) addHole(size uint64) error {
	return x.addPiece(binary.AppendUvarint(append(x.buf[:0], pieceHole), size))
}

func (x *index) addChunk(id format.ID, size uint32) error {
	return x.addPiece(append(binary.AppendUvarint(append(x.buf[:0], pieceChunk), uint64(size)), id[:]...))
}

func (x *index) end() error { return x.addPiece(append(x.buf[:0], pieceEnd)) }

func (x *index) addPiece(b []byte) error {
	x.buf = b
	_, err := x.log.Write(b)
	return err
}

// find returns the record of a path. There is none for directories and for
// what did not come yet.
func (x *index) find(path string) (*record, error) {
	value, ok, err := x.table.Get(spill.KeyOf(spacePath, path))
	if err != nil || !ok || value == valueDir {
		return nil, err
	}
	return x.read(int64(value >> 1))
}

func (x *index) read(place int64) (*record, error) {
	var head [recordHeadSize]byte
	if _, err := x.log.ReadAt(head[:], place); err != nil {
		return nil, err
	}
	r := &record{place: place, dropped: head[0] != 0}
	if group := head[recordGroup : recordGroup+sha256.Size]; [sha256.Size]byte(group) != [sha256.Size]byte{} {
		r.group = string(group)
	}
	r.at = int64(binary.LittleEndian.Uint64(head[recordGroup+sha256.Size:]))
	body := make([]byte, binary.LittleEndian.Uint32(head[recordHeadSize-4:]))
	r.pieces = place + recordHeadSize + int64(len(body))
	if _, err := x.log.ReadAt(body, place+recordHeadSize); err != nil {
		return nil, err
	}
	if _, err := r.entry.ParseBody(body, true); err != nil {
		return nil, fmt.Errorf("read an entry back: %w", err)
	}
	return r, nil
}

// begin makes a record's member the first of a group of hard links. The group is
// named by the path, and by more where an earlier member had the same path and
// a group.
func (x *index) begin(r *record) error {
	key := spill.KeyOf(spaceGroup, r.entry.Path)
	_, again, err := x.table.Get(key)
	if err != nil {
		return err
	}
	name := r.entry.Path
	if again {
		name = fmt.Sprintf("%s\x00%d", name, r.at)
	}
	sum := sha256.Sum256([]byte(name))
	r.group = string(sum[:])
	if err := x.table.Put(key, 1); err != nil {
		return err
	}
	_, err = x.log.WriteAt(sum[:], r.place+recordGroup)
	return err
}

// leafAbove returns the path of something above path that is no directory, or "".
func (x *index) leafAbove(path string) (string, error) {
	parent := format.ParentPath(path)
	if parent == "" || parent == x.okDir || format.IsBelow(x.okDir, parent) {
		return "", nil
	}
	for i := 0; i < len(parent); {
		if n := strings.IndexByte(parent[i:], '/'); n >= 0 {
			i += n
		} else {
			i = len(parent)
		}
		dir := parent[:i]
		i++
		if dir == x.okDir || format.IsBelow(x.okDir, dir) {
			continue
		}
		value, ok, err := x.table.Get(spill.KeyOf(spacePath, dir))
		if err != nil {
			return "", err
		}
		if !ok || value == valueDir {
			continue
		}
		r, err := x.read(int64(value >> 1))
		if err != nil {
			return "", err
		}
		if !r.dropped {
			return dir, nil
		}
	}
	x.okDir = parent
	return "", nil
}

// piece is a run of a file's content.
type piece struct {
	hole    uint64 // size, if it is a hole
	id      format.ID
	size    uint32
	codec   format.Codec
	payload []byte // nil: a chunk that came before
}

// piecesOf calls fn for each piece of a record.
func (x *index) piecesOf(r *record, fn func(p *piece) error) error {
	in := bufio.NewReader(io.NewSectionReader(x.log, r.pieces, x.log.Size()-r.pieces))
	for {
		kind, err := in.ReadByte()
		if err != nil {
			return fmt.Errorf("read chunks of %q back: %w", r.entry.Path, err)
		}
		if kind == pieceEnd {
			return nil
		}
		size, err := binary.ReadUvarint(in)
		var p piece
		switch {
		case err != nil:
		case kind == pieceHole:
			p.hole = size
		default:
			p.size = uint32(size)
			_, err = io.ReadFull(in, p.id[:])
		}
		if err != nil {
			return fmt.Errorf("read chunks of %q back: %w", r.entry.Path, err)
		}
		if err := fn(&p); err != nil {
			return err
		}
	}
}
