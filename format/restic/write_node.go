package restic

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/bk-backup/bk/format"
)

// Types in Go's fs.FileMode, which restic writes.
var goTypes = map[format.Type]struct {
	name string
	mode uint64
}{
	format.TypeFile:    {"file", 0},
	format.TypeDir:     {"dir", 1 << 31},
	format.TypeSymlink: {"symlink", 1 << 27},
	format.TypeBlock:   {"dev", 1 << 26},
	format.TypeChar:    {"chardev", 1<<26 | 1<<21},
	format.TypeFifo:    {"fifo", 1 << 25},
	format.TypeSocket:  {"socket", 1 << 24},
}

// linked says of which object an entry is one of several names.
type linked struct{ inode, device, links uint64 }

// nodeText writes nodes as restic does: its order of fields, Go's JSON, times in
// UTC. lost is called for what a node cannot hold.
type nodeText struct {
	lost func(kind string, why error)
}

// appendMeta appends a node up to what its content is.
func (t *nodeText) appendMeta(b []byte, e *format.Entry, link *linked, size uint64) []byte {
	kind := goTypes[e.Type]
	b = append(b, `{"name":`...)
	b = appendName(b, e.Path)
	b = append(b, `,"type":"`...)
	b = append(b, kind.name...)
	b = append(b, '"')
	mode := kind.mode | uint64(e.Mode&0o777)
	for i, bit := range [...]uint64{goSetuid, goSetgid, goSticky} {
		if e.Mode&(0o4000>>i) != 0 {
			mode |= bit
		}
	}
	if mode != 0 {
		b = appendUint(b, "mode", mode)
	}
	b = t.appendTimes(b, e)
	b = t.appendOwner(b, e)
	inode, links := e.Inode, uint64(1)
	if link != nil {
		inode, links = link.inode, link.links
	}
	if inode != 0 {
		b = appendUint(b, "inode", inode)
	}
	if link != nil {
		b = appendUint(b, "device_id", link.device)
	}
	if size != 0 {
		b = appendUint(b, "size", size)
	}
	switch e.Type {
	case format.TypeFile, format.TypeSymlink, format.TypeBlock, format.TypeChar:
		b = appendUint(b, "links", links)
	case format.TypeFifo, format.TypeSocket:
		if link != nil {
			b = appendUint(b, "links", links)
		}
	}
	if e.Type == format.TypeSymlink {
		b = append(b, `,"linktarget":`...)
		b = appendText(b, e.Target)
		if !utf8.ValidString(e.Target) {
			b = append(b, `,"linktarget_raw":"`...)
			b = base64.StdEncoding.AppendEncode(b, []byte(e.Target))
			b = append(b, '"')
		}
	}
	b = t.appendXattrs(b, e)
	b = t.appendFlags(b, e)
	if e.Type == format.TypeChar || e.Type == format.TypeBlock {
		if dev := linuxNumber(e.Rdev); dev != 0 {
			b = appendUint(b, "device", dev)
		}
	}
	if len(e.Extra) > 0 {
		t.lost(format.LossExtension, errors.New("unknown keys"))
	}
	return b
}

// appendName appends the last component of a path as restic quotes it.
func appendName(b []byte, path string) []byte {
	name := lastName(path)
	for i := range len(name) {
		if c := name[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted := strconv.Quote(name)
			return appendText(b, quoted[1:len(quoted)-1])
		}
	}
	return appendText(b, name)
}

// appendText appends a string as encoding/json has it.
func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			text, err := json.Marshal(s)
			if err != nil {
				panic(err) // a string can always be encoded
			}
			return append(b, text...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

func appendUint(b []byte, key string, v uint64) []byte {
	b = append(b, ',', '"')
	b = append(b, key...)
	b = append(b, '"', ':')
	return strconv.AppendUint(b, v, 10)
}

// appendTimes appends the times. restic has all of them always: what is not
// known is the beginning of the year 1, and the time of the last reading that of
// the last change.
func (t *nodeText) appendTimes(b []byte, e *format.Entry) []byte {
	unknown := format.Time{Sec: yearOne}
	mtime, atime, ctime := e.Mtime, e.Atime, e.Ctime
	if e.Has&format.HasMtime == 0 {
		t.lost(format.LossTime, errors.New("its time of modification is not known, and restic cannot leave that open"))
		mtime = unknown
	}
	if e.Has&format.HasAtime == 0 {
		atime = mtime
	}
	if e.Has&format.HasCtime == 0 {
		ctime = unknown
	}
	b = append(b, `,"mtime":"`...)
	b = t.appendTime(b, mtime, true)
	b = append(b, `","atime":"`...)
	b = t.appendTime(b, atime, false)
	b = append(b, `","ctime":"`...)
	b = t.appendTime(b, ctime, false)
	return append(b, '"')
}

// The years that JSON has in Go.
var (
	timeMin = time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	timeMax = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC).Unix() - 1
)

