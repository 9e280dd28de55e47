package spill

import (
	"bufio"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// sorterMemory is how many bytes of rows are sorted in memory.
const sorterMemory = 8 << 20

// rowMax bounds the bytes of a key and of a value, so that a damaged file cannot
// ask for more memory.
const rowMax = 1 << 31

// Sorter sorts rows, a key and a value each, by their keys; rows of one key stay
// in the order in which they came. What does not fit into memory goes to
// temporary files, one for each 8 MiB; where there are many of them they are
// merged. It is for one goroutine.
type Sorter struct {
	dir     string
	compare func(a, b string) int
	max     int
	rows    []sortRow
	size    int
	runs    []*os.File // oldest first
}

type sortRow struct {
	key   string
	value []byte
}

// NewSorter returns an empty sorter. Temporary files are made in dir, or where
// the system puts them if it is "".
func NewSorter(dir string, compare func(a, b string) int) *Sorter {
	return &Sorter{dir: dir, compare: compare, max: sorterMemory}
}

// SetMemory says how many bytes of rows are sorted in memory, instead of 8 MiB.
func (s *Sorter) SetMemory(bytes int) { s.max = bytes }

// Add takes a row, and copies the value.
func (s *Sorter) Add(key string, value []byte) error {
	s.rows = append(s.rows, sortRow{key, slices.Clone(value)})
	s.size += len(key) + len(value) + 64
	if s.size < s.max {
		return nil
	}
	return s.spill()
}

func (s *Sorter) sort() {
	slices.SortStableFunc(s.rows, func(a, b sortRow) int { return s.compare(a.key, b.key) })
}

// sorterRunsMax is how many files are open at a time.
const sorterRunsMax = 64

// spill writes the rows in memory to a file.
func (s *Sorter) spill() error {
	s.sort()
	err := s.writeRun(func(put func(key string, value []byte) error) error {
		for _, r := range s.rows {
			if err := put(r.key, r.value); err != nil {
				return err
			}
		}
		return nil
	})
	clear(s.rows)
	s.rows, s.size = s.rows[:0], 0
	if err != nil || len(s.runs) < sorterRunsMax {
		return err
	}
	old := s.runs
	s.runs = nil
	err = s.writeRun(func(put func(key string, value []byte) error) error { return s.merge(old, put) })
	for _, file := range old {
		err = errors.Join(err, file.Close())
	}
	return err
}

func (s *Sorter) writeRun(fill func(put func(key string, value []byte) error) error) error {
	file, err := unlinked(s.dir)
	if err != nil {
		return err
	}
	s.runs = append(s.runs, file)
	w := bufio.NewWriterSize(file, 1<<18)
	var head []byte
	err = fill(func(key string, value []byte) error {
		head = binary.AppendUvarint(head[:0], uint64(len(key)))
		head = binary.AppendUvarint(head, uint64(len(value)))
		_, err := w.Write(head)
		if err == nil {
			_, err = w.WriteString(key)
		}
		if err == nil {
			_, err = w.Write(value)
		}
		return err
	})
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		return fmt.Errorf("write to a temporary file: %w", err)
	}
	return nil
}

// Each calls fn with all rows in order. The value is valid until fn returns. The
// sorter is empty afterwards.
func (s *Sorter) Each(fn func(key string, value []byte) error) error {
	if len(s.runs) == 0 {
		s.sort()
		for _, r := range s.rows {
			if err := fn(r.key, r.value); err != nil {
				return err
			}
		}
		return s.Close()
	}
	if err := s.spill(); err != nil {
		return err
	}
	return errors.Join(s.merge(s.runs, fn), s.Close())
}

// Close gives the temporary files back.
func (s *Sorter) Close() error {
	var err error
	for _, file := range s.runs {
		err = errors.Join(err, file.Close())
	}
	s.runs, s.rows, s.size = nil, nil, 0
	return err
}

// merge hands out the rows of several files in order.
func (s *Sorter) merge(files []*os.File, fn func(key string, value []byte) error) error {
	m := &merger{compare: s.compare}
	for number, file := range files {
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return fmt.Errorf("read a temporary file: %w", err)
		}
		c := &mergeCursor{r: bufio.NewReaderSize(file, 1<<16), number: number}
		if err := m.push(c); err != nil {
			return err
		}
	}
	for len(m.cursors) > 0 {
		c := m.cursors[0]
		if err := fn(c.key, c.value); err != nil {
			return err
		}
		heap.Pop(m)
		if err := m.push(c); err != nil {
			return err
		}
	}
	return nil
}

// merger is a heap of cursors, by key and then by the age of their files.
type merger struct {
	compare func(a, b string) int
	cursors []*mergeCursor
}

type mergeCursor struct {
	r      *bufio.Reader
	number int
	key    string
	value  []byte
}

// push reads a cursor's next row and puts it into the heap, if there is one.
func (m *merger) push(c *mergeCursor) error {
	ok, err := c.next()
	if ok {
		heap.Push(m, c)
	}
	return err
}

func (c *mergeCursor) next() (bool, error) {
	keySize, err := binary.ReadUvarint(c.r)
	if err == io.EOF {
		return false, nil
	}
	valueSize, err2 := binary.ReadUvarint(c.r)
	if err := errors.Join(err, err2); err != nil {
		return false, fmt.Errorf("read a temporary file: %w", err)
	}
	if keySize > rowMax || valueSize > rowMax {
		return false, errors.New("read a temporary file: it is damaged")
	}
	key := make([]byte, keySize)
	c.value = slices.Grow(c.value[:0], int(valueSize))[:valueSize]
	if _, err = io.ReadFull(c.r, key); err == nil {
		_, err = io.ReadFull(c.r, c.value)
	}
	if err != nil {
		return false, fmt.Errorf("read a temporary file: %w", err)
	}
	c.key = string(key)
	return true, nil
}

func (m *merger) Len() int { return len(m.cursors) }
func (m *merger) Less(i, j int) bool {
	a, b := m.cursors[i], m.cursors[j]
	if order := m.compare(a.key, b.key); order != 0 {
		return order < 0
	}
	return a.number < b.number
}
func (m *merger) Swap(i, j int) { m.cursors[i], m.cursors[j] = m.cursors[j], m.cursors[i] }
func (m *merger) Push(x any)    { m.cursors = append(m.cursors, x.(*mergeCursor)) }
func (m *merger) Pop() any {
	last := m.cursors[len(m.cursors)-1]
	m.cursors = m.cursors[:len(m.cursors)-1]
	return last
}
