package restic

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/bk-backup/bk/format"
)

// node is one object of a tree, as restic writes it. Numbers and times that are
// absent are zero, as restic reads them, but where has says so.
type node struct {
	kind                string // file, dir, symlink, dev, chardev, fifo, socket, irregular
	mode                uint32 // as Go's fs.FileMode
	mtime, atime, ctime format.Time
	has                 format.Has // of the times, uid and gid
	uid, gid            uint32
	user, group         string
	inode, device       uint64 // where the object lay
	links, size         uint64
	rdev                uint64 // number of a device
	target              string
	xattrs              []format.Xattr
	windows             []byte // generic_attributes, as JSON
	content             []format.ID
	hasContent          bool   // it is there and not null
	err                 string // why it could not be read

	scan scanner
}

// parse decodes the JSON of a node. Slices of n are used again.
func (n *node) parse(b []byte) error {
	user, group := n.user, n.group // mostly the same as those of the node before
	*n = node{xattrs: n.xattrs[:0], content: n.content[:0], scan: n.scan}
	s := &n.scan
	s.reset(b)
	rawTarget, hasRaw := "", false
	s.object(func(key []byte) {
		switch string(key) {
		case "type":
			n.kind = kindText(s.text())
		case "mode":
			n.mode = uint32(s.uint(math.MaxUint32))
		case "mtime":
			n.mtime = s.time(&n.has, format.HasMtime)
		case "atime":
			n.atime = s.time(&n.has, format.HasAtime)
		case "ctime":
			n.ctime = s.time(&n.has, format.HasCtime)
		case "uid":
			n.uid = s.uint32(&n.has, format.HasUID)
		case "gid":
			n.gid = s.uint32(&n.has, format.HasGID)
		case "user":
			n.user = sameText(user, s.text())
		case "group":
			n.group = sameText(group, s.text())
		case "inode":
			n.inode = s.uint(math.MaxUint64)
		case "device_id":
			n.device = s.uint(math.MaxUint64)
		case "size":
			n.size = s.uint(math.MaxUint64)
		case "links":
			n.links = s.uint(math.MaxUint64)
		case "linktarget":
			n.target = string(s.text())
		case "linktarget_raw":
			t := s.base64()
			rawTarget, hasRaw = string(t), t != nil
		case "extended_attributes":
			n.xattrs = n.xattrs[:0]
			s.array(n.xattr)
		case "generic_attributes":
			n.windows = s.value()
		case "device":
			n.rdev = s.uint(math.MaxUint64)
		case "content":
			n.hasContent = !s.null()
			n.content = n.content[:0]
			if n.hasContent {
				s.array(func() {
					n.content = append(n.content, format.ID{})
					s.id(&n.content[len(n.content)-1])
				})
			}
		case "error":
			n.err = string(s.text())
		default:
			s.skip()
		}
	})
	s.end()
	if hasRaw {
		n.target = rawTarget
	}
	return s.err
}

// xattr reads one extended attribute.
func (n *node) xattr() {
	var x format.Xattr
	s := &n.scan
	s.object(func(key []byte) {
		switch string(key) {
		case "name":
			x.Name = string(s.text())
		case "value":
			x.Value = string(s.base64())
		default:
			s.skip()
		}
	})
	n.xattrs = append(n.xattrs, x)
}

// kindText returns a type without an allocation.
func kindText(b []byte) string {
	for _, kind := range [...]string{"file", "dir", "symlink", "dev", "chardev", "fifo", "socket"} {
		if string(b) == kind {
			return kind
		}
	}
	return string(b)
}

// sameText returns b as a string: old, if it is equal.
func sameText(old string, b []byte) string {
	if string(b) == old {
		return old
	}
	return string(b)
}

// value passes over any value and returns its JSON.
func (s *scanner) value() []byte {
	s.space()
	start := s.i
	if s.skip(); s.err != nil {
		return nil
	}
	return s.b[start:s.i]
}

// uint32 reads a number and notes that it is there.
func (s *scanner) uint32(has *format.Has, bit format.Has) uint32 {
	*has &^= bit
	if s.null() {
		return 0
	}
	*has |= bit
	return uint32(s.uint(math.MaxUint32))
}

// base64 decodes a string; nil for a null.
func (s *scanner) base64() []byte {
	if s.null() {
		return nil
	}
	text := s.text()
	out, err := base64.StdEncoding.AppendDecode(make([]byte, 0, len(text)/4*3+3), text)
	if err != nil {
		s.fail("%v", err)
	}
	return out
}

