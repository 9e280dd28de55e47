package tar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sync/semaphore"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/chunker"
)

// segmentSize is how much of a file is cut and hashed at a time, in bytes.
const segmentSize = 1 << 20

// unit is the next thing in an archive: a member with the beginning of its
// content, or more of that.
type unit struct {
	entry    *format.Entry // of a member that begins; nil if it cannot be an entry
	problems []problem
	at       int64  // where the member is in the archive
	link     string // of a hard link, the path that it names
	isLink   bool
	hasData  bool // of a hard link: content follows
	dropped  bool // only to be remembered, without content

	seg  *segment
	hole uint64
	last bool // the member is complete
}

// segment is some bytes of a file and the cuts in them.
type segment struct {
	plain  []byte
	cuts   []int
	weight int64 // in the budget
	pieces []piece
	err    error
	done   chan struct{} // closed when pieces are there
}

// parser turns members into units, which go out in order, and their content
// into segments, which go to whoever hashes.
type parser struct {
	*members
	decoder
	ctx      context.Context
	drop     func(path string, isDir bool) (drop, skipBelow bool)
	listing  bool // content is not wanted
	splitter chunker.Splitter
	budget   *semaphore.Weighted // bytes of segments that are under way
	budgets  int64
	work     chan<- *segment
	out      chan<- *unit
	err      error // valid once out is closed
}

// run reads to the end of the archive, or one member.
func (p *parser) run(one bool) {
	defer close(p.out)
	for {
		m, err := p.members.next()
		if err == io.EOF {
			p.err = p.finish()
			return
		}
		if err == nil {
			if err = p.member(m); err != nil {
				err = fmt.Errorf("in the member %q: %w", m.name, err)
			}
		}
		if err != nil || one {
			p.err = err
			return
		}
	}
}

// finish looks at what follows the last member.
func (p *parser) finish() error {
	if !p.any && !p.ended {
		return &offsetError{p.offset, errNotTar}
	}
	if !p.ended {
		return p.send(&unit{problems: []problem{{format.LossUnreadable, "",
			p.errorf("the archive has no mark of its end: more may have followed")}}})
	}
	other, err := p.drain()
	if err != nil || other == 0 {
		return err
	}
	return p.send(&unit{problems: []problem{{format.LossUnreadable, "",
		&offsetError{other, errors.New("another archive follows behind the end of this one: it is not read")}}}})
}

func (p *parser) send(u *unit) error {
	select {
	case p.out <- u:
		return nil
	case <-p.ctx.Done():
		return context.Cause(p.ctx)
	}
}

// member sends one member.
func (p *parser) member(m *member) error {
	e, problems := p.entry(m)
	u := &unit{entry: e, problems: problems, at: m.at}
	switch {
	case e == nil:
		u.last = true
	case m.typ == typeDumpDir:
		if m.rest() <= dumpDirSizeMax {
			list := make([]byte, m.rest())
			if err := p.read(list); err != nil {
				return err
			}
			u.problems = append(u.problems, dumpDir(e.Path, string(list))...)
			m.dataSize = 0
			if err := p.pad(int64(len(list))); err != nil {
				return err
			}
		}
	case m.typ == typeLink:
		target, ok := cleanName(m.link)
		if !ok {
			target = "" // the root, to which nothing links
		}
		u.link, u.isLink, u.hasData = target, true, m.dataSize > 0
	}
	if e != nil {
		u.problems = append(u.problems, dumpDir(e.Path, m.pax["GNU.dumpdir"])...)
		if p.drop != nil {
			u.dropped, _ = p.drop(e.Path, e.Type == format.TypeDir)
		}
		if u.dropped {
			u.problems = nil
		}
		if e.Type == format.TypeFile && !u.dropped && !p.listing && (!u.isLink || u.hasData) {
			return p.content(m, u)
		}
	}
	u.last = true
	if err := p.send(u); err != nil {
		return err
	}
	return p.skipRest(m, 0)
}

// content sends a member with its content. u is the unit that goes out with the
// next run, or an empty one.
func (p *parser) content(m *member, u *unit) error {
	flush := func(seg *segment, hole uint64) error {
		u.seg, u.hole = seg, hole
		err := p.send(u)
		u = &unit{}
		return err
	}
	pieces := []format.Extent{{Size: uint64(m.rest())}}
	if m.sparse != nil {
		pieces = m.sparse.pieces
	}
	at, taken := uint64(0), int64(0)
	for _, x := range pieces {
		if x.Offset > at {
			if err := flush(nil, x.Offset-at); err != nil {
				return err
			}
		}
		if err := p.readRun(int64(x.Size), flush); err != nil {
			return err
		}
		at = x.Offset + x.Size
		taken += int64(x.Size)
	}
	if size := m.fileSize(); size > at {
		if err := flush(nil, size-at); err != nil {
			return err
		}
	}
	u.last = true
	if err := p.send(u); err != nil {
		return err
	}
	return p.skipRest(m, taken)
}

