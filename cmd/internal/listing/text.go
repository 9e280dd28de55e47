package listing

import (
	"strconv"
	"time"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/format"
)

// Mode returns the ten characters with which ls -l begins.
func Mode(e *format.Entry) string {
	b := []byte("?---------")
	switch e.Type {
	case format.TypeFile:
		b[0] = '-'
	case format.TypeDir:
		b[0] = 'd'
	case format.TypeSymlink:
		b[0] = 'l'
	case format.TypeChar:
		b[0] = 'c'
	case format.TypeBlock:
		b[0] = 'b'
	case format.TypeFifo:
		b[0] = 'p'
	case format.TypeSocket:
		b[0] = 's'
	}
	if e.Has&format.HasMode == 0 {
		return string(b[:1]) + "?????????"
	}
	for i := range 9 {
		if e.Mode&(0o400>>i) != 0 {
			b[1+i] = "rwx"[i%3]
		}
	}
	for _, special := range []struct {
		bit  uint32
		at   int
		char byte
	}{{0o4000, 3, 's'}, {0o2000, 6, 's'}, {0o1000, 9, 't'}} {
		if e.Mode&special.bit == 0 {
			continue
		}
		if b[special.at] == 'x' {
			b[special.at] = special.char
		} else {
			b[special.at] = special.char - 'a' + 'A'
		}
	}
	return string(b)
}

// User returns the owner's name, else number, else "?".
func User(e *format.Entry) string { return ownerName(e.User, e.Has&format.HasUID != 0, e.UID) }

// Group is User for the group.
func Group(e *format.Entry) string { return ownerName(e.Group, e.Has&format.HasGID != 0, e.GID) }

func ownerName(name string, has bool, id uint32) string {
	switch {
	case name != "":
		return cli.Printable(name)
	case has:
		return strconv.FormatUint(uint64(id), 10)
	}
	return "?"
}

// AppendLong appends the line of ls -l, without its end. Columns have a least
// width, so that most lines are aligned although none waits for another.
func AppendLong(dst []byte, e *format.Entry, loc *time.Location) []byte {
	dst = append(append(dst, Mode(e)...), ' ')
	dst = append(padRight(dst, User(e), 8), ' ')
	dst = append(padRight(dst, Group(e), 8), ' ')
	dst = append(padLeft(dst, sizeColumn(e), 11), ' ')
	dst = append(appendTime(dst, e, loc), ' ', '/')
	dst = append(dst, cli.Printable(e.Path)...)
	if e.Type == format.TypeSymlink {
		dst = append(append(dst, " -> "...), cli.Printable(e.Target)...)
	}
	return dst
}

// sizeColumn is the size of a file, the number of a device, nothing for others.
func sizeColumn(e *format.Entry) string {
	switch {
	case e.Type == format.TypeChar || e.Type == format.TypeBlock:
		return strconv.FormatUint(uint64(e.Rdev.Major), 10) + ", " + strconv.FormatUint(uint64(e.Rdev.Minor), 10)
	case e.Type == format.TypeFile && e.Has&format.HasSize != 0:
		return strconv.FormatUint(e.Size, 10)
	}
	return "-"
}

const timeLayout = "2006-01-02 15:04:05"

func appendTime(dst []byte, e *format.Entry, loc *time.Location) []byte {
	switch {
	case e.Has&format.HasMtime == 0:
		return padRight(dst, "-", len(timeLayout))
	case !e.Mtime.Printable():
		return padRight(dst, "@"+strconv.FormatInt(e.Mtime.Sec, 10), len(timeLayout))
	}
	return time.Unix(e.Mtime.Sec, 0).In(loc).AppendFormat(dst, timeLayout)
}

const blanks = "                    "

func padRight(dst []byte, s string, width int) []byte {
	return append(append(dst, s...), blanks[:max(width-len(s), 0)]...)
}

func padLeft(dst []byte, s string, width int) []byte {
	return append(append(dst, blanks[:max(width-len(s), 0)]...), s...)
}
