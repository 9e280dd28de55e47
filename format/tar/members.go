package tar

import (
	"errors"
	"io"
	"strconv"
	"strings"

	"github.com/bk-backup/bk/format"
)

// Limits on what is read into memory at once, in bytes.
const (
	paxSizeMax     = 16 << 20 // an extended header
	longSizeMax    = 1 << 20  // a long name of GNU's
	dumpDirSizeMax = 64 << 20 // a directory's list in an incremental dump
)

// member is one member of an archive: what its headers say, resolved as far as
// that concerns the archive itself. entry.go judges the rest.
type member struct {
	at    int64 // where its headers begin
	head  block
	typ   byte   // typeFileOld and the like replaced by what they mean
	name  string // as it stands in the archive
	link  string
	isPax bool
	local []paxRecord // of its own extended headers, in order
	pax   map[string]string

	dataSize int64 // bytes of data in the archive, without padding
	sparse   *sparseMap
	// mapSize of dataSize is the map of a sparse file, which was read already.
	mapSize int64
}

// members takes an archive apart.
type members struct {
	*blocks
	global map[string]string // records of global extended headers
	any    bool              // there was a header
	isPax  bool              // there was an extended one
	ended  bool              // the mark of the end was there
}

func newMembers(r *blocks) *members {
	return &members{blocks: r, global: make(map[string]string)}
}

// next returns the next member, whose data the caller then reads or skips, all
// of dataSize - mapSize and the padding. At the end it returns io.EOF.
func (r *members) next() (*member, error) {
	m := &member{at: r.offset}
	var longName, longLink *string
	for {
		start := r.offset
		err := r.blocks.next(&m.head)
		switch {
		case err == io.EOF && start == m.at:
			return nil, io.EOF
		case err == io.EOF:
			return nil, r.wrap(err)
		case err != nil:
			return nil, err
		case m.head.isZero() && start == m.at:
			r.ended = true
			return nil, io.EOF
		case !m.head.checks() && !r.any:
			return nil, &offsetError{start, errNotTar}
		case !m.head.checks():
			return nil, &offsetError{start, errors.New("this is no header of a member: the archive is damaged")}
		}
		r.any = true
		m.typ = m.head.typ()
		switch m.typ {
		case typePax, typePaxSolaris:
			records, err := r.extended(&m.head)
			if err != nil {
				return nil, err
			}
			m.local = append(m.local, records...)
			m.isPax, r.isPax = true, true
		case typePaxGlobal:
			records, err := r.extended(&m.head)
			if err != nil {
				return nil, err
			}
			for _, p := range records {
				r.global[p.key] = p.value
			}
			if start == m.at {
				m.at = r.offset
			}
			r.isPax = true
		case typeLongName, typeLongLink:
			text, err := r.text(&m.head, longSizeMax)
			if err != nil {
				return nil, err
			}
			text = cString([]byte(text))
			if m.typ == typeLongName {
				longName = &text
			} else {
				longLink = &text
			}
		default:
			return m, r.resolve(m, longName, longLink)
		}
	}
}

// errNotTar is an input that does not begin like an archive.
var errNotTar = errors.New("this is not a tar archive")

// extended reads the records of an extended header.
func (r *members) extended(h *block) ([]paxRecord, error) {
	at := r.offset
	data, err := r.text(h, paxSizeMax)
	if err != nil {
		return nil, err
	}
	records, err := parsePax(data)
	if err != nil {
		return nil, &offsetError{at, err}
	}
	return records, nil
}

// text reads the data of a header that describes another one.
func (r *members) text(h *block, sizeMax int64) (string, error) {
	n, err := parseNumber(h[124:136])
	if err != nil || n < 0 {
		return "", r.errorf("the size of a header is no number")
	}
	if n > sizeMax {
		return "", r.errorf("a header has %d bytes, more than %d", n, sizeMax)
	}
	// It grows as it comes: a header alone takes no memory.
	var data []byte
	for int64(len(data)) < n {
		k := int(min(n-int64(len(data)), 64<<10))
		data = append(data, make([]byte, k)...)
		if err := r.read(data[len(data)-k:]); err != nil {
			return "", err
		}
	}
	return string(data), r.pad(n)
}

