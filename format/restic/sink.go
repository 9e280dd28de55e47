package restic

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/internal/loss"
	"github.com/bk-backup/bk/format/internal/spill"
	"github.com/bk-backup/bk/repo/store"
)

// SinkOptions say how a repository is written. Passphrase is required.
type SinkOptions struct {
	// Passphrase is called once or, where a repository has to be made, twice.
	Passphrase func(ctx context.Context) (string, error)
	// Version of a repository that is made: 1 or 2; 0 means 2. Of one that exists
	// it must be the version, or 0.
	Version int
	// Polynomial of a repository that is made, as Repository.Polynomial returns it;
	// 0 draws one.
	Polynomial uint64
	// Recut cuts content as restic does, with the repository's polynomial; what is
	// cut so already passes as it is. Otherwise the chunks of the stream stay as
	// they come.
	Recut bool
	// Compression of what comes plain, in format 2; format 1 has none.
	Compression format.Level
	// Held accepts refs to chunks that the repository holds already, and not only
	// to those of the stream (the feature held).
	Held bool
	// Strict fails at the first thing that restic cannot hold.
	Strict bool

	// Host, User, PID, UID and GID stand in locks and keys, as restic has them.
	Host, User string
	PID        int
	UID, GID   uint32
	// Program is said to have made the snapshots.
	Program string
	// TempDir is where goes what does not fit into memory, in files without a
	// name; "" means where the system puts them.
	TempDir string
	// Workers is how many processors are used; 0 means all.
	Workers int
	Log     *slog.Logger
	Now     func() time.Time // nil: time.Now
	Rand    io.Reader        // nil: crypto/rand

	// OnLoss, if set, is called with everything that is lost.
	OnLoss     func(path string, err error)
	OnWarning  func(text string)
	OnProgress func(format.Progress)

	// Tests set these: the work of scrypt for a new key, how long a new lock is
	// left for others to see, and what is sorted in memory; 0 means the usual.
	keyWork  uint64
	lockWait time.Duration
	sortMax  int // bytes that are sorted in memory
}

// Written sums up what a sink did.
type Written struct {
	Snapshots uint64
	Held      uint64 // snapshots that the repository had already
	Entries   uint64
	Bytes     uint64 // of content
	New       uint64 // plain bytes of chunks that were stored
	Stored    int64  // bytes of packs
	Losses    []format.Loss
}

// Sink writes snapshots into a restic repository. Each is complete and can be
// seen by restic when its commit was taken. What was killed before leaves packs
// that nothing refers to, which restic's prune removes.
//
// Its memory does not grow with what is written, but for the trees of the
// directories from the root to where it is, and 48 bytes for each blob that the
// repository held before.
type Sink struct {
	ctx     context.Context
	opts    SinkOptions
	r       *Repository
	w       *writer
	lock    *lock
	jobs    *jobs
	checker format.Checker
	cuts    contentWriter
	tree    treeWriter
	sent    *spill.Table // size of each chunk that the stream carried
	fresh   *spill.Table // chunks and trees that this run stores
	groups  *spill.Table // groups of hard links in this snapshot: places in log
	log     *spill.Log
	known   map[format.ID]holding
	text    nodeText
	err     error // sticky
	closed  bool

	prev     format.ID // id, in the stream, of the snapshot before
	prevTree format.ID
	prevName format.ID // its id in the repository

	snapshot *format.Snapshot
	base     format.ID // the parent's tree
	baseName format.ID // the parent's id in the repository
	sorter   *sorter   // of a snapshot that is not sorted
	file     *sinkFile
	path     string      // of the last entry
	here     loss.Counts // of this snapshot

	sum      Written
	losses   loss.Counts
	progress format.Progress
}

var _ format.SinkCloser = (*Sink)(nil)

// OpenSink prepares writing into the repository in st, which is made if st is
// empty. The sink closes st with its own Close, or if this fails leaves it open.
// The errors are those of Open, and ErrLocked.
func OpenSink(ctx context.Context, st store.Store, opts SinkOptions) (*Sink, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Rand == nil {
		opts.Rand = rand.Reader
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	r, err := openOrCreate(ctx, st, &opts)
	if err != nil {
		return nil, err
	}
	w := newWriter(r, st, &opts)
	s := &Sink{
		ctx: ctx, opts: opts, r: r, w: w, jobs: newJobs(ctx, r.workers),
		sent: spill.NewTable(opts.TempDir), fresh: spill.NewTable(opts.TempDir),
		groups: spill.NewTable(opts.TempDir), log: spill.NewLog(opts.TempDir),
	}
	s.text.lost = s.lost
	s.tree = treeWriter{ctx: ctx, w: w, save: s.saveTree}
	if err := s.prepare(); err != nil {
		return nil, errors.Join(err, s.release())
	}
	return s, nil
}

// prepare takes a lock and only then looks at what there is.
func (s *Sink) prepare() (err error) {
	if s.lock, err = takeLock(s.ctx, s.w); err != nil {
		return err
	}
	if _, err := s.r.loadedIndex(s.ctx); err != nil {
		return err
	}
	if s.cuts, err = s.newContentWriter(); err != nil {
		return err
	}
	return s.learn()
}

// HasChunk reports whether the repository held a chunk of content before. It may
// be called concurrently.
func (s *Sink) HasChunk(id format.ID, size uint32) bool {
	_, at := s.r.index.Load().listed.find(dataBlob, id)
	return at != nil && at.size() == size
}

// Summary returns what was done so far.
func (s *Sink) Summary() Written {
	sum := s.sum
	sum.Losses = s.losses.Clone()
	s.w.mu.Lock()
	sum.Stored = s.w.written
	s.w.mu.Unlock()
	return sum
}

// Close gives up what is not complete, and removes the lock.
func (s *Sink) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	return errors.Join(s.release(), s.r.Close())
}

