package format

import (
	"encoding/binary"
	"slices"
	"sort"
	"strings"
)

// AppendRecord appends the canonical encoding of rec to dst: the array
// [kind, body], and for data also the payload. Canonical means shortest forms,
// keys sorted bytewise, keys at their default left out (spec/stream.md,
// "Encoding"). Unknown keys stand at their sorted place with their value's bytes
// as they came. A record that breaks a rule that it could break alone (a
// limit, a missing key, a bad path) is refused with an *Error.
func AppendRecord(dst []byte, rec Record) ([]byte, error) {
	if e := checkRecord(rec); e != nil {
		return dst, e
	}
	dst = appendRecord(dst, rec)
	if d, ok := rec.(*Data); ok {
		if e := checkPayload(d); e != nil {
			return dst, e
		}
		dst = append(appendBinHead(dst, len(d.Payload)), d.Payload...)
	}
	return dst, nil
}

// appendRecord appends the array's head, the kind and the body.
func appendRecord(dst []byte, rec Record) []byte {
	if _, ok := rec.(*Data); ok {
		dst = append(dst, 0x93)
	} else {
		dst = append(dst, 0x92)
	}
	dst = appendStr(dst, string(rec.Kind()))
	switch r := rec.(type) {
	case *Header:
		return r.appendBody(dst)
	case *Snapshot:
		return r.AppendBody(dst)
	case *Entry:
		return r.AppendBody(dst, true)
	case *Data:
		return r.appendBody(dst)
	case *Refs:
		return r.appendBody(dst)
	case *CopyRange:
		return r.appendBody(dst)
	case *Hole:
		return r.appendBody(dst)
	case *EOF:
		return r.AppendBody(dst)
	case *Remove:
		return r.appendBody(dst)
	case *Commit:
		return r.appendBody(dst)
	case *End:
		return r.appendBody(dst)
	case *Extension:
		return r.appendBody(dst)
	}
	return dst
}

// mapWriter appends a map whose number of keys is only known at its end, and
// puts unknown keys where they belong between the known ones.
type mapWriter struct {
	dst   []byte
	start int // where the map's head stands
	n     int
	extra []Field // not yet written, sorted
}

func newMapWriter(dst []byte, extra []Field) mapWriter {
	if len(extra) > 1 && !sort.SliceIsSorted(extra, func(i, j int) bool { return extra[i].Key < extra[j].Key }) {
		extra = slices.Clone(extra)
		sortExtra(extra)
	}
	return mapWriter{dst: append(dst, 0x80), start: len(dst), extra: extra}
}

func sortExtra(extra []Field) {
	slices.SortStableFunc(extra, func(a, b Field) int { return strings.Compare(a.Key, b.Key) })
}

// key begins a known key, which is at most 31 bytes long. Keys must come sorted.
func (m *mapWriter) key(name string) {
	if len(m.extra) > 0 {
		m.extraBefore(name)
	}
	m.n++
	m.dst = append(append(m.dst, 0xa0|byte(len(name))), name...)
}

func (m *mapWriter) extraBefore(name string) {
	for len(m.extra) > 0 && m.extra[0].Key < name {
		m.extraKey()
	}
}

func (m *mapWriter) extraKey() {
	m.n++
	m.dst = append(appendStr(m.dst, m.extra[0].Key), m.extra[0].Raw...)
	m.extra = m.extra[1:]
}

// end closes the map and returns the buffer.
func (m *mapWriter) end() []byte {
	for len(m.extra) > 0 {
		m.extraKey()
	}
	if m.n < 16 {
		m.dst[m.start] = 0x80 | byte(m.n)
		return m.dst
	}
	m.dst = append(m.dst, 0, 0)
	copy(m.dst[m.start+3:], m.dst[m.start+1:len(m.dst)-2])
	m.dst[m.start] = mpMap16
	binary.BigEndian.PutUint16(m.dst[m.start+1:], uint16(m.n))
	return m.dst
}

// The following append a key with its value, unless the value is the default.

func (m *mapWriter) uint(key string, v uint64) {
	m.key(key)
	m.dst = appendUint(m.dst, v)
}

func (m *mapWriter) optUint(key string, v uint64) {
	if v != 0 {
		m.uint(key, v)
	}
}

func (m *mapWriter) bool(key string, v bool) {
	m.key(key)
	if v {
		m.dst = append(m.dst, mpTrue)
	} else {
		m.dst = append(m.dst, mpFalse)
	}
}

func (m *mapWriter) text(key, v string) {
	m.key(key)
	m.dst = appendBin(m.dst, v)
}

func (m *mapWriter) optText(key, v string) {
	if v != "" {
		m.text(key, v)
	}
}

