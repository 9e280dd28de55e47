//go:build linux

package disk

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/bk-backup/bk/format"
)

// outDir is a directory of the target that a restore has open: it lies on the
// stack of the current path, or files and directories below it are not done yet.
// Its own metadata is set when the last of them is.
type outDir struct {
	parent *outDir // nil for the target itself
	name   string
	path   string // relative to the target
	number uint64 // in the history
	fd     int    // -1 while it is not open: it is dead, missing, or far up a deep path
	dev    uint64
	ino    uint64
	users  atomic.Int32 // the stack, subdirectories, files that are being written

	// fresh: made by this restore, and nothing is handed down from above, so
	// what is made in it has a known owner, group and mode.
	fresh  bool
	before present // as it was, or as it was made
	opened bool    // its mode was changed to give access
	flags  uint32  // those that it had, if some had to be taken off
	// placed: an earlier record put it here, so where this snapshot says
	// nothing about its times they have to stay as they were.
	placed bool
	// handsDown: what is made in it gets an ACL from it.
	handsDown bool
	explicit  bool        // an entry, of this snapshot or an earlier one, gave it
	emptied   atomic.Bool // something in it went from the listing
	hidden    bool        // below a directory that ends up without search permission for its owner

	meta *metadata // to be set at the end; nil if nothing is known
	dead *deadDir  // nothing can or may be done in it
	void bool      // a dry run would make it
}

// deadDir says why nothing below a directory is restored.
type deadDir struct {
	skipped bool // because of the overwrite mode
	err     error
}

// Limits on open directories.
const (
	// stackOpenMax is how many directories of the current path stay open; those
	// further up are reopened, by way of "..", when the path returns to them.
	stackOpenMax = 64
	dirMode      = 0o700 // while a directory is being filled; and where none is known
)

const dirOpenFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

func (d *outDir) use() { d.users.Add(1) }

// release gives up one use, and sets the metadata of every directory that
// nobody uses any more, from the bottom up.
func (r *Restore) release(d *outDir) {
	for d != nil && d.users.Add(-1) == 0 {
		r.finishDir(d)
		r.lingering.Add(-1)
		d = d.parent
	}
}

// enter makes dirPath the current directory, making or opening what is missing.
// Directories that the stack leaves are given up.
func (r *Restore) enter(dirPath string) (*outDir, error) {
	top := r.stack[len(r.stack)-1]
	for top.path != dirPath && !format.IsBelow(dirPath, top.path) {
		if err := r.pop(); err != nil {
			return nil, err
		}
		top = r.stack[len(r.stack)-1]
	}
	for top.path != dirPath {
		rest := dirPath
		if top.path != "" {
			rest = dirPath[len(top.path)+1:]
		}
		name, _, _ := strings.Cut(rest, "/")
		next, err := r.push(top, name, dirPath[:len(dirPath)-len(rest)+len(name)], nil)
		if err != nil {
			return nil, err
		}
		top = next
	}
	return top, nil
}

// push opens the directory name in parent, or makes it, and puts it onto the
// stack. What keeps it from being there makes it dead, which is not an error.
// entry is nil for a directory that is only implied.
func (r *Restore) push(parent *outDir, name, path string, entry *metadata) (*outDir, error) {
	d := &outDir{parent: parent, name: name, path: path, fd: -1, dead: parent.dead, hidden: parent.hidden}
	d.users.Store(1)
	if err := r.admitDir(path, entry != nil, d); err != nil {
		return nil, err
	}
	if r.dirsOpen.Load() >= int64(r.dirsOpenMax) {
		if err := r.drain(); err != nil {
			return nil, err
		}
	}
	if d.dead == nil {
		if err := r.makeDir(d, entry); err != nil {
			return nil, err
		}
	}
	if d.dead != nil {
		r.history.unplace(r, d.number)
	}
	if entry != nil && entry.has&format.HasMode != 0 && entry.mode&0o100 == 0 {
		d.hidden = true
	}
	parent.use()
	r.stack = append(r.stack, d)
	return d, r.evict()
}

