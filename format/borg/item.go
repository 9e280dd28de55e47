package borg

import (
	"fmt"
	"math"

	"github.com/bk-backup/bk/format"
)

// item is one object of a file system as an archive has it.
type item struct {
	path       string // relative, "." for the root of what was backed up
	mode       uint32 // with the bits of the type, as stat has them
	has        format.Has
	uid, gid   uint32
	user       string
	group      string
	mtime      format.Time
	atime      format.Time
	ctime      format.Time
	birthtime  format.Time
	size       uint64
	source     string // the target of a symbolic link, or the path of the first hard link
	hasSource  bool
	rdev       uint64
	hasRdev    bool
	hlid       string // what hard links have in common, in later versions
	bsdflags   uint64
	xattrs     []format.Xattr
	acls       [len(aclKeys)]string
	chunks     []chunkRef
	hasChunks  bool
	healthy    []chunkRef // what chunks were before a repair replaced some
	hasHealthy bool
	part       uint64 // the number of a part of a file, written across a checkpoint; 0: it is none
	master     masterKind
	unknown    []string // keys of other names
}

// chunkRef is a chunk in an item's list.
type chunkRef struct {
	id    objectID
	size  uint32 // plain bytes
	csize uint32 // bytes of its object, as they were when it was stored
}

// masterKind says whether other items may name an item as the one that they are
// hard links to.
type masterKind byte

const (
	masterUnsaid masterKind = iota // archives of old versions: any may be
	masterNo
	masterYes
)

// The ACLs that an item may have, as indices of item.acls.
const (
	aclAccess = iota
	aclDefault
	aclExtended
	aclNFS4
)

var aclKeys = [...]string{"acl_access", "acl_default", "acl_extended", "acl_nfs4"}

// The bits of a mode that say the type.
const (
	typeMask    = 0o170000
	typeFifo    = 0o010000
	typeChar    = 0o020000
	typeDir     = 0o040000
	typeBlock   = 0o060000
	typeFile    = 0o100000
	typeSymlink = 0o120000
	typeSocket  = 0o140000
)

// linkable reports whether source, in an item of this mode, names a hard link.
func linkable(mode uint32) bool {
	switch mode & typeMask {
	case typeFile, typeBlock, typeChar, typeFifo:
		return true
	}
	return false
}

// itemHead is what has to be known of an item to sort it: it is read without the
// rest being decoded.
type itemHead struct {
	path       []byte
	mode       uint32
	source     []byte
	hasSource  bool
	hasHlid    bool
	part       bool
	master     masterKind
	pathIsHere bool
}

// itemSizeMax is the most bytes of one packed item, most of which are the 40 or
// so of each chunk.
const itemSizeMax = 256 << 20

// parseHead reads the next item as far as an itemHead needs it. What it returns
// shares the unpacker's memory.
func (u *unpacker) parseHead() (h itemHead) {
	for range u.mapHead() {
		switch key := u.bytes(); string(key) {
		case "path":
			h.path, h.pathIsHere = u.bytes(), true
		case "mode":
			h.mode = uint32(u.uint(math.MaxUint32))
		case "source":
			if !u.null() {
				h.source, h.hasSource = u.bytes(), true
			}
		case "hlid":
			h.hasHlid = !u.null()
			if h.hasHlid {
				u.skip()
			}
		case "part":
			h.part = !u.null()
			if h.part {
				u.skip()
			}
		case "hardlink_master":
			h.master = masterNo
			if !u.null() && u.bool() {
				h.master = masterYes
			}
		default:
			u.skip()
		}
		if u.err != nil {
			return h
		}
	}
	if u.err == nil && !h.pathIsHere {
		u.fail("an item has no path")
	}
	return h
}

// parse decodes one packed item.
func (it *item) parse(b []byte) error {
	*it = item{xattrs: it.xattrs[:0], chunks: it.chunks[:0], healthy: it.healthy[:0]}
	u := &unpacker{b: b}
	for range u.mapHead() {
		key := u.bytes()
		if u.err != nil {
			break
		}
		if !u.null() {
			it.field(u, key)
		}
	}
	switch {
	case u.err != nil:
		return u.err
	case u.i != len(b):
		return fmt.Errorf("%d bytes follow an item: %w", len(b)-u.i, ErrDamaged)
	}
	return nil
}

// field decodes the value of a key.
func (it *item) field(u *unpacker, key []byte) {
	switch string(key) {
	case "path":
		it.path = string(u.bytes())
	case "mode":
		it.mode = uint32(u.uint(math.MaxUint32))
		it.has |= format.HasMode
	case "uid":
		it.uid = u.owner(&it.has, format.HasUID)
	case "gid":
		it.gid = u.owner(&it.has, format.HasGID)
	case "user":
		it.user = string(u.bytes())
	case "group":
		it.group = string(u.bytes())
	case "mtime":
		it.mtime = u.time(&it.has, format.HasMtime)
	case "atime":
		it.atime = u.time(&it.has, format.HasAtime)
	case "ctime":
		it.ctime = u.time(&it.has, format.HasCtime)
	case "birthtime":
		it.birthtime = u.time(&it.has, format.HasBtime)
	case "size":
		it.size = u.uint(format.FileSizeMax)
		it.has |= format.HasSize
	case "source":
		it.source, it.hasSource = string(u.bytes()), true
	case "hlid":
		it.hlid = string(u.bytes())
	case "rdev":
		it.rdev, it.hasRdev = u.uint(math.MaxUint64), true
	case "bsdflags":
		it.bsdflags = u.uint(math.MaxUint64)
	case "xattrs":
		it.xattrs = u.xattrs(it.xattrs)
	case "chunks":
		it.chunks, it.hasChunks = u.chunks(it.chunks), true
	case "chunks_healthy":
		it.healthy, it.hasHealthy = u.chunks(it.healthy), true
	case "part":
		it.part = u.uint(math.MaxUint64)
	case "hardlink_master":
		it.master = masterNo
		if u.bool() {
			it.master = masterYes
		}
	case "nlink", "deleted":
		u.skip()
	default:
		for i, name := range aclKeys {
			if string(key) == name {
				it.acls[i] = string(u.bytes())
				return
			}
		}
		it.unknown = append(it.unknown, string(key))
		u.skip()
	}
}

