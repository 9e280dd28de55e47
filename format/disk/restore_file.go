//go:build linux

package disk

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/bk-backup/bk/format"
)

// fileState is what is being done about a file.
type fileState uint8

const (
	fileNew     fileState = iota // not decided
	fileWrite                    // a new file is written
	fileRepair                   // the file that is there is compared, and corrected where it differs
	fileKept                     // the file that is there looks right
	fileSkipped                  // the overwrite mode or its directory forbids it
	fileLinked                   // it was made a hard link, which is all
)

// outFile is a file that is being restored. Its content may come in several
// pieces, written by several workers at a time; whoever writes the last one
// finishes the file.
type outFile struct {
	dir    *outDir
	name   string
	path   string
	meta   *metadata
	number uint64 // in the history

	outside bool // it does not lie inside the prefix: only its chunks are of use
	inGroup bool // it is a member of a hard-link group
	group   tableKey
	member  bool // not the first one
	leader  bool // others may be linked to it

	pending atomic.Int32 // pieces to come, and chunks that are being fetched
	wrote   atomic.Uint64
	told    atomic.Uint64 // bytes that were reported as progress
	reach   atomic.Uint64 // end of the last byte written

	mu       sync.Mutex
	state    fileState
	fd       int    // -1 while there is none
	opened   bool   // fd is open
	temp     string // name until the file is complete, if it replaces another
	replaced bool   // something was there before
	there    *unix.Stat_t
	err      error // why the file cannot be completed
	damaged  error // why a part of its content is missing

	size    uint64 // expected, then as eof says
	sized   bool   // eof has come
	hasSize bool
	sum     *format.ID // of the whole content, if it has to be checked
	spill   bool       // chunks that may be referred to again are kept elsewhere

	// Set with sized.
	linked bool   // it becomes a link to the file with the number linkTo
	linkTo uint64 // in the history
}

// fail notes the first error; what still comes for the file is dropped.
func (f *outFile) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
	}
}

// damage notes that a part of the content could not be had; the rest is written.
func (f *outFile) damage(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.damaged == nil {
		f.damaged = err
	}
}

func (f *outFile) hasFD() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.opened
}

// decide looks at what is there and chooses what to do about a file. Files in
// directories that the restore made are created when their content is there.
func (r *Restore) decide(f *outFile) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.outside || f.state != fileNew || f.err != nil {
		return
	}
	if dead := f.dir.dead; dead != nil {
		f.state = fileSkipped
		if !dead.skipped {
			f.err = errDeadDir
		}
		return
	}
	f.state = fileWrite
	if f.dir.fresh {
		return
	}
	var st unix.Stat_t
	err := unix.Fstatat(f.dir.fd, f.name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return
	}
	if err != nil {
		f.err = fmt.Errorf("take status: %w", err)
		return
	}
	r.decideOver(f, &st)
}

var errDeadDir = errors.New("the directory it lies in could not be made")

// decideOver chooses what to do where something is in the way.
func (r *Restore) decideOver(f *outFile, st *unix.Stat_t) {
	f.replaced, f.there = true, st
	looksRight := st.Mode&unix.S_IFMT == unix.S_IFREG && f.meta.has&format.HasMtime != 0 &&
		timeOf(st.Mtim) == f.meta.mtime && (f.sized || f.hasSize) && uint64(st.Size) == f.size
	switch {
	case r.opts.Overwrite == OverwriteNever:
		f.state = fileSkipped
	case looksRight && r.opts.Overwrite != OverwriteAlways && r.canKeep(f, st):
		f.state = fileKept
		if r.opts.Verify {
			f.state = fileRepair
		}
	case looksRight && r.opts.Overwrite == OverwriteIfNewer:
		f.state = fileWrite
	case !r.mayReplace(st, f.meta):
		f.state = fileSkipped
	}
}

