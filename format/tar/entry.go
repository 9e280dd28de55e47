package tar

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/internal/acl"
)

// decoder makes entries of members.
type decoder struct {
	lookupUser, lookupGroup func(name string) (uint32, bool)
	chunker                 string
}

// problem is something about a member that is lost.
type problem struct {
	kind, path string
	err        error
}

// entryTypes are the types of members that become entries by themselves.
var entryTypes = map[byte]format.Type{
	typeFile:    format.TypeFile,
	typeLink:    format.TypeFile, // of what it links to, in the end
	typeSymlink: format.TypeSymlink,
	typeChar:    format.TypeChar,
	typeBlock:   format.TypeBlock,
	typeDir:     format.TypeDir,
	typeDumpDir: format.TypeDir,
	typeFifo:    format.TypeFifo,
}

// entry makes the entry of a member. It is nil where the member cannot be one;
// then a problem says why, unless there is nothing to lose.
func (d *decoder) entry(m *member) (e *format.Entry, problems []problem) {
	path, ok := cleanName(m.name)
	shown := path
	if !ok {
		shown = strings.Trim(m.name, "/")
	}
	lose := func(kind string, err error) {
		problems = append(problems, problem{kind, shown, err})
	}
	typ, known := entryTypes[m.typ]
	switch {
	case m.typ == typeVolume:
		lose(format.LossSnapshot, fmt.Errorf("the label of the volume, %.80q", m.name))
		return nil, problems
	case m.typ == typeContinuation:
		lose(format.LossUnreadable, errors.New("it began in another volume of the archive, which is not read with this one"))
		return nil, problems
	case !known:
		lose(format.LossUnreadable, fmt.Errorf("members of the type %q are not known", m.typ))
		return nil, problems
	case !ok:
		lose(format.LossUnreadable, errors.New("its name leads upward with \"..\""))
		return nil, problems
	case path == "" && typ != format.TypeDir:
		lose(format.LossUnreadable, errors.New("it has no name"))
		return nil, problems
	}
	if err := format.CheckPath(path); err != nil {
		kind := format.LossUnreadable
		if format.ClassOf(err) == format.ClassLimit {
			kind = format.LossLimit
		}
		lose(kind, errors.New("its name cannot be that of an entry"))
		return nil, problems
	}
	e = &format.Entry{Path: path, Type: typ}
	d.owner(m, e, lose)
	d.times(m, e, lose)
	e.Xattrs = d.xattrsOf(m, lose)
	for _, x := range e.Xattrs {
		if x.Name != acl.XattrAccess {
			continue
		}
		if bits, ok := acl.Mode(x.Value); ok {
			e.Mode = e.Mode&^0o777 | bits
		}
	}
	var unknown []string
	e.Flags, unknown = parseFlags(m.pax[keyFlags])
	if len(unknown) > 0 || len(e.Flags) > format.FlagsMax {
		lose(format.LossFlags, fmt.Errorf("flags that are not known: %.80q", unknown))
		e.Flags = e.Flags[:min(len(e.Flags), format.FlagsMax)]
	}
	if !d.special(m, e, lose) {
		return nil, problems
	}
	return e, problems
}

// special fills in what only some types have.
func (d *decoder) special(m *member, e *format.Entry, lose func(string, error)) bool {
	switch e.Type {
	case format.TypeFile:
		e.Has |= format.HasSize
		e.Size = m.fileSize()
		e.Chunker = d.chunker
		if m.sparse != nil && len(m.sparse.pieces) <= format.ExtentsMax {
			whole := len(m.sparse.pieces) == 1 && m.sparse.pieces[0].Size == m.sparse.size
			if !whole && len(m.sparse.pieces) > 0 {
				e.Extents = m.sparse.pieces
			}
		}
	case format.TypeSymlink:
		e.Target = m.link
		if len(e.Target) > format.TargetSizeMax || strings.IndexByte(e.Target, 0) >= 0 {
			lose(format.LossLimit, errors.New("its target cannot be that of a link"))
			return false
		}
	case format.TypeChar, format.TypeBlock:
		major, err1 := deviceNumber(m, m.head[329:337], keyDevmajor)
		minor, err2 := deviceNumber(m, m.head[337:345], keyDevminor)
		if err1 != nil || err2 != nil {
			lose(format.LossDevice, errors.New("its numbers cannot be those of a device"))
			return false
		}
		e.Rdev = format.Rdev{Major: major, Minor: minor}
	}
	return true
}

func deviceNumber(m *member, field []byte, key string) (uint32, error) {
	n, err := parseNumber(field)
	if text := m.pax[key]; text != "" {
		n, err = strconv.ParseInt(text, 10, 64)
	}
	if err != nil || n < 0 || n > math.MaxUint32 {
		return 0, errors.New("not a device number")
	}
	return uint32(n), nil
}

// owner fills in permission bits and owners.
func (d *decoder) owner(m *member, e *format.Entry, lose func(string, error)) {
	if mode, err := parseNumber(m.head[100:108]); err == nil {
		e.Mode = uint32(mode & 0o7777)
		e.Has |= format.HasMode
	} else {
		lose(format.LossMode, err)
	}
	for _, o := range []struct {
		field []byte
		key   string
		id    *uint32
		has   format.Has
	}{{m.head[108:116], keyUID, &e.UID, format.HasUID}, {m.head[116:124], keyGID, &e.GID, format.HasGID}} {
		id, err := parseNumber(o.field)
		if text := m.pax[o.key]; text != "" {
			id, err = strconv.ParseInt(text, 10, 64)
		}
		if err != nil || id < 0 || id > math.MaxUint32 {
			lose(format.LossOwner, fmt.Errorf("its %s is not one", o.key))
			continue
		}
		*o.id = uint32(id)
		e.Has |= o.has
	}
	e.User = m.text(keyUname, m.head.uname())
	e.Group = m.text(keyGname, m.head.gname())
	if len(e.User) > format.TextSizeMax || len(e.Group) > format.TextSizeMax {
		lose(format.LossOwner, errors.New("the name of its user or group is too long"))
		e.User, e.Group = "", ""
	}
}

// times fills in the times.
func (d *decoder) times(m *member, e *format.Entry, lose func(string, error)) {
	atime, ctime := m.head.oldTimes()
	for _, o := range []struct {
		field []byte
		key   string
		time  *format.Time
		has   format.Has
	}{
		{m.head[136:148], keyMtime, &e.Mtime, format.HasMtime},
		{atime, keyAtime, &e.Atime, format.HasAtime},
		{ctime, keyCtime, &e.Ctime, format.HasCtime},
		{nil, keyBtime, &e.Btime, format.HasBtime},
	} {
		t, err := format.Time{}, error(nil)
		switch text := m.pax[o.key]; {
		case text != "":
			t, err = parseSeconds(text)
		case o.field != nil:
			t.Sec, err = parseNumber(o.field)
		default:
			continue
		}
		if err != nil {
			lose(format.LossTime, fmt.Errorf("its %s: %w", o.key, err))
			continue
		}
		*o.time = t
		e.Has |= o.has
	}
}

// dumpDir reads the list that incremental dumps have of a directory, and
// reports the names of what is there but not in this archive.
func dumpDir(path, list string) (problems []problem) {
	for item := range strings.SplitSeq(list, "\x00") {
		if item == "" || item[0] != 'N' {
			continue
		}
		name := item[1:]
		if path != "" {
			name = path + "/" + name
		}
		problems = append(problems, problem{format.LossUnreadable, name,
			errors.New("it did not change since an earlier incremental dump and is only in that one")})
	}
	return problems
}
