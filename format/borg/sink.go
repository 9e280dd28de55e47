package borg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/chunker"
	"github.com/bk-backup/bk/format/internal/loss"
	"github.com/bk-backup/bk/format/internal/spill"
	"github.com/bk-backup/bk/repo/store"
)

// SinkOptions say how snapshots are written, beside the Options that open the
// repository. Holder, Now and Rand are needed; the rest may be zero.
type SinkOptions struct {
	// Holder is who locks the repository.
	Holder Holder
	Now    func() time.Time // the clock
	Rand   io.Reader        // randomness for what authenticates archives
	// Compression is how what is stored now is compressed.
	Compression Compression
	// Recut has content cut anew, as borg create cuts in this repository, which
	// then finds it again. Otherwise cuts stay as they come.
	Recut bool
	// ClientNonce returns a file in which a borg on this machine has noted which
	// counters of the encryption it has used; it need not exist.
	ClientNonce func(repository string) string
	// Strict fails at the first thing that an archive cannot hold.
	Strict bool
	// OnLoss, if set, is called with everything that is lost.
	OnLoss     func(path string, err error)
	OnWarning  func(text string)
	OnProgress func(format.Progress)

	cuts chunker.Spec // for tests: how content is cut anew
}

// Written sums up what a sink did.
type Written struct {
	Snapshots uint64
	Held      uint64   // snapshots that the repository had
	Archives  []string // names of the archives written
	Entries   uint64
	Bytes     uint64 // of content
	NewChunks uint64 // chunks of content that were stored
	NewBytes  uint64 // their plain bytes
	Stored    int64  // bytes of the objects of all kinds
	Losses    []format.Loss
}

// Sink writes an archive for each snapshot into a repository in a directory,
// which is locked until Close. A snapshot is there for borg when its commit has
// been taken; what came of one that was not completed is taken away again.
type Sink struct {
	ctx     context.Context
	dir     string
	opts    SinkOptions
	tempDir string

	r        *Repository
	lock     *lock
	log      *logWriter
	nonces   *nonces
	manifest *manifest
	added    *spill.Table // places of the objects written now
	garbage  *garbage

	checker format.Checker
	arrive  *ordered // decodes what comes
	pack    *ordered // compresses what was cut anew; nil if cuts stay
	sent    *sentChunks
	zeros   map[uint32]chunkRef // chunks of zeros, by size
	cut     *recutter           // nil if cuts stay

	known    map[format.ID]knownArchive // by the ids that their snapshots have here and came under
	listing  *listing                   // of the snapshot before
	ownCuts  bool                       // its files were cut as the repository's own borg does
	before   format.ID                  // its id
	cur      *arriving
	err      error // sticky
	ended    bool
	closed   bool
	sum      Written
	losses   loss.Counts
	progress format.Progress
}

// knownArchive is an archive that the repository holds.
type knownArchive struct {
	archiveRef
	changed bool // it is not any more what came under that id
}

// arriving is the snapshot that comes.
type arriving struct {
	record  *format.Snapshot
	merge   *merger
	edits   *spill.Sorter // of a snapshot in no order
	seq     uint64
	file    *filling
	path    string   // of the last entry
	old     *listing // of the parent, nil if there is none
	places  *spill.Table
	oldPath string // whose content copies is
	oldFile *stored
}

// filling is a file whose content arrives.
type filling struct {
	entry  *format.Entry
	chunks []chunkRef
	size   uint64
	holes  bool
}

var _ format.SinkCloser = (*Sink)(nil)