// canKeep reports whether a file that looks right may stay. One that has other
// names, which may lie outside the target, is never changed in place.
func (r *Restore) canKeep(f *outFile, st *unix.Stat_t) bool {
	if st.Nlink == 1 {
		return true
	}
	if r.opts.Verify {
		return false
	}
	had := presentOf(st)
	if f.meta.owner(had).differ || f.meta.has&format.HasMode != 0 && had.mode != f.meta.mode {
		return false
	}
	return sameXattrs(f.meta, nameXattrs(f.dir.fd, f.name))
}

// open makes the file, or opens it to be repaired, before the first write.
func (r *Restore) open(f *outFile) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return -1, f.err
	}
	if f.opened {
		return f.fd, nil
	}
	var err error
	switch {
	case f.state == fileRepair:
		f.fd, err = r.reopen(f)
	case f.replaced:
		f.temp = r.tempName()
		f.fd, err = r.create(f, f.temp)
	default:
		f.fd, err = r.create(f, f.name)
		if errors.Is(err, unix.EEXIST) {
			// It has appeared since, or the listing has it twice.
			f.replaced, f.temp = true, r.tempName()
			f.fd, err = r.create(f, f.temp)
		}
	}
	if err != nil {
		f.err = fmt.Errorf("create: %w", err)
		r.stopFor(f, f.err)
		return -1, f.err
	}
	f.opened = true
	return f.fd, nil
}

