package format

const (
	seenPath keySet = 1 << iota
	seenType
	seenMode
	seenUID
	seenGID
	seenUserName
	seenGroup
	seenMtime
	seenEntrySize
	seenTarget
	seenRdev
	seenHardlink
	seenXattrs
	seenFlags
	seenExtents
	seenAtime
	seenCtime
	seenBtime
	seenInode
	seenLinks
	seenChunker
)

func (e *Entry) parse(c *cursor, withPath bool) {
	old := names{e.User, e.Group, e.Hardlink, e.Chunker}
	*e = Entry{Xattrs: e.Xattrs[:0], Flags: e.Flags[:0], Extents: e.Extents[:0], Extra: e.Extra[:0]}
	var seen keySet
	for n := c.mapLen(); n > 0 && c.err == nil; n-- {
		switch string(c.nextKey()) {
		case "path":
			c.once(&seen, seenPath)
			if !withPath {
				c.fail(ClassField, "has no place in a body without a path")
			}
			e.Path = c.text("")
		case "type":
			c.once(&seen, seenType)
			e.Type = c.entryType()
		case "mode":
			c.once(&seen, seenMode)
			e.Mode = uint32(c.uint(0o7777))
			e.Has |= HasMode
		case "uid":
			c.once(&seen, seenUID)
			e.UID = uint32(c.uint(1<<32 - 1))
			e.Has |= HasUID
		case "gid":
			c.once(&seen, seenGID)
			e.GID = uint32(c.uint(1<<32 - 1))
			e.Has |= HasGID
		case "user":
			c.once(&seen, seenUserName)
			e.User = c.text(old.user)
		case "group":
			c.once(&seen, seenGroup)
			e.Group = c.text(old.group)
		case "mtime":
			c.once(&seen, seenMtime)
			e.Mtime = c.time()
			e.Has |= HasMtime
		case "size":
			c.once(&seen, seenEntrySize)
			e.Size = c.uint(1<<64 - 1)
			e.Has |= HasSize
		case "ctime":
			c.once(&seen, seenCtime)
			e.Ctime = c.time()
			e.Has |= HasCtime
		case "inode":
			c.once(&seen, seenInode)
			e.Inode = c.uint(1<<64 - 1)
			e.Has |= HasInode
		default:
			e.parseRare(c, &seen, &old)
		}
	}
	if withPath {
		c.require(seen, seenPath, "path")
	}
	c.require(seen, seenType, "type")
	if e.Type == TypeSymlink {
		c.require(seen, seenTarget, "target")
	} else if seen&seenTarget != 0 {
		c.misplaced("target", e.Type)
	}
	if e.Type == TypeChar || e.Type == TypeBlock {
		c.require(seen, seenRdev, "rdev")
	} else if seen&seenRdev != 0 {
		c.misplaced("rdev", e.Type)
	}
	c.sortedExtra(e.Extra)
}

// names are the strings of the entry before, which are likely to come again.
type names struct{ user, group, hardlink, chunker string }

// parseRare reads the keys that most entries do not have, or that are cheap.
func (e *Entry) parseRare(c *cursor, seen *keySet, old *names) {
	switch string(c.key) {
	case "links":
		c.once(seen, seenLinks)
		e.Links = c.uint(1<<64 - 1)
		e.Has |= HasLinks
	case "chunker":
		c.once(seen, seenChunker)
		e.Chunker = c.word(old.chunker)
	case "atime":
		c.once(seen, seenAtime)
		e.Atime = c.time()
		e.Has |= HasAtime
	case "btime":
		c.once(seen, seenBtime)
		e.Btime = c.time()
		e.Has |= HasBtime
	case "target":
		c.once(seen, seenTarget)
		e.Target = c.text("")
	case "rdev":
		c.once(seen, seenRdev)
		c.arrayOf(2)
		e.Rdev.Major = uint32(c.uint(1<<32 - 1))
		e.Rdev.Minor = uint32(c.uint(1<<32 - 1))
	case "hardlink":
		c.once(seen, seenHardlink)
		e.Hardlink = c.text(old.hardlink)
	case "xattrs":
		c.once(seen, seenXattrs)
		e.parseXattrs(c)
	case "flags":
		c.once(seen, seenFlags)
		e.Flags = c.words(e.Flags, FlagsMax)
	case "extents":
		c.once(seen, seenExtents)
		for n := c.array(ExtentsMax); n > 0 && c.err == nil; n-- {
			c.arrayOf(2)
			offset := c.uint(1<<64 - 1)
			e.Extents = append(e.Extents, Extent{offset, c.uint(1<<64 - 1)})
		}
	default:
		c.extra(&e.Extra)
	}
}

func (e *Entry) parseXattrs(c *cursor) {
	old := e.Xattrs[:cap(e.Xattrs)]
	for n := c.array(XattrsMax); n > 0 && c.err == nil; n-- {
		var x Xattr
		if i := len(e.Xattrs); i < len(old) {
			x = old[i]
		}
		c.arrayOf(2)
		x.Name = c.text(x.Name)
		x.Value = c.text(x.Value)
		e.Xattrs = append(e.Xattrs, x)
	}
}

// entryType reads the type as one of the constants, so that it costs no string.
func (c *cursor) entryType() Type {
	switch b := c.str(); Type(b) {
	case TypeFile:
		return TypeFile
	case TypeDir:
		return TypeDir
	case TypeSymlink:
		return TypeSymlink
	case TypeChar:
		return TypeChar
	case TypeBlock:
		return TypeBlock
	case TypeFifo:
		return TypeFifo
	case TypeSocket:
		return TypeSocket
	default:
		c.fail(ClassField, "there is no type %q", b)
		return ""
	}
}

func (c *cursor) misplaced(key string, t Type) {
	c.key = nil
	c.fail(ClassField, "the key %q has no place in an entry of the type %s", key, t)
}
