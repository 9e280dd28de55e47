package hardlinks

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bk-backup/bk/format"
)

// What rsync --fake-super cannot set as somebody who is not root it leaves in
// attributes of this name space; files that are not files are such that hold
// nothing, or the target of a link.
const (
	fakePrefix     = "user.rsync."
	fakeStat       = fakePrefix + "%stat"
	fakeACLAccess  = fakePrefix + "%aacl"
	fakeACLDefault = fakePrefix + "%dacl"
	fakeInternal   = fakePrefix + "%"

	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
)

// translate makes the entry of the copy that of the original: what the copy has
// of its own (when it was made and linked, its number) is left out, and what
// --fake-super put aside takes its place.
func translate(e *format.Entry, read func() ([]byte, error)) error {
	e.Has &^= format.HasAtime | format.HasCtime | format.HasBtime | format.HasInode
	e.Atime, e.Ctime, e.Btime, e.Inode = format.Time{}, format.Time{}, format.Time{}, 0
	if !slices.ContainsFunc(e.Xattrs, func(x format.Xattr) bool { return strings.HasPrefix(x.Name, fakePrefix) }) {
		return nil
	}
	return errors.Join(applyStat(e, read), applyXattrs(e))
}

// applyStat takes type, mode, owner and device from the attribute for them.
func applyStat(e *format.Entry, read func() ([]byte, error)) error {
	i := slices.IndexFunc(e.Xattrs, func(x format.Xattr) bool { return x.Name == fakeStat })
	if i < 0 {
		return nil
	}
	st, err := parseStat(e.Xattrs[i].Value)
	if err != nil {
		return err
	}
	if (st.kind == format.TypeDir) != (e.Type == format.TypeDir) || e.Type != format.TypeDir && e.Type != format.TypeFile {
		return fmt.Errorf("attribute %s says that a %s is a %s", fakeStat, e.Type, st.kind)
	}
	if st.kind == format.TypeSymlink {
		target, err := read()
		if err != nil {
			return fmt.Errorf("read the target of a link: %w", err)
		}
		if len(target) > format.TargetSizeMax || strings.IndexByte(string(target), 0) >= 0 {
			return errors.New("what stands for a link is no target")
		}
		e.Target = string(target)
	}
	if st.uid != e.UID || st.gid != e.GID {
		// Names belong to the numbers that the copy has here.
		e.User, e.Group = "", ""
	}
	e.Mode, e.UID, e.GID = st.mode, st.uid, st.gid
	if st.kind == e.Type {
		return nil
	}
	e.Type, e.Size, e.Chunker, e.Extents, e.Flags = st.kind, 0, "", nil, nil
	e.Has &^= format.HasSize
	if st.kind == format.TypeChar || st.kind == format.TypeBlock {
		e.Rdev = st.rdev
	}
	return nil
}

// fakeStatus is what the attribute says.
type fakeStatus struct {
	kind     format.Type
	mode     uint32
	uid, gid uint32
	rdev     format.Rdev
}

// parseStat reads "100644 0,0 1000:1000": the mode with the type in octal, the
// device and the owner.
func parseStat(text string) (st fakeStatus, err error) {
	bad := fmt.Errorf("attribute %s is %q, not a mode, a device and an owner", fakeStat, text)
	fields := strings.Fields(text)
	if len(fields) != 3 {
		return st, bad
	}
	mode, err := strconv.ParseUint(fields[0], 8, 16)
	if err != nil {
		return st, bad
	}
	var numbers [4]uint32
	for i, pair := range []struct{ text, sep string }{{fields[1], ","}, {fields[2], ":"}} {
		a, b, ok := strings.Cut(pair.text, pair.sep)
		x, errA := strconv.ParseUint(a, 10, 32)
		y, errB := strconv.ParseUint(b, 10, 32)
		if !ok || errA != nil || errB != nil {
			return st, bad
		}
		numbers[2*i], numbers[2*i+1] = uint32(x), uint32(y)
	}
	kinds := map[uint64]format.Type{
		unix.S_IFREG: format.TypeFile, unix.S_IFDIR: format.TypeDir, unix.S_IFLNK: format.TypeSymlink,
		unix.S_IFCHR: format.TypeChar, unix.S_IFBLK: format.TypeBlock, unix.S_IFIFO: format.TypeFifo, unix.S_IFSOCK: format.TypeSocket,
	}
	kind, ok := kinds[mode&unix.S_IFMT]
	if !ok {
		return st, bad
	}
	return fakeStatus{
		kind: kind, mode: uint32(mode & 0o7777), uid: numbers[2], gid: numbers[3],
		rdev: format.Rdev{Major: numbers[0], Minor: numbers[1]},
	}, nil
}

