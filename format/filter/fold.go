package filter

import (
	"errors"
	"io"
	"slices"

	"github.com/bk-backup/bk/format"
)

// foldStage takes snapshots out of the stream. What a dropped snapshot changed
// is folded into the next one, whose parent becomes the last snapshot that
// passed. Its records wait on disk (run.go), its chunks in the spool, and of
// both only what is still true in the next snapshot comes into the output.
type foldStage struct {
	rules  []SnapshotRule
	dir    string
	random io.Reader
	spool  *spool
	sum    *Summary
	onDrop func(Dropped)

	pending pendingRuns // dropped since the last snapshot that passed
	drops   *runWriter  // of the open snapshot, if it is dropped
	merge   *merge      // of the open snapshot, if it passes and something is pending
	prepend bool        // what is pending goes before the next record
	silent  bool        // the last record did not pass: nor do x- records behind it

	snapshot format.Snapshot
}

// pendingRuns are differences that apply one after another.
type pendingRuns struct {
	any    bool
	parent format.ID // what the first is against; zero if it is a whole listing
	runs   []*run    // oldest first
}

func (p *pendingRuns) unsorted() bool {
	return slices.ContainsFunc(p.runs, func(r *run) bool { return r.unsorted })
}

func (p *pendingRuns) discard() error {
	var errs []error
	for _, r := range p.runs {
		errs = append(errs, r.file.Close())
	}
	*p = pendingRuns{}
	return errors.Join(errs...)
}

// Process takes one record.
func (s *foldStage) Process(rec format.Record, emit func(format.Record) error) error {
	switch r := rec.(type) {
	case *format.Header:
		if slices.Contains(r.Features, format.FeatureCopy) {
			return refuse("the stream has copy records (feature %q), and snapshots that they copy from may be dropped", format.FeatureCopy)
		}
	case *format.Snapshot:
		return s.begin(r, emit)
	case *format.Extension:
		if s.silent {
			return nil
		}
	}
	if s.drops != nil {
		return s.drop(rec)
	}
	s.silent = false
	if _, isExtension := rec.(*format.Extension); s.prepend && !isExtension {
		if err := s.emitPending(emit); err != nil {
			return err
		}
	}
	if s.merge != nil {
		return s.fold(rec, emit)
	}
	return s.pass(rec, emit)
}

func (s *foldStage) chosen(r *format.Snapshot) bool {
	return slices.ContainsFunc(s.rules, func(rule SnapshotRule) bool { return rule.Match(r) })
}

func (s *foldStage) begin(r *format.Snapshot, emit func(format.Record) error) error {
	s.silent = false
	if r.Parent.IsZero() {
		// A whole listing needs nothing of what came before but the chunks.
		if err := s.pending.discard(); err != nil {
			return err
		}
	}
	if !s.chosen(r) {
		s.silent = true
		return s.beginDrop(r)
	}
	if !s.pending.any {
		return emit(r)
	}
	s.snapshot = *r
	s.snapshot.Parent = s.pending.parent
	s.snapshot.Unsorted = r.Unsorted || s.pending.unsorted()
	s.snapshot.Estimate = nil
	if err := emit(&s.snapshot); err != nil {
		return err
	}
	if s.snapshot.Unsorted {
		s.prepend = true
		return nil
	}
	return s.beginMerge(emit)
}

// beginDrop opens a run for what the snapshot changes.
func (s *foldStage) beginDrop(r *format.Snapshot) (err error) {
	s.sum.DroppedSnapshots++
	if s.onDrop != nil {
		s.onDrop(Dropped{Snapshot: r.ID, Why: BySnapshot})
	}
	if !s.pending.any {
		s.pending.any, s.pending.parent = true, r.Parent
	}
	s.drops, err = s.newWriter(r.Unsorted)
	return err
}

func (s *foldStage) newWriter(unsorted bool) (*runWriter, error) {
	file := newCryptFile(s.dir, s.random)
	r, err := newRun(file, unsorted)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &runWriter{run: r, spool: s.spool}, nil
}

// drop takes one record of a dropped snapshot.
func (s *foldStage) drop(rec format.Record) error {
	s.silent = false
	if _, atEnd := rec.(*format.Commit); !atEnd {
		return s.drops.write(rec)
	}
	s.silent = true
	if err := s.drops.run.finish(); err != nil {
		return err
	}
	s.pending.runs = append(s.pending.runs, s.drops.run)
	s.drops = nil
	return s.compact(func(older, newer *run) bool { return 2*newer.file.end() >= older.file.end() })
}

