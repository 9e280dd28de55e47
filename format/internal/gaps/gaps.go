// Package gaps lets an export go on over content that cannot be read: in the
// stream it becomes what spec/stream.md, 4.8 and 10, has for that. Start at
// Source. Any package below format may import it; it imports format and
// format/internal/loss.
package gaps

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/internal/loss"
)

// Source passes on the records of another source, of which some have been marked
// as lost. What is lost becomes a hole of its size, wherever the stream names it;
// the eof of each file that it touches says so, and so does the commit, also of
// later snapshots that have the file from their parent: none that lacks something
// looks complete.
type Source struct {
	src   format.SourceCloser
	found func(snapshot format.ID, path string, err error)

	mu     sync.Mutex
	marked map[format.Record]error
	any    atomic.Bool // something was marked

	// Of the consumer.
	snapshot format.ID
	path     string // of the entry that is being sent
	offset   uint64 // of its content
	cur      gap    // of it
	old      *gap   // of the parent's version
	chunks   map[format.ID]error
	files    map[string]*gap // of the listing that is being made
	below    map[string]int  // how many of them lie below a directory
	queue    []format.Record // what the last record became
}

// gap is what a file lacks.
type gap struct {
	spans []span
	bytes uint64
	cut   bool  // the content ends where it should go on
	why   error // the first cause
}

type span struct{ offset, size uint64 }

// gap notes what the current file lacks.
func (s *Source) gap(offset, size uint64, why error) {
	s.cur.spans = append(s.cur.spans, span{offset, size})
	s.cur.bytes += size
	s.because(why)
}

// because names the current file, once.
func (s *Source) because(why error) {
	if s.cur.why == nil {
		s.cur.why = why
		s.found(s.snapshot, s.path, why)
	}
}

// New returns a source on top of src. found is called from Next, once for each
// file in each snapshot that sends it, before the record that lacks something.
func New(src format.SourceCloser, found func(snapshot format.ID, path string, err error)) *Source {
	return &Source{
		src: src, found: found, marked: make(map[format.Record]error),
		chunks: make(map[format.ID]error), files: make(map[string]*gap), below: make(map[string]int),
	}
}

// Lose marks a record before src hands it out: the content of a data record, or
// what should stand before an eof, could not be read. It may be called from any
// goroutine.
func (s *Source) Lose(rec format.Record, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.marked[rec] = err
	s.any.Store(true)
}

// lost returns why a record was marked, or nil.
func (s *Source) lost(rec format.Record) error {
	if !s.any.Load() {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.marked[rec]
	delete(s.marked, rec)
	return err
}

// Close implements format.SourceCloser.
func (s *Source) Close() error { return s.src.Close() }

// Next implements format.Source.
func (s *Source) Next() (format.Record, error) {
	if len(s.queue) > 0 {
		rec := s.queue[0]
		s.queue = s.queue[1:]
		return rec, nil
	}
	rec, err := s.src.Next()
	if err != nil {
		return nil, err
	}
	switch rec := rec.(type) {
	case *format.Snapshot:
		s.snapshot = rec.ID
		if rec.Parent.IsZero() {
			clear(s.files)
			clear(s.below)
		}
	case *format.Entry:
		s.entry(rec)
	case *format.Remove:
		s.remove(rec.Path)
	case *format.Data:
		return s.data(rec), nil
	case *format.Refs:
		return s.refs(rec), nil
	case *format.CopyRange:
		s.copy(rec)
	case *format.Hole:
		s.offset += rec.Size
	case *format.EOF:
		s.eof(rec)
	case *format.Commit:
		s.commit(rec)
	}
	return rec, nil
}

func (s *Source) entry(e *format.Entry) {
	s.path, s.offset, s.cur = e.Path, 0, gap{}
	s.old = s.files[e.Path]
	if e.Type == format.TypeDir {
		s.forget(e.Path)
		return
	}
	s.remove(e.Path)
}

// remove forgets what was at a path and below it.
func (s *Source) remove(path string) {
	s.forget(path)
	if s.below[path] == 0 {
		return
	}
	for p := range s.files {
		if format.IsBelow(p, path) {
			s.forget(p)
		}
	}
}

func (s *Source) forget(path string) {
	if s.files[path] == nil {
		return
	}
	delete(s.files, path)
	s.count(path, -1)
}

// count counts a file in the directories above it.
func (s *Source) count(path string, n int) {
	for dir := path; dir != ""; {
		dir = format.ParentPath(dir)
		if s.below[dir] += n; s.below[dir] == 0 {
			delete(s.below, dir)
		}
	}
}

func (s *Source) data(d *format.Data) format.Record {
	size := uint64(d.Size)
	at := s.offset
	s.offset += size
	err := s.lost(d)
	if err == nil {
		return d
	}
	if !d.Once {
		s.chunks[d.ID] = err
	}
	s.gap(at, size, err)
	return &format.Hole{Size: size}
}

// refs puts holes where refs name chunks that were lost when they were to be sent.
func (s *Source) refs(r *format.Refs) format.Record {
	start := len(s.queue)
	run := 0 // first chunk of the run that is named as it is
	for i := range r.Chunks {
		c := &r.Chunks[i]
		at := s.offset
		s.offset += uint64(c.Size)
		err := s.chunks[c.ID]
		if err == nil {
			continue
		}
		if run < i {
			s.queue = append(s.queue, &format.Refs{Chunks: r.Chunks[run:i]})
		}
		run = i + 1
		s.gap(at, uint64(c.Size), err)
		s.queue = append(s.queue, &format.Hole{Size: uint64(c.Size)})
	}
	if len(s.queue) == start {
		return r
	}
	if run < len(r.Chunks) {
		s.queue = append(s.queue, &format.Refs{Chunks: r.Chunks[run:]})
	}
	first := s.queue[0]
	s.queue = s.queue[1:]
	return first
}

// copy looks for gaps in what is taken over from the parent's version.
func (s *Source) copy(c *format.CopyRange) {
	at := s.offset
	s.offset += c.Size
	old := s.old
	if c.From != "" && c.From != s.path {
		old = s.files[c.From]
	}
	if old == nil {
		return
	}
	for _, g := range old.spans {
		from, to := max(g.offset, c.Offset), min(g.offset+g.size, c.Offset+c.Size)
		if from < to {
			s.gap(at+from-c.Offset, to-from, old.why)
		}
	}
}

func (s *Source) eof(e *format.EOF) {
	if err := s.lost(e); err != nil {
		s.cur.cut = true
		s.because(err)
	}
	if s.cur.why == nil {
		return
	}
	said := ""
	if s.cur.bytes > 0 {
		said = fmt.Sprintf("%d bytes of the content could not be read from the repository; zeros stand for them", s.cur.bytes)
	}
	if s.cur.cut {
		if said != "" {
			said += "; "
		}
		said += "what follows could not be read from it"
	}
	if e.Error != "" {
		said = e.Error + "; " + said
	}
	e.Error, e.SHA256 = said[:min(len(said), format.CommentSizeMax)], nil
	g := s.cur
	s.files[s.path] = &g
	s.count(s.path, 1)
}

func (s *Source) commit(c *format.Commit) {
	if len(s.files) == 0 {
		return
	}
	losses := loss.Counts(c.Losses).Clone()
	for _, path := range slices.SortedFunc(maps.Keys(s.files), format.ComparePaths) {
		losses.Add(format.LossDamaged, path)
	}
	c.Losses = losses
}
