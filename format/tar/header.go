package tar

import (
	"bytes"
	"strings"
)

const blockSize = 512

// block is one block of an archive: a header, a piece of a map, or data.
type block [blockSize]byte

// The types of members, as headers have them.
const (
	typeFile         = '0'
	typeFileOld      = 0
	typeLink         = '1'
	typeSymlink      = '2'
	typeChar         = '3'
	typeBlock        = '4'
	typeDir          = '5'
	typeFifo         = '6'
	typeContiguous   = '7'
	typePax          = 'x'
	typePaxSolaris   = 'X'
	typePaxGlobal    = 'g'
	typeLongName     = 'L'
	typeLongLink     = 'K'
	typeSparse       = 'S'
	typeDumpDir      = 'D'
	typeVolume       = 'V'
	typeContinuation = 'M'
)

// dialect is what a header's magic says about its other fields.
type dialect uint8

const (
	dialectV7 dialect = iota
	dialectUstar
	dialectStar
	dialectGNU
)

func (b *block) isZero() bool { return *b == block{} }

// checks reports whether the checksum is right. Old programs added signed bytes.
func (b *block) checks() bool {
	want, err := parseNumber(b[148:156])
	if err != nil {
		return false
	}
	unsigned, signed := int64(8*' '), int64(8*' ')
	for i, c := range b {
		if i < 148 || i >= 156 {
			unsigned += int64(c)
			signed += int64(int8(c))
		}
	}
	return want == unsigned || want == signed
}

// seal writes the checksum.
func (b *block) seal() {
	sum := int64(8 * ' ')
	copy(b[148:156], "\x00\x00\x00\x00\x00\x00\x00\x00")
	for _, c := range b {
		sum += int64(c)
	}
	putNumber(b[148:155], sum)
	b[155] = ' '
}

func (b *block) dialect() dialect {
	switch {
	case string(b[257:265]) == "ustar  \x00":
		return dialectGNU
	case string(b[257:263]) != "ustar\x00":
		return dialectV7
	case string(b[508:512]) == "tar\x00":
		return dialectStar
	}
	return dialectUstar
}

func (b *block) typ() byte { return b[156] }

// name returns the whole name as far as the header has it.
func (b *block) name() string {
	name := cString(b[0:100])
	prefix := ""
	switch b.dialect() {
	case dialectUstar:
		prefix = cString(b[345:500])
	case dialectStar:
		prefix = cString(b[345:476])
	case dialectGNU:
		// Go's writer once put prefixes here, where GNU tar has times.
		_, err1 := parseNumber(b[345:357])
		_, err2 := parseNumber(b[357:369])
		if err1 != nil || b[357] != 0 && err2 != nil {
			prefix = cString(b[345:500])
		}
		if !isASCII(prefix) {
			prefix = ""
		}
	}
	if prefix != "" {
		return prefix + "/" + name
	}
	return name
}

func (b *block) linkName() string { return cString(b[157:257]) }
func (b *block) uname() string {
	if b.dialect() == dialectV7 {
		return ""
	}
	return cString(b[265:297])
}
func (b *block) gname() string {
	if b.dialect() == dialectV7 {
		return ""
	}
	return cString(b[297:329])
}

// oldTimes returns the fields for the times of access and of change, which lie
// where others have the prefix; nil where the header has none.
func (b *block) oldTimes() (atime, ctime []byte) {
	switch b.dialect() {
	case dialectGNU:
		atime, ctime = b[345:357], b[357:369]
	case dialectStar:
		atime, ctime = b[476:488], b[488:500]
	}
	for _, field := range []*[]byte{&atime, &ctime} {
		if _, err := parseNumber(*field); err != nil || len(*field) > 0 && (*field)[0] == 0 {
			*field = nil
		}
	}
	return atime, ctime
}

// cString returns a field up to its first zero byte.
func cString(field []byte) string {
	if i := bytes.IndexByte(field, 0); i >= 0 {
		field = field[:i]
	}
	return string(field)
}

// padded returns n rounded up to whole blocks. n is at most 2^63 - 512.
func padded(n int64) int64 { return (n + blockSize - 1) &^ (blockSize - 1) }

// cleanName makes a path of a member's name: relative, without "." and empty
// components. It reports whether that can be one: it is not with "..", which
// would lead elsewhere.
func cleanName(name string) (path string, ok bool) {
	if !strings.HasPrefix(name, "/") && !strings.HasSuffix(name, "/") &&
		!strings.Contains(name, "./") && !strings.Contains(name, "//") && name != "." && name != ".." &&
		!strings.HasSuffix(name, "/.") && !strings.HasSuffix(name, "/..") {
		return name, true
	}
	parts := strings.Split(name, "/")
	kept := parts[:0]
	for _, p := range parts {
		switch p {
		case "", ".":
		case "..":
			return "", false
		default:
			kept = append(kept, p)
		}
	}
	return strings.Join(kept, "/"), true
}
