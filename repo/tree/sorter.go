package tree

import (
	"bufio"
	"cmp"
	"container/heap"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/bk-backup/bk/format"
)

// SorterOptions choose where and when a Sorter spools. The zero value is fine.
type SorterOptions struct {
	Dir       string    // for the temporary file; "" is the system's directory
	MemoryMax int       // bytes of edits kept in memory; 0 is 64 MiB
	Rand      io.Reader // for the temporary file's key; nil is crypto/rand
}

// Sorter takes edits in any order and gives an Updater what is left of them, in
// path order. It is for streams that say "sorted: false" (spec/stream.md).
//
// The edits apply in the order in which they were given: the last record for a
// path wins, a Remove takes what was put at and below its path before, and so
// does an entry that is not a directory for what was put below it. Only what
// comes of it is checked: an entry may be put below one that is not a directory
// if another edit makes that one a directory, or removes it, later.
//
// Beyond MemoryMax sorted runs go into an encrypted, unlinked temporary file.
type Sorter struct {
	ctx    context.Context
	chunks Chunks
	opts   SorterOptions
	enc    itemEncoder
	item   Item
	edits  []sortedEdit
	size   int // bytes in edits
	seq    uint64
	spool  *spool
	runs   [][2]int64 // begin and end of each run, in blocks
	err    error
}

// sortedEdit is an edit and its number.
type sortedEdit struct {
	path  string
	seq   uint64
	kind  editKind
	bytes uint64
	raw   []byte
	// As in Item.
	n, bodyEnd, contentEnd int
}

type editKind uint8

const (
	editRemove editKind = iota
	editPutDir
	editPutOther
)

// editOverhead is what an edit takes in memory besides path and raw.
const editOverhead = 128

// NewSorter returns a Sorter whose items go into chunks. Close must be called.
func NewSorter(ctx context.Context, chunks Chunks, opts SorterOptions) *Sorter {
	if opts.MemoryMax == 0 {
		opts.MemoryMax = 64 << 20
	}
	if opts.Rand == nil {
		opts.Rand = rand.Reader
	}
	return &Sorter{ctx: ctx, chunks: chunks, opts: opts}
}

// Close removes the temporary file.
func (s *Sorter) Close() error {
	s.edits = nil
	if s.err == nil {
		s.err = errors.New("the sorter was closed")
	}
	if s.spool == nil {
		return nil
	}
	sp := s.spool
	s.spool = nil
	return sp.close()
}

// Put takes an entry, as Updater.Put does.
func (s *Sorter) Put(e *format.Entry, content Content, eof []byte) error {
	if s.err == nil {
		s.item.raw = nil // the edit before keeps it
		s.err = s.enc.encode(s.ctx, s.chunks, &s.item, e, content, eof)
	}
	kind := editPutOther
	if e.Type == format.TypeDir {
		kind = editPutDir
	}
	it := &s.item
	return s.add(sortedEdit{path: it.Path, kind: kind, bytes: it.bytes, raw: it.raw, n: it.n, bodyEnd: it.bodyEnd, contentEnd: it.contentEnd})
}

// Remove takes a path that is removed with all below it.
func (s *Sorter) Remove(path string) error {
	if s.err == nil {
		s.err = format.CheckPath(path)
	}
	return s.add(sortedEdit{path: path, kind: editRemove})
}

func (s *Sorter) add(e sortedEdit) error {
	if s.err != nil {
		return s.err
	}
	s.seq++
	e.seq = s.seq
	s.edits = append(s.edits, e)
	if s.size += editOverhead + len(e.path) + len(e.raw); s.size > s.opts.MemoryMax {
		s.err = s.spill()
	}
	return s.err
}

func compareEdits(a, b *sortedEdit) int {
	if c := format.ComparePaths(a.path, b.path); c != 0 {
		return c
	}
	return cmp.Compare(a.seq, b.seq)
}

func (s *Sorter) sort() {
	slices.SortFunc(s.edits, func(a, b sortedEdit) int { return compareEdits(&a, &b) })
}