// OpenSink locks the repository in dir, which st reads, and prepares writing into
// it. opts opens it as Open does. The errors are those of Open, and ErrLocked.
// It closes st with its own Close.
func OpenSink(ctx context.Context, dir string, st store.Reader, opts Options, how SinkOptions) (*Sink, error) {
	l, err := lockRepository(dir, how.Holder)
	if err != nil {
		return nil, err
	}
	opts.Archives = func(string) bool { return true }
	r, err := Open(ctx, st, opts)
	if err != nil {
		return nil, errors.Join(err, l.release())
	}
	s := &Sink{
		ctx: ctx, dir: dir, opts: how, tempDir: opts.TempDir, r: r, lock: l,
		added: spill.NewTable(opts.TempDir), garbage: newGarbage(opts.TempDir), zeros: make(map[uint32]chunkRef), listing: newListing(opts.TempDir),
	}
	running := make(chan struct{}, min(runtime.GOMAXPROCS(0), workersMax))
	s.arrive = &ordered{ctx: ctx, running: running}
	s.sent = newSentChunks(opts.TempDir)
	if how.Recut {
		s.pack = &ordered{ctx: ctx, running: running}
		if s.opts.cuts == (chunker.Spec{}) {
			s.opts.cuts = chunker.BorgBuzhash
		}
		if s.cut, err = newRecutter(s, s.opts.cuts); err != nil {
			return nil, errors.Join(err, s.release())
		}
	}
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("prepare writing to %s: %w", r, err), s.release())
	}
	return s, nil
}

// prepare finds out what may be written where.
func (s *Sink) prepare(ctx context.Context) error {
	manifest, object, err := s.r.readManifest(ctx)
	if err != nil {
		return err
	}
	if s.r.keys.mode == modePassphrase {
		return fmt.Errorf("its mode is that of Attic: convert it with borg key migrate-to-repokey: %w", ErrVersion)
	}
	s.manifest = manifest
	if err := s.know(ctx); err != nil {
		return err
	}
	last := s.r.segments[len(s.r.segments)-1].number
	if err := removeUncommitted(s.dir, last); err != nil {
		return err
	}
	s.log = newLogWriter(s.dir, s.r.config.segmentsPerDir, int64(min(s.r.config.maxSegmentSize, segmentSizeMax)), last+1)
	s.log.quota = s.r.config.quota
	for _, seg := range s.r.segments {
		s.log.used += seg.size
	}
	if err := s.log.take(0); err != nil {
		return err
	}
	if !s.r.keys.mode.encrypts() {
		return nil
	}
	least := ivOf(object) + blocks(len(object))
	if s.opts.ClientNonce != nil {
		used, err := readNonce(s.opts.ClientNonce(s.r.ID()))
		if err != nil {
			return err
		}
		least = max(least, used)
	}
	s.nonces, err = openNonces(s.dir, least)
	return err
}

// Encryption returns the repository's mode, as InitOptions names it.
func (s *Sink) Encryption() string { return s.r.keys.mode.String() }

// know finds the snapshots that the repository holds.
func (s *Sink) know(ctx context.Context) error {
	s.known = make(map[format.ID]knownArchive)
	list, damage, err := s.r.list(ctx)
	if err != nil {
		return err
	}
	for _, d := range damage {
		s.warn(fmt.Sprintf("an archive cannot be read, and is not recognised if it comes again: %v", d))
	}
	for _, a := range list {
		if a.checkpoint {
			continue
		}
		ref := archiveRef{name: a.name, id: objectID(a.record.ID)}
		for _, id := range a.heldAs() {
			if old, ok := s.known[id.ID]; id.Through == "" && (!ok || old.changed) {
				s.known[id.ID] = knownArchive{ref, id.Changed}
			}
		}
	}
	return nil
}

// Summary returns what was done so far.
func (s *Sink) Summary() Written {
	sum := s.sum
	sum.Archives = slices.Clone(sum.Archives)
	sum.Losses = s.losses.Clone()
	return sum
}

// Close gives the lock back and takes away what is not complete.
func (s *Sink) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	if s.err == nil {
		s.err = errors.New("the sink was closed")
	}
	s.arrive.abandon()
	if s.pack != nil {
		s.pack.abandon()
	}
	return s.release()
}

func (s *Sink) release() error {
	var err error
	if s.log != nil {
		if err = s.log.rollback(); err == nil && !s.ended {
			err = errors.Join(s.collect(), s.log.rollback())
		}
	}
	if s.cur != nil {
		err = errors.Join(err, s.cur.close())
	}
	if s.cut != nil {
		err = errors.Join(err, s.cut.close())
	}
	err = errors.Join(err, s.added.Close(), s.garbage.close(), s.sent.close(), s.listing.close())
	return errors.Join(err, s.lock.release(), s.r.Close())
}

