package tar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"

	"golang.org/x/sync/semaphore"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/internal/loss"
)

// source hands out the records of archives, one after another. It is written as
// a loop that emits records, and runs as a coroutine of Next.
type source struct {
	ctx      context.Context
	cancel   context.CancelCauseFunc
	wg       sync.WaitGroup
	archives []*archive
	opts     Options
	export   format.ExportOptions
	current  format.ID // the snapshot that is being read

	next    func() (format.Record, bool)
	stop    func()
	yield   func(format.Record) bool
	failed  error // sticky
	decoder decoder
	hasher  hasher
	work    chan *segment
	index   *index

	// Of the snapshot that is going out.
	input    *opened
	size     uint64 // of the file's content so far
	refs     format.Refs
	commit   format.Commit
	losses   loss.Counts
	progress format.Progress
}

var errClosed = errors.New("the source was closed")

// budgetSize bounds the content that waits to be hashed or handed out, in bytes.
func budgetSize(workers int) int64 { return min(24+4*int64(workers), 64) << 20 }

func newSource(ctx context.Context, archives []*archive, opts Options, export format.ExportOptions) *source {
	s := &source{archives: archives, opts: opts, export: export, index: newIndex(opts.TempDir)}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	s.decoder = decoder{lookupUser: opts.LookupUser, lookupGroup: opts.LookupGroup, chunker: opts.chunker}
	s.hasher = hasher{compress: opts.Compress && !export.Plain, level: opts.Level}
	if !export.Flat {
		s.hasher.sent = newSentSet()
	}
	s.work = make(chan *segment, opts.Workers)
	for range opts.Workers {
		s.wg.Go(func() { s.hasher.work(s.ctx, s.work) })
	}
	s.next, s.stop = iter.Pull(func(yield func(format.Record) bool) {
		s.yield = yield
		s.failed = s.stream()
	})
	return s
}

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
	s.wg.Wait()
	return s.index.close()
}

// emit hands out a record.
func (s *source) emit(rec format.Record) error {
	if !s.yield(rec) {
		return errClosed
	}
	return nil
}

// stream emits everything.
func (s *source) stream() error {
	h := &format.Header{Version: format.Version, Producer: s.export.Producer}
	if s.export.Flat {
		h.Features = append(h.Features, format.FeatureFlat)
	}
	if s.export.Arrived != nil && !s.export.Flat {
		h.Features = append(h.Features, format.FeatureHeld)
	}
	if s.hasher.compress {
		h.Features = append(h.Features, format.FeatureZstd)
	}
	if err := s.emit(h); err != nil {
		return err
	}
	for _, a := range s.archives {
		if err := s.snapshot(a); err != nil {
			if errors.Is(err, errClosed) {
				return err
			}
			return fmt.Errorf("read %s: %w", a.name, err)
		}
	}
	return s.emit(&format.End{Snapshots: uint64(len(s.archives))})
}

// snapshot emits one archive.
func (s *source) snapshot(a *archive) (err error) {
	if s.input, err = a.open(); err != nil {
		return err
	}
	defer func() {
		if e := s.input.Close(); err == nil {
			err = e
		}
	}()
	if err := s.index.reset(); err != nil {
		return err
	}
	s.commit, s.losses, s.current = format.Commit{}, nil, a.snapshot.ID
	s.progress.Snapshots++
	if s.input.seek != nil {
		s.progress.BytesTotal = s.progress.Bytes + uint64(s.input.seek.Size())
	}
	if err := s.emit(a.snapshot.Clone()); err != nil {
		return err
	}
	units, p := s.parse(s.input.r, 0, false)
	for {
		u, err := s.unit(units, p)
		if err != nil {
			return err
		}
		if u == nil {
			break
		}
		if err := s.member(u, units, p); err != nil {
			return err
		}
	}
	if err := a.unchanged(); err != nil {
		return err
	}
	s.commit.Losses = s.losses
	return s.emit(&s.commit)
}

// parse starts a parser. With one it stops after the first member.
func (s *source) parse(r io.Reader, offset int64, one bool) (<-chan *unit, *parser) {
	units := make(chan *unit, 256)
	p := &parser{
		members: newMembers(newBlocks(r, offset)), decoder: s.decoder, ctx: s.ctx,
		drop: s.export.Drop, listing: s.export.ListingOnly,
		splitter: s.opts.NewSplitter(), budgets: budgetSize(s.opts.Workers), work: s.work, out: units,
	}
	p.budget = semaphore.NewWeighted(p.budgets)
	if one {
		p.drop = nil
	}
	if s.input.waits {
		// A read from a pipe cannot be interrupted, and Close is not to wait for it.
		go p.run(one)
	} else {
		s.wg.Go(func() { p.run(one) })
	}
	return units, p
}

// unit returns the next unit, when its content is ready; nil at the end.
func (s *source) unit(units <-chan *unit, p *parser) (*unit, error) {
	select {
	case u, ok := <-units:
		if !ok {
			return nil, p.err
		}
		if u.seg == nil {
			return u, nil
		}
		select {
		case <-u.seg.done:
			p.budget.Release(u.seg.weight)
			return u, u.seg.err
		case <-s.ctx.Done():
		}
	case <-s.ctx.Done():
	}
	return nil, context.Cause(s.ctx)
}

func (s *source) lose(kind, path string, err error) {
	s.losses.Add(kind, path)
	if s.opts.OnError != nil {
		s.opts.OnError(path, err)
	}
}