// owner reads the number of a user or a group. What does not fit, -1 of some
// systems, counts as not known.
func (u *unpacker) owner(has *format.Has, bit format.Has) uint32 {
	v, neg := u.int()
	if neg || v > math.MaxUint32 {
		return 0
	}
	*has |= bit
	return uint32(v)
}

// time reads nanoseconds since 1970.
func (u *unpacker) time(has *format.Has, bit format.Has) format.Time {
	v, neg := u.int()
	*has |= bit
	t := format.Time{Sec: int64(v / 1e9), Nsec: uint32(v % 1e9)}
	if neg {
		if t.Sec = -t.Sec; t.Nsec > 0 {
			t.Sec, t.Nsec = t.Sec-1, 1e9-t.Nsec
		}
	}
	return t
}

func (u *unpacker) xattrs(list []format.Xattr) []format.Xattr {
	for range u.mapHead() {
		list = append(list, format.Xattr{Name: u.text(), Value: u.text()})
	}
	return list
}

// chunks reads a list of chunks.
func (u *unpacker) chunks(list []chunkRef) []chunkRef {
	for range u.arrayHead() {
		if n := u.arrayHead(); n != 3 {
			u.fail("a chunk of %d elements", n)
			return list
		}
		list = append(list, chunkRef{
			id: u.id(), size: uint32(u.uint(math.MaxUint32)), csize: uint32(u.uint(math.MaxUint32)),
		})
	}
	return list
}

// appendPacked appends an item as borg packs it, its keys in order.
func (it *item) appendPacked(dst []byte) []byte {
	start, n := len(dst), 0
	dst = append(dst, 0xde, 0, 0)
	key := func(name string) {
		dst = appendBytes(dst, name)
		n++
	}
	for i, text := range it.acls {
		if text != "" {
			key(aclKeys[i])
			dst = appendBytes(dst, text)
		}
	}
	time := func(name string, bit format.Has, t format.Time) {
		if it.has&bit != 0 {
			key(name)
			dst = appendTime(dst, t)
		}
	}
	time("atime", format.HasAtime, it.atime)
	time("birthtime", format.HasBtime, it.birthtime)
	if it.bsdflags != 0 {
		key("bsdflags")
		dst = appendUint(dst, it.bsdflags)
	}
	if it.hasChunks {
		key("chunks")
		dst = appendChunks(dst, it.chunks)
	}
	if it.hasHealthy {
		key("chunks_healthy")
		dst = appendChunks(dst, it.healthy)
	}
	time("ctime", format.HasCtime, it.ctime)
	if it.has&format.HasGID != 0 {
		key("gid")
		dst = appendUint(dst, uint64(it.gid))
	}
	key("group")
	dst = appendName(dst, it.group)
	if it.master != masterUnsaid {
		key("hardlink_master")
		dst = appendBool(dst, it.master == masterYes)
	}
	if it.hlid != "" {
		key("hlid")
		dst = appendBytes(dst, it.hlid)
	}
	key("mode")
	dst = appendUint(dst, uint64(it.mode))
	time("mtime", format.HasMtime, it.mtime)
	if it.part != 0 {
		key("part")
		dst = appendUint(dst, it.part)
	}
	key("path")
	dst = appendBytes(dst, it.path)
	if it.hasRdev {
		key("rdev")
		dst = appendUint(dst, it.rdev)
	}
	if it.has&format.HasSize != 0 {
		key("size")
		dst = appendUint(dst, it.size)
	}
	if it.hasSource {
		key("source")
		dst = appendBytes(dst, it.source)
	}
	if it.has&format.HasUID != 0 {
		key("uid")
		dst = appendUint(dst, uint64(it.uid))
	}
	key("user")
	dst = appendName(dst, it.user)
	if len(it.xattrs) > 0 {
		key("xattrs")
		dst = appendMapHead(dst, len(it.xattrs))
		for _, x := range it.xattrs {
			dst = appendName(appendBytes(dst, x.Name), x.Value)
		}
	}
	if n < 16 {
		dst[start] = 0x80 | byte(n)
		return append(dst[:start+1], dst[start+3:]...)
	}
	dst[start+2] = byte(n)
	return dst
}

// appendName appends text, or nil for none.
func appendName(dst []byte, text string) []byte {
	if text == "" {
		return appendNil(dst)
	}
	return appendBytes(dst, text)
}

// timeFits reports whether a time can be packed: borg has nanoseconds in 64
// bits, without sign after 1970.
func timeFits(t format.Time) bool {
	return t.Sec >= math.MinInt64/1_000_000_000 && t.Sec < math.MaxUint64/1_000_000_000
}

func appendTime(dst []byte, t format.Time) []byte {
	if t.Sec < 0 {
		return appendInt(dst, t.Sec*1e9+int64(t.Nsec))
	}
	return appendUint(dst, uint64(t.Sec)*1e9+uint64(t.Nsec))
}

func appendChunks(dst []byte, list []chunkRef) []byte {
	dst = appendArrayHead(dst, len(list))
	for i := range list {
		dst = appendArrayHead(dst, 3)
		dst = appendBytes(dst, list[i].id[:])
		dst = appendUint(appendUint(dst, uint64(list[i].size)), uint64(list[i].csize))
	}
	return dst
}
