//go:build linux

package disk

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"os"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/bk-backup/bk/format"
)

// Restore is a directory as a sink: it makes files of records, inside that
// directory and nowhere else.
//
// The caller's goroutine, in Write, keeps the directories of the current path
// open (restore_dir.go), makes everything that has no content, and gathers
// files and their content into loads (restore_load.go). Workers write them and
// set their metadata (restore_file.go); where content came earlier in the
// stream they read it back (restore_chunks.go). A directory gets its own
// metadata when the last file in it is done.
//
// Snapshots of a stream are applied one after another, so that the target ends
// up holding the last; what is needed for that (what was placed where, earlier
// versions) is in restore_history.go.
//
// What a killed restore leaves behind is right or looks wrong: the time of
// modification is set after the content, so that a file which was cut short
// has neither the size nor the time of its entry and the next run writes it
// again; what replaces an existing file is written under a name that begins
// with ".bk-restore-" and then renamed.
//
// A Restore is for one goroutine.
type Restore struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	target string // as the caller named it, for people
	opts   RestoreOptions
	report *report
	apply  applier
	owners ownerIDs
	umask  uint32
	maskOK bool

	// The caller's goroutine.
	stage    grammarStage
	features map[format.Feature]bool
	snapshot snapshotState
	root     *outDir // the target; workers may use it
	stack    []*outDir
	current  *outFile // the file whose content is coming
	path     string   // of the last entry in this snapshot, in the target
	placed   bool     // whether there was one, and it lies in the target
	content  content
	history  history
	load     *load
	err      error // sticky

	// Shared with the workers.
	dirsOpen    atomic.Int64
	dirsOpenMax int
	lingering   atomic.Int64 // directories that the stack has left and that are not done
	chunks      chunks
	loads       loadQueue
	wg          sync.WaitGroup
	temps       atomic.Uint64
	closed      bool
}

// grammarStage is where in the stream's grammar a sink stands.
type grammarStage int

const (
	atHeader grammarStage = iota
	atSnapshot
	inSnapshot
	inFile
	atEnd
)

// NewRestore prepares a restore into the directory target, which is made if it
// is not there. Its own metadata is set, where the listing has it, only if it
// was made or was empty. Close must be called.
func NewRestore(ctx context.Context, target string, opts RestoreOptions) (*Restore, error) {
	if opts.Prefix != "" {
		if err := format.CheckPath(opts.Prefix); err != nil {
			return nil, fmt.Errorf("restore: the prefix: %w", err)
		}
	}
	r := &Restore{target: target, opts: opts, report: newReport(&opts)}
	r.report.opts = &r.opts
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	r.apply = applier{root: os.Geteuid() == 0, loss: r.report.problem}
	r.owners = newOwnerIDs(&r.opts)
	r.umask, r.maskOK = processUmask()
	r.dirsOpenMax = openDirsMax()
	if r.opts.MemoryChunks <= 0 {
		r.opts.MemoryChunks = 1 << 18
	}
	if r.opts.DryRun {
		r.opts.MemoryChunks = math.MaxInt // it makes no files, not even temporary ones
	}
	if r.opts.Workers <= 0 {
		r.opts.Workers = min(max(runtime.GOMAXPROCS(0), 2), 8)
	}
	if err := r.openTarget(); err != nil {
		if fd := r.stack0(); fd >= 0 {
			unix.Close(fd)
		}
		r.cancel(err)
		return nil, ofTarget(r.target, err)
	}
	r.history.init(r)
	r.chunks.init(r)
	if !r.opts.DryRun {
		r.startWorkers()
	}
	return r, nil
}

// openTarget makes the bottom of the stack.
func (r *Restore) openTarget() error {
	d := &outDir{fd: -1}
	d.users.Store(1)
	r.root, r.stack = d, []*outDir{d}
	made := false
	if r.opts.DryRun {
		if _, err := os.Lstat(r.target); errors.Is(err, os.ErrNotExist) {
			d.void, d.fresh = true, true
			return nil
		}
	} else {
		_, err := os.Lstat(r.target)
		made = errors.Is(err, os.ErrNotExist)
		if err := os.MkdirAll(r.target, 0o700); err != nil {
			return fmt.Errorf("restore: make the target: %w", err)
		}
	}
	fd, err := unix.Open(r.target, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("restore: open the target %s: %w", r.target, err)
	}
	d.fd = fd
	r.dirsOpen.Add(1)
	if err := r.learnDir(d, made); err != nil {
		return err
	}
	if d.dead != nil {
		return fmt.Errorf("restore: open the target %s: %w", r.target, d.dead.err)
	}
	if made {
		return nil
	}
	names, err := readNames(fd, 1)
	if err != nil {
		return fmt.Errorf("restore: list the target %s: %w", r.target, err)
	}
	r.history.targetEmpty = len(names) == 0
	return nil
}

