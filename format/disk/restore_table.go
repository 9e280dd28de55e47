//go:build linux

package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sort"
)

// tableKey is a hash: keys are spread evenly, or at least are never chosen so
// that more than a page of them share eight bytes.
type tableKey [16]byte

// tableValue is two numbers; the first is never tableGone.
type tableValue struct{ a, b uint64 }

const (
	tableGone      = ^uint64(0) // marks a deleted key that the run still has
	tableRowSize   = 32         // bytes of key and value in a run
	tablePageRows  = 128        // rows between two fences
	tablePageBytes = tablePageRows * tableRowSize
)

// table maps hashes to numbers in bounded memory: up to max keys in a map, and
// what is more in one sorted run in an unlinked file, of which memory holds
// eight bytes for each 128 keys. It is not safe for several goroutines.
type table struct {
	max    int
	create func() (*os.File, error) // makes an unlinked file
	recent map[tableKey]tableValue
	run    *os.File
	rows   int
	fences []uint64 // the first eight bytes of each page's first key
	page   []byte
}

func newTable(max int, create func() (*os.File, error)) *table {
	return &table{max: max, create: create, recent: make(map[tableKey]tableValue)}
}

// get returns the value of a key.
func (t *table) get(key tableKey) (v tableValue, ok bool, err error) {
	if v, ok := t.recent[key]; ok {
		return v, v.a != tableGone, nil
	}
	if t.rows == 0 {
		return v, false, nil
	}
	return t.find(key)
}

// find searches the run.
func (t *table) find(key tableKey) (v tableValue, ok bool, err error) {
	head := binary.BigEndian.Uint64(key[:8])
	// The key lies in the last page whose fence is below it, or, when its head
	// is a fence, perhaps in the page before.
	p := sort.Search(len(t.fences), func(i int) bool { return t.fences[i] >= head })
	if p > 0 {
		p--
	}
	for ; p < len(t.fences) && t.fences[p] <= head; p++ {
		rows, err := t.readPage(p)
		if err != nil {
			return v, false, err
		}
		n := len(rows) / tableRowSize
		i := sort.Search(n, func(i int) bool {
			return bytes.Compare(rows[i*tableRowSize:i*tableRowSize+16], key[:]) >= 0
		})
		if i < n {
			row := rows[i*tableRowSize : (i+1)*tableRowSize]
			if bytes.Equal(row[:16], key[:]) {
				return rowValue(row), true, nil
			}
			return v, false, nil
		}
	}
	return v, false, nil
}

func (t *table) readPage(p int) ([]byte, error) {
	if t.page == nil {
		t.page = make([]byte, tablePageBytes)
	}
	n := min(tablePageRows, t.rows-p*tablePageRows) * tableRowSize
	if _, err := t.run.ReadAt(t.page[:n], int64(p)*tablePageBytes); err != nil {
		return nil, fmt.Errorf("read a spilled table: %w", err)
	}
	return t.page[:n], nil
}

// put sets the value of a key.
func (t *table) put(key tableKey, v tableValue) error {
	t.recent[key] = v
	if len(t.recent) < t.max {
		return nil
	}
	return t.spill()
}

// remove takes a key out.
func (t *table) remove(key tableKey) error {
	if t.rows == 0 {
		delete(t.recent, key)
		return nil
	}
	return t.put(key, tableValue{a: tableGone})
}

// spill merges what is in memory with the run into a new run.
func (t *table) spill() (err error) {
	keys := make([]tableKey, 0, len(t.recent))
	for k := range t.recent {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b tableKey) int { return bytes.Compare(a[:], b[:]) })
	out, err := t.create()
	if err != nil {
		return fmt.Errorf("spill a table: %w", err)
	}
	m := tableMerge{out: out}
	defer func() {
		if err != nil {
			out.Close()
		}
	}()
	i := 0
	for p := range t.fences {
		rows, err := t.readPage(p)
		if err != nil {
			return err
		}
		for ; len(rows) > 0; rows = rows[tableRowSize:] {
			for i < len(keys) && bytes.Compare(keys[i][:], rows[:16]) < 0 {
				if err := m.add(keys[i], t.recent[keys[i]]); err != nil {
					return err
				}
				i++
			}
			if i < len(keys) && bytes.Equal(keys[i][:], rows[:16]) {
				continue // the newer value is written before the next row, or at the end
			}
			if err := m.add(tableKey(rows[:16]), rowValue(rows)); err != nil {
				return err
			}
		}
	}
	for ; i < len(keys); i++ {
		if err := m.add(keys[i], t.recent[keys[i]]); err != nil {
			return err
		}
	}
	if err := m.flush(); err != nil {
		return err
	}
	old := t.run
	t.run, t.rows, t.fences = out, m.rows, m.fences
	clear(t.recent)
	if old != nil {
		return old.Close()
	}
	return nil
}