// report counts what is lost of a member that begins with u.
func (s *source) report(u *unit) {
	for _, problem := range u.problems {
		s.lose(problem.kind, problem.path, problem.err)
	}
}

// member emits a member that begins with u.
func (s *source) member(u *unit, units <-chan *unit, p *parser) error {
	if !u.isLink {
		s.report(u)
	}
	if u.entry == nil {
		return nil
	}
	s.progress.Entries++
	s.progress.Path = u.entry.Path
	if s.export.OnProgress != nil {
		s.export.OnProgress(s.progress)
	}
	leaf, err := s.index.leafAbove(u.entry.Path)
	if err != nil {
		return err
	}
	switch {
	case leaf != "" && !u.dropped:
		s.lose(format.LossUnreadable, u.entry.Path, fmt.Errorf("it lies below %q, which is not a directory", leaf))
		return s.discard(u, units, p)
	case u.isLink:
		return s.link(u, units, p)
	case u.entry.Type == format.TypeDir:
		if u.dropped {
			return nil
		}
		if err := s.index.putDir(u.entry.Path); err != nil {
			return err
		}
		return s.entry(u.entry)
	}
	return s.leaf(u, units, p)
}

// discard passes over the rest of a member.
func (s *source) discard(u *unit, units <-chan *unit, p *parser) (err error) {
	for {
		if u.seg != nil {
			for i := range u.seg.pieces {
				free(&u.seg.pieces[i])
			}
		}
		if u.last {
			return nil
		}
		if u, err = s.unit(units, p); err != nil {
			return err
		}
		if u == nil {
			return io.ErrUnexpectedEOF
		}
	}
}

// leaf remembers and emits what is not a directory.
func (s *source) leaf(u *unit, units <-chan *unit, p *parser) error {
	if err := s.index.put(u.entry, u.at, u.dropped); err != nil {
		return err
	}
	if u.dropped {
		return s.index.end()
	}
	if err := s.entry(u.entry); err != nil {
		return err
	}
	if u.entry.Type != format.TypeFile {
		return s.index.end()
	}
	if s.export.ListingOnly {
		if err := s.index.end(); err != nil {
			return err
		}
		return s.eof(u.entry.Size)
	}
	return s.content(u, units, p, true)
}

func (s *source) entry(e *format.Entry) error {
	s.commit.Entries++
	return s.emit(e)
}

func (s *source) eof(size uint64) error {
	s.commit.Bytes += size
	s.size = 0
	return s.emit(&format.EOF{Size: size})
}

// content emits the content that u and the units after it have, and the eof.
func (s *source) content(u *unit, units <-chan *unit, p *parser, remember bool) (err error) {
	for {
		if u.hole > 0 {
			err = s.piece(&piece{hole: u.hole}, remember)
		}
		if u.seg != nil {
			for i := 0; err == nil && i < len(u.seg.pieces); i++ {
				err = s.piece(&u.seg.pieces[i], remember)
			}
		}
		if err != nil || u.last {
			break
		}
		if u, err = s.unit(units, p); err != nil {
			return err
		}
		if u == nil {
			return io.ErrUnexpectedEOF
		}
	}
	if err == nil && remember {
		err = s.index.end()
	}
	if err != nil {
		return err
	}
	return s.closeFile()
}

// closeFile emits what is left of a file's refs, and its eof.
func (s *source) closeFile() error {
	if err := s.flushRefs(); err != nil {
		return err
	}
	return s.eof(s.size)
}

// arrived reports whether the receiver has a chunk of a part of this snapshot that
// came before, and counts it as sent then.
func (s *source) arrived(id format.ID) bool {
	if s.export.Arrived == nil || !s.export.Arrived(s.current, id) {
		return false
	}
	s.hasher.sent.add(id)
	return true
}

// piece emits a run of content: refs are gathered, and emitted before anything
// else.
func (s *source) piece(p *piece, remember bool) error {
	if remember && !s.export.Flat {
		var err error
		if p.hole > 0 {
			err = s.index.addHole(p.hole)
		} else {
			err = s.index.addChunk(p.id, p.size)
		}
		if err != nil {
			return err
		}
	}
	if remember {
		s.progress.Bytes += p.hole + uint64(p.size)
	}
	s.size += p.hole + uint64(p.size)
	known := p.hole == 0 && (p.payload == nil || s.hasher.sent != nil && (s.hasher.sent.has(p.id) || s.arrived(p.id)))
	if known {
		free(p)
		s.refs.Chunks = append(s.refs.Chunks, format.ChunkRef{ID: p.id, Size: p.size})
		if len(s.refs.Chunks) < format.RefsMax {
			return nil
		}
		return s.flushRefs()
	}
	if err := s.flushRefs(); err != nil {
		return err
	}
	if p.hole > 0 {
		return s.emit(&format.Hole{Size: p.hole})
	}
	s.commit.Data++
	if s.hasher.sent != nil {
		s.hasher.sent.add(p.id)
	}
	d := format.Data{ID: p.id, Size: p.size, Codec: p.codec, Payload: p.payload, Checked: p.codec == format.CodecNone}
	p.payload = nil
	err := s.emit(&d)
	if !d.Taken() {
		format.FreePayload(d.Payload)
	}
	return err
}

func free(p *piece) {
	if p.payload != nil {
		format.FreePayload(p.payload)
		p.payload = nil
	}
}

func (s *source) flushRefs() error {
	if len(s.refs.Chunks) == 0 {
		return nil
	}
	err := s.emit(&s.refs)
	s.refs.Chunks = s.refs.Chunks[:0]
	return err
}
