package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/internal/spill"
)

// Inodes is what scans of several trees of one file system, whose records go
// into one stream, know of the files that the trees share by hard links: what
// their content consisted of when it went out. It is in temporary files beyond
// some hundred thousand files. It serves one scan at a time.
type Inodes struct {
	sent *sentSet

	mu    sync.Mutex // of places
	files *spill.Table

	// Of the goroutine that calls Scanner.Next:
	pieces *spill.Log
	place  int64 // of the file whose pieces are being added
	row    []byte
	batch  []piece
	failed error // to write pieces; sticky
}

// NewInodes returns what knows no file. Temporary files are made in dir, or where
// the system puts them if it is "".
func NewInodes(dir string) *Inodes {
	return &Inodes{sent: newSentSet(), files: spill.NewTable(dir), pieces: spill.NewLog(dir)}
}

// Close gives the temporary files back.
func (n *Inodes) Close() error { return errors.Join(n.files.Close(), n.pieces.Close()) }

// knownContent is a place among the pieces, of what is to be read next.
type knownContent struct{ place int64 }

// contentKey names a file by what a changed content would change. The time of
// its last change of status is not part of it: every further link sets it.
func contentKey(st *status) spill.Key {
	b := appendInode(make([]byte, 0, 40), linkKey{st.dev, st.ino})
	b = binary.BigEndian.AppendUint64(b, st.size)
	b = binary.BigEndian.AppendUint64(b, uint64(st.mtime.Sec))
	return spill.KeyOf('c', string(binary.BigEndian.AppendUint32(b, st.mtime.Nsec)))
}

func appendInode(b []byte, key linkKey) []byte {
	b = binary.BigEndian.AppendUint32(b, key.dev.Major)
	b = binary.BigEndian.AppendUint32(b, key.dev.Minor)
	return binary.BigEndian.AppendUint64(b, key.ino)
}

// find returns the content of a file that went out, or nil.
func (n *Inodes) find(st *status) (*knownContent, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	place, ok, err := n.files.Get(contentKey(st))
	if err != nil || !ok {
		return nil, err
	}
	return &knownContent{int64(place)}, nil
}

// Pieces lie one behind another, each a byte that says what it is and the rest
// of a row; the last one of a file is rowEnd.
const (
	rowEnd   = 0
	rowHole  = 1 // and its size
	rowChunk = 2 // and its size and id
	rowSize  = 1 + 8 + 32
	rowsRead = 256 // at a time
)

// begin says that the pieces of another file follow.
func (n *Inodes) begin() { n.place = n.pieces.Size() }

// add keeps a piece of the file that goes out.
func (n *Inodes) add(p *piece) {
	n.row = append(n.row[:0], rowChunk)
	if p.hole > 0 {
		n.row[0] = rowHole
		n.row = binary.BigEndian.AppendUint64(n.row, p.hole)
	} else {
		n.row = binary.BigEndian.AppendUint64(n.row, uint64(p.size))
	}
	n.row = append(n.row, p.id[:]...)
	n.write()
}

// write adds a row. That it failed is known in keep, before anybody relies on it.
func (n *Inodes) write() {
	if n.failed == nil {
		_, n.failed = n.pieces.Write(n.row)
	}
}

// keep says that all pieces of a file were added.
func (n *Inodes) keep(st *status) error {
	n.row = append(append(n.row[:0], rowEnd), make([]byte, rowSize-1)...)
	n.write()
	if n.failed != nil {
		return fmt.Errorf("scan: keep what a file consists of: %w", n.failed)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.files.Put(contentKey(st), uint64(n.place))
}

// read returns the next pieces, none at the end. They are valid until the next
// call.
func (n *Inodes) read(k *knownContent) ([]piece, error) {
	n.batch = n.batch[:0]
	rows := make([]byte, min(rowsRead*rowSize, n.pieces.Size()-k.place))
	if _, err := n.pieces.ReadAt(rows, k.place); err != nil {
		return nil, fmt.Errorf("scan: find what a file consists of: %w", err)
	}
	for ; len(rows) >= rowSize && rows[0] != rowEnd; rows = rows[rowSize:] {
		size := binary.BigEndian.Uint64(rows[1:])
		if rows[0] == rowHole {
			n.batch = append(n.batch, piece{hole: size})
		} else {
			n.batch = append(n.batch, piece{id: format.ID(rows[9:rowSize]), size: uint32(size), known: true})
		}
		k.place += rowSize
	}
	return n.batch, nil
}