func rowValue(row []byte) tableValue {
	return tableValue{binary.LittleEndian.Uint64(row[16:]), binary.LittleEndian.Uint64(row[24:])}
}

// tableMerge writes a run.
type tableMerge struct {
	out    io.Writer
	buf    []byte
	rows   int
	fences []uint64
}

func (m *tableMerge) add(key tableKey, v tableValue) error {
	if v.a == tableGone {
		return nil
	}
	if m.rows%tablePageRows == 0 {
		m.fences = append(m.fences, binary.BigEndian.Uint64(key[:8]))
	}
	m.rows++
	m.buf = append(m.buf, key[:]...)
	m.buf = binary.LittleEndian.AppendUint64(m.buf, v.a)
	m.buf = binary.LittleEndian.AppendUint64(m.buf, v.b)
	if len(m.buf) < 64*tablePageBytes {
		return nil
	}
	return m.flush()
}

func (m *tableMerge) flush() error {
	if _, err := m.out.Write(m.buf); err != nil {
		return fmt.Errorf("spill a table: %w", err)
	}
	m.buf = m.buf[:0]
	return nil
}

// reset empties the table.
func (t *table) reset() error {
	clear(t.recent)
	t.rows, t.fences = 0, nil
	return t.close()
}

func (t *table) close() error {
	run := t.run
	t.run = nil
	if run == nil {
		return nil
	}
	return run.Close()
}

// pathLog keeps every path that was placed, in order, and names each by a
// number that grows. Beyond pathLogBuffer bytes it lies in an unlinked file.
type pathLog struct {
	create func() (*os.File, error)
	file   *os.File
	stored uint64 // bytes in the file
	buf    []byte // what follows them
}

const pathLogBuffer = 1 << 20

// append adds a path and returns its number.
func (l *pathLog) append(path string) (uint64, error) {
	if len(l.buf) >= pathLogBuffer {
		if err := l.flush(); err != nil {
			return 0, err
		}
	}
	n := l.size()
	l.buf = binary.LittleEndian.AppendUint32(l.buf, uint32(len(path)))
	l.buf = append(l.buf, path...)
	// The length once more, so that the log can be read backwards.
	l.buf = binary.LittleEndian.AppendUint32(l.buf, uint32(len(path)))
	return n, nil
}

func (l *pathLog) flush() error {
	if l.file == nil {
		f, err := l.create()
		if err != nil {
			return fmt.Errorf("spill the list of paths: %w", err)
		}
		l.file = f
	}
	if _, err := l.file.WriteAt(l.buf, int64(l.stored)); err != nil {
		return fmt.Errorf("spill the list of paths: %w", err)
	}
	l.stored += uint64(len(l.buf))
	l.buf = l.buf[:0]
	return nil
}

// size is the number that the next path will get.
func (l *pathLog) size() uint64 { return l.stored + uint64(len(l.buf)) }

func (l *pathLog) read(p []byte, off uint64) error {
	if off >= l.stored {
		if off-l.stored+uint64(len(p)) > uint64(len(l.buf)) {
			return errors.New("read the list of paths: a number that was not given out")
		}
		copy(p, l.buf[off-l.stored:])
		return nil
	}
	if _, err := l.file.ReadAt(p, int64(off)); err != nil {
		return fmt.Errorf("read the list of paths: %w", err)
	}
	return nil
}

// path returns the path with the given number.
func (l *pathLog) path(n uint64) (string, error) {
	var size [4]byte
	if err := l.read(size[:], n); err != nil {
		return "", err
	}
	p := make([]byte, binary.LittleEndian.Uint32(size[:]))
	if err := l.read(p, n+4); err != nil {
		return "", err
	}
	return string(p), nil
}

// before returns the number and path just before the number n, which may be size().
func (l *pathLog) before(n uint64) (uint64, string, error) {
	var size [4]byte
	if err := l.read(size[:], n-4); err != nil {
		return 0, "", err
	}
	prev := n - 8 - uint64(binary.LittleEndian.Uint32(size[:]))
	path, err := l.path(prev)
	return prev, path, err
}

func (l *pathLog) close() error {
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}
