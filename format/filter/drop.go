package filter

import (
	"fmt"
	"io"
	"slices"

	"github.com/bk-backup/bk/format"
)

// dropStage takes entries out: by path, by attributes, by content. It decides
// on an entry and forgets it, but for what it keeps in the spool and for the few
// paths whose fate depends on their type (passed.go).
//
// What an entry leaves in the output depends on why it goes. One dropped by its
// path leaves nothing. One dropped by its attributes or its content leaves a
// remove, since the version that the parent has may have passed; but not in a
// snapshot without a parent, where there is nothing to remove.
type dropStage struct {
	paths      []*matcher
	attributes Attributes
	content    contentRules
	spool      *spool
	passed     *passedPaths
	hold       *hold // of the file that is being judged by content
	sum        *Summary
	onDrop     func(Dropped)

	flat     bool
	snapshot format.ID
	whole    bool // the open snapshot has no parent
	unsorted bool

	state  entryState
	gone   Dropped // the entry that is being dropped
	silent bool    // the last record did not pass: nor do x- records behind it
}

// entryState says what happens to the content of the open file.
type entryState uint8

const (
	statePass entryState = iota
	stateDrop
	stateHold // until its content decides
)

// Process takes one record.
func (s *dropStage) Process(rec format.Record, emit func(format.Record) error) error {
	if _, isExtension := rec.(*format.Extension); !isExtension {
		s.silent = false
	}
	switch r := rec.(type) {
	case *format.Header:
		if err := s.header(r); err != nil {
			return err
		}
		return emit(r)
	case *format.Snapshot:
		return emit(s.begin(r))
	case *format.Entry:
		return s.entry(r, emit)
	case *format.Remove:
		return s.remove(r, emit)
	case *format.Commit:
		return emit(s.commit(r))
	case *format.End:
		return emit(r)
	}
	switch s.state {
	case stateDrop:
		return s.dropContent(rec)
	case stateHold:
		return s.holdContent(rec, emit)
	}
	if s.silent {
		return nil
	}
	return s.passContent(rec, emit)
}

// header refuses streams whose content this filter could not serve.
func (s *dropStage) header(h *format.Header) error {
	has := func(f format.Feature) bool { return slices.Contains(h.Features, f) }
	s.flat = has(format.FeatureFlat)
	s.passed.base = has(format.FeatureBase)
	byContent := !s.content.empty()
	if has(format.FeatureCopy) && (byContent || !s.attributes.empty()) {
		return refuse("the stream has copy records (feature %q), and what they copy from may be dropped by its attributes or its content", format.FeatureCopy)
	}
	if has(format.FeatureHeld) && byContent {
		return refuse("the stream refers to chunks that only its receiver has (feature %q), so files cannot be judged by content", format.FeatureHeld)
	}
	return nil
}

// RefusedError is a stream that a filter cannot work on, though it is valid.
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string {
	return "this filter cannot be applied to this stream: " + e.Reason
}

// FixText says what to do instead.
func (e *RefusedError) FixText() string {
	return "give the same filter options to bk-export, or export without that feature (bk-export --no-copy)"
}

func refuse(text string, args ...any) error {
	return &RefusedError{fmt.Sprintf(text, args...)}
}

func (s *dropStage) begin(r *format.Snapshot) *format.Snapshot {
	s.snapshot, s.whole, s.unsorted = r.ID, r.Parent.IsZero(), r.Unsorted
	s.passed.begin(r, s.whole && s.unsorted && (!s.attributes.empty() || !s.content.empty()))
	if !slices.ContainsFunc(r.Roots, s.pathGone) {
		return r
	}
	out := *r
	out.Roots = slices.DeleteFunc(slices.Clone(r.Roots), s.pathGone)
	return &out
}

// fate judges a path by every list of patterns there is.
func (s *dropStage) fate(path string) fate {
	var all fate
	for _, m := range s.paths {
		all = all.or(m.fate(path))
	}
	return all
}

// pathGone reports whether nothing at the path can pass, whatever it is.
func (s *dropStage) pathGone(path string) bool {
	f := s.fate(path)
	return f.file && f.dir
}

func (s *dropStage) entry(e *format.Entry, emit func(format.Record) error) error {
	f := s.fate(e.Path)
	switch isDir := e.Type == format.TypeDir; {
	case f.drop(isDir):
		return s.drop(e, ByPath, f.dependsOnType() && s.mayHavePassed(e.Path), emit)
	case s.attributes.match(e):
		return s.drop(e, ByAttribute, !s.whole || s.mayHavePassed(e.Path), emit)
	}
	if e.Type == format.TypeFile && !s.content.empty() {
		s.state = stateHold
		s.hold.begin(e, f)
		return nil
	}
	return s.pass(e, f, emit)
}

// mayHavePassed reports whether something at the path may be in the output that
// the open snapshot's records apply to.
func (s *dropStage) mayHavePassed(path string) bool {
	if s.whole && !s.unsorted {
		return false
	}
	return s.passed.may(path)
}

func (s *dropStage) pass(e *format.Entry, f fate, emit func(format.Record) error) error {
	s.state = statePass
	if err := s.passed.note(e.Path, f, s.paths); err != nil {
		return err
	}
	return emit(e)
}

