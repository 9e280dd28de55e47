//go:build linux

package disk

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/bk-backup/bk/format"
)

// What a dry run does in place of writing: it looks at what is there, and
// reports what would be done.

// dryDir opens a directory, if it is there.
func (r *Restore) dryDir(d *outDir, entry *metadata) error {
	if d.parent.void {
		d.void = true
		r.countDir(d, entry, ActionCreated)
		return nil
	}
	fd, err := unix.Openat(d.parent.fd, d.name, dirOpenFlags, 0)
	switch {
	case err == nil:
		d.fd = fd
		r.dirsOpen.Add(1)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return r.loseDir(d, err)
		}
		d.dev, d.ino = uint64(st.Dev), st.Ino
		d.before = presentOf(&st)
		action := ActionUnchanged
		if entry != nil && !r.mayTouch(&st, entry) {
			action = ActionSkipped
		}
		r.countDir(d, entry, action)
	case errors.Is(err, unix.ENOENT):
		d.void = true
		r.countDir(d, entry, ActionCreated)
	default:
		var st unix.Stat_t
		if err := unix.Fstatat(d.parent.fd, d.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return r.loseDir(d, err)
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			return r.loseDir(d, err)
		}
		if !d.placed && !r.mayReplace(&st, entry) {
			d.dead = &deadDir{skipped: true}
			r.countDir(d, entry, ActionSkipped)
			return nil
		}
		d.void = true
		r.countDir(d, entry, ActionReplaced)
	}
	return nil
}

// dryFile reports what would be done about the current file.
func (r *Restore) dryFile(f *outFile) {
	if f.outside {
		return
	}
	defer r.release(f.dir)
	action := ActionCreated
	switch {
	case f.linked:
		action = ActionLinked
	case f.dir.void:
	default:
		r.decide(f)
		switch {
		case f.err != nil:
			r.report.problem(LossUnwritable, f.path, f.err)
			return
		case f.state == fileSkipped:
			action = ActionSkipped
		case f.state == fileKept || f.state == fileRepair:
			action = ActionUnchanged
		case f.replaced:
			action = ActionReplaced
		}
	}
	r.report.item(Item{Path: f.path, Type: format.TypeFile, Action: action, Size: f.size})
}

// dryNode says what would be done about an object without content.
func (r *Restore) dryNode(n *newNode) Action {
	if n.dir.void {
		return ActionCreated
	}
	var st unix.Stat_t
	err := unix.Fstatat(n.dir.fd, n.name, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case err != nil:
		return ActionCreated
	case r.opts.Overwrite != OverwriteAlways && r.opts.Overwrite != OverwriteNever && n.same(&st):
		return ActionUnchanged
	case !r.mayReplace(&st, n.meta):
		return ActionSkipped
	case n.linked:
		return ActionLinked
	}
	return ActionReplaced
}