// Write implements format.Sink.
func (s *Sink) Write(rec format.Record) error {
	if s.err == nil {
		s.err = s.write(rec)
	}
	return s.err
}

// write checks a record and puts it behind those that are being decoded. A
// commit, and the end, wait for all before them.
func (s *Sink) write(rec format.Record) error {
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	if err := s.checker.Check(rec, nil); err != nil {
		return err
	}
	switch r := rec.(type) {
	case *format.Header:
		return nil
	case *format.Data:
		return s.decode(r)
	case *format.Commit, *format.End:
		if err := s.arrive.drain(); err != nil {
			return err
		}
		if s.pack != nil {
			if err := s.pack.drain(); err != nil {
				return err
			}
		}
		return s.take(rec)
	}
	kept := format.Clone(rec)
	return s.arrive.do(0, nil, func() error { return s.take(kept) })
}

// take takes a record in its turn.
func (s *Sink) take(rec format.Record) error {
	switch r := rec.(type) {
	case *format.Snapshot:
		return s.begin(r)
	case *format.Entry:
		return s.entry(r)
	case *format.Remove:
		return s.inTurn(func() error { return s.edit(r.Path, nil) })
	case *format.Refs:
		return s.refs(r)
	case *format.CopyRange:
		return s.copyRange(r)
	case *format.Hole:
		return s.hole(r.Size)
	case *format.EOF:
		return s.eof(r)
	case *format.Commit:
		return s.commit(r)
	case *format.End:
		s.ended = true
		return s.collect()
	case *format.Extension:
		path := ""
		if s.cur != nil {
			path = s.cur.path
		}
		return s.lose(format.LossExtension, path, fmt.Errorf("a record of the kind %s", r.Name))
	}
	return nil
}

// begin finds the listing that the snapshot's records apply to.
func (s *Sink) begin(r *format.Snapshot) error {
	cur := &arriving{record: r}
	switch {
	case r.Parent.IsZero():
		if err := s.listing.reset(); err != nil {
			return err
		}
		s.ownCuts = s.cut != nil
	case r.Parent == s.before:
	default:
		base, ok := s.known[r.Parent]
		if !ok || base.changed {
			return format.Errorf(format.ClassParent, "snapshot %s is a difference against %s, which this repository does not hold", r.ID, r.Parent)
		}
		if err := s.load(&base.archiveRef); err != nil {
			return fmt.Errorf("read the archive %q, which snapshot %s is a difference to: %w", base.name, r.ID, err)
		}
	}
	cur.old = s.listing
	cur.merge = newMerger(cur.old, s.tempDir)
	if r.Unsorted {
		cur.edits = spill.NewSorter(s.tempDir, format.ComparePaths)
	}
	s.cur = cur
	s.progress.Snapshots++
	if e := r.Estimate; e != nil {
		s.progress.EntriesTotal, s.progress.BytesTotal = s.progress.Entries+e.Entries, s.progress.Bytes+e.Bytes
	}
	return nil
}

func (c *arriving) close() error {
	var err error
	if c.edits != nil {
		err = c.edits.Close()
	}
	if c.places != nil {
		err = errors.Join(err, c.places.Close())
	}
	return errors.Join(err, c.merge.close())
}

// edit takes what a record says of a path: a row, or nil for a removal.
func (s *Sink) edit(path string, row []byte) error {
	s.cur.seq++
	if s.cur.edits == nil {
		return s.cur.merge.edit(path, s.cur.seq, row)
	}
	return s.cur.edits.Add(path, appendEdit(nil, s.cur.seq, row))
}

// entry takes an entry, which content may follow.
func (s *Sink) entry(e *format.Entry) error {
	s.cur.path = e.Path
	s.sum.Entries++
	s.progress.Entries++
	s.progress.Path = e.Path
	if s.opts.OnProgress != nil {
		s.opts.OnProgress(s.progress)
	}
	if e.Type == format.TypeFile {
		s.cur.file = &filling{entry: e}
		if s.cut != nil {
			s.cut.begin(s.cur.file)
		}
		return nil
	}
	return s.inTurn(func() error { return s.settle(e, nil) })
}