// appendTime appends a time in the years 0 to 9999, to the nearest of which it
// brings others. Only of the time of modification that is told.
func (t *nodeText) appendTime(b []byte, v format.Time, tell bool) []byte {
	sec, nsec := v.Sec, int64(v.Nsec)
	switch {
	case sec < timeMin:
		sec, nsec = timeMin, 0
	case sec > timeMax:
		sec, nsec = timeMax, 0
	default:
		tell = false
	}
	if tell {
		t.lost(format.LossTimeRange, errors.New("its time of modification is not in the years 0 to 9999"))
	}
	return time.Unix(sec, nsec).UTC().AppendFormat(b, time.RFC3339Nano)
}

func (t *nodeText) appendOwner(b []byte, e *format.Entry) []byte {
	if e.Has&format.HasMode == 0 {
		t.lost(format.LossMode, errors.New("its permissions are not known, and restic cannot leave them open"))
	}
	if e.Has&format.HasUID == 0 || e.Has&format.HasGID == 0 {
		t.lost(format.LossOwner, errors.New("its owner is not known, and restic takes that for root"))
	}
	if e.Has&format.HasUID != 0 {
		b = appendUint(b, "uid", uint64(e.UID))
	}
	if e.Has&format.HasGID != 0 {
		b = appendUint(b, "gid", uint64(e.GID))
	}
	for _, name := range [...]struct{ key, text string }{{"user", e.User}, {"group", e.Group}} {
		switch {
		case name.text == "":
		case !utf8.ValidString(name.text):
			t.lost(format.LossOwner, fmt.Errorf("the name of its %s, %q, is not UTF-8", name.key, name.text))
		default:
			b = append(b, ',', '"')
			b = append(b, name.key...)
			b = append(b, '"', ':')
			b = appendText(b, name.text)
		}
	}
	return b
}

func (t *nodeText) appendXattrs(b []byte, e *format.Entry) []byte {
	first := true
	for _, x := range e.Xattrs {
		if !utf8.ValidString(x.Name) {
			t.lost(format.LossXattr, fmt.Errorf("the name of the attribute %q is not UTF-8", x.Name))
			continue
		}
		if first {
			b = append(b, `,"extended_attributes":[{"name":`...)
		} else {
			b = append(b, `,{"name":`...)
		}
		first = false
		b = appendText(b, x.Name)
		b = append(b, `,"value":"`...)
		b = base64.StdEncoding.AppendEncode(b, []byte(x.Value))
		b = append(b, `"}`...)
	}
	if !first {
		b = append(b, ']')
	}
	return b
}

// appendFlags appends the flags of Windows, and with them the time of birth, as
// restic has it of files from there; of others it has neither.
func (t *nodeText) appendFlags(b []byte, e *format.Entry) []byte {
	if len(e.Flags) == 0 {
		return b
	}
	bits := uint32(0)
	for _, name := range e.Flags {
		known := false
		for _, f := range windowsFlags {
			if f.name == name {
				bits |= f.bit
				known = true
			}
		}
		if !known {
			t.lost(format.LossFlags, fmt.Errorf("the flag %s", name))
		}
	}
	if bits == 0 {
		return b
	}
	if e.Type == format.TypeDir {
		bits |= 0x10
	}
	b = append(b, `,"generic_attributes":{`...)
	if e.Has&format.HasBtime != 0 && e.Btime.Sec > -11644473600 && e.Btime.Sec < 1<<39 {
		ticks := uint64(e.Btime.Sec+11644473600)*1e7 + uint64(e.Btime.Nsec/100)
		b = fmt.Appendf(b, `"windows.creation_time":{"LowDateTime":%d,"HighDateTime":%d},`, uint32(ticks), ticks>>32)
	}
	return fmt.Appendf(b, `"windows.file_attributes":%d}`, bits)
}

// linuxNumber packs a device number as Linux's C library does.
func linuxNumber(d format.Rdev) uint64 {
	major, minor := uint64(d.Major), uint64(d.Minor)
	return major&0xfff<<8 | major&^0xfff<<32 | minor&0xff | minor&^0xff<<12
}

// appendContent appends the list of a file's chunks and closes the node.
func appendContent(b []byte, content []format.ID, failure string) []byte {
	b = append(b, `,"content":[`...)
	for i := range content {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = hex.AppendEncode(b, content[i][:])
		b = append(b, '"')
	}
	b = append(b, ']')
	if failure != "" {
		b = append(b, `,"error":`...)
		b = appendText(b, failure)
	}
	return append(b, '}')
}

// appendSubtree names a directory's tree and closes the node.
func appendSubtree(b []byte, id format.ID) []byte {
	b = append(b, `,"content":null,"subtree":"`...)
	b = hex.AppendEncode(b, id[:])
	return append(b, `"}`...)
}

// groupObject says which inode a group of hard links is to be. Members that
// differ in content or in what restic has once for an object get different
// devices, and so stay apart whichever snapshot they were written with.
func groupObject(inode, links uint64, sum [32]byte) *linked {
	device := binary.BigEndian.Uint64(sum[:]) >> 1
	if inode == 0 {
		inode = binary.BigEndian.Uint64(sum[8:]) >> 1
	}
	return &linked{inode: max(inode, 1), device: max(device, 1), links: max(links, 2)}
}
