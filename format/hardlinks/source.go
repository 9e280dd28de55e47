package hardlinks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/chunker"
	"github.com/bk-backup/bk/format/disk"
)

// Export implements format.System. Content that differs from the parent's goes
// out as refs where it came before and as data otherwise, never as copies. Held
// is refused, and HasChunk not asked: what a file consists of is known only when
// it was read.
//
// A tree that is renamed or removed while it is read ends the stream with an
// error before its snapshot is complete.
func (s *System) Export(ctx context.Context, opts format.ExportOptions) (format.SourceCloser, error) {
	if opts.Held {
		return nil, errors.New("trees of hard links have content, not the names of what a receiver holds: leave out --held")
	}
	src := &source{system: s, opts: opts, trees: s.found.trees, inodes: disk.NewInodes(s.opts.TempDir)}
	if len(opts.Snapshots) > 0 {
		src.trees = nil
	}
	for _, id := range opts.Snapshots {
		t, err := s.lookup(id)
		if err != nil {
			return nil, err
		}
		src.trees = append(src.trees, t)
	}
	if !opts.Base.IsZero() && !opts.Whole() {
		t, err := s.lookup(opts.Base)
		if err != nil {
			return nil, fmt.Errorf("export a difference: %w", err)
		}
		src.base = t
	}
	src.ctx, src.cancel = context.WithCancelCause(ctx)
	src.next, src.stop = iter.Pull(func(yield func(format.Record) bool) {
		src.yield = yield
		src.failed = src.stream()
	})
	return src, nil
}

// source hands out the records of trees, one after another. It is written as a
// loop that emits records, and runs as a coroutine of Next.
type source struct {
	system *System
	opts   format.ExportOptions
	trees  []*tree
	base   *tree // nil: none
	ctx    context.Context
	cancel context.CancelCauseFunc

	next   func() (format.Record, bool)
	stop   func()
	yield  func(format.Record) bool
	failed error // sticky

	inodes   *disk.Inodes
	progress format.Progress
}

var errClosed = errors.New("the source was closed")

// Next implements format.Source. The counts in the commit and end records are
// set, the digests are not.
func (s *source) Next() (format.Record, error) {
	if rec, ok := s.next(); ok {
		return rec, nil
	}
	if s.failed == nil {
		s.failed = io.EOF
	}
	return nil, s.failed
}

// Close ends the source, wherever it stands.
func (s *source) Close() error {
	s.cancel(errClosed)
	s.stop()
	return s.inodes.Close()
}

func (s *source) compress() bool { return s.system.opts.Compress && !s.opts.Plain }

func (s *source) emit(rec format.Record) error {
	if !s.yield(rec) {
		return errClosed
	}
	return nil
}

// stream emits everything.
func (s *source) stream() (err error) {
	h := &format.Header{Version: format.Version, Producer: s.opts.Producer}
	if s.base != nil {
		h.Features = append(h.Features, format.FeatureBase)
	}
	if s.opts.Flat {
		h.Features = append(h.Features, format.FeatureFlat)
	}
	if s.compress() {
		h.Features = append(h.Features, format.FeatureZstd)
	}
	if err := s.emit(h); err != nil {
		return err
	}
	var before *disk.Survey
	defer func() {
		if before != nil {
			err = errors.Join(err, before.Close())
		}
	}()
	prev := s.base
	if prev != nil {
		if before, err = s.survey(prev); err != nil {
			return err
		}
	}
	for _, t := range s.trees {
		now, err := s.survey(t)
		if err != nil {
			return err
		}
		err = s.snapshot(prev, t, before, now)
		if before != nil {
			err = errors.Join(err, before.Close())
		}
		prev, before = t, now
		if err != nil {
			return err
		}
	}
	return s.emit(&format.End{Snapshots: uint64(len(s.trees))})
}

func (s *source) survey(t *tree) (*disk.Survey, error) {
	survey, err := disk.TakeSurvey(s.ctx, s.scanOptions(t), s.system.opts.TempDir)
	if err != nil {
		return nil, fmt.Errorf("read the tree %s: %w", t.name, err)
	}
	return survey, nil
}

// scanOptions are what a survey and a scan of a tree have in common.
func (s *source) scanOptions(t *tree) disk.ScanOptions {
	return disk.ScanOptions{Dir: t.path, At: s.system.opts.At, Drop: s.opts.Drop, Workers: s.system.opts.Workers}
}

// snapshot emits one tree, as a difference to the one before if there is one.
func (s *source) snapshot(prev, t *tree, before, now *disk.Survey) error {
	o := s.scanOptions(t)
	o.Snapshot = *s.system.snapshot(t)
	o.Survey, o.Inodes, o.Translate = now, s.inodes, translate
	o.ListingOnly, o.Flat, o.Dedup = s.opts.ListingOnly, s.opts.Flat, !s.opts.Flat
	o.Compress, o.Level = s.compress(), s.system.opts.Level
	o.ChunkerFor = func(string, uint64) (func() chunker.Splitter, string) {
		return s.system.opts.NewSplitter, s.system.opts.Chunker
	}
	o.OnError, o.OnProgress = s.system.opts.OnError, s.report(s.progress)
	if prev != nil && !s.opts.Whole() {
		o.Snapshot.Parent, o.Previous = s.system.id(prev), before.Previous()
	} else {
		o.Snapshot.Estimate = &now.Estimate
	}
	scanner, err := disk.Scan(s.ctx, o)
	if err != nil {
		return fmt.Errorf("read the tree %s: %w", t.name, err)
	}
	defer scanner.Close()
	for {
		rec, err := scanner.Next()
		if err != nil {
			return fmt.Errorf("read the tree %s: %w", t.name, err)
		}
		switch rec.(type) {
		case *format.Header:
			continue
		case *format.End:
			return nil
		case *format.Commit:
			if err := t.unchanged(); err != nil {
				return err
			}
		}
		if err := s.emit(rec); err != nil {
			return err
		}
	}
}

// unchanged makes sure that the directory is still the one that was opened under
// its name: rotations rename them.
func (t *tree) unchanged() error {
	info, err := os.Lstat(t.path)
	if err != nil || inodeOf(info) != t.inode {
		return fmt.Errorf("the tree %s was renamed or removed while it was read: run the same again when no rotation is under way", t.name)
	}
	return nil
}

// report returns what adds the progress of one snapshot to what was before.
func (s *source) report(sum format.Progress) func(format.Progress) {
	return func(p format.Progress) {
		s.progress = format.Progress{
			Snapshots: sum.Snapshots + 1, Entries: sum.Entries + p.Entries, Bytes: sum.Bytes + p.Bytes, Path: p.Path,
		}
		if s.opts.OnProgress != nil {
			s.opts.OnProgress(s.progress)
		}
	}
}
