package tar

import (
	"encoding/base64"
	"path"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/internal/acl"
)

// composer makes the headers of members, in the pax format.
type composer struct {
	btime bool
	pax   []byte // records of the extended header that is being made
}

// written is a member to be written: an entry as the archive is to have it.
type written struct {
	entry *format.Entry
	link  string     // path that it is a hard link to, with isLink
	size  int64      // bytes of data that follow
	holes *sparseMap // of a sparse file
	typ   byte
}

// typesWritten are the types of members for those of entries.
var typesWritten = map[format.Type]byte{
	format.TypeFile:    typeFile,
	format.TypeDir:     typeDir,
	format.TypeSymlink: typeSymlink,
	format.TypeChar:    typeChar,
	format.TypeBlock:   typeBlock,
	format.TypeFifo:    typeFifo,
}

// append appends everything that comes before a member's data.
func (c *composer) append(dst []byte, w *written) []byte {
	c.pax = c.pax[:0]
	e, h := w.entry, &block{}
	name := e.Path
	if e.Type == format.TypeDir {
		name += "/"
		if e.Path == "" {
			name = "./"
		}
	}
	for _, text := range []string{e.Path, e.Target, w.link, e.User, e.Group} {
		if !staysAsItIs(text) {
			c.record(keyCharset, "BINARY")
			break
		}
	}
	if w.holes != nil {
		c.record(keySparseMajor, "1")
		c.record(keySparseMinor, "0")
		c.record(keySparseName, name)
		c.record(keySparseRealSize, strconv.FormatUint(w.holes.size, 10))
		// What knows nothing of holes finds the stored pieces under this name.
		name = path.Join(format.ParentPath(e.Path), "GNUSparseFile.0", path.Base(e.Path))
	}
	c.text(h[0:100], keyPath, name)
	switch w.typ {
	case typeLink:
		c.text(h[157:257], keyLinkPath, w.link)
	case typeSymlink:
		c.text(h[157:257], keyLinkPath, e.Target)
	case typeChar, typeBlock:
		c.number(h[329:337], keyDevmajor, int64(e.Rdev.Major))
		c.number(h[337:345], keyDevminor, int64(e.Rdev.Minor))
	}
	h[156] = w.typ
	copy(h[257:], "ustar\x0000")
	mode := uint32(0o644)
	switch {
	case e.Has&format.HasMode != 0:
		mode = e.Mode
	case e.Type == format.TypeDir:
		mode = 0o755
	}
	putNumber(h[100:108], int64(mode))
	c.number(h[108:116], keyUID, int64(e.UID))
	c.number(h[116:124], keyGID, int64(e.GID))
	c.number(h[124:136], keySize, w.size)
	c.text(h[265:297], keyUname, e.User)
	c.text(h[297:329], keyGname, e.Group)
	if !putNumber(h[136:148], e.Mtime.Sec) || e.Mtime.Nsec != 0 {
		c.record(keyMtime, formatSeconds(e.Mtime))
	}
	if w.typ != typeLink {
		c.attributes(e)
	}
	h.seal()
	if len(c.pax) > 0 {
		dst = appendExtended(dst, typePax, "PaxHeaders.0/"+path.Base(e.Path), c.pax)
	}
	return append(dst, h[:]...)
}

// attributes adds what only an extended header can hold.
func (c *composer) attributes(e *format.Entry) {
	for _, t := range []struct {
		has  format.Has
		key  string
		time format.Time
	}{{format.HasAtime, keyAtime, e.Atime}, {format.HasCtime, keyCtime, e.Ctime}, {format.HasBtime, keyBtime, e.Btime}} {
		if e.Has&t.has != 0 && (t.has != format.HasBtime || c.btime) {
			c.record(t.key, formatSeconds(t.time))
		}
	}
	for _, x := range e.Xattrs {
		c.record(keyXattrPrefix+escapeXattr(x.Name), x.Value)
		key := ""
		switch x.Name {
		case acl.XattrAccess:
			key = keyACLAccess
		case acl.XattrDefault:
			key = keyACLDefault
		default:
			continue
		}
		// Once more as text, which is all that some programs know.
		if text, err := acl.Format(x.Value); err == nil {
			c.record(key, text)
		}
	}
	if len(e.Flags) > 0 {
		c.record(keyFlags, formatFlags(e.Flags))
	}
}

func (c *composer) record(key, value string) { c.pax = appendPax(c.pax, key, value) }

// text puts a text into a field, and where it does not fit or is not ASCII into
// a record too.
func (c *composer) text(field []byte, key, value string) {
	if len(value) > len(field) || !isASCII(value) {
		c.record(key, value)
		value = strings.TrimRight(asciiOf(value, len(field)), "/")
	}
	copy(field, value)
}

// number puts a number into a field, and where it does not fit into a record
// too.
func (c *composer) number(field []byte, key string, n int64) {
	if !putNumber(field, n) {
		c.record(key, strconv.FormatInt(n, 10))
	}
}

// appendExtended appends an extended header.
func appendExtended(dst []byte, typ byte, name string, records []byte) []byte {
	h := &block{}
	copy(h[0:100], asciiOf(name, 100))
	putNumber(h[100:108], 0o644)
	putNumber(h[108:116], 0)
	putNumber(h[116:124], 0)
	putNumber(h[124:136], int64(len(records)))
	putNumber(h[136:148], 0)
	h[156] = typ
	copy(h[257:], "ustar\x0000")
	h.seal()
	dst = append(dst, h[:]...)
	dst = append(dst, records...)
	return append(dst, make([]byte, padded(int64(len(records)))-int64(len(records)))...)
}

// appendSnapshot appends a global extended header that holds the snapshot.
func appendSnapshot(dst []byte, s *format.Snapshot) []byte {
	body := base64.StdEncoding.EncodeToString(s.AppendBody(nil))
	return appendExtended(dst, typePaxGlobal, "pax_global_header", appendPax(nil, keySnapshot, body))
}

// appendSparseText appends the map that begins the data of a sparse file.
func appendSparseText(dst []byte, m *sparseMap) []byte {
	pieces := m.pieces
	if n := len(pieces); n == 0 || pieces[n-1].Offset+pieces[n-1].Size < m.size {
		// Where the file ends in a hole an empty piece marks its end.
		pieces = append(pieces[:n:n], format.Extent{Offset: m.size})
	}
	start := len(dst)
	dst = append(strconv.AppendInt(dst, int64(len(pieces)), 10), '\n')
	for _, x := range pieces {
		dst = append(strconv.AppendUint(dst, x.Offset, 10), '\n')
		dst = append(strconv.AppendUint(dst, x.Size, 10), '\n')
	}
	n := int64(len(dst) - start)
	return append(dst, make([]byte, padded(n)-n)...)
}

// staysAsItIs reports whether libarchive leaves a name alone that is not said to
// be plain bytes: it refuses what is not UTF-8, and composes characters.
func staysAsItIs(s string) bool {
	for i, r := range s {
		if r < 0x300 && r != utf8.RuneError {
			continue
		}
		if _, size := utf8.DecodeRuneInString(s[i:]); r == utf8.RuneError && size == 1 {
			return false
		}
		if unicode.Is(unicode.M, r) || r >= 0x1100 && r <= 0x11ff {
			return false
		}
	}
	return true
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

// asciiOf makes something like s of at most n bytes, for who cannot read the
// extended header that has it exactly.
func asciiOf(s string, n int) string {
	b := []byte(s[:min(len(s), n)])
	for i, c := range b {
		if c < 0x20 || c > 0x7e {
			b[i] = '_'
		}
	}
	return string(b)
}
