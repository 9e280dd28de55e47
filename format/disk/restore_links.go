//go:build linux

package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"path"

	"golang.org/x/sys/unix"

	"github.com/bk-backup/bk/format"
)

// Members of a hard-link group become links if they agree in metadata and
// content. The first of each kind is made as a file of its own; the table of
// groups has a row for each group, with the hash of the first member's metadata
// and content, and one for each group and hash, with the number of the member
// to link to.

func (h *history) groupKey(name string) tableKey { return h.key("\x00" + name) }

// joinGroup notes that a file is a member of a hard-link group.
func (h *history) joinGroup(r *Restore, f *outFile, e *format.Entry) error {
	f.inGroup, f.group = true, h.groupKey(e.Hardlink)
	r.content.hashed = true
	r.content.hash.SetSeed(h.seeds[0])
	r.content.hash.Reset()
	hashMeta(&r.content.hash, e)
	_, ok, err := h.groups.get(f.group)
	f.member = ok
	return err
}

// hashMeta hashes what members of a group have to agree in besides content.
func hashMeta(h *maphash.Hash, e *format.Entry) {
	num := func(n uint64) {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], n)
		_, _ = h.Write(b[:])
	}
	text := func(s string) {
		num(uint64(len(s)))
		_, _ = h.WriteString(s)
	}
	num(uint64(e.Has & (format.HasMode | format.HasUID | format.HasGID | format.HasMtime)))
	num(uint64(e.Mode))
	num(uint64(e.UID)<<32 | uint64(e.GID))
	num(uint64(e.Mtime.Sec))
	num(uint64(e.Mtime.Nsec))
	num(uint64(e.Rdev.Major)<<32 | uint64(e.Rdev.Minor))
	for _, s := range []string{string(e.Type), e.User, e.Group, e.Target} {
		text(s)
	}
	num(uint64(len(e.Xattrs)))
	for _, x := range e.Xattrs {
		text(x.Name)
		text(x.Value)
	}
	num(uint64(len(e.Flags)))
	for _, s := range e.Flags {
		text(s)
	}
}

// choose finds the member of a group that one with this hash is linked to, or
// makes it the first of its kind.
func (h *history) choose(r *Restore, group tableKey, sum uint64, number uint64, p string) (linkTo uint64, linked bool, err error) {
	mixed := group
	binary.LittleEndian.PutUint64(mixed[8:], binary.LittleEndian.Uint64(mixed[8:])^sum)
	if v, ok, err := h.groups.get(mixed); ok || err != nil {
		return v.a, ok, err
	}
	first, ok, err := h.groups.get(group)
	if err != nil {
		return 0, false, err
	}
	if ok && first.b != sum {
		r.report.problem(LossHardlink, p, errors.New("it differs from the other members of its hard-link group and became a file of its own"))
	}
	if !ok {
		if err := h.groups.put(group, tableValue{0, sum}); err != nil {
			return 0, false, err
		}
	}
	return 0, false, h.groups.put(mixed, tableValue{number, 0})
}

// chooseLeader settles what a file whose content is known becomes.
func (h *history) chooseLeader(r *Restore, f *outFile) error {
	to, linked, err := h.choose(r, f.group, r.content.hash.Sum64(), f.number, f.path)
	if err != nil {
		return err
	}
	if linked {
		f.linked, f.linkTo = true, to
		return nil
	}
	f.leader = true
	h.mu.Lock()
	h.leaders[f.number] = struct{}{}
	h.mu.Unlock()
	return nil
}

// joinNode is joinGroup and chooseLeader for what has no content.
func (h *history) joinNode(r *Restore, e *format.Entry, p string, number uint64) (linkTo uint64, linked bool, err error) {
	var sum maphash.Hash
	sum.SetSeed(h.seeds[0])
	hashMeta(&sum, e)
	return h.choose(r, h.groupKey(e.Hardlink), sum.Sum64(), number, p)
}

func (h *history) leaderDone(number uint64) {
	h.mu.Lock()
	delete(h.leaders, number)
	h.mu.Unlock()
}

// leader returns where the first member lies, and whether it can be linked to.
func (h *history) leader(number uint64) (p string, pending, ok bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, pending = h.leaders[number]; pending {
		return "", true, false, nil
	}
	_, lost, err := h.unplaced.get(numberKey(number))
	if err != nil || lost {
		return "", false, false, err
	}
	p, err = h.log.path(number)
	return p, false, true, err
}

