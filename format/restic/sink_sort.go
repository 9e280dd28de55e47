package restic

import (
	"encoding/binary"
	"errors"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/internal/spill"
)

// edit is one difference, as it goes into a tree.
type edit struct {
	path string
	what editKind
	node []byte // JSON: whole, or of a directory up to its content
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

// sorter puts the differences of a snapshot that is not sorted into order.
type sorter struct {
	rows     *spill.Sorter
	sequence uint64
	row      []byte
}

func newSorter(dir string, most int) *sorter {
	s := &sorter{rows: spill.NewSorter(dir, format.ComparePaths)}
	s.rows.SetMemory(most)
	return s
}

func (s *sorter) close() error { return s.rows.Close() }

// add takes a difference. Its row has the kind, a number that says when it came,
// and the node.
func (s *sorter) add(e edit) error {
	s.sequence++
	s.row = binary.AppendUvarint(append(s.row[:0], byte(e.what)), s.sequence)
	s.row = append(s.row, e.node...)
	return s.rows.Add(e.path, s.row)
}

// replay applies all differences in the order of paths, as if they had come one
// after another: the last one for a path wins, and one that is no directory takes
// what came before it below that path.
func (s *sorter) replay(t *treeWriter) error {
	r := replay{tree: t}
	if err := s.rows.Each(r.take); err != nil {
		return err
	}
	return r.apply()
}

// replay applies differences that come in the order of paths.
type replay struct {
	tree *treeWriter
	gone []removal // of paths above, the deepest last
	// What has come for the path so far: the last difference, if there is one that
	// nothing above has taken away, and the last that emptied the path.
	begun   bool // there was a path
	last    edit
	some    bool
	since   uint64 // what came before is gone
	emptied uint64 // 0: nothing has
}

// removal says that what had come below a path before a moment is gone.
type removal struct {
	path     string
	sequence uint64
}

// take takes the next row.
func (r *replay) take(path string, row []byte) error {
	if path != r.last.path || !r.begun {
		if err := r.apply(); err != nil {
			return err
		}
		r.begin(path)
	}
	sequence, n := binary.Uvarint(row[min(1, len(row)):])
	if n <= 0 {
		return errors.New("a sorted row of differences is damaged")
	}
	if sequence < r.since {
		return nil
	}
	r.some, r.last.what, r.last.node = true, editKind(row[0]), append(r.last.node[:0], row[1+n:]...)
	if r.last.what != editDir {
		r.emptied = sequence
	}
	return nil
}

// begin begins with a path.
func (r *replay) begin(path string) {
	for len(r.gone) > 0 && !format.IsBelow(path, r.gone[len(r.gone)-1].path) {
		r.gone = r.gone[:len(r.gone)-1]
	}
	r.begun, r.last.path, r.some, r.since, r.emptied = true, path, false, 0, 0
	if len(r.gone) > 0 {
		r.since = r.gone[len(r.gone)-1].sequence
	}
}

// apply applies what came for a path.
func (r *replay) apply() error {
	if !r.some {
		return nil
	}
	r.some = false
	if r.emptied > 0 {
		r.gone = append(r.gone, removal{r.last.path, r.emptied})
		if r.last.what == editDir {
			if err := r.tree.remove(r.last.path); err != nil {
				return err
			}
		}
	}
	err := r.last.apply(r.tree)
	if r.last.what == editDir {
		r.last.node = nil // the listing keeps it while it is in the directory
	}
	return err
}
