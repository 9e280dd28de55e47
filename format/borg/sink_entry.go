package borg

import (
	"errors"
	"strings"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/internal/acl"
	"github.com/bk-backup/bk/format/internal/spill"
)

// itemPath is how an item has a path.
func itemPath(path string) string {
	if path == "" {
		return "."
	}
	return path
}

// The permissions of what does not say which it has.
const (
	modeUnknownDir  = 0o755
	modeUnknownFile = 0o644
)

// typeBits are the bits of a mode for each type that borg has.
var typeBits = map[format.Type]uint32{
	format.TypeFile: typeFile, format.TypeDir: typeDir, format.TypeSymlink: typeSymlink, format.TypeChar: typeChar,
	format.TypeBlock: typeBlock, format.TypeFifo: typeFifo,
}

// itemOf makes the item of an entry, without content and hard links, and counts
// what it cannot hold. It returns nil for what borg has no item of.
func (s *Sink) itemOf(e *format.Entry) (*item, error) {
	var err error
	lose := func(kind, text string) {
		if err == nil {
			err = s.lose(kind, e.Path, errors.New(text))
		}
	}
	bits, ok := typeBits[e.Type]
	switch {
	case !ok:
		lose(format.LossSocket, "borg has no sockets")
		return nil, err
	case e.Type == format.TypeSymlink && e.Target == "":
		lose(format.LossUnwritable, "borg has no links without a target")
		return nil, err
	}
	const kept = format.HasUID | format.HasGID | format.HasMtime | format.HasAtime | format.HasCtime
	it := &item{
		path: itemPath(e.Path), mode: bits | e.Mode&0o7777, has: e.Has&kept | format.HasMode,
		uid: e.UID, gid: e.GID, user: e.User, group: e.Group, mtime: e.Mtime, atime: e.Atime, ctime: e.Ctime,
	}
	if e.Has&format.HasMode == 0 {
		it.mode |= modeUnknownFile
		if e.Type == format.TypeDir {
			it.mode = bits | modeUnknownDir
		}
		lose(format.LossMode, "its permissions are not known, and borg cannot leave them open")
	}
	if e.Has&format.HasUID == 0 || e.Has&format.HasGID == 0 {
		it.has |= format.HasUID | format.HasGID
		lose(format.LossOwner, "its owner is not known, and borg cannot leave that open")
	}
	if e.Has&format.HasMtime == 0 {
		it.has |= format.HasMtime
		lose(format.LossTime, "its time of modification is not known, and borg cannot leave that open")
	}
	if clamped := nearestTime(it.mtime); clamped != it.mtime {
		it.mtime = clamped
		lose(format.LossTimeRange, "borg counts nanoseconds in 64 bits, from 1677 to 2554")
	}
	it.atime, it.ctime = nearestTime(it.atime), nearestTime(it.ctime)
	if e.Has&format.HasBtime != 0 && len(e.Flags) == 0 && timeFits(e.Btime) {
		// With a time of birth, readers take flags for those of the BSDs.
		it.birthtime, it.has = e.Btime, it.has|format.HasBtime
	}
	switch e.Type {
	case format.TypeSymlink:
		it.source, it.hasSource = e.Target, true
	case format.TypeChar, format.TypeBlock:
		it.rdev, it.hasRdev = packDevice(e.Rdev), true
	}
	it.setXattrs(e.Xattrs, lose)
	it.setFlags(e.Flags, lose)
	if len(e.Extra) > 0 {
		lose(format.LossExtension, "unknown keys")
	}
	return it, err
}

// nearestTime brings a time into the range of items.
func nearestTime(t format.Time) format.Time {
	switch {
	case timeFits(t):
		return t
	case t.Sec < 0:
		return format.Time{Sec: timeSecMin}
	}
	return format.Time{Sec: timeSecMax, Nsec: 999_999_999}
}

const (
	timeSecMin = -1 << 63 / 1_000_000_000
	timeSecMax = (1<<64-1)/1_000_000_000 - 1
)

// setXattrs takes over the attributes; ACLs become text.
func (it *item) setXattrs(list []format.Xattr, lose func(kind, text string)) {
	for _, x := range list {
		index := -1
		switch x.Name {
		case acl.XattrAccess:
			index = aclAccess
		case acl.XattrDefault:
			index = aclDefault
		}
		if index < 0 {
			it.xattrs = append(it.xattrs, x)
			continue
		}
		text, err := acl.Format(x.Value)
		if err != nil {
			lose(format.LossACL, err.Error())
			continue
		}
		it.acls[index] = borgACL(text)
	}
}

// borgACL adds what borg has behind each entry of a user or a group that it
// names: the number, once more.
func borgACL(text string) string {
	var out []string
	for line := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == '\n' }) {
		if fields := strings.Split(line, ":"); len(fields) == 3 && fields[1] != "" {
			line += ":" + fields[1]
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

// setFlags takes over the flags that borg has numbers for.
func (it *item) setFlags(names []string, lose func(kind, text string)) {
	for _, name := range names {
		bit := uint64(0)
		for _, f := range bsdFlags {
			if f.linux == name && bit == 0 {
				bit = f.bit
			}
		}
		if bit == 0 {
			lose(format.LossFlags, "borg has no number for the flag "+name)
		}
		it.bsdflags |= bit
	}
}

// groupKey is what rows have of the name of a group of hard links.
func groupKey(name string) string {
	if name == "" {
		return ""
	}
	key := spill.KeyOf('g', name)
	return string(key[:])
}
