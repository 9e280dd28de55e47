//go:build linux

package disk

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// clearer removes things with all below them. Of a chain of directories, however
// deep, it has one open: it returns by way of "..", and checks where that leads.
// Directories that stay keep their mode and time of modification.
type clearer struct {
	// enter is asked before a directory is gone into; nil means always.
	enter func(path string) bool
	// visit is asked about each object before it is removed, about a directory
	// after all below it. With keep it stays; gone says that visit removed it.
	visit func(dirfd int, name, path string, st *unix.Stat_t) (keep, gone bool, err error)
	// removed, if set, is told what was removed.
	removed func(path string)
	// failed, if set, is told what could not be removed, and the rest goes on.
	failed func(path string, err error)
	// soft takes flags that forbid changes off what is in the way.
	soft bool
	// readOnly: visit keeps everything, so nothing has to be made accessible.
	readOnly bool

	dirfd  int // the directory that is worked on
	path   []byte
	frames []clearFrame
}

// clearFrame is a directory on the way down.
type clearFrame struct {
	name    string
	stat    unix.Stat_t
	names   []string // what is still to be looked at
	left    bool     // something below stays
	changed bool     // something in it was removed
	opened  bool     // its mode was changed
	flags   uint32   // those that it had, if some had to be taken off
}

// remove removes name, which lies at path, from an open directory. It returns
// whether anything is left.
func (c *clearer) remove(dirfd int, name, path string) (left bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return false, nil
		}
		return true, fmt.Errorf("take status of %q: %w", path, err)
	}
	c.path = append(c.path[:0], path...)
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return c.drop(dirfd, name, &st, false)
	}
	c.dirfd, c.frames = -1, c.frames[:0]
	defer func() {
		if c.dirfd >= 0 {
			unix.Close(c.dirfd)
		}
	}()
	if entered, err := c.down(dirfd, name, &st); err != nil || !entered {
		return true, err
	}
	for {
		f := &c.frames[len(c.frames)-1]
		if len(f.names) > 0 {
			n := f.names[len(f.names)-1]
			f.names = f.names[:len(f.names)-1]
			if err := c.child(n); err != nil {
				return true, err
			}
			continue
		}
		if len(c.frames) == 1 {
			c.settle(f)
			return c.drop(dirfd, name, &f.stat, f.left)
		}
		if err := c.up(); err != nil {
			return true, err
		}
	}
}

// child removes one object of the directory that is worked on, or goes into it.
func (c *clearer) child(name string) error {
	f := &c.frames[len(c.frames)-1]
	var st unix.Stat_t
	if err := unix.Fstatat(c.dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return fmt.Errorf("take status of %q in %q: %w", name, c.path, err)
	}
	c.path = append(append(c.path, '/'), name...)
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		entered, err := c.down(c.dirfd, name, &st)
		if entered || err != nil {
			return err
		}
		f.left = true
	} else {
		left, err := c.drop(c.dirfd, name, &st, false)
		if err != nil {
			return err
		}
		f.left, f.changed = f.left || left, f.changed || !left
	}
	c.path = c.path[:len(c.path)-1-len(name)]
	return nil
}

// down opens a directory and makes it the one that is worked on.
func (c *clearer) down(dirfd int, name string, st *unix.Stat_t) (entered bool, err error) {
	if c.enter != nil && !c.enter(string(c.path)) {
		return false, nil
	}
	f := clearFrame{name: name, stat: *st}
	fd, err := unix.Openat(dirfd, name, dirOpenFlags, 0)
	if errors.Is(err, unix.EACCES) && !c.readOnly && chmodNode(dirfd, name, dirMode) == nil {
		f.opened = true
		fd, err = unix.Openat(dirfd, name, dirOpenFlags, 0)
	}
	if err != nil {
		return false, c.lost(fmt.Errorf("open directory: %w", err))
	}
	var now unix.Stat_t
	if err := unix.Fstat(fd, &now); err != nil || now.Dev != st.Dev || now.Ino != st.Ino {
		unix.Close(fd)
		return false, c.lost(errors.New("the directory was replaced meanwhile"))
	}
	if now.Mode&0o700 != 0o700 && !c.readOnly {
		f.opened = unix.Fchmod(fd, now.Mode&07777|0o700) == nil
	}
	if c.soft {
		f.flags = softenFD(fd)
	}
	if f.names, err = readNames(fd, -1); err != nil {
		unix.Close(fd)
		return false, c.lost(fmt.Errorf("list directory: %w", err))
	}
	if c.dirfd >= 0 {
		unix.Close(c.dirfd)
	}
	c.dirfd = fd
	c.frames = append(c.frames, f)
	return true, nil
}

// settle puts the directory that is worked on back as it was, apart from what
// was removed.
func (c *clearer) settle(f *clearFrame) {
	if f.opened {
		_ = unix.Fchmod(c.dirfd, f.stat.Mode&07777)
	}
	if f.changed {
		ts := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, f.stat.Mtim}
		_ = futimens(c.dirfd, &ts)
	}
	hardenFD(c.dirfd, f.flags)
}

// up returns from a directory that is done, and removes it.
func (c *clearer) up() error {
	done := c.frames[len(c.frames)-1]
	fd, err := unix.Openat(c.dirfd, "..", dirOpenFlags, 0)
	if err != nil {
		return fmt.Errorf("return from directory %q: %w", c.path, err)
	}
	c.settle(&done)
	c.frames = c.frames[:len(c.frames)-1]
	above := &c.frames[len(c.frames)-1]
	unix.Close(c.dirfd)
	c.dirfd = fd
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Dev != above.stat.Dev || st.Ino != above.stat.Ino {
		return fmt.Errorf("return from directory %q: it was moved elsewhere meanwhile", c.path)
	}
	left, err := c.drop(fd, done.name, &done.stat, done.left)
	above.left, above.changed = above.left || left, above.changed || !left
	c.path = c.path[:len(c.path)-1-len(done.name)]
	return err
}

// drop removes one object; full says that it is a directory with something left
// in it.
func (c *clearer) drop(dirfd int, name string, st *unix.Stat_t, full bool) (left bool, err error) {
	keep, gone, err := c.visit(dirfd, name, string(c.path), st)
	if err != nil {
		return true, c.lost(err)
	}
	if keep || full && !gone {
		return true, nil
	}
	if !gone {
		flags := 0
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			flags = unix.AT_REMOVEDIR
		}
		err = unix.Unlinkat(dirfd, name, flags)
		if c.soft && errors.Is(err, unix.EPERM) {
			harden := soften(dirfd, name)
			err = unix.Unlinkat(dirfd, name, flags)
			harden()
		}
		switch {
		case errors.Is(err, unix.ENOENT):
			return false, nil
		case err != nil:
			return true, c.lost(fmt.Errorf("remove: %w", err))
		}
	}
	if c.removed != nil {
		c.removed(string(c.path))
	}
	return false, nil
}

// lost reports what could not be done at the current path.
func (c *clearer) lost(err error) error {
	if c.failed == nil {
		return fmt.Errorf("%q: %w", c.path, err)
	}
	c.failed(string(c.path), err)
	return nil
}