// resolve brings headers together: names, size, and the map of a sparse file.
func (r *members) resolve(m *member, longName, longLink *string) error {
	m.pax = r.global
	if len(m.local) > 0 {
		m.pax = make(map[string]string, len(r.global)+len(m.local))
		for k, v := range r.global {
			m.pax[k] = v
		}
		for _, p := range m.local {
			m.pax[p.key] = p.value
		}
	}
	m.name, m.link = m.head.name(), m.head.linkName()
	if m.head.dialect() == dialectV7 || m.typ == typeFileOld {
		if (m.typ == typeFile || m.typ == typeFileOld) && strings.HasSuffix(m.name, "/") {
			m.typ = typeDir
		}
	}
	if m.typ == typeFileOld || m.typ == typeContiguous {
		m.typ = typeFile
	}
	if longName != nil {
		m.name = *longName
	}
	if longLink != nil {
		m.link = *longLink
	}
	m.name = m.text(keyPath, m.name)
	m.link = m.text(keyLinkPath, m.link)
	size, err := parseNumber(m.head[124:136])
	if text := m.pax[keySize]; text != "" {
		size, err = strconv.ParseInt(text, 10, 64)
	}
	if err != nil || size < 0 || size > format.FileSizeMax-blockSize {
		return r.errorf("the size of the member %q is not one", m.name)
	}
	m.dataSize = size
	switch m.typ {
	case typeLink:
		return r.resolveLink(m)
	case typeSymlink, typeChar, typeBlock, typeDir, typeFifo:
		// Some programs state sizes here that mean something else.
		m.dataSize = 0
	case typeSparse, typeFile:
		return r.resolveSparse(m)
	}
	return nil
}

// text returns a record of the extended headers, or the header's own value
// where there is none or an empty one, which means that it is not set.
func (m *member) text(key, own string) string {
	if v := m.pax[key]; v != "" {
		return v
	}
	return own
}

// resolveLink finds out whether a hard link has data. In pax archives its size
// says so; elsewhere programs wrote the size of the file that is linked to, and
// only a look at what follows can tell.
func (r *members) resolveLink(m *member) error {
	if m.isPax || m.dataSize == 0 {
		return nil
	}
	var b block
	err := r.peek(&b)
	switch {
	case err == io.EOF, err == nil && (b.isZero() || b.checks()):
		m.dataSize = 0
	case errors.Is(err, errCut), err == nil:
		return nil
	}
	if err == io.EOF {
		return nil
	}
	return err
}

// resolveSparse reads the map of a sparse file, in whichever form it is.
func (r *members) resolveSparse(m *member) error {
	if m.typ == typeSparse {
		m.typ, m.sparse = typeFile, &sparseMap{}
		// A map of which the header says that it goes on comes before the data.
		if err := readSparseOld(r.blocks, &m.head, m.sparse); err != nil {
			return err
		}
		return r.checkSparse(m)
	}
	realSize := ""
	switch major := m.pax[keySparseMajor]; {
	case major == "1" && m.pax[keySparseMinor] == "0":
		realSize = m.text(keySparseRealSize, m.pax[keySparseSize])
	case major != "" && major != "0":
		return r.errorf("the member %q is sparse in the format %q, which is not known", m.name, major+"."+m.pax[keySparseMinor])
	case major == "0", m.pax[keySparseMap] != "", m.pax[keySparseOffset] != "":
		realSize = m.text(keySparseSize, m.pax[keySparseRealSize])
	default:
		return nil
	}
	size, err := strconv.ParseInt(realSize, 10, 64)
	if err != nil || size < 0 {
		return r.errorf("the size of the sparse member %q is not one", m.name)
	}
	m.name = m.text(keySparseName, m.name)
	m.sparse = &sparseMap{size: uint64(size)}
	if m.pax[keySparseMajor] == "1" {
		if m.mapSize, err = readSparseText(r.blocks, m.sparse, m.dataSize); err != nil {
			return err
		}
	} else if err := sparseFromPax(m.local, m.sparse); err != nil {
		return r.errorf("member %q: %w", m.name, err)
	}
	return r.checkSparse(m)
}

func (r *members) checkSparse(m *member) error {
	if err := m.sparse.check(); err != nil {
		return r.errorf("member %q: %w", m.name, err)
	}
	if stored := m.sparse.stored(); stored != m.rest() {
		return r.errorf("the map of the sparse member %q places %d bytes, but there are %d", m.name, stored, m.rest())
	}
	return nil
}

// fileSize returns how long the file is.
func (m *member) fileSize() uint64 {
	if m.sparse != nil {
		return m.sparse.size
	}
	return uint64(m.dataSize)
}

// rest returns how many bytes of data follow, without padding, once the map of
// a sparse file has been read.
func (m *member) rest() int64 { return max(0, m.dataSize-m.mapSize) }

// skipRest passes over what is left of a member's data, of which taken bytes
// have been read.
func (r *members) skipRest(m *member, taken int64) error {
	if err := r.skip(m.rest() - taken); err != nil {
		return err
	}
	return r.pad(m.rest())
}

// drain reads to the end of the input behind the mark of the archive's end, so
// that whoever writes to a pipe is not cut off. It returns where another
// archive begins there, or 0.
func (r *members) drain() (int64, error) {
	other := int64(0)
	for {
		var b block
		at := r.offset
		err := r.blocks.next(&b)
		if err == io.EOF || errors.Is(err, errCut) {
			return other, nil
		}
		if err != nil {
			return other, err
		}
		if other == 0 && !b.isZero() && b.checks() {
			other = at
		}
	}
}
