//go:build linux

package disk

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/bk-backup/bk/format"
)

// newNode is an object without content that is to be made.
type newNode struct {
	dir    *outDir
	name   string
	path   string
	entry  *format.Entry
	meta   *metadata
	linked bool
	linkTo uint64
}

// makeNode makes a symbolic link, a device, a fifo or a socket.
func (r *Restore) makeNode(n *newNode) (Action, error) {
	if dead := n.dir.dead; dead != nil {
		if dead.skipped {
			return ActionSkipped, nil
		}
		return "", errDeadDir
	}
	if r.opts.DryRun {
		return r.dryNode(n), nil
	}
	if n.linked {
		if action, err := r.linkNode(n); err == nil {
			return action, nil
		}
	}
	err := n.create(n.name)
	if err == nil {
		r.dressNode(n)
		return ActionCreated, nil
	}
	if !errors.Is(err, unix.EEXIST) {
		return "", fmt.Errorf("make %s: %w", n.entry.Type, err)
	}
	return r.makeNodeOver(n)
}

// linkNode makes n a link to the first member of its group.
func (r *Restore) linkNode(n *newNode) (Action, error) {
	replace := true
	var st unix.Stat_t
	if unix.Fstatat(n.dir.fd, n.name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
		replace = r.mayReplace(&st, n.meta)
	}
	action, err := r.linkTo(n.dir, n.name, n.path, n.linkTo, replace, false)
	if err != nil && !stops(err) {
		r.report.problem(LossHardlink, n.path, err)
	}
	return action, err
}

// makeNodeOver makes n where something is in the way.
func (r *Restore) makeNodeOver(n *newNode) (Action, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(n.dir.fd, n.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return "", fmt.Errorf("take status: %w", err)
	}
	if r.opts.Overwrite != OverwriteAlways && r.opts.Overwrite != OverwriteNever && n.same(&st) && st.Nlink == 1 {
		if r.mayTouch(&st, n.meta) {
			had := presentOf(&st)
			had.fresh = sameXattrs(n.meta, nameXattrs(n.dir.fd, n.name))
			r.apply.node(n.dir.fd, n.name, n.path, n.entry.Type, n.meta, had)
		}
		return ActionUnchanged, nil
	}
	if !r.mayReplace(&st, n.meta) {
		return ActionSkipped, nil
	}
	temp := newNode{dir: n.dir, name: r.tempName(), path: n.path, entry: n.entry, meta: n.meta}
	if err := temp.create(temp.name); err != nil {
		return "", fmt.Errorf("make %s: %w", n.entry.Type, err)
	}
	r.dressNode(&temp)
	if err := r.renameOver(n.dir, temp.name, n.name, n.path, false); err != nil {
		_ = unix.Unlinkat(n.dir.fd, temp.name, 0)
		return "", err
	}
	return ActionReplaced, nil
}

// create makes the object under a name.
func (n *newNode) create(name string) error {
	e := n.entry
	mode := n.meta.creationMode(true)
	switch e.Type {
	case format.TypeSymlink:
		return unix.Symlinkat(e.Target, n.dir.fd, name)
	case format.TypeFifo:
		return unix.Mknodat(n.dir.fd, name, mode|unix.S_IFIFO, 0)
	case format.TypeSocket:
		return unix.Mknodat(n.dir.fd, name, mode|unix.S_IFSOCK, 0)
	case format.TypeChar:
		return unix.Mknodat(n.dir.fd, name, mode|unix.S_IFCHR, int(unix.Mkdev(e.Rdev.Major, e.Rdev.Minor)))
	case format.TypeBlock:
		return unix.Mknodat(n.dir.fd, name, mode|unix.S_IFBLK, int(unix.Mkdev(e.Rdev.Major, e.Rdev.Minor)))
	}
	return fmt.Errorf("objects of type %q are not known here", e.Type)
}

// same reports whether what is there is already what n is to be.
func (n *newNode) same(st *unix.Stat_t) bool {
	e := n.entry
	rdev := unix.Mkdev(e.Rdev.Major, e.Rdev.Minor)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		if e.Type != format.TypeSymlink {
			return false
		}
		buf := make([]byte, len(e.Target)+1)
		size, err := unix.Readlinkat(n.dir.fd, n.name, buf)
		return err == nil && string(buf[:size]) == e.Target
	case unix.S_IFIFO:
		return e.Type == format.TypeFifo
	case unix.S_IFSOCK:
		return e.Type == format.TypeSocket
	case unix.S_IFCHR:
		return e.Type == format.TypeChar && uint64(st.Rdev) == rdev
	case unix.S_IFBLK:
		return e.Type == format.TypeBlock && uint64(st.Rdev) == rdev
	}
	return false
}

// dressNode sets the metadata of an object just made.
func (r *Restore) dressNode(n *newNode) {
	had := present{uid: -1, gid: -1, fresh: !n.dir.handsDown}
	if n.dir.fresh {
		had.uid, had.gid = n.dir.before.uid, n.dir.before.gid
		had.mode, had.modeOK = n.meta.creationMode(true)&^r.umask, r.maskOK
	}
	r.apply.node(n.dir.fd, n.name, n.path, n.entry.Type, n.meta, had)
}