// Summary returns what was done so far.
func (r *Restore) Summary() Summary { return r.report.summary() }

// Write takes one record. Its errors are *format.Error where the stream is at
// fault, *TargetError where nothing more can be written to the target, and name
// the path at which that was. What concerns one object alone is counted and
// reported instead.
func (r *Restore) Write(rec format.Record) error {
	if r.err != nil {
		return r.err
	}
	if err := context.Cause(r.ctx); err != nil {
		r.err = ofTarget(r.target, err)
		return r.err
	}
	if err := r.write(rec); err != nil {
		// A worker that failed first is the reason for everything after it.
		if cause := context.Cause(r.ctx); cause != nil {
			err = cause
		}
		err = ofTarget(r.target, err)
		r.err = err
		r.cancel(err)
		return err
	}
	return nil
}

func (r *Restore) write(rec format.Record) error {
	if x, ok := rec.(*format.Extension); ok {
		r.extension(x)
		return nil
	}
	if err := r.expectKind(rec.Kind()); err != nil {
		return err
	}
	switch rec := rec.(type) {
	case *format.Header:
		return r.header(rec)
	case *format.Snapshot:
		return r.begin(rec)
	case *format.Entry:
		return r.entry(rec)
	case *format.Data:
		return r.data(rec)
	case *format.Refs:
		return r.refs(rec)
	case *format.CopyRange:
		return r.copyRange(rec)
	case *format.Hole:
		return r.hole(rec)
	case *format.EOF:
		return r.eof(rec)
	case *format.Remove:
		return r.remove(rec)
	case *format.Commit:
		return r.commit(rec)
	case *format.End:
		return r.end()
	}
	return format.Errorf(format.ClassKind, "a record of a kind that a restore does not know")
}

// extension counts what this version does not know, and a file system cannot
// hold: records that belong to an object that is restored.
func (r *Restore) extension(x *format.Extension) {
	if (r.stage == inSnapshot || r.stage == inFile) && r.placed {
		r.report.problem(LossExtension, r.path, fmt.Errorf("a record %s belongs to it", x.Name))
	}
}

// expectKind refuses a record that has no place where it comes.
func (r *Restore) expectKind(kind format.Kind) error {
	ok := false
	switch kind {
	case format.KindHeader:
		ok = r.stage == atHeader
	case format.KindSnapshot, format.KindEnd:
		ok = r.stage == atSnapshot
	case format.KindEntry, format.KindRemove, format.KindCommit:
		ok = r.stage == inSnapshot
	case format.KindData, format.KindRefs, format.KindCopy, format.KindHole, format.KindEOF:
		ok = r.stage == inFile
	}
	if !ok {
		return format.Errorf(format.ClassGrammar, "a %s record has no place here", kind)
	}
	return nil
}

func (r *Restore) end() error {
	r.stage = atEnd
	return r.finish()
}

// Close ends the restore. Before an end record came it keeps what was written
// and gives up the rest.
func (r *Restore) Close() error {
	if r.stage == atEnd && r.err == nil {
		return nil
	}
	if r.err == nil {
		r.err = errors.New("restore: closed before the end of the stream")
		r.cancel(r.err)
	}
	return r.finish()
}

// finish stops the workers, removes what was kept aside and sets the metadata
// of the directories that are still open.
func (r *Restore) finish() error {
	if r.closed {
		return nil
	}
	r.closed = true
	r.stopWorkers()
	var errs []error
	for len(r.stack) > 1 {
		if err := r.pop(); err != nil {
			errs = append(errs, err)
			break
		}
	}
	errs = append(errs, r.history.close(r), r.chunks.close())
	r.release(r.stack[0])
	if r.opts.Sync && !r.opts.DryRun && r.err == nil {
		// The target's own metadata came last.
		if err := syncDir(r.target); err != nil {
			errs = append(errs, err)
		}
	}
	r.cancel(nil)
	return errors.Join(errs...)
}

func syncDir(p string) error {
	f, err := os.Open(p)
	if err != nil {
		return fmt.Errorf("restore: flush the target: %w", err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("restore: flush the target %s: %w", p, err)
	}
	return nil
}

// scratch makes an unlinked file on the target's file system.
func (r *Restore) scratch() (*os.File, error) {
	root := r.stack[0].fd
	fd, err := unix.Openat(root, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		// The file system does not know O_TMPFILE.
		name := r.tempName()
		fd, err = unix.Openat(root, name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err == nil {
			err = unix.Unlinkat(root, name, 0)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("make a temporary file in %s: %w", r.target, err)
	}
	return os.NewFile(uintptr(fd), "temporary file in "+r.target), nil
}

// tempName returns a name that nothing in the target has.
func (r *Restore) tempName() string {
	var h maphash.Hash
	h.SetSeed(r.history.seeds[0])
	return fmt.Sprintf(".bk-restore-%08x-%d", uint32(h.Sum64()), r.temps.Add(1))
}