// reopen opens the file that is there, to compare it and to write to it.
func (r *Restore) reopen(f *outFile) (int, error) {
	const flags = unix.O_RDWR | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	fd, err := unix.Openat(f.dir.fd, f.name, flags, 0)
	switch {
	case errors.Is(err, unix.EACCES):
		if err = chmodNode(f.dir.fd, f.name, 0o600); err == nil {
			fd, err = unix.Openat(f.dir.fd, f.name, flags, 0)
		}
	case errors.Is(err, unix.EPERM) && hasHardFlags(f.meta.flags):
		softenForGood(f.dir.fd, f.name)
		fd, err = unix.Openat(f.dir.fd, f.name, flags, 0)
	}
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && (st.Ino != f.there.Ino || st.Dev != f.there.Dev) {
		err = errors.New("it was replaced meanwhile")
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// create makes a new file, with its final mode as far as that is possible.
func (r *Restore) create(f *outFile, name string) (int, error) {
	fd, err := openNew(f.dir.fd, newCname(name), f.meta.creationMode(r.apply.root))
	return fd, err
}

// creationMode leaves setuid and setgid for later, and gives an ordinary user
// the right to set attributes.
func (m *metadata) creationMode(root bool) uint32 {
	if m.has&format.HasMode == 0 {
		return 0o600
	}
	mode := m.mode & 0o777
	if len(m.xattrs) > 0 && !root {
		mode |= 0o600
	}
	return mode
}

// progressFileStep is after how many bytes of one file it is reported that they
// were written, before the file is done.
const progressFileStep = 8 << 20

// store puts plain bytes into the file at an offset.
func (r *Restore) store(f *outFile, plain []byte, offset uint64) {
	f.mu.Lock()
	state, failed := f.state, f.err != nil
	f.mu.Unlock()
	if failed || state != fileWrite && state != fileRepair {
		return
	}
	fd, err := r.open(f)
	if err != nil {
		return
	}
	if state == fileRepair && sameRange(fd, plain, offset) {
		return
	}
	if err := pwriteFull(fd, plain, offset); err != nil {
		err = fmt.Errorf("write %d bytes at %d: %w", len(plain), offset, err)
		f.fail(err)
		r.stopFor(f, err)
		return
	}
	wrote := f.wrote.Add(uint64(len(plain)))
	if told := f.told.Load(); wrote-told >= progressFileStep && f.told.CompareAndSwap(told, wrote) {
		r.report.advance(f.path, wrote-told)
	}
	end := offset + uint64(len(plain))
	for {
		reach := f.reach.Load()
		if reach >= end || f.reach.CompareAndSwap(reach, end) {
			break
		}
	}
	if r.opts.Verify {
		if !rereadSame(fd, plain, offset) {
			f.damage(fmt.Errorf("the %d bytes at %d do not read back as they were written", len(plain), offset))
		}
	}
}

// sameRange reports whether the file has these bytes at the offset.
func sameRange(fd int, plain []byte, offset uint64) bool {
	buf := format.AllocPayload(len(plain))
	defer format.FreePayload(buf)
	return preadFull(fd, buf, offset) == nil && string(buf) == string(plain)
}

// rereadSame is sameRange after the kernel was asked to forget what it has
// written out already.
func rereadSame(fd int, plain []byte, offset uint64) bool {
	_ = unix.Fadvise(fd, int64(offset), int64(len(plain)), unix.FADV_DONTNEED)
	return sameRange(fd, plain, offset)
}

// unpend gives up one claim on a file, and finishes it with the last one.
func (r *Restore) unpend(f *outFile) {
	if f.pending.Add(-1) == 0 {
		r.finishFile(f)
	}
}

// finishFile completes a file all of whose content was written: its length, its
// metadata, its name.
func (r *Restore) finishFile(f *outFile) {
	if f.outside || f.state == fileLinked {
		return
	}
	defer r.release(f.dir)
	if f.leader {
		defer r.history.leaderDone(f.number)
	}
	if f.err == nil && r.ctx.Err() != nil {
		// Whatever stopped the restore, some of the content may be missing: the file
		// must not look complete, or the next restore would leave it as it is.
		f.err = context.Canceled
	}
	if f.linked && f.state != fileSkipped && f.err == nil && r.linkInstead(f) {
		return
	}
	if f.err == nil && (f.state == fileWrite || f.state == fileRepair) {
		_, _ = r.open(f) // an empty file has no content to open it
	}
	if f.err == nil && f.opened {
		r.complete(f)
	}
	if f.err == nil && f.state == fileKept {
		r.keepFile(f)
	}
	switch {
	case f.err != nil:
		r.abandon(f)
		r.lose(f, f.err)
	case f.damaged != nil:
		r.lose(f, f.damaged)
	case f.state == fileSkipped:
		r.history.unplace(r, f.number)
		r.count(f, ActionSkipped)
	case f.state == fileKept || f.state == fileRepair && f.wrote.Load() == 0:
		r.count(f, ActionUnchanged)
	case f.replaced:
		r.count(f, ActionReplaced)
	default:
		r.count(f, ActionCreated)
	}
}

func (r *Restore) count(f *outFile, action Action) {
	r.report.file(Item{Path: f.path, Type: format.TypeFile, Action: action, Size: f.size}, f.wrote.Load(), f.told.Load())
}

// lose reports a file that is not as it should be.
func (r *Restore) lose(f *outFile, err error) {
	if r.ctx.Err() != nil && (errors.Is(err, context.Canceled) || stops(err)) {
		return // the whole restore was stopped, and says why itself
	}
	r.history.unplace(r, f.number)
	kind := LossUnwritable
	if f.damaged != nil && f.err == nil {
		kind = LossDamaged
	}
	r.report.problem(kind, f.path, err)
}

// abandon drops what was written of a file. What was written under the final
// name stays, with a time of modification that says that it is not complete.
func (r *Restore) abandon(f *outFile) {
	if !f.opened {
		return
	}
	unix.Close(f.fd)
	f.opened, f.fd = false, -1
	if f.temp != "" {
		_ = unix.Unlinkat(f.dir.fd, f.temp, 0)
	}
}

// complete sets length, metadata and name of a file that was written.
func (r *Restore) complete(f *outFile) {
	err := r.setLength(f)
	if err == nil && f.sum != nil {
		err = r.checkSum(f)
	}
	if err == nil && f.damaged == nil {
		r.apply.file(f.fd, f.path, f.meta, r.hadFile(f))
	}
	if err == nil && f.temp != "" {
		if f.damaged != nil {
			// What was there before is better than a new file with a gap.
			f.err = f.damaged
			return
		}
		err = r.renameOver(f.dir, f.temp, f.name, f.path, hasHardFlags(f.meta.flags))
	}
	if err != nil {
		f.fail(err)
		r.stopFor(f, err)
		return
	}
	f.temp = ""
	if f.damaged == nil {
		r.apply.setFlags(f.fd, f.path, f.meta.flags)
	}
	f.opened = false
	if err := unix.Close(f.fd); err != nil {
		f.err = fmt.Errorf("close: %w", err)
		r.stopFor(f, f.err)
	}
}

// setLength gives a file its length where it ends in a hole, or was longer.
func (r *Restore) setLength(f *outFile) error {
	if f.reach.Load() == f.size && f.state == fileWrite || f.state == fileRepair && uint64(f.there.Size) == f.size {
		return nil
	}
	if err := unix.Ftruncate(f.fd, int64(f.size)); err != nil {
		return fmt.Errorf("set length %d: %w", f.size, err)
	}
	return nil
}

// checkSum reads the whole file back.
func (r *Restore) checkSum(f *outFile) error {
	h := sha256.New()
	buf := format.AllocPayload(256 << 10)
	defer format.FreePayload(buf)
	for off := uint64(0); off < f.size; {
		n := min(uint64(len(buf)), f.size-off)
		if err := preadFull(f.fd, buf[:n], off); err != nil {
			return fmt.Errorf("read back: %w", err)
		}
		_, _ = io.Writer(h).Write(buf[:n])
		off += n
	}
	if format.ID(h.Sum(nil)) != *f.sum {
		f.damage(errors.New("its content has not the SHA-256 that the stream says"))
	}
	return nil
}

// hadFile is what is known about a file that was just written.
func (r *Restore) hadFile(f *outFile) present {
	if f.state == fileRepair {
		return presentOf(f.there)
	}
	if !f.dir.fresh {
		return present{uid: -1, gid: -1, fresh: !f.dir.handsDown}
	}
	return present{
		uid: f.dir.before.uid, gid: f.dir.before.gid, fresh: true,
		mode: f.meta.creationMode(r.apply.root) &^ r.umask, modeOK: r.maskOK,
	}
}

// keepFile sets the metadata of a file whose content is left, where it differs.
func (r *Restore) keepFile(f *outFile) {
	if f.sized && uint64(f.there.Size) != f.size {
		f.err = fmt.Errorf("it looked unchanged, but has %d bytes instead of %d; restore it with overwrite mode always", f.there.Size, f.size)
		return
	}
	if f.there.Nlink > 1 {
		return // it was kept because nothing differs
	}
	fd, err := unix.Openat(f.dir.fd, f.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		had := presentOf(f.there)
		had.fresh = len(f.meta.xattrs) == 0
		r.apply.node(f.dir.fd, f.name, f.path, format.TypeFile, f.meta, had)
		return
	}
	defer unix.Close(fd)
	r.apply.kept(fd, f.path, f.meta, f.there)
}

// renameOver gives a complete file its name, in place of what was there.
// Flags that forbid it are taken off if soft.
func (r *Restore) renameOver(d *outDir, temp, name, path string, soft bool) error {
	err := unix.Renameat(d.fd, temp, d.fd, name)
	if soft && errors.Is(err, unix.EPERM) {
		harden := soften(d.fd, name)
		err = unix.Renameat(d.fd, temp, d.fd, name)
		harden()
	}
	if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOTEMPTY) {
		if err := r.clearDir(d.fd, name, path); err != nil {
			return err
		}
		err = unix.Renameat(d.fd, temp, d.fd, name)
	}
	if err != nil {
		return fmt.Errorf("replace what was there: %w", err)
	}
	return nil
}

// clearDir removes a directory that something else is to replace: an empty one,
// or with Delete any.
func (r *Restore) clearDir(dirfd int, name, path string) error {
	err := unix.Unlinkat(dirfd, name, unix.AT_REMOVEDIR)
	if err == nil || !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
		return err
	}
	if !r.opts.Delete {
		return errors.New("a directory that is not empty is in the way; restore with delete to replace it")
	}
	left, err := r.newPruner().remove(dirfd, name, path)
	if err == nil && left {
		err = errors.New("a directory is in the way that has something protected in it")
	}
	return err
}
