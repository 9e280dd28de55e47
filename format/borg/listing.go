package borg

import (
	"encoding/binary"
	"errors"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/internal/spill"
)

// listing is everything in a snapshot, in the order of paths: rows, which hold a
// packed item each. It is kept because an archive names all of its items, and a
// difference only what has changed.
type listing struct {
	log  *spill.Log
	rows uint64
	buf  []byte
}

func newListing(tempDir string) *listing { return &listing{log: spill.NewLog(tempDir)} }

func (l *listing) close() error { return l.log.Close() }

func (l *listing) reset() error {
	l.rows = 0
	return l.log.Reset()
}

// add appends a row.
func (l *listing) add(path string, row []byte) error {
	l.buf = binary.AppendUvarint(l.buf[:0], uint64(len(path)))
	l.buf = binary.AppendUvarint(l.buf, uint64(len(row)))
	l.buf = append(l.buf, path...)
	l.buf = append(l.buf, row...)
	l.rows++
	_, err := l.log.Write(l.buf)
	return err
}

// listingCursor goes through the rows of a listing that does not grow any more.
type listingCursor struct {
	of    *listing
	at    int64 // where the next row begins
	start int64 // where buf begins
	buf   []byte
}

func (l *listing) cursor() *listingCursor { return &listingCursor{of: l} }

const cursorSize = 64 << 10

// fill has n bytes from at on in memory, or fewer at the end.
func (c *listingCursor) fill(n int) ([]byte, error) {
	end := min(c.at+int64(n), c.of.log.Size())
	if c.at < c.start || end > c.start+int64(len(c.buf)) {
		size := int(min(max(int64(n), cursorSize), c.of.log.Size()-c.at))
		if cap(c.buf) < size {
			c.buf = make([]byte, size)
		}
		c.buf, c.start = c.buf[:size], c.at
		if _, err := c.of.log.ReadAt(c.buf, c.at); err != nil {
			return nil, err
		}
	}
	return c.buf[c.at-c.start:][:end-c.at], nil
}

// next returns the next row, which is valid until the call after.
func (c *listingCursor) next() (path string, row []byte, ok bool, err error) {
	if c.at == c.of.log.Size() {
		return "", nil, false, nil
	}
	head, err := c.fill(2 * binary.MaxVarintLen64)
	if err != nil {
		return "", nil, false, err
	}
	pathSize, a := binary.Uvarint(head)
	rowSize, b := binary.Uvarint(head[max(a, 0):])
	if a <= 0 || b <= 0 {
		return "", nil, false, errors.New("a row that was kept in a temporary file is damaged")
	}
	c.at += int64(a + b)
	all, err := c.fill(int(pathSize + rowSize))
	if err != nil {
		return "", nil, false, err
	}
	c.at += int64(pathSize + rowSize)
	return string(all[:pathSize]), all[pathSize:], true, nil
}

// The kinds of rows, their first byte; rowNew says that a record of the snapshot
// has put it there.
const (
	rowDir   = 0
	rowOther = 1
	rowNew   = 2
)

// isDir reports whether a row is that of a directory.
func isDir(row []byte) bool { return row[0]&^rowNew == rowDir }

// itemWrittenMax is the most bytes of an item that borg is given to read.
const itemWrittenMax = 64 << 20

// appendRow appends the row of an entry. The group of its hard links, as groupKey
// has it, stands before the item, which says nothing of them.
func appendRow(dst []byte, e *format.Entry, it *item) ([]byte, error) {
	kind := byte(rowOther)
	if e.Type == format.TypeDir {
		kind = rowDir
	}
	start := len(dst)
	dst = append(dst, kind, byte(len(e.Hardlink)))
	dst = append(dst, e.Hardlink...)
	dst = it.appendPacked(dst)
	if n := len(dst) - start; n > itemWrittenMax {
		return nil, errors.New("its item would have more bytes than borg reads")
	}
	return dst, nil
}

// splitRow divides a row into the group and the packed item.
func splitRow(row []byte) (group, packed []byte) {
	n := 2 + int(row[1])
	return row[2:n], row[n:]
}

// merger applies the records of a snapshot to the listing of its parent, both in
// the order of paths (spec/stream.md, section 6). What a record does to what lies
// below its path depends on which came first, so that each has a number; what is
// in the parent has the number 0.
type merger struct {
	old    *listingCursor
	next   oldRow
	out    *listing
	frames []frame // what lies above the path and concerns it
	now    pendingPath
}

type oldRow struct {
	path string
	row  []byte
	ok   bool
	read bool
}

// frame is a path below which something is gone, or must not be.
type frame struct {
	path string
	gone uint64 // what has a smaller number is gone
	leaf bool   // it is no directory
}