// makeDir makes or opens d and learns what it is like.
func (r *Restore) makeDir(d *outDir, entry *metadata) error {
	if r.opts.DryRun {
		return r.dryDir(d, entry)
	}
	made, replaced := false, false
	err := unix.Mkdirat(d.parent.fd, d.name, dirMode)
	if err == nil {
		made = true
	} else if !errors.Is(err, unix.EEXIST) {
		return r.loseDir(d, fmt.Errorf("make directory: %w", err))
	}
	d.fd, err = r.openDir(d)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		if ok, err := r.clearForDir(d, entry); !ok || err != nil {
			return err
		}
		replaced = true
		if err = unix.Mkdirat(d.parent.fd, d.name, dirMode); err == nil {
			made = true
			d.fd, err = r.openDir(d)
		}
	}
	if err != nil {
		d.fd = -1
		return r.loseDir(d, fmt.Errorf("open directory: %w", err))
	}
	r.dirsOpen.Add(1)
	if err := r.learnDir(d, made); err != nil {
		return err
	}
	switch {
	case made && replaced:
		r.countDir(d, entry, ActionReplaced)
	case made:
		r.countDir(d, entry, ActionCreated)
	case entry != nil && !r.mayTouch(d.before.stat, entry) && !d.placed:
		r.countDir(d, entry, ActionSkipped)
		return nil
	default:
		if entry != nil && hasHardFlags(entry.flags) || d.placed {
			d.flags = softenFD(d.fd)
		}
		r.countDir(d, entry, ActionUnchanged)
	}
	d.meta = entry
	return nil
}

func (r *Restore) countDir(d *outDir, entry *metadata, action Action) {
	if entry != nil {
		r.report.item(Item{Path: d.path, Type: format.TypeDir, Action: action})
	}
}