// drop takes an entry away, and leaves a remove if that is asked for.
func (s *dropStage) drop(e *format.Entry, why Reason, leaveRemove bool, emit func(format.Record) error) error {
	s.silent = true
	s.gone = Dropped{Snapshot: s.snapshot, Path: e.Path, Type: e.Type, Why: why}
	if e.Type == format.TypeFile {
		s.state = stateDrop
	} else {
		s.state = statePass
		s.count()
	}
	if !leaveRemove {
		return nil
	}
	if s.flat {
		return refuse("path %q comes more than once in snapshot %s and only an earlier version passes, which a stream with the feature %q cannot take back",
			e.Path, s.snapshot, format.FeatureFlat)
	}
	return emit(&format.Remove{Path: e.Path})
}

// count adds the entry that was dropped to the summary.
func (s *dropStage) count() {
	s.sum.DroppedEntries++
	s.sum.DroppedBytes += s.gone.Size
	if s.onDrop != nil {
		s.onDrop(s.gone)
	}
}

// dropContent takes the content of a dropped file away. Chunks that may be
// referred to later go to the spool; a flat stream has no references.
func (s *dropStage) dropContent(rec format.Record) error {
	s.silent = true
	switch r := rec.(type) {
	case *format.Data:
		if r.Once || s.flat {
			return nil
		}
		_, err := s.spool.keep(r, false)
		return err
	case *format.EOF:
		s.state = statePass
		s.gone.Size = r.Size
		s.count()
	}
	return nil
}

// passContent lets content through, and puts in what was dropped before.
func (s *dropStage) passContent(rec format.Record, emit func(format.Record) error) error {
	switch r := rec.(type) {
	case *format.Data:
		return s.passData(r, emit)
	case *format.Refs:
		n, err := s.spool.sendRefs(r, emit)
		s.sum.ResentChunks += uint64(n)
		return err
	case *format.CopyRange:
		if r.HasFrom && s.fate(r.From).file {
			return refuse("a file is copied from a path that is dropped")
		}
	}
	return emit(rec)
}

func (s *dropStage) passData(d *format.Data, emit func(format.Record) error) error {
	id := d.ID
	if !s.content.empty() && !d.Once && !s.flat {
		if _, err := s.spool.keep(d, true); err != nil {
			return err
		}
		return emit(d)
	}
	if err := emit(d); err != nil {
		return err
	}
	return s.spool.noteSent(id)
}

// remove lets a remove through if what it takes away may be in the output.
func (s *dropStage) remove(r *format.Remove, emit func(format.Record) error) error {
	s.state = statePass
	f := s.fate(r.Path)
	if f.file && f.dir || f.dependsOnType() && !s.mayHavePassed(r.Path) {
		s.silent = true
		return nil
	}
	return emit(r)
}

// commit takes dropped paths out of what the commit says was lost. How many of
// the losses that it does not name were dropped cannot be known: they stay.
func (s *dropStage) commit(r *format.Commit) *format.Commit {
	return mapLosses(r, func(path string) (string, bool) { return path, !s.pathGone(path) })
}

// mapLosses changes the paths that a commit names, or takes them out.
func mapLosses(r *format.Commit, change func(string) (string, bool)) *format.Commit {
	if len(r.Losses) == 0 {
		return r
	}
	out := *r
	out.Losses = nil
	for _, loss := range r.Losses {
		var paths []string
		for _, path := range loss.Paths {
			if path, keep := change(path); keep {
				paths = append(paths, path)
			}
		}
		gone := uint64(len(loss.Paths) - len(paths))
		if loss.Paths = paths; gone >= loss.Count {
			continue
		}
		loss.Count -= gone
		out.Losses = append(out.Losses, loss)
	}
	return &out
}

// holdContent keeps the content of a file back until it can be judged.
func (s *dropStage) holdContent(rec format.Record, emit func(format.Record) error) error {
	spooled := int64(-1)
	if d, ok := rec.(*format.Data); ok && !d.Once && !s.flat {
		var err error
		if spooled, err = s.spool.keep(d, false); err != nil {
			return err
		}
	}
	eof, atEnd := rec.(*format.EOF)
	if !atEnd {
		if err := s.hold.add(rec, spooled); err != nil {
			return err
		}
		if d, ok := rec.(*format.Data); ok && !d.Taken() {
			// It is on disk now, and perhaps needed from there at once.
			format.FreePayload(d.Take())
			d.Payload = nil
		}
		if !s.content.enough(s.hold.size) {
			return nil
		}
	}
	drop, err := s.content.drop(s.hold)
	if err != nil {
		return fmt.Errorf("judge %q by its content: %w", s.hold.entry.Path, err)
	}
	if drop {
		err = s.dropHeld(emit)
	} else {
		err = s.passHeld(emit)
	}
	if err != nil || !atEnd {
		return err
	}
	if drop {
		return s.dropContent(eof)
	}
	return s.passContent(eof, emit)
}

func (s *dropStage) dropHeld(emit func(format.Record) error) error {
	e := s.hold.entry
	if err := s.hold.discard(); err != nil {
		return err
	}
	return s.drop(e, ByContent, !s.whole || s.mayHavePassed(e.Path), emit)
}

func (s *dropStage) passHeld(emit func(format.Record) error) error {
	if err := s.pass(s.hold.entry, s.hold.fate, emit); err != nil {
		return err
	}
	if err := s.hold.pass(func(rec format.Record) error { return s.passContent(rec, emit) }); err != nil {
		return err
	}
	return s.hold.discard()
}

func (s *dropStage) Close() error {
	return closeAll(s.spool, s.passed, s.hold)
}

func closeAll(closers ...io.Closer) error {
	var first error
	for _, c := range closers {
		if err := c.Close(); first == nil {
			first = err
		}
	}
	return first
}