// time reads a time in RFC 3339. What restic writes where it knows none, the
// beginning of the year 1, counts as absent.
func (s *scanner) time(has *format.Has, bit format.Has) format.Time {
	*has &^= bit
	if s.null() {
		return format.Time{}
	}
	text := s.text()
	if s.err != nil {
		return format.Time{}
	}
	t, ok := parseTime(text)
	if !ok {
		var slow time.Time
		if err := slow.UnmarshalText(text); err != nil {
			s.fail("%v", err)
			return format.Time{}
		}
		t = format.TimeOf(slow)
	}
	if t.Sec != yearOne || t.Nsec != 0 {
		*has |= bit
	}
	return t
}

// yearOne is Go's zero time in seconds since 1970.
const yearOne = -62135596800

// parseTime reads the forms that restic writes: 2006-01-02T15:04:05, with up to
// nine digits of a fraction, then Z or an offset like -07:00. What it does not
// know may be right nevertheless.
func parseTime(b []byte) (format.Time, bool) {
	if len(b) < 20 || b[4] != '-' || b[7] != '-' || b[10] != 'T' || b[13] != ':' || b[16] != ':' {
		return format.Time{}, false
	}
	year, month, day := decimal(b[:4]), decimal(b[5:7]), decimal(b[8:10])
	hour, minute, second := decimal(b[11:13]), decimal(b[14:16]), decimal(b[17:19])
	if year < 0 || month < 1 || month > 12 || day < 1 || day > 28 && day > daysIn(year, month) ||
		hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 59 {
		return format.Time{}, false
	}
	nsec := uint32(0)
	rest := b[19:]
	if rest[0] == '.' {
		scale := uint32(1e9)
		rest = rest[1:]
		for len(rest) > 0 && rest[0]-'0' <= 9 {
			if scale == 1 {
				return format.Time{}, false
			}
			scale /= 10
			nsec += uint32(rest[0]-'0') * scale
			rest = rest[1:]
		}
		if scale == 1e9 {
			return format.Time{}, false
		}
	}
	offset := 0
	switch {
	case len(rest) == 1 && rest[0] == 'Z':
	case len(rest) == 6 && (rest[0] == '+' || rest[0] == '-') && rest[3] == ':':
		h, m := decimal(rest[1:3]), decimal(rest[4:6])
		if h < 0 || h > 23 || m < 0 || m > 59 {
			return format.Time{}, false
		}
		offset = (h*60 + m) * 60
		if rest[0] == '-' {
			offset = -offset
		}
	default:
		return format.Time{}, false
	}
	// Days since 1970, counted from a year that begins with March, so that the
	// leap day is the last one.
	if month <= 2 {
		year, month = year-1, month+12
	}
	days := 365*year + floorDiv(year, 4) - floorDiv(year, 100) + floorDiv(year, 400) + (153*(month-3)+2)/5 + day - 719469
	return format.Time{Sec: int64(days)*86400 + int64(hour*3600+minute*60+second-offset), Nsec: nsec}, true
}

func floorDiv(a, b int) int {
	if a < 0 {
		return -((b - 1 - a) / b)
	}
	return a / b
}

func daysIn(year, month int) int {
	switch month {
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	}
	return 31
}

// decimal reads digits, or returns -1.
func decimal(b []byte) int {
	v := 0
	for _, c := range b {
		if c-'0' > 9 {
			return -1
		}
		v = v*10 + int(c-'0')
	}
	return v
}

// Bits of Go's fs.FileMode, which restic writes.
const (
	goSetuid = 1 << 23
	goSetgid = 1 << 22
	goSticky = 1 << 20
)

// types are restic's names of types. It has others, for what is no file.
var types = map[string]format.Type{
	"file": format.TypeFile, "dir": format.TypeDir, "symlink": format.TypeSymlink, "dev": format.TypeBlock,
	"chardev": format.TypeChar, "fifo": format.TypeFifo, "socket": format.TypeSocket,
}