// openDir opens d, and gives itself access if it lacks it.
func (r *Restore) openDir(d *outDir) (int, error) {
	fd, err := unix.Openat(d.parent.fd, d.name, dirOpenFlags, 0)
	if !errors.Is(err, unix.EACCES) {
		return fd, err
	}
	var st unix.Stat_t
	if unix.Fstatat(d.parent.fd, d.name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || chmodNode(d.parent.fd, d.name, dirMode) != nil {
		return fd, err
	}
	d.opened, d.before.mode = true, st.Mode&07777
	return unix.Openat(d.parent.fd, d.name, dirOpenFlags, 0)
}

// learnDir takes the status of a directory just opened.
func (r *Restore) learnDir(d *outDir, made bool) error {
	var st unix.Stat_t
	if err := unix.Fstat(d.fd, &st); err != nil {
		return r.loseDir(d, fmt.Errorf("take status: %w", err))
	}
	d.dev, d.ino = uint64(st.Dev), st.Ino
	modeWas := d.before.mode
	d.before = presentOf(&st)
	if d.opened {
		d.before.mode = modeWas
	}
	if made {
		d.fresh = d.parent != nil && d.parent.fresh || !inherits(d.fd)
		d.before.stat, d.before.fresh = nil, d.fresh
	}
	d.handsDown = !d.fresh && inherits(d.fd)
	if st.Mode&0o700 != 0o700 && !r.apply.root {
		d.opened = unix.Fchmod(d.fd, st.Mode&07777|0o700) == nil
	}
	return nil
}

// inherits reports whether a directory hands an ACL down to what is made in it.
func inherits(fd int) bool {
	n, err := unix.Fgetxattr(fd, xattrACLDefault, nil)
	return err == nil && n > 0
}

// clearForDir removes what stands where a directory has to be. It returns false
// if that stays, after which the directory is dead.
func (r *Restore) clearForDir(d *outDir, entry *metadata) (bool, error) {
	var st unix.Stat_t
	err := unix.Fstatat(d.parent.fd, d.name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && !d.placed && !r.mayReplace(&st, entry) {
		d.dead = &deadDir{skipped: true}
		r.countDir(d, entry, ActionSkipped)
		return false, nil
	}
	if err == nil {
		err = r.unlink(d.parent.fd, d.name, d.placed)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return false, r.loseDir(d, fmt.Errorf("replace what is not a directory: %w", err))
	}
	return true, nil
}

// loseDir gives a directory up, with all below it. It returns an error only if
// the whole restore has to stop.
func (r *Restore) loseDir(d *outDir, err error) error {
	if stops(err) {
		return fmt.Errorf("restore %s: %w", r.show(d.path), err)
	}
	if d.fd >= 0 {
		unix.Close(d.fd)
		d.fd = -1
		r.dirsOpen.Add(-1)
	}
	d.dead = &deadDir{err: err}
	r.report.problem(LossUnwritable, d.path, err)
	return nil
}

// evict closes the directory that has come to lie too far up.
func (r *Restore) evict() error {
	i := len(r.stack) - 1 - stackOpenMax
	// The way back leads through the next one, so that has to be there.
	if i < 1 || r.stack[i].fd < 0 || r.stack[i+1].dead != nil || r.stack[i+1].void {
		return nil
	}
	d := r.stack[i]
	if d.users.Load() > 2 { // besides the stack and the next directory on it
		if err := r.drain(); err != nil {
			return err
		}
	}
	unix.Close(d.fd)
	d.fd = -1
	r.dirsOpen.Add(-1)
	return nil
}

// pop leaves the current directory.
func (r *Restore) pop() error {
	d := r.stack[len(r.stack)-1]
	p := d.parent
	if p.fd < 0 && p.dead == nil && !p.void {
		fd, err := unix.Openat(d.fd, "..", dirOpenFlags, 0)
		if err != nil {
			return fmt.Errorf("restore %s: return to the directory: %w", r.show(p.path), err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || uint64(st.Dev) != p.dev || st.Ino != p.ino {
			unix.Close(fd)
			return fmt.Errorf("restore %s: the directory below was moved elsewhere meanwhile", r.show(p.path))
		}
		p.fd = fd
		r.dirsOpen.Add(1)
	}
	r.stack[len(r.stack)-1] = nil
	r.stack = r.stack[:len(r.stack)-1]
	r.lingering.Add(1)
	r.release(d)
	return nil
}

// finishDir sets the metadata of a directory whose content is complete, and
// closes it.
func (r *Restore) finishDir(d *outDir) {
	if d.fd < 0 {
		return
	}
	switch {
	case d.emptied.Load() && !d.explicit && d.parent != nil && r.dropImplied(d):
	case d.meta != nil:
		had := d.before
		had.modeOK = had.modeOK && !d.opened
		r.apply.file(d.fd, d.path, d.meta, had)
		r.apply.setFlags(d.fd, d.path, d.meta.flags)
	default:
		if d.opened {
			if err := unix.Fchmod(d.fd, d.before.mode); err != nil {
				r.report.problem(LossMode, d.path, fmt.Errorf("set mode %04o: %w", d.before.mode, err))
			}
		}
		if d.placed && d.before.stat != nil {
			ts := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, d.before.stat.Mtim}
			_ = futimens(d.fd, &ts)
		}
		hardenFD(d.fd, d.flags)
	}
	unix.Close(d.fd)
	d.fd = -1
	r.dirsOpen.Add(-1)
}

// mayReplace reports whether the overwrite mode lets something else take the
// place of what is there. entry is nil for a directory that is only implied.
func (r *Restore) mayReplace(st *unix.Stat_t, entry *metadata) bool {
	switch r.opts.Overwrite {
	case OverwriteNever:
		return false
	case OverwriteIfNewer:
		return entry != nil && entry.has&format.HasMtime != 0 && timeOf(st.Mtim).Compare(entry.mtime) < 0
	}
	return true
}

// mayTouch reports whether the overwrite mode lets the metadata of what is
// there be set.
func (r *Restore) mayTouch(st *unix.Stat_t, entry *metadata) bool {
	switch r.opts.Overwrite {
	case OverwriteNever:
		return false
	case OverwriteIfNewer:
		return entry.has&format.HasMtime != 0 && timeOf(st.Mtim).Compare(entry.mtime) <= 0
	}
	return true
}

// show is a path for people: where it is on disk.
func (r *Restore) show(p string) string { return path.Join(r.target, p) }