func (m *mapWriter) word(key, v string) {
	m.key(key)
	m.dst = appendStr(m.dst, v)
}

func (m *mapWriter) optWord(key, v string) {
	if v != "" {
		m.word(key, v)
	}
}

func (m *mapWriter) id(key string, id *ID) {
	m.key(key)
	m.dst = appendID(m.dst, id)
}

func (m *mapWriter) optID(key string, id *ID) {
	if !id.IsZero() {
		m.id(key, id)
	}
}

func (m *mapWriter) time(key string, t Time) {
	m.key(key)
	m.dst = appendUint(appendInt(append(m.dst, 0x92), t.Sec), uint64(t.Nsec))
}

func (m *mapWriter) optTexts(key string, list []string) {
	if len(list) == 0 {
		return
	}
	m.key(key)
	m.dst = appendArrayHead(m.dst, len(list))
	for _, s := range list {
		m.dst = appendBin(m.dst, s)
	}
}

func (h *Header) appendBody(dst []byte) []byte {
	m := newMapWriter(dst, h.Extra)
	if h.Created != nil {
		m.time("created", *h.Created)
	}
	if len(h.Features) > 0 {
		m.key("features")
		m.dst = appendArrayHead(m.dst, len(h.Features))
		for _, f := range h.Features {
			m.dst = appendStr(m.dst, string(f))
		}
	}
	m.optText("producer", h.Producer)
	m.uint("version", h.Version)
	return m.end()
}

// AppendBody appends the canonical encoding of the snapshot's body, the map, to
// dst. It checks nothing; see AppendRecord.
func (s *Snapshot) AppendBody(dst []byte) []byte {
	m := newMapWriter(dst, s.Extra)
	m.optText("comment", s.Comment)
	if s.Estimate != nil {
		m.key("estimate")
		m.dst = s.Estimate.appendBody(m.dst)
	}
	m.optText("host", s.Host)
	m.id("id", &s.ID)
	if s.Origin != nil {
		m.key("origin")
		m.dst = s.Origin.appendBody(m.dst)
	}
	m.optID("parent", &s.Parent)
	m.optTexts("roots", s.Roots)
	if s.Unsorted {
		m.bool("sorted", false)
	}
	m.optTexts("tags", s.Tags)
	if s.Time != nil {
		m.time("time", *s.Time)
	}
	if s.Unstable {
		m.bool("unstable", true)
	}
	m.optText("user", s.User)
	if len(s.Via) > 0 {
		m.key("via")
		m.dst = appendArrayHead(m.dst, len(s.Via))
		for i := range s.Via {
			m.dst = s.Via[i].appendBody(m.dst)
		}
	}
	return m.end()
}

func (o *Origin) appendBody(dst []byte) []byte {
	m := newMapWriter(dst, o.Extra)
	m.optText("id", o.ID)
	m.optText("repository", o.Repository)
	m.word("system", o.System)
	return m.end()
}

func (v *Via) appendBody(dst []byte) []byte {
	m := newMapWriter(dst, v.Extra)
	m.id("from", &v.From)
	m.text("stage", v.Stage)
	return m.end()
}

func (e *Estimate) appendBody(dst []byte) []byte {
	m := newMapWriter(dst, e.Extra)
	m.optUint("bytes", e.Bytes)
	m.optUint("entries", e.Entries)
	return m.end()
}

// AppendBody appends the canonical encoding of the entry's body, the map, to
// dst, with or without the key "path": a listing that holds paths elsewhere
// leaves it out. It checks nothing; see AppendRecord.
func (e *Entry) AppendBody(dst []byte, withPath bool) []byte {
	m := newMapWriter(dst, e.Extra)
	if e.Has&HasAtime != 0 {
		m.time("atime", e.Atime)
	}
	if e.Has&HasBtime != 0 {
		m.time("btime", e.Btime)
	}
	m.optWord("chunker", e.Chunker)
	if e.Has&HasCtime != 0 {
		m.time("ctime", e.Ctime)
	}
	if len(e.Extents) > 0 {
		m.key("extents")
		m.dst = appendArrayHead(m.dst, len(e.Extents))
		for _, x := range e.Extents {
			m.dst = appendUint(appendUint(append(m.dst, 0x92), x.Offset), x.Size)
		}
	}
	if len(e.Flags) > 0 {
		m.key("flags")
		m.dst = appendArrayHead(m.dst, len(e.Flags))
		for _, f := range e.Flags {
			m.dst = appendStr(m.dst, f)
		}
	}
	e.appendGIDToPath(&m, withPath)
	if e.Type == TypeChar || e.Type == TypeBlock {
		m.key("rdev")
		m.dst = appendUint(appendUint(append(m.dst, 0x92), uint64(e.Rdev.Major)), uint64(e.Rdev.Minor))
	}
	if e.Has&HasSize != 0 {
		m.uint("size", e.Size)
	}
	if e.Type == TypeSymlink {
		m.text("target", e.Target)
	}
	m.word("type", string(e.Type))
	if e.Has&HasUID != 0 {
		m.uint("uid", uint64(e.UID))
	}
	m.optText("user", e.User)
	if len(e.Xattrs) > 0 {
		m.key("xattrs")
		m.dst = appendArrayHead(m.dst, len(e.Xattrs))
		for i := range e.Xattrs {
			m.dst = appendBin(appendBin(append(m.dst, 0x92), e.Xattrs[i].Name), e.Xattrs[i].Value)
		}
	}
	return m.end()
}

