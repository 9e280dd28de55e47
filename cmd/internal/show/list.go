package show

import (
	"bufio"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/cmd/internal/listing"
	"github.com/bk-backup/bk/format"
)

// listSink writes a line an entry, like tar tv, below a line for each snapshot.
type listSink struct {
	out  *bufio.Writer
	loc  *time.Location
	file *format.Entry // the open file, whose size eof will say
}

func (s *listSink) Write(rec format.Record) error {
	var err error
	switch r := rec.(type) {
	case *format.Snapshot:
		_, err = fmt.Fprintf(s.out, "snapshot %s\n", snapshotLine(r, s.loc))
	case *format.Entry:
		if r.Type == format.TypeFile {
			s.file = r.Clone()
		} else {
			err = s.entry(r, 0)
		}
	case *format.EOF:
		err = s.entry(s.file, r.Size)
	case *format.Remove:
		_, err = fmt.Fprintf(s.out, "removed    %s\n", cli.Printable(r.Path))
	case *format.Commit:
		err = s.out.Flush()
	}
	return err
}

func (s *listSink) entry(e *format.Entry, size uint64) error {
	column := strconv.FormatUint(size, 10)
	if e.Type == format.TypeChar || e.Type == format.TypeBlock {
		column = fmt.Sprintf("%d,%d", e.Rdev.Major, e.Rdev.Minor)
	}
	path := e.Path
	if path == "" {
		path = "."
	}
	line := cli.Printable(path)
	if e.Type == format.TypeSymlink {
		line += " -> " + cli.Printable(e.Target)
	}
	mtime := "-"
	if e.Has&format.HasMtime != 0 {
		mtime = showTime(e.Mtime, s.loc)
	}
	_, err := fmt.Fprintf(s.out, "%s %s %*s %s %s\n", listing.Mode(e), owner(e), max(0, 19-len(owner(e))), column, mtime, line)
	return err
}

// owner returns user/group, by name or number.
func owner(e *format.Entry) string {
	one := func(name string, has bool, id uint32) string {
		switch {
		case name != "":
			return cli.Printable(name)
		case has:
			return strconv.FormatUint(uint64(id), 10)
		}
		return "?"
	}
	return one(e.User, e.Has&format.HasUID != 0, e.UID) + "/" + one(e.Group, e.Has&format.HasGID != 0, e.GID)
}

// snapshotLine returns what tells snapshots apart.
func snapshotLine(s *format.Snapshot, loc *time.Location) string {
	words := []string{s.ID.Short()}
	if s.Time != nil {
		words = append(words, showTime(*s.Time, loc))
	}
	if s.Host != "" {
		words = append(words, "host "+cli.Printable(s.Host))
	}
	for _, r := range s.Roots {
		words = append(words, "/"+cli.Printable(r))
	}
	for _, t := range s.Tags {
		words = append(words, "tag "+cli.Printable(t))
	}
	if !s.Parent.IsZero() {
		words = append(words, "parent "+s.Parent.Short())
	}
	return strings.Join(words, " ")
}

func showTime(t format.Time, loc *time.Location) string {
	if !t.Printable() {
		return fmt.Sprintf("%ds", t.Sec)
	}
	return t.Time().In(loc).Format("2006-01-02 15:04:05")
}
