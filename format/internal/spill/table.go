package spill

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sort"
)

// Key is a hash, spread evenly over its values.
type Key [16]byte

// KeyOf returns the key of a name in a space of names of its own.
func KeyOf(space byte, name string) Key {
	h := sha256.New()
	h.Write([]byte{space})
	h.Write([]byte(name))
	var sum [sha256.Size]byte
	return Key(h.Sum(sum[:0])[:16])
}

const (
	rowSize   = 24  // bytes of key and value in a run
	pageRows  = 128 // rows between two fences
	pageBytes = pageRows * rowSize

	// tableMemory is how many keys are in memory, about 12 MiB of them.
	tableMemory = 200_000
)

// Table maps keys to numbers. Beyond some hundred thousand keys they go to
// temporary files, sorted, of which memory holds 8 bytes for each 128 keys. It
// is for one goroutine.
type Table struct {
	dir    string
	max    int
	recent map[Key]uint64
	runs   []*run // oldest, and greatest, first
}

// run is keys and values in a temporary file, sorted, each key once.
type run struct {
	file   *os.File
	rows   int
	fences []uint64 // the first eight bytes of each page's first key
}

// NewTable returns an empty table. Temporary files are made in dir, or where the
// system puts them if it is "".
func NewTable(dir string) *Table { return newTable(dir, tableMemory) }

func newTable(dir string, most int) *Table {
	return &Table{dir: dir, max: most, recent: make(map[Key]uint64)}
}

// Get returns the value of a key.
func (t *Table) Get(key Key) (value uint64, ok bool, err error) {
	if v, ok := t.recent[key]; ok {
		return v, true, nil
	}
	for _, r := range slices.Backward(t.runs) {
		if v, ok, err := r.get(key); ok || err != nil {
			return v, ok, err
		}
	}
	return 0, false, nil
}

// Put sets the value of a key.
func (t *Table) Put(key Key, value uint64) error {
	t.recent[key] = value
	if len(t.recent) < t.max {
		return nil
	}
	return t.spill()
}

// spill makes a run of what is in memory, and one of any two runs of which the
// older is not much greater, so that there are few.
func (t *Table) spill() error {
	keys := make([]Key, 0, len(t.recent))
	for k := range t.recent {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b Key) int { return bytes.Compare(a[:], b[:]) })
	w, err := newRunWriter(t.dir)
	if err != nil {
		return err
	}
	for _, k := range keys {
		w.add(k, t.recent[k])
	}
	r, err := w.finish()
	if err != nil {
		return err
	}
	t.runs = append(t.runs, r)
	clear(t.recent)
	for n := len(t.runs); n >= 2 && t.runs[n-2].rows <= 2*t.runs[n-1].rows; n = len(t.runs) {
		merged, err := t.merge(t.runs[n-2], t.runs[n-1])
		if err != nil {
			return err
		}
		err = errors.Join(t.runs[n-2].file.Close(), t.runs[n-1].file.Close())
		t.runs = append(t.runs[:n-2], merged)
		if err != nil {
			return fmt.Errorf("close a temporary file: %w", err)
		}
	}
	return nil
}

// merge joins two runs; the newer one's values win.
func (t *Table) merge(older, newer *run) (*run, error) {
	w, err := newRunWriter(t.dir)
	if err != nil {
		return nil, err
	}
	a, b := cursor{run: older}, cursor{run: newer}
	for {
		x, errA := a.row()
		y, errB := b.row()
		if err := errors.Join(errA, errB); err != nil {
			return nil, errors.Join(err, w.run.file.Close())
		}
		if x == nil && y == nil {
			return w.finish()
		}
		order := 0
		switch {
		case x == nil:
			order = 1
		case y == nil:
			order = -1
		default:
			order = bytes.Compare(x[:16], y[:16])
		}
		if order < 0 {
			w.add(Key(x[:16]), rowValue(x))
		} else {
			w.add(Key(y[:16]), rowValue(y))
		}
		if order <= 0 {
			a.at++
		}
		if order >= 0 {
			b.at++
		}
	}
}

// Reset empties the table.
func (t *Table) Reset() error {
	clear(t.recent)
	return t.Close()
}

// Close gives the temporary files back.
func (t *Table) Close() error {
	var err error
	for _, r := range t.runs {
		err = errors.Join(err, r.file.Close())
	}
	t.runs = nil
	return err
}

// page reads the page with the given number.
func (r *run) page(buf []byte, number int) ([]byte, error) {
	rows := min(pageRows, r.rows-number*pageRows)
	buf = slices.Grow(buf[:0], pageBytes)[:rows*rowSize]
	if _, err := r.file.ReadAt(buf, int64(number)*pageBytes); err != nil {
		return nil, fmt.Errorf("read a temporary file: %w", err)
	}
	return buf, nil
}

func (r *run) get(key Key) (uint64, bool, error) {
	head := binary.BigEndian.Uint64(key[:8])
	// Keys with equal heads do not happen among hashes often enough to fill a
	// page, so that the last page that begins below or at head has the key, or
	// the one before.
	p := sort.Search(len(r.fences), func(i int) bool { return r.fences[i] > head }) - 1
	for ; p >= 0; p-- {
		rows, err := r.page(nil, p)
		if err != nil {
			return 0, false, err
		}
		n := len(rows) / rowSize
		i := sort.Search(n, func(i int) bool { return bytes.Compare(rows[i*rowSize:i*rowSize+16], key[:]) >= 0 })
		if i < n && bytes.Equal(rows[i*rowSize:i*rowSize+16], key[:]) {
			return rowValue(rows[i*rowSize:]), true, nil
		}
		if i > 0 || r.fences[p] < head {
			return 0, false, nil
		}
	}
	return 0, false, nil
}

func rowValue(row []byte) uint64 { return binary.LittleEndian.Uint64(row[16:]) }

// cursor goes through a run.
type cursor struct {
	run  *run
	at   int
	buf  []byte
	page int // 1 + the number of the page in buf
}

// row returns the row that the cursor stands at, or nil behind the last one.
func (c *cursor) row() ([]byte, error) {
	if c.at == c.run.rows {
		return nil, nil
	}
	if number := c.at / pageRows; c.page != number+1 {
		buf, err := c.run.page(c.buf, number)
		if err != nil {
			return nil, err
		}
		c.buf, c.page = buf, number+1
	}
	return c.buf[c.at%pageRows*rowSize:], nil
}

// runWriter writes a run. An error is sticky until finish.
type runWriter struct {
	run *run
	buf []byte
	err error
}

func newRunWriter(dir string) (*runWriter, error) {
	file, err := unlinked(dir)
	if err != nil {
		return nil, err
	}
	return &runWriter{run: &run{file: file}}, nil
}

func (w *runWriter) add(key Key, value uint64) {
	if w.run.rows%pageRows == 0 {
		w.run.fences = append(w.run.fences, binary.BigEndian.Uint64(key[:8]))
	}
	w.run.rows++
	w.buf = append(w.buf, key[:]...)
	w.buf = binary.LittleEndian.AppendUint64(w.buf, value)
	if len(w.buf) >= 64*pageBytes {
		w.flush()
	}
}

func (w *runWriter) flush() {
	if _, err := w.run.file.Write(w.buf); err != nil && w.err == nil {
		w.err = fmt.Errorf("write to a temporary file: %w", err)
	}
	w.buf = w.buf[:0]
}

func (w *runWriter) finish() (*run, error) {
	w.flush()
	if w.err != nil {
		return nil, errors.Join(w.err, w.run.file.Close())
	}
	return w.run, nil
}