func (s *Sink) release() error {
	_ = s.jobs.wait() // its error was told, or is of what is given up
	err := s.w.close()
	if s.lock != nil {
		err = errors.Join(err, s.lock.release())
	}
	if s.sorter != nil {
		err = errors.Join(err, s.sorter.close())
	}
	if c, ok := s.cuts.(*cutter); ok {
		err = errors.Join(err, c.close())
	}
	return errors.Join(err, s.sent.Close(), s.fresh.Close(), s.groups.Close(), s.log.Close())
}

// Write implements format.Sink.
func (s *Sink) Write(rec format.Record) error {
	if s.err == nil {
		s.err = s.write(rec)
	}
	return s.err
}

func (s *Sink) write(rec format.Record) error {
	if err := s.checker.Check(rec, nil); err != nil {
		return err
	}
	switch r := rec.(type) {
	case *format.Snapshot:
		return s.begin(r)
	case *format.Entry:
		return s.entry(r)
	case *format.Data:
		return s.data(r)
	case *format.Refs:
		return s.refs(r)
	case *format.CopyRange:
		return s.copyRange(r)
	case *format.Hole:
		s.file.holes++
		s.progress.Bytes += r.Size
		return s.cuts.zeros(r.Size)
	case *format.EOF:
		return s.eof(r)
	case *format.Remove:
		return s.place(edit{path: r.Path, what: editRemove})
	case *format.Commit:
		return s.commit(r)
	case *format.End:
		return s.flush()
	case *format.Extension:
		s.lost(format.LossExtension, fmt.Errorf("a record of the kind %s", r.Name))
		return s.err
	}
	return nil
}

// lost counts something that the repository will not have. With Strict it is the
// error of the record that is being written.
func (s *Sink) lost(kind string, why error) {
	if s.opts.Strict {
		if s.err == nil {
			s.err = fmt.Errorf("restic cannot hold %q as it is: %s: %w", "/"+s.path, kind, why)
		}
		return
	}
	s.here.Add(kind, s.path)
	if s.opts.OnLoss != nil {
		s.opts.OnLoss(s.path, why)
	}
}

// begin finds the listing that the snapshot's records apply to.
func (s *Sink) begin(r *format.Snapshot) error {
	s.base, s.baseName = format.ID{}, format.ID{}
	switch {
	case r.Parent.IsZero():
	case r.Parent == s.prev:
		s.base, s.baseName = s.prevTree, s.prevName
	default:
		h, ok := s.known[r.Parent]
		if !ok || h.claim == claimOriginal {
			return format.Errorf(format.ClassParent, "snapshot %s is a difference against %s, which %s does not hold", r.ID, r.Parent, s.r)
		}
		s.base, s.baseName = h.tree, h.name
	}
	if err := errors.Join(s.groups.Reset(), s.log.Reset()); err != nil {
		return err
	}
	s.snapshot = r.Clone()
	s.path, s.here = "", nil
	s.tree.begin(s.base)
	if r.Unsorted {
		s.sorter = newSorter(s.opts.TempDir, cmp.Or(s.opts.sortMax, sorterBytesMax))
	}
	if e := r.Estimate; e != nil {
		s.progress.EntriesTotal, s.progress.BytesTotal = s.progress.Entries+e.Entries, s.progress.Bytes+e.Bytes
	}
	return nil
}

// place puts one difference into the listing, now or when all have come.
func (s *Sink) place(e edit) error {
	if s.sorter != nil {
		return s.sorter.add(e)
	}
	return e.apply(&s.tree)
}

// saveTree stores the JSON of a directory, unless it is there.
func (s *Sink) saveTree(id format.ID, json []byte) error {
	if known, err := s.claim(treeBlob, id); known || err != nil {
		return err
	}
	return s.jobs.do(len(json), func() error {
		if s.r.config.Version < 2 {
			return s.w.add(s.ctx, treeBlob, id, json, 0)
		}
		codec, content, err := format.EncodePayload(nil, json, format.LevelDefault)
		if err != nil || codec == format.CodecNone {
			return errors.Join(err, s.w.add(s.ctx, treeBlob, id, json, 0))
		}
		defer format.FreePayload(content)
		return s.w.add(s.ctx, treeBlob, id, content, uint32(len(json)))
	})
}

// claim reports whether a blob is in the repository, or is being stored by this
// run; if not, the caller is to store it.
func (s *Sink) claim(k kind, id format.ID) (known bool, err error) {
	if _, at := s.r.index.Load().listed.find(k, id); at != nil {
		return true, nil
	}
	key := blobKey(&id)
	key[15] ^= byte(k) // a chunk and a tree may have one id
	if _, known, err = s.fresh.Get(key); known || err != nil {
		return known, err
	}
	return false, s.fresh.Put(key, 1)
}

// flush makes durable what came so far.
func (s *Sink) flush() error {
	if err := s.jobs.wait(); err != nil {
		return err
	}
	return s.w.flush(s.ctx)
}