// spill writes the edits in memory as a run.
func (s *Sorter) spill() (err error) {
	if s.spool == nil {
		if s.spool, err = newSpool(s.opts.Dir, s.opts.Rand); err != nil {
			return err
		}
	}
	s.sort()
	begin := s.spool.blocks
	w := s.spool.writeRun()
	var head []byte
	for i := range s.edits {
		e := &s.edits[i]
		head = head[:0]
		for _, v := range []uint64{uint64(len(e.path)), uint64(len(e.raw)), e.seq, uint64(e.kind), e.bytes, uint64(e.n), uint64(e.bodyEnd), uint64(e.contentEnd)} {
			head = binary.AppendUvarint(head, v)
		}
		w.Write(head)
		w.WriteString(e.path)
		w.Write(e.raw)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	s.runs = append(s.runs, [2]int64{begin, s.spool.blocks})
	clear(s.edits)
	s.edits, s.size = s.edits[:0], 0
	return nil
}

// run hands out sorted edits, from memory or from the file.
type run struct {
	edits []sortedEdit
	file  *bufio.Reader
	head  sortedEdit
}

// next reads the run's next edit into head; at the end the error is io.EOF.
func (r *run) next() error {
	if r.file == nil {
		if len(r.edits) == 0 {
			return io.EOF
		}
		r.head, r.edits = r.edits[0], r.edits[1:]
		return nil
	}
	var v [8]uint64
	for i := range v {
		var err error
		if v[i], err = binary.ReadUvarint(r.file); err != nil {
			if i > 0 && errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	buf := make([]byte, v[0]+v[1])
	if _, err := io.ReadFull(r.file, buf); err != nil {
		return fmt.Errorf("read a temporary file to sort a listing: %w", err)
	}
	r.head = sortedEdit{path: string(buf[:v[0]]), raw: buf[v[0]:], seq: v[2], kind: editKind(v[3]), bytes: v[4],
		n: int(v[5]), bodyEnd: int(v[6]), contentEnd: int(v[7])}
	return nil
}

// merge is a heap of runs by their heads.
type merge []*run

func (m merge) Len() int           { return len(m) }
func (m merge) Less(i, j int) bool { return compareEdits(&m[i].head, &m[j].head) < 0 }
func (m merge) Swap(i, j int)      { m[i], m[j] = m[j], m[i] }
func (m *merge) Push(x any)        { *m = append(*m, x.(*run)) }
func (m *merge) Pop() any {
	last := len(*m) - 1
	r := (*m)[last]
	*m = (*m)[:last]
	return r
}

// Apply gives the edits to u. The Sorter cannot be used again but for Close.
func (s *Sorter) Apply(u *Updater) error {
	if s.err != nil {
		return s.err
	}
	s.err = errors.New("the sorter's edits were applied before")
	s.sort()
	runs := []*run{{edits: s.edits}}
	for _, r := range s.runs {
		runs = append(runs, &run{file: s.spool.readRun(r[0], r[1])})
	}
	var m merge
	for _, r := range runs {
		if err := r.next(); err == nil {
			m = append(m, r)
		} else if !errors.Is(err, io.EOF) {
			return err
		}
	}
	heap.Init(&m)
	a := applier{s: s, u: u}
	for len(m) > 0 {
		if err := a.take(&m[0].head); err != nil {
			return err
		}
		switch err := m[0].next(); {
		case err == nil:
			heap.Fix(&m, 0)
		case errors.Is(err, io.EOF):
			heap.Pop(&m)
		default:
			return err
		}
	}
	return a.endPath()
}

// applier makes of sorted edits those that Updater takes.
type applier struct {
	s *Sorter
	u *Updater

	// Directories above the current path that were emptied, from the root down.
	emptied []emptiedDir

	// The current path.
	path    string
	any     bool
	put     sortedEdit // the last one, if put.seq > 0
	removed uint64     // number of the last Remove
	empties uint64     // number of the last edit that empties what is below
}

// emptiedDir is a path and the last edit at or above it that removes what is
// below: only later edits count there.
type emptiedDir struct {
	path string
	seq  uint64
}

// take adds an edit to those of its path, having emitted the path before.
func (a *applier) take(e *sortedEdit) error {
	if !a.any || e.path != a.path {
		if err := a.endPath(); err != nil {
			return err
		}
		a.any, a.path, a.put, a.removed, a.empties = true, e.path, sortedEdit{}, 0, 0
	}
	switch e.kind {
	case editRemove:
		a.removed, a.empties = e.seq, e.seq
	case editPutOther:
		a.empties = e.seq
		a.put = *e
	default:
		a.put = *e
	}
	return nil
}

// endPath emits what the edits of the current path amount to.
func (a *applier) endPath() error {
	if !a.any {
		return nil
	}
	for n := len(a.emptied); n > 0 && !format.IsBelow(a.path, a.emptied[n-1].path); n-- {
		a.emptied = a.emptied[:n-1]
	}
	above := uint64(0)
	if n := len(a.emptied); n > 0 {
		above = a.emptied[n-1].seq
	}
	puts := a.put.seq > max(above, a.removed)
	if a.empties > above {
		a.emptied = append(a.emptied, emptiedDir{a.path, a.empties})
		if !puts || a.put.kind == editPutDir {
			if err := a.u.Remove(a.path); err != nil {
				return err
			}
		}
	}
	if !puts {
		return nil
	}
	p := &a.put
	return a.u.putItem(&Item{Path: p.path, loader: a.s.chunks, raw: p.raw, n: p.n, bodyEnd: p.bodyEnd, contentEnd: p.contentEnd, bytes: p.bytes}, p.kind == editPutDir)
}
