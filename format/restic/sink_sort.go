package restic

import (
	"bufio"
	"cmp"
	"container/heap"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"slices"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/internal/spill"
)

// edit is one difference, as it goes into a tree.
type edit struct {
	path     string
	what     editKind
	node     []byte // JSON: whole, or of a directory up to its content
	sequence uint64
}

type editKind uint8

const (
	editRemove editKind = iota
	editPut
	editDir
)

// apply puts a difference into a listing, in the order of paths.
func (e *edit) apply(t *treeWriter) error {
	switch e.what {
	case editRemove:
		return t.remove(e.path)
	case editDir:
		return t.putDir(e.path, e.node)
	}
	return t.put(e.path, e.node)
}

// sorterBytesMax is how many bytes of differences are sorted in memory.
const sorterBytesMax = 32 << 20

// sorter puts the differences of a snapshot that is not sorted into order. What
// does not fit into memory is kept in sorted runs on disk.
type sorter struct {
	log     *spill.Log
	runs    []int64 // where each begins in log
	recent  []edit
	bytes   int
	max     int // bytes in memory
	counter uint64
}

func newSorter(dir string, most int) *sorter { return &sorter{log: spill.NewLog(dir), max: most} }

func (s *sorter) close() error { return s.log.Close() }

func (s *sorter) add(e edit) error {
	s.counter++
	e.sequence = s.counter
	s.recent = append(s.recent, e)
	if s.bytes += len(e.path) + len(e.node) + 64; s.bytes < s.max {
		return nil
	}
	return s.spill()
}

func inOrder(a, b edit) int {
	return cmp.Or(format.ComparePaths(a.path, b.path), cmp.Compare(a.sequence, b.sequence))
}

// spill writes what is in memory as a run.
func (s *sorter) spill() error {
	slices.SortFunc(s.recent, inOrder)
	s.runs = append(s.runs, s.log.Size())
	var head []byte
	for i := range s.recent {
		e := &s.recent[i]
		head = binary.AppendUvarint(head[:0], uint64(len(e.path)))
		head = binary.AppendUvarint(head, uint64(len(e.node)))
		head = binary.AppendUvarint(head, e.sequence)
		head = append(head, byte(e.what))
		for _, b := range [][]byte{head, []byte(e.path), e.node} {
			if _, err := s.log.Write(b); err != nil {
				return err
			}
		}
	}
	s.recent, s.bytes = s.recent[:0], 0
	return nil
}

// replay applies all differences in the order of paths, as if they had come one
// after another: the last one for a path wins, and one that is no directory takes
// what came before it below that path.
func (s *sorter) replay(t *treeWriter) error {
	next, err := s.merged()
	if err != nil {
		return err
	}
	var gone []removal // of paths above, the deepest last
	var group []edit   // all of one path
	for {
		e, err := next()
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		ended := err != nil
		if len(group) > 0 && (ended || group[0].path != e.path) {
			if gone, err = applyGroup(t, group, gone); err != nil {
				return err
			}
			group = group[:0]
		}
		if ended {
			return s.close()
		}
		group = append(group, e)
	}
}

// removal says that what had come below a path before a moment is gone.
type removal struct {
	path     string
	sequence uint64
}

// applyGroup applies what came for one path.
func applyGroup(t *treeWriter, group []edit, gone []removal) ([]removal, error) {
	path := group[0].path
	for len(gone) > 0 && !format.IsBelow(path, gone[len(gone)-1].path) {
		gone = gone[:len(gone)-1]
	}
	since := uint64(0)
	if len(gone) > 0 {
		since = gone[len(gone)-1].sequence
	}
	var last *edit
	emptied := uint64(0)
	for i := range group {
		e := &group[i]
		if e.sequence < since {
			continue
		}
		last = e
		if e.what != editDir {
			emptied = e.sequence
		}
	}
	if last == nil {
		return gone, nil
	}
	if emptied > 0 {
		gone = append(gone, removal{path, emptied})
		if last.what == editDir {
			if err := t.remove(path); err != nil {
				return gone, err
			}
		}
	}
	return gone, last.apply(t)
}

// merged returns a function that returns the differences in order, then io.EOF.
func (s *sorter) merged() (func() (edit, error), error) {
	slices.SortFunc(s.recent, inOrder)
	var h runHeap
	for i, begin := range s.runs {
		end := s.log.Size()
		if i+1 < len(s.runs) {
			end = s.runs[i+1]
		}
		r := &sortedRun{in: bufio.NewReaderSize(io.NewSectionReader(s.log, begin, end-begin), 64<<10)}
		if err := r.next(); err != nil {
			return nil, err
		}
		h = append(h, r)
	}
	if len(s.recent) > 0 {
		h = append(h, &sortedRun{rest: s.recent[1:], edit: s.recent[0]})
	}
	heap.Init(&h)
	return func() (edit, error) {
		if len(h) == 0 {
			return edit{}, io.EOF
		}
		e := h[0].edit
		err := h[0].next()
		switch {
		case err == nil:
			heap.Fix(&h, 0)
		case errors.Is(err, io.EOF):
			heap.Pop(&h)
		default:
			return e, err
		}
		return e, nil
	}, nil
}

// sortedRun is a run that is being read, or what is in memory.
type sortedRun struct {
	in   *bufio.Reader
	rest []edit
	edit edit
}

func (r *sortedRun) next() error {
	if r.in == nil {
		if len(r.rest) == 0 {
			return io.EOF
		}
		r.edit, r.rest = r.rest[0], r.rest[1:]
		return nil
	}
	var numbers [3]uint64
	for i := range numbers {
		var err error
		if numbers[i], err = binary.ReadUvarint(r.in); err != nil {
			return err
		}
	}
	what, err := r.in.ReadByte()
	if err != nil {
		return err
	}
	if numbers[0]+numbers[1] > math.MaxInt32 {
		return errors.New("a sorted run of differences is damaged")
	}
	b := make([]byte, numbers[0]+numbers[1])
	if _, err := io.ReadFull(r.in, b); err != nil {
		return err
	}
	r.edit = edit{path: string(b[:numbers[0]]), node: b[numbers[0]:], sequence: numbers[2], what: editKind(what)}
	return nil
}

// runHeap has the run with the first difference at its top.
type runHeap []*sortedRun

func (h runHeap) Len() int           { return len(h) }
func (h runHeap) Less(i, j int) bool { return inOrder(h[i].edit, h[j].edit) < 0 }
func (h runHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *runHeap) Push(x any)        { *h = append(*h, x.(*sortedRun)) }
func (h *runHeap) Pop() any {
	old := *h
	r := old[len(old)-1]
	*h = old[:len(old)-1]
	return r
}