// readRun reads and cuts size bytes.
func (p *parser) readRun(size int64, flush func(*segment, uint64) error) error {
	if size == 0 {
		return nil
	}
	p.splitter.Reset()
	buf := format.AllocPayload(int(min(size, segmentSize)))
	filled, start := 0, 0
	var cuts []int
	for {
		want := int(min(int64(len(buf)-filled), size))
		if err := p.read(buf[filled : filled+want]); err != nil {
			format.FreePayload(buf)
			return err
		}
		filled += want
		size -= int64(want)
		for start < filled {
			n := p.splitter.Cut(buf[start:filled], size == 0)
			if n == 0 {
				break
			}
			start += n
			cuts = append(cuts, start)
		}
		if start == 0 {
			more := format.AllocPayload(2 * len(buf))
			copy(more, buf[:filled])
			format.FreePayload(buf)
			buf = more
			continue
		}
		seg := &segment{plain: buf[:start], cuts: cuts, done: make(chan struct{})}
		rest := buf[start:filled]
		if size > 0 {
			buf = format.AllocPayload(max(segmentSize, 2*len(rest)))
			filled, start, cuts = copy(buf, rest), 0, nil
		}
		if err := p.dispatch(seg, flush); err != nil || size == 0 {
			return err
		}
	}
}

// dispatch sends a segment to whoever hashes and into the order.
func (p *parser) dispatch(seg *segment, flush func(*segment, uint64) error) error {
	seg.weight = min(int64(len(seg.plain)), p.budgets)
	if err := p.budget.Acquire(p.ctx, seg.weight); err != nil {
		return context.Cause(p.ctx)
	}
	select {
	case p.work <- seg:
	case <-p.ctx.Done():
		return context.Cause(p.ctx)
	}
	return flush(seg, 0)
}

// hasher makes pieces of segments.
type hasher struct {
	compress bool
	level    format.Level
	sent     *sentSet // nil: chunks are sent every time
}

func (h *hasher) work(ctx context.Context, in <-chan *segment) {
	for {
		select {
		case seg := <-in:
			h.do(seg)
		case <-ctx.Done():
			return
		}
	}
}

func (h *hasher) do(seg *segment) {
	defer close(seg.done)
	if len(seg.cuts) == 1 {
		// Most files are one chunk, which then need not be copied.
		seg.pieces = []piece{h.piece(seg, seg.plain, true)}
		return
	}
	seg.pieces = make([]piece, 0, len(seg.cuts))
	start := 0
	for _, end := range seg.cuts {
		seg.pieces = append(seg.pieces, h.piece(seg, seg.plain[start:end], false))
		start = end
	}
	format.FreePayload(seg.plain)
}

// piece makes a piece of a chunk, whose bytes it may keep only if owned.
func (h *hasher) piece(seg *segment, plain []byte, owned bool) piece {
	p := piece{id: format.SumID(plain), size: uint32(len(plain)), codec: format.CodecNone}
	known := h.sent != nil && h.sent.has(p.id)
	if h.compress && !known {
		work := format.AllocPayload(format.PayloadSizeMax(len(plain)))
		codec, encoded, err := format.EncodePayload(work, plain, h.level)
		if err != nil {
			seg.err = err
		} else if codec == format.CodecZstd {
			p.codec = codec
			p.payload = format.AllocPayload(len(encoded))
			copy(p.payload, encoded)
		}
		format.FreePayload(work)
	}
	switch {
	case p.payload != nil || known:
		if owned {
			format.FreePayload(plain)
		}
	case owned:
		p.payload = plain
	default:
		p.payload = format.AllocPayload(len(plain))
		copy(p.payload, plain)
	}
	return p
}

// sentSet remembers the last chunks that were sent, half a million at most.
type sentSet struct {
	mu     sync.RWMutex
	recent map[format.ID]struct{}
	older  map[format.ID]struct{}
}

const sentGeneration = 1 << 17

func newSentSet() *sentSet { return &sentSet{recent: make(map[format.ID]struct{})} }

func (s *sentSet) has(id format.ID) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if _, ok := s.recent[id]; ok {
		return true
	}
	_, ok := s.older[id]
	return ok
}

func (s *sentSet) add(id format.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.recent) >= sentGeneration {
		s.older, s.recent = s.recent, make(map[format.ID]struct{})
	}
	s.recent[id] = struct{}{}
}