// entry makes the stream's entry of a node. It reports false if the stream has
// no such object. lost is called with the kind of every loss.
func (n *node) entry(path string, lost func(kind string)) (*format.Entry, bool) {
	kind, ok := types[n.kind]
	if !ok || len(path) > format.PathSizeMax {
		lost(format.LossLimit)
		return nil, false
	}
	e := &format.Entry{
		Path: path, Type: kind,
		Has:  n.has | format.HasMode,
		Mode: n.mode & 0o777,
		UID:  n.uid, GID: n.gid,
		Mtime: n.mtime, Atime: n.atime, Ctime: n.ctime,
		Inode: n.inode, Links: n.links,
	}
	for i, bit := range [...]uint32{goSetuid, goSetgid, goSticky} {
		if n.mode&bit != 0 {
			e.Mode |= 0o4000 >> i
		}
	}
	if n.inode != 0 {
		e.Has |= format.HasInode
	}
	if n.links != 0 {
		e.Has |= format.HasLinks
	}
	if e.Has&format.HasAtime != 0 && e.Atime == e.Mtime {
		e.Has, e.Atime = e.Has&^format.HasAtime, format.Time{} // restic had not looked at it
	}
	for _, have := range []struct {
		bit  format.Has
		time *format.Time
	}{{format.HasMtime, &e.Mtime}, {format.HasAtime, &e.Atime}, {format.HasCtime, &e.Ctime}} {
		if e.Has&have.bit == 0 {
			*have.time = format.Time{}
		}
	}
	if e.User, e.Group = n.user, n.group; len(n.user) > format.TextSizeMax || len(n.group) > format.TextSizeMax {
		e.User, e.Group = "", ""
		lost(format.LossOwner)
	}
	switch kind {
	case format.TypeFile:
		e.Has |= format.HasSize
		e.Size = min(n.size, format.FileSizeMax)
	case format.TypeSymlink:
		if e.Target = n.target; len(n.target) > format.TargetSizeMax || strings.IndexByte(n.target, 0) >= 0 {
			lost(format.LossLimit)
			return nil, false
		}
	case format.TypeChar, format.TypeBlock:
		e.Rdev = linuxDevice(n.rdev)
	}
	if n.links > 1 && n.inode != 0 && kind != format.TypeDir {
		e.Hardlink = groupName(n.device, n.inode)
	}
	e.Xattrs = n.entryXattrs(lost)
	if len(n.windows) > 0 {
		n.addWindows(e, lost)
	}
	if n.err != "" {
		lost(format.LossUnreadable)
	}
	return e, true
}

// groupName names the group of hard links that an object belongs to: a hash of
// where it lay, which needs no memory and is the same in every snapshot as long
// as that is.
func groupName(device, inode uint64) string {
	b := []byte("restic hardlink ")
	b = binary.BigEndian.AppendUint64(b, device)
	b = binary.BigEndian.AppendUint64(b, inode)
	sum := sha256.Sum256(b)
	return string(sum[:])
}

// linuxDevice divides a device number as Linux's C library packs it into 64 bits.
func linuxDevice(dev uint64) format.Rdev {
	return format.Rdev{
		Major: uint32(dev>>8&0xfff | dev>>32&^0xfff),
		Minor: uint32(dev&0xff | dev>>12&^0xff),
	}
}

// entryXattrs returns the attributes in order, without what does not fit.
func (n *node) entryXattrs(lost func(kind string)) []format.Xattr {
	if len(n.xattrs) == 0 {
		return nil
	}
	list := make([]format.Xattr, 0, len(n.xattrs))
	for _, x := range n.xattrs {
		if x.Name == "" || len(x.Name) > format.XattrNameSizeMax || len(x.Value) > format.XattrValueSizeMax || strings.IndexByte(x.Name, 0) >= 0 {
			lost(format.LossXattr)
			continue
		}
		list = append(list, x)
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

// Windows' file attributes that the stream has as flags, in the order of their
// names.
var windowsFlags = []struct {
	bit  uint32
	name string
}{{0x20, "archived"}, {0x2, "hidden"}, {0x1, "readonly"}, {0x4, "system"}}

// windowsFlagsKnown are these, and those that say how a file is stored or what
// its type says anyway: directory, normal, sparse, reparse point, compressed.
const windowsFlagsKnown = 0x27 | 0x10 | 0x80 | 0x200 | 0x400 | 0x800

// addWindows adds what restic records of files on Windows.
func (n *node) addWindows(e *format.Entry, lost func(kind string)) {
	var w map[string]json.RawMessage
	if err := json.Unmarshal(n.windows, &w); err != nil {
		lost(format.LossExtension)
		return
	}
	for key, value := range w {
		switch key {
		case "windows.creation_time":
			var t struct{ LowDateTime, HighDateTime uint32 }
			if json.Unmarshal(value, &t) == nil {
				e.Btime, e.Has = fileTime(t.HighDateTime, t.LowDateTime), e.Has|format.HasBtime
				continue
			}
		case "windows.file_attributes":
			var bits uint32
			if json.Unmarshal(value, &bits) == nil && bits&^windowsFlagsKnown == 0 {
				for _, f := range windowsFlags {
					if bits&f.bit != 0 {
						e.Flags = append(e.Flags, f.name)
					}
				}
				continue
			}
		case "windows.security_descriptor":
			lost(format.LossACL)
			continue
		}
		lost(format.LossExtension)
	}
}

// fileTime converts from Windows' clock: 100 ns since 1601.
func fileTime(high, low uint32) format.Time {
	ticks := uint64(high)<<32 | uint64(low)
	return format.Time{Sec: int64(ticks/1e7) - 11644473600, Nsec: uint32(ticks%1e7) * 100}
}