// applyXattrs gives attributes their own names again, and makes ACLs of those
// that stand for them.
func applyXattrs(e *format.Entry) error {
	var failed error
	kept := make([]format.Xattr, 0, len(e.Xattrs))
	for _, x := range e.Xattrs {
		switch {
		case x.Name == fakeACLAccess:
			acl, err := kernelACL(x.Value, e.Mode)
			if err != nil {
				failed = errors.Join(failed, fmt.Errorf("attribute %s: %w", x.Name, err))
				continue
			}
			kept = append(kept, format.Xattr{Name: aclAccess, Value: acl})
		case x.Name == fakeACLDefault:
			acl, err := kernelACL(x.Value, 0)
			if err != nil {
				failed = errors.Join(failed, fmt.Errorf("attribute %s: %w", x.Name, err))
				continue
			}
			kept = append(kept, format.Xattr{Name: aclDefault, Value: acl})
		case strings.HasPrefix(x.Name, fakeInternal):
		case strings.HasPrefix(x.Name, fakePrefix) && len(x.Name) > len(fakePrefix):
			kept = append(kept, format.Xattr{Name: x.Name[len(fakePrefix):], Value: x.Value})
		default:
			kept = append(kept, x)
		}
	}
	slices.SortStableFunc(kept, func(a, b format.Xattr) int { return strings.Compare(a.Name, b.Name) })
	e.Xattrs = slices.CompactFunc(kept, func(a, b format.Xattr) bool { return a.Name == b.Name })
	return failed
}

const (
	noEntry  = 0x80    // rsync leaves out what the mode says
	userBit  = 1 << 31 // of a named entry's rights: a user's, not a group's
	aclMagic = 2       // version of the kernel's form

	tagUserObj, tagUser, tagGroupObj, tagGroup, tagMask, tagOther = 1, 2, 4, 8, 16, 32
	anyID                                                         = 0xffffffff
)

// kernelACL makes the kernel's form of an ACL of rsync's: the rights of owner,
// group, mask and others, 0x80 where the mode has them, and pairs of an id and
// rights, all of 32 bits.
func kernelACL(text string, mode uint32) (string, error) {
	if len(text) < 16 || len(text)%8 != 0 {
		return "", fmt.Errorf("an ACL of %d bytes", len(text))
	}
	var n []uint32
	for b := []byte(text); len(b) > 0; b = b[4:] {
		n = append(n, binary.LittleEndian.Uint32(b))
	}
	names := n[4:]
	base := [4]uint32{n[0], n[1], n[2], n[3]}
	for i, fromMode := range [4]uint32{mode >> 6 & 7, mode >> 3 & 7, mode >> 3 & 7, mode & 7} {
		if base[i] == noEntry && (i != 2 || len(names) > 0) {
			base[i] = fromMode
		}
	}
	out := binary.LittleEndian.AppendUint32(nil, aclMagic)
	add := func(tag uint16, rights, id uint32) {
		out = binary.LittleEndian.AppendUint16(out, tag)
		out = binary.LittleEndian.AppendUint16(out, uint16(rights&7))
		out = binary.LittleEndian.AppendUint32(out, id)
	}
	add(tagUserObj, base[0], anyID)
	for i := 0; i < len(names); i += 2 {
		if names[i+1]&userBit != 0 {
			add(tagUser, names[i+1], names[i])
		}
	}
	add(tagGroupObj, base[1], anyID)
	for i := 0; i < len(names); i += 2 {
		if names[i+1]&userBit == 0 {
			add(tagGroup, names[i+1], names[i])
		}
	}
	if base[2] != noEntry {
		add(tagMask, base[2], anyID)
	}
	add(tagOther, base[3], anyID)
	return string(out), nil
}