// compact merges the last two runs as long as they are to be merged. Merging
// runs of like sizes makes the work for n dropped snapshots in a row grow with
// n log n.
func (s *foldStage) compact(due func(older, newer *run) bool) error {
	for {
		n := len(s.pending.runs)
		if n < 2 || s.pending.unsorted() || !due(s.pending.runs[n-2], s.pending.runs[n-1]) {
			return nil
		}
		merged, err := s.mergeRuns(s.pending.runs[n-2], s.pending.runs[n-1])
		if err != nil {
			return err
		}
		err = errors.Join(s.pending.runs[n-2].file.Close(), s.pending.runs[n-1].file.Close())
		s.pending.runs = append(s.pending.runs[:n-2], merged)
		if err != nil {
			return err
		}
	}
}

func (s *foldStage) mergeRuns(older, newer *run) (*run, error) {
	out, err := s.newWriter(false)
	if err != nil {
		return nil, err
	}
	if err := s.writeMerged(out, older, newer); err != nil {
		return nil, errors.Join(err, out.run.file.Close())
	}
	return out.run, nil
}

func (s *foldStage) writeMerged(out *runWriter, older, newer *run) error {
	whole := s.pending.parent.IsZero() && older == s.pending.runs[0]
	m, err := newMerge(older, whole, out.write)
	if err != nil {
		return err
	}
	r, err := newer.open()
	if err != nil {
		return err
	}
	for {
		rec, err := r.next()
		if err != nil {
			return err
		}
		if rec == nil {
			break
		}
		if err := m.newer(rec, out.write); err != nil {
			return err
		}
	}
	if err := m.finish(); err != nil {
		return err
	}
	return out.run.finish()
}

// beginMerge prepares to fold what is pending into the snapshot that begins.
func (s *foldStage) beginMerge(emit func(format.Record) error) error {
	if err := s.compact(func(*run, *run) bool { return true }); err != nil {
		return err
	}
	older := func(rec format.Record) error { return s.pass(rec, emit) }
	m, err := newMerge(s.pending.runs[0], s.pending.parent.IsZero(), older)
	s.merge = m
	return err
}

// emitPending is for a snapshot that is not sorted, or follows dropped ones
// that are not: its records follow theirs, and the last one for a path wins.
func (s *foldStage) emitPending(emit func(format.Record) error) error {
	s.prepend = false
	for _, r := range s.pending.runs {
		m, err := newMerge(r, false, func(rec format.Record) error { return s.pass(rec, emit) })
		if err != nil {
			return err
		}
		if err := m.finish(); err != nil {
			return err
		}
	}
	return s.pending.discard()
}

// fold takes one record of a snapshot that passes after dropped ones.
func (s *foldStage) fold(rec format.Record, emit func(format.Record) error) error {
	if _, atEnd := rec.(*format.Commit); atEnd {
		if err := s.merge.finish(); err != nil {
			return err
		}
		s.merge = nil
		if err := s.pending.discard(); err != nil {
			return err
		}
		return emit(rec)
	}
	return s.merge.newer(rec, func(rec format.Record) error { return s.pass(rec, emit) })
}

// pass lets a record through, and puts in the chunks that were dropped before.
func (s *foldStage) pass(rec format.Record, emit func(format.Record) error) error {
	switch r := rec.(type) {
	case *format.Data:
		id := r.ID
		if err := emit(r); err != nil {
			return err
		}
		return s.spool.noteSent(id)
	case *format.Refs:
		n, err := s.spool.sendRefs(r, emit)
		s.sum.ResentChunks += uint64(n)
		return err
	}
	return emit(rec)
}

func (s *foldStage) Close() error {
	err := s.pending.discard()
	if s.drops != nil {
		err = errors.Join(err, s.drops.run.file.Close())
	}
	return errors.Join(err, s.spool.Close())
}

// runWriter writes the records of a dropped snapshot into a run. Chunks go to
// the spool, whether they come once or not, and the run refers to them.
type runWriter struct {
	run   *run
	spool *spool
	refs  []format.ChunkRef // gathered and not yet written
}

func (w *runWriter) write(rec format.Record) error {
	if d, ok := rec.(*format.Data); ok {
		if _, err := w.spool.keep(d, false); err != nil {
			return err
		}
		w.refs = append(w.refs, format.ChunkRef{ID: d.ID, Size: d.Size})
		if len(w.refs) < format.RefsMax {
			return nil
		}
		return w.flush()
	}
	if err := w.flush(); err != nil {
		return err
	}
	return w.run.w.Write(rec)
}

func (w *runWriter) flush() error {
	if len(w.refs) == 0 {
		return nil
	}
	err := w.run.w.Write(&format.Refs{Chunks: w.refs})
	w.refs = w.refs[:0]
	return err
}