// appendGIDToPath appends the keys from "gid" to "path".
func (e *Entry) appendGIDToPath(m *mapWriter, withPath bool) {
	if e.Has&HasGID != 0 {
		m.uint("gid", uint64(e.GID))
	}
	m.optText("group", e.Group)
	m.optText("hardlink", e.Hardlink)
	if e.Has&HasInode != 0 {
		m.uint("inode", e.Inode)
	}
	if e.Has&HasLinks != 0 {
		m.uint("links", e.Links)
	}
	if e.Has&HasMode != 0 {
		m.uint("mode", uint64(e.Mode))
	}
	if e.Has&HasMtime != 0 {
		m.time("mtime", e.Mtime)
	}
	if withPath {
		m.text("path", e.Path)
	}
}

func (d *Data) appendBody(dst []byte) []byte {
	m := newMapWriter(dst, d.Extra)
	if d.Codec != CodecNone {
		m.optWord("codec", string(d.Codec))
	}
	m.id("id", &d.ID)
	if d.Once {
		m.bool("once", true)
	}
	m.uint("size", uint64(d.Size))
	return m.end()
}

func (r *Refs) appendBody(dst []byte) []byte {
	m := newMapWriter(dst, r.Extra)
	m.key("chunks")
	m.dst = appendArrayHead(m.dst, len(r.Chunks))
	for i := range r.Chunks {
		m.dst = appendUint(appendID(append(m.dst, 0x92), &r.Chunks[i].ID), uint64(r.Chunks[i].Size))
	}
	return m.end()
}

func (r *CopyRange) appendBody(dst []byte) []byte {
	m := newMapWriter(dst, r.Extra)
	if r.HasFrom {
		m.text("from", r.From)
	}
	m.uint("offset", r.Offset)
	m.uint("size", r.Size)
	return m.end()
}

func (h *Hole) appendBody(dst []byte) []byte {
	m := newMapWriter(dst, h.Extra)
	m.uint("size", h.Size)
	return m.end()
}

// AppendBody appends the canonical encoding of the record's body, the map, to
// dst. It checks nothing; see AppendRecord.
func (e *EOF) AppendBody(dst []byte) []byte {
	m := newMapWriter(dst, e.Extra)
	m.optText("error", e.Error)
	if e.SHA256 != nil {
		m.id("sha256", e.SHA256)
	}
	m.uint("size", e.Size)
	return m.end()
}

func (r *Remove) appendBody(dst []byte) []byte {
	m := newMapWriter(dst, r.Extra)
	m.text("path", r.Path)
	return m.end()
}

func (c *Commit) appendBody(dst []byte) []byte {
	m := newMapWriter(dst, c.Extra)
	m.uint("bytes", c.Bytes)
	m.uint("data", c.Data)
	m.id("digest", &c.Digest)
	m.uint("entries", c.Entries)
	if len(c.Losses) > 0 {
		m.key("losses")
		m.dst = appendArrayHead(m.dst, len(c.Losses))
		for i := range c.Losses {
			m.dst = c.Losses[i].appendBody(m.dst)
		}
	}
	m.uint("removes", c.Removes)
	return m.end()
}

func (l *Loss) appendBody(dst []byte) []byte {
	m := newMapWriter(dst, l.Extra)
	m.uint("count", l.Count)
	m.word("kind", l.Kind)
	m.optTexts("paths", l.Paths)
	return m.end()
}

func (e *End) appendBody(dst []byte) []byte {
	m := newMapWriter(dst, e.Extra)
	m.id("digest", &e.Digest)
	m.uint("snapshots", e.Snapshots)
	return m.end()
}

func (x *Extension) appendBody(dst []byte) []byte {
	m := newMapWriter(dst, x.Body)
	return m.end()
}