// inTurn does something to the listing when the content of all files before is
// stored.
func (s *Sink) inTurn(do func() error) error {
	if s.pack == nil {
		return do()
	}
	return s.pack.do(0, nil, do)
}

// settle puts an entry whose content is known into the listing.
func (s *Sink) settle(e *format.Entry, f *filling) error {
	it, err := s.itemOf(e)
	if err != nil {
		return err
	}
	if it == nil {
		return s.edit(e.Path, nil)
	}
	if f != nil {
		it.chunks, it.hasChunks = f.chunks, true
		it.size, it.has = f.size, it.has|format.HasSize
	}
	e.Hardlink = groupKey(e.Hardlink)
	row, err := appendRow(nil, e, it)
	if err != nil {
		return err
	}
	return s.edit(e.Path, row)
}

// eof ends the content of a file.
func (s *Sink) eof(r *format.EOF) error {
	f := s.cur.file
	s.cur.file = nil
	if s.cut != nil {
		return s.cut.end(f, r)
	}
	return s.filled(f, r)
}

// filled takes a file whose content is stored.
func (s *Sink) filled(f *filling, r *format.EOF) error {
	if f.size != r.Size {
		e := format.Errorf(format.ClassCount, "eof says %d bytes, %d came", r.Size, f.size)
		e.Path = f.entry.Path
		return e
	}
	s.sum.Bytes += r.Size
	if len(r.Extra) > 0 {
		if err := s.lose(format.LossExtension, f.entry.Path, errors.New("unknown keys of its content")); err != nil {
			return err
		}
	}
	if f.holes {
		if err := s.lose(format.LossSparse, f.entry.Path, errors.New("borg has no holes, only zeros, of which borg extract --sparse makes holes again")); err != nil {
			return err
		}
	}
	return s.settle(f.entry, f)
}

// commit writes the archive of the snapshot.
func (s *Sink) commit(r *format.Commit) error {
	cur := s.cur
	if cur.edits != nil {
		if err := cur.edits.Each(cur.merge.editRow); err != nil {
			return err
		}
	}
	next, err := cur.merge.finish()
	if err != nil {
		return err
	}
	if err := s.listing.close(); err != nil {
		return err
	}
	s.listing, s.before = next, cur.record.ID
	s.cur = nil
	if err := cur.close(); err != nil {
		return err
	}
	if len(r.Extra) > 0 {
		if err := s.lose(format.LossExtension, "", errors.New("unknown keys of the commit")); err != nil {
			return err
		}
	}
	s.losses.Merge(r.Losses)
	if _, ok := s.known[cur.record.ID]; ok {
		s.sum.Held++
		return s.useAll()
	}
	return s.writeArchive(cur.record)
}

// useAll notes the chunks of a listing of which no archive is written: later ones
// may take them over.
func (s *Sink) useAll() error {
	c := s.listing.cursor()
	for {
		_, row, ok, err := c.next()
		if err != nil || !ok {
			return err
		}
		if row[0]&rowNew == 0 || isDir(row) {
			continue
		}
		_, content := splitRow(row)
		var it item
		if err := it.parse(content); err != nil {
			return err
		}
		if err := s.garbage.use(it.chunks); err != nil {
			return err
		}
	}
}

// lose counts something that the archive will not have.
func (s *Sink) lose(kind, path string, err error) error {
	if s.opts.Strict {
		return fmt.Errorf("borg cannot hold %q as it is: %s: %w", "/"+path, kind, err)
	}
	s.losses.Add(kind, path)
	if s.opts.OnLoss != nil {
		s.opts.OnLoss(path, err)
	}
	return nil
}

func (s *Sink) warn(text string) {
	if s.opts.OnWarning != nil {
		s.opts.OnWarning(text)
	}
}

func (s *Sink) streamError(class format.Class, text string, args ...any) error {
	e := format.Errorf(class, text, args...)
	if s.cur != nil {
		e.Path = s.cur.path
	}
	return e
}

// Place returns the directory of the repository.
func (s *Sink) Place() string { return filepath.Clean(s.dir) }