// pendingPath gathers what records say of one path.
type pendingPath struct {
	path string
	open bool
	row  []byte // nil: there is nothing
	seq  uint64 // of the record that said so
	gone uint64 // the number of the last record that empties what lies below
}

func newMerger(old *listing, tempDir string) *merger {
	return &merger{old: old.cursor(), out: newListing(tempDir)}
}

// close gives up what was merged.
func (m *merger) close() error {
	if m.out == nil {
		return nil
	}
	return m.out.close()
}

// look reads the parent's next row, if that was not done.
func (m *merger) look() error {
	if m.next.read {
		return nil
	}
	path, row, ok, err := m.old.next()
	m.next = oldRow{path, row, ok, true}
	return err
}

// advance takes over what the parent has before a path.
func (m *merger) advance(path string) error {
	for {
		if err := m.look(); err != nil {
			return err
		}
		if !m.next.ok || format.ComparePaths(m.next.path, path) >= 0 {
			return nil
		}
		if err := m.settle(m.next.path, m.next.row, 0, 0); err != nil {
			return err
		}
		m.next.read = false
	}
}

// edit takes a record, in the order of paths and then of numbers; row is nil for
// a removal.
func (m *merger) edit(path string, seq uint64, row []byte) error {
	if m.now.open && m.now.path != path {
		if err := m.settleNow(); err != nil {
			return err
		}
	}
	if !m.now.open {
		if err := m.advance(path); err != nil {
			return err
		}
		m.now = pendingPath{path: path, open: true, row: m.now.row[:0]}
		if m.next.ok && m.next.path == path {
			// Whatever the record says takes its place.
			m.next.read = false
		}
	}
	m.now.seq = seq
	if row == nil {
		m.now.row, m.now.gone = m.now.row[:0], seq
		return nil
	}
	m.now.row = append(m.now.row[:0], row...)
	if !isDir(row) {
		m.now.gone = seq
	}
	return nil
}

// editRow takes a record as appendEdit has it.
func (m *merger) editRow(path string, edit []byte) error {
	seq, n := binary.Uvarint(edit)
	if n <= 0 {
		return errors.New("a record that was kept in a temporary file is damaged")
	}
	if len(edit) == n {
		return m.edit(path, seq, nil)
	}
	return m.edit(path, seq, edit[n:])
}

// appendEdit encodes a record to be sorted; row is nil for a removal.
func appendEdit(dst []byte, seq uint64, row []byte) []byte {
	return append(binary.AppendUvarint(dst, seq), row...)
}

// peek returns the parent's row of the path that the next edit is of, valid until
// then.
func (m *merger) peek(path string) (row []byte, ok bool, err error) {
	if m.now.open {
		if m.now.path == path {
			return nil, false, nil
		}
		if err := m.settleNow(); err != nil {
			return nil, false, err
		}
	}
	if err := m.advance(path); err != nil {
		return nil, false, err
	}
	return m.next.row, m.next.ok && m.next.path == path, nil
}

// finish takes over the rest of the parent and returns the new listing.
func (m *merger) finish() (*listing, error) {
	if m.now.open {
		if err := m.settleNow(); err != nil {
			return nil, err
		}
	}
	for {
		if err := m.look(); err != nil {
			return nil, err
		}
		if !m.next.ok {
			out := m.out
			m.out = nil
			return out, nil
		}
		if err := m.settle(m.next.path, m.next.row, 0, 0); err != nil {
			return nil, err
		}
		m.next.read = false
	}
}

func (m *merger) settleNow() error {
	m.now.open = false
	row := m.now.row
	if len(row) == 0 {
		row = nil
	}
	return m.settle(m.now.path, row, m.now.seq, m.now.gone)
}

// settle decides whether a path is in the new listing. row is nil if nothing is
// there; seq is the number of what said so, gone that of the last record which
// emptied what lies below the path.
func (m *merger) settle(path string, row []byte, seq, gone uint64) error {
	for n := len(m.frames); n > 0 && !format.IsBelow(path, m.frames[n-1].path); n-- {
		m.frames = m.frames[:n-1]
	}
	above := frame{}
	if n := len(m.frames); n > 0 {
		above = m.frames[n-1]
	}
	present := row != nil && (above.gone == 0 || seq > above.gone)
	if present && above.leaf {
		if seq > 0 {
			return treeError(path, above.path)
		}
		present = false
	}
	if present {
		row[0] &^= rowNew
		if seq > 0 {
			row[0] |= rowNew
		}
		if err := m.out.add(path, row); err != nil {
			return err
		}
	}
	f := frame{path: path, gone: max(gone, above.gone), leaf: present && !isDir(row)}
	if f.gone > 0 || f.leaf {
		m.frames = append(m.frames, f)
	}
	return nil
}

func treeError(path, above string) error {
	e := format.Errorf(format.ClassTree, "an entry below %q, which is not a directory", above)
	e.Path = path
	return e
}