var errNoLeader = errors.New("the first member of its hard-link group was not restored")

// linkTo makes name in d a link to the object with the given number. With soft,
// flags that forbid it are taken off meanwhile.
func (r *Restore) linkTo(d *outDir, name, p string, number uint64, replace, soft bool) (Action, error) {
	from, pending, ok, err := r.history.leader(number)
	if err != nil {
		return "", err
	}
	if pending || !ok {
		return "", errNoLeader
	}
	dirfd := d.fd
	if dir := format.ParentPath(from); dir != d.path {
		if dirfd, err = openBelow(r.stack0(), dir, unix.O_PATH|unix.O_DIRECTORY); err != nil {
			return "", fmt.Errorf("open the directory of %s: %w", r.show(from), err)
		}
		defer unix.Close(dirfd)
	}
	base := path.Base(from)
	err = unix.Linkat(dirfd, base, d.fd, name, 0)
	if errors.Is(err, unix.EPERM) && soft {
		// Flags that members of the group have forbid further links.
		harden := soften(dirfd, base)
		defer harden()
		err = unix.Linkat(dirfd, base, d.fd, name, 0)
	}
	if err == nil {
		return ActionLinked, nil
	}
	if !errors.Is(err, unix.EEXIST) {
		return "", fmt.Errorf("link to %s: %w", r.show(from), err)
	}
	var a, b unix.Stat_t
	if unix.Fstatat(dirfd, base, &a, unix.AT_SYMLINK_NOFOLLOW) == nil && unix.Fstatat(d.fd, name, &b, unix.AT_SYMLINK_NOFOLLOW) == nil &&
		a.Dev == b.Dev && a.Ino == b.Ino {
		return ActionUnchanged, nil
	}
	if !replace {
		return ActionSkipped, nil
	}
	temp := r.tempName()
	if soft {
		harden := soften(dirfd, base)
		defer harden()
	}
	if err := unix.Linkat(dirfd, base, d.fd, temp, 0); err != nil {
		return "", fmt.Errorf("link to %s: %w", r.show(from), err)
	}
	if err := r.renameOver(d, temp, name, p, soft); err != nil {
		_ = unix.Unlinkat(d.fd, temp, 0)
		return "", err
	}
	return ActionLinked, nil
}

// link makes a link of a file all of whose content is in the load, or writes it
// if that cannot be.
func (w *worker) link(p loadPiece) {
	f, r := p.file, w.r
	r.decide(f)
	if f.err != nil || f.state == fileSkipped {
		f.linked = false
		w.piece(p)
		return
	}
	if _, pending, _, _ := r.history.leader(f.linkTo); pending {
		r.loads.waitBefore(w.load.number)
	}
	action, err := r.linkTo(f.dir, f.name, f.path, f.linkTo, true, hasHardFlags(f.meta.flags))
	if err != nil {
		f.linked = false
		if f.state == fileKept {
			// It looks right, and may be somebody else's under another name.
			f.state = fileWrite
		}
		r.splitLink(f, err)
		w.piece(p)
		return
	}
	for i := p.from; i < p.to; i++ {
		if it := &w.load.items[i]; it.kind == itemData && !it.once {
			if err := r.chunks.add(it.id, f.number, it.offset); err != nil {
				r.cancel(err)
			}
		}
	}
	r.count(f, action)
	f.state = fileLinked
	r.unpend(f)
	r.release(f.dir)
}

// splitLink notes that a file could not become a link and is one of its own.
func (r *Restore) splitLink(f *outFile, err error) {
	if stops(err) {
		// It must not look complete: the next restore would leave it as it is.
		f.fail(err)
		r.stopFor(f, err)
		return
	}
	if !errors.Is(err, errNoLeader) {
		err = fmt.Errorf("it became a file of its own: %w", err)
	}
	r.report.problem(LossHardlink, f.path, err)
}

// linkInstead makes a link of a file whose content was written meanwhile. It
// returns false if that content has to stay.
func (r *Restore) linkInstead(f *outFile) bool {
	action, err := r.linkTo(f.dir, f.name, f.path, f.linkTo, true, hasHardFlags(f.meta.flags))
	if err != nil {
		r.splitLink(f, err)
		return false
	}
	r.abandon(f)
	r.count(f, action)
	return true
}
