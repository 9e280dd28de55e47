//go:build linux

package disk

import (
	"errors"
	"fmt"
	"path"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/bk-backup/bk/format"
)

// How what earlier records put into the target is taken out of it again.

// retire takes away what an earlier record put at a path.
func (r *Restore) retire(d *outDir, name, p string, pl place) error {
	if r.opts.DryRun {
		return r.history.keepVersion(p, pl)
	}
	if d.fd < 0 {
		return nil
	}
	if pl.isDir() {
		_, err := r.newRetirer(nil).remove(d.fd, name, p)
		return err
	}
	_, err := r.retireFile(d.fd, name, p, pl)
	return err
}

// retireFile moves a file aside if its bytes may still be referred to; otherwise
// it unlinks it, which is what gone says.
func (r *Restore) retireFile(dirfd int, name, p string, pl place) (gone bool, err error) {
	h := &r.history
	if pl.flags&placeChunks == 0 && !h.copies {
		return true, r.unlink(dirfd, name, true)
	}
	if err := h.makeAside(r); err != nil {
		return false, err
	}
	to := strconv.FormatUint(pl.content, 10)
	err = unix.Renameat(dirfd, name, h.aside, to)
	if errors.Is(err, unix.EPERM) {
		harden := soften(dirfd, name)
		err = unix.Renameat(dirfd, name, h.aside, to)
		harden()
	}
	switch {
	case errors.Is(err, unix.ENOENT):
		return true, nil
	case errors.Is(err, unix.EXDEV):
		if err := copyAside(dirfd, name, h.aside, to); err != nil {
			return false, fmt.Errorf("keep the earlier version of %s: %w", r.show(p), err)
		}
		if err := r.unlink(dirfd, name, true); err != nil {
			return false, err
		}
	case err != nil:
		return false, fmt.Errorf("keep the earlier version of %s: %w", r.show(p), err)
	}
	return true, h.keepVersion(p, pl)
}

// keepVersion notes which version of a file the parent had, if that is what goes:
// one that this snapshot has put there itself is nobody's source.
func (h *history) keepVersion(p string, pl place) error {
	if !h.copies || pl.isDir() || !h.base && pl.number >= h.first {
		return nil
	}
	return h.old.put(h.key(p), tableValue{pl.content, 0})
}

