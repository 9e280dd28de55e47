package borg

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/internal/acl"
)

// types are the types of files by the bits of their modes.
var types = map[uint32]format.Type{
	typeFile: format.TypeFile, typeDir: format.TypeDir, typeSymlink: format.TypeSymlink, typeChar: format.TypeChar,
	typeBlock: format.TypeBlock, typeFifo: format.TypeFifo, typeSocket: format.TypeSocket,
}

// cleanPath turns an item's path into one of the stream's. borg stores them
// relative; "." is what was backed up itself.
func cleanPath(p string) (string, bool) {
	if format.CheckPath(p) == nil {
		return p, true
	}
	var kept []string
	for c := range strings.SplitSeq(p, "/") {
		switch c {
		case "", ".":
		case "..":
			return p, false
		default:
			kept = append(kept, c)
		}
	}
	p = strings.Join(kept, "/")
	return p, format.CheckPath(p) == nil
}

// entry makes the stream's entry of an item that lies at path. group names its
// group of hard links, or is "". It reports false if the stream has no such
// object. lost is called with the kind of every loss.
func (it *item) entry(path, group string, lost func(kind string)) (*format.Entry, bool) {
	kind, ok := types[it.mode&typeMask]
	if !ok {
		lost(format.LossLimit)
		return nil, false
	}
	e := &format.Entry{
		Path: path, Type: kind, Hardlink: group,
		Has:  it.has &^ format.HasSize,
		Mode: it.mode & 0o7777, UID: it.uid, GID: it.gid, User: it.user, Group: it.group,
		Mtime: it.mtime, Atime: it.atime, Ctime: it.ctime, Btime: it.birthtime,
	}
	if it.hasHealthy {
		// A backup of the same file must not take it for unchanged, and the zeros
		// for its content: nothing in the file tells that a repair put them there.
		e.Has &^= format.HasCtime
		e.Ctime = format.Time{}
	}
	if len(it.user) > format.TextSizeMax || len(it.group) > format.TextSizeMax {
		e.User, e.Group = "", ""
		lost(format.LossOwner)
	}
	switch kind {
	case format.TypeSymlink:
		if e.Target = it.source; !it.hasSource || len(it.source) > format.TargetSizeMax || strings.IndexByte(it.source, 0) >= 0 {
			lost(format.LossLimit)
			return nil, false
		}
	case format.TypeChar, format.TypeBlock:
		e.Rdev = linuxDevice(it.rdev)
	}
	e.Xattrs = it.entryXattrs(lost)
	e.Flags = it.flags(lost)
	for range it.unknown {
		lost(format.LossExtension)
	}
	return e, true
}

// groupName names the group of hard links that has this in common: the path of
// the first one, or what borg itself calls it.
func groupName(what string) string {
	sum := sha256.Sum256([]byte(what))
	return string(sum[:])
}

// linuxDevice divides a device number as Linux's C library packs it into 64 bits.
func linuxDevice(dev uint64) format.Rdev {
	return format.Rdev{
		Major: uint32(dev>>8&0xfff | dev>>32&^0xfff),
		Minor: uint32(dev&0xff | dev>>12&^0xff),
	}
}

// packDevice is the reverse of linuxDevice.
func packDevice(d format.Rdev) uint64 {
	major, minor := uint64(d.Major), uint64(d.Minor)
	return minor&0xff | major&0xfff<<8 | minor&^0xff<<12 | major&^0xfff<<32
}

// entryXattrs returns the attributes in order, ACLs among them, without what
// does not fit.
func (it *item) entryXattrs(lost func(kind string)) []format.Xattr {
	var list []format.Xattr
	for _, x := range it.xattrs {
		if x.Name == "" || len(x.Name) > format.XattrNameSizeMax || len(x.Value) > format.XattrValueSizeMax || strings.IndexByte(x.Name, 0) >= 0 {
			lost(format.LossXattr)
			continue
		}
		list = append(list, x)
	}
	for _, a := range []struct {
		text, name string
	}{{it.acls[aclAccess], acl.XattrAccess}, {it.acls[aclDefault], acl.XattrDefault}} {
		if strings.TrimSpace(a.text) == "" {
			continue
		}
		value, err := acl.Parse(a.text, a.name == acl.XattrAccess, nil, nil)
		if err != nil {
			lost(format.LossACL)
		} else if value != "" {
			list = append(list, format.Xattr{Name: a.name, Value: value})
		}
	}
	for _, text := range []string{it.acls[aclExtended], it.acls[aclNFS4]} {
		if text != "" {
			lost(format.LossACL)
		}
	}
	slices.SortStableFunc(list, func(a, b format.Xattr) int { return cmp.Compare(a.Name, b.Name) })
	unique := slices.CompactFunc(list, func(a, b format.Xattr) bool { return a.Name == b.Name })
	for range len(list) - len(unique) {
		lost(format.LossXattr)
	}
	for ; len(unique) > format.XattrsMax; unique = unique[:len(unique)-1] {
		lost(format.LossXattr)
	}
	return unique
}

// bsdFlags are the stream's names of flags. Linux has no difference between what
// a user and what only root may clear, and borg writes its flags with the
// users' numbers.
var bsdFlags = []struct {
	bit        uint64
	bsd, linux string
}{
	{0x1, "nodump", "nodump"},
	{0x2, "user-immutable", "immutable"},
	{0x4, "user-append", "append"},
	{0x8, "opaque", "opaque"},
	{0x10, "nounlink", "nounlink"},
	{0x20, "compress", "compress"},
	{0x8000, "hidden", "hidden"},
	{0x10000, "archived", "archived"},
	{0x20000, "immutable", "immutable"},
	{0x40000, "append", "append"},
	{0x100000, "nounlink", "nounlink"},
}

// flags returns the flags' names. Archives do not say which system they are of,
// but only the BSDs and macOS have recorded times of birth.
func (it *item) flags(lost func(kind string)) (names []string) {
	if it.bsdflags == 0 {
		return nil
	}
	rest := it.bsdflags
	for _, f := range bsdFlags {
		if it.bsdflags&f.bit == 0 {
			continue
		}
		rest &^= f.bit
		if it.has&format.HasBtime != 0 {
			names = append(names, f.bsd)
		} else {
			names = append(names, f.linux)
		}
	}
	if rest != 0 {
		lost(format.LossFlags)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// contentSize is the sum of the sizes of chunks.
func contentSize(chunks []chunkRef) (size uint64, err error) {
	for i := range chunks {
		if size += uint64(chunks[i].size); size > format.FileSizeMax {
			return 0, fmt.Errorf("its chunks are more than 2^63-1 bytes: %w", ErrDamaged)
		}
	}
	return size, nil
}