// copyAside copies a regular file to another file system.
func copyAside(dirfd int, name string, aside int, to string) error {
	in, err := openFileBelow(dirfd, name)
	if err != nil {
		return err
	}
	defer unix.Close(in)
	out, err := unix.Openat(aside, to, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(out)
	buf := format.AllocPayload(256 << 10)
	defer format.FreePayload(buf)
	for off := uint64(0); ; {
		n, err := unix.Pread(in, buf, int64(off))
		if err != nil || n == 0 {
			return err
		}
		if err := pwriteFull(out, buf[:n], off); err != nil {
			return err
		}
		off += uint64(n)
	}
}

// unlink removes something that is not a directory. What this restore made may
// have flags that forbid it.
func (r *Restore) unlink(dirfd int, name string, mine bool) error {
	err := unix.Unlinkat(dirfd, name, 0)
	if mine && errors.Is(err, unix.EPERM) {
		harden := soften(dirfd, name)
		err = unix.Unlinkat(dirfd, name, 0)
		harden()
	}
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// newRetirer returns a clearer that removes what this restore has placed, and
// leaves what is not its own. removed is told about each object.
func (r *Restore) newRetirer(removed func(path string)) *clearer {
	h := &r.history
	return &clearer{soft: true, removed: removed, visit: func(dirfd int, name, p string, st *unix.Stat_t) (keep, gone bool, err error) {
		pl, ok, err := h.at(p)
		if err != nil {
			return false, false, err
		}
		isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
		if ok {
			if ok, err = h.ours(pl); err != nil {
				return false, false, err
			}
			if err := h.placed.remove(h.key(p)); err != nil {
				return false, false, err
			}
		} else if h.base {
			ok = true
			if pl, err = h.baseVersion(p); err != nil {
				return false, false, err
			}
		}
		if !ok {
			return true, false, nil
		}
		if isDir {
			return false, false, nil
		}
		gone, err = r.retireFile(dirfd, name, p, pl)
		return false, gone, err
	}, failed: func(p string, err error) { r.report.problem(LossUnwritable, p, err) }}
}

// remove takes a path out of the target, if a record put it there.
func (h *history) remove(r *Restore, p string) error {
	if p == "" {
		return h.removeAll(r)
	}
	pl, ok, err := h.at(p)
	if err != nil || !ok && !h.base {
		return err
	}
	if r.snapshot.unsorted || ok && pl.number >= h.first {
		if err := r.drain(); err != nil {
			return err
		}
	}
	if r.opts.DryRun {
		r.report.item(Item{Path: p, Action: ActionRemoved})
		if err := h.keepVersion(p, pl); err != nil {
			return err
		}
		return h.placed.remove(h.key(p))
	}
	parent := format.ParentPath(p)
	if !ok {
		fd, err := openBelow(r.stack0(), parent, unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return nil // it is not there: nothing to remove
		}
		unix.Close(fd)
	}
	d, err := r.enter(parent)
	if err != nil || d.fd < 0 {
		return err
	}
	_, err = r.newRetirer(r.removed).remove(d.fd, path.Base(p), p)
	if err != nil {
		return fmt.Errorf("restore: remove: %w", err)
	}
	d.emptied.Store(true)
	return h.placed.remove(h.key(p))
}

// dropImplied takes a directory away that no entry gave, if nothing is left in it.
// It is called when everything that this snapshot has below it is there.
func (r *Restore) dropImplied(d *outDir) bool {
	if err := unix.Unlinkat(d.parent.fd, d.name, unix.AT_REMOVEDIR); err != nil {
		// What is in it is of the listing, or nothing that a record put there.
		return false
	}
	r.history.unplace(r, d.number)
	d.parent.emptied.Store(true)
	r.removed(d.path)
	return true
}

func (r *Restore) removed(p string) { r.report.item(Item{Path: p, Action: ActionRemoved}) }

// removeAll takes everything that records have placed out of the target.
func (h *history) removeAll(r *Restore) error {
	if err := r.drain(); err != nil || r.opts.DryRun {
		return err
	}
	if _, err := r.enter(""); err != nil {
		return err
	}
	names, err := readNames(r.stack0(), -1)
	if err != nil {
		return fmt.Errorf("restore: list the target %s: %w", r.target, err)
	}
	c := r.newRetirer(r.removed)
	for _, name := range names {
		if name == h.asideName {
			continue
		}
		if _, err := c.remove(r.stack0(), name, name); err != nil {
			return fmt.Errorf("restore: remove: %w", err)
		}
	}
	return nil
}

// settle removes what earlier snapshots have placed and this one, which is a
// whole listing, does not have.
func (h *history) settle(r *Restore) error {
	if r.snapshot.index == 0 || !r.snapshot.parent.IsZero() || r.opts.DryRun {
		return nil
	}
	// Backwards, so that what is in a directory comes before the directory.
	for n := h.first; n > 0; {
		h.mu.Lock()
		prev, p, err := h.log.before(n)
		h.mu.Unlock()
		if err != nil {
			return err
		}
		n = prev
		pl, ok, err := h.at(p)
		if err != nil {
			return err
		}
		if !ok || pl.number != n || p == "" {
			continue
		}
		if err := r.inDir(format.ParentPath(p), func(fd int) error {
			_, err := r.newRetirer(r.removed).remove(fd, path.Base(p), p)
			return err
		}); err != nil {
			return fmt.Errorf("restore: remove what an earlier snapshot had: %w", err)
		}
		if err := h.placed.remove(h.key(p)); err != nil {
			return err
		}
	}
	return nil
}

// inDir calls fn with an open directory of the target, which afterwards has the
// mode and times that it had before.
func (r *Restore) inDir(p string, fn func(fd int) error) error {
	if p == "" {
		return fn(r.stack0())
	}
	fd, err := openBelow(r.stack0(), p, unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", r.show(p), err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("take status of %s: %w", r.show(p), err)
	}
	opened := st.Mode&0o300 != 0o300 && unix.Fchmod(fd, st.Mode&07777|0o700) == nil
	flags := softenFD(fd)
	err = fn(fd)
	if opened {
		_ = unix.Fchmod(fd, st.Mode&07777)
	}
	ts := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, st.Mtim}
	_ = futimens(fd, &ts)
	hardenFD(fd, flags)
	return err
}

// makeAside makes the directory for earlier versions.
func (h *history) makeAside(r *Restore) error {
	if h.aside >= 0 {
		return nil
	}
	name := r.tempName()
	root := r.stack0()
	if err := unix.Mkdirat(root, name, 0o700); err != nil {
		return fmt.Errorf("make a directory for earlier versions in %s: %w", r.target, err)
	}
	fd, err := unix.Openat(root, name, dirOpenFlags, 0)
	if err != nil {
		return fmt.Errorf("open the directory for earlier versions in %s: %w", r.target, err)
	}
	h.mu.Lock()
	h.aside, h.asideName = fd, name
	h.mu.Unlock()
	return nil
}
