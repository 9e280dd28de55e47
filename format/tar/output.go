package tar

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/bk-backup/bk/format"
)

// target is where archives go.
type target struct {
	place  string
	stdout io.Writer // for "-"
	isDir  bool
	used   string // id of the snapshot that a target for one has
}

// prepare looks at the place.
func (t *target) prepare(place string, stdout io.Writer) error {
	t.place, t.stdout = place, stdout
	if place == "" {
		return errors.New("write an archive: no file is named")
	}
	if place == "-" {
		if stdout == nil {
			return errors.New("write to tar:-: there is no standard output")
		}
		return nil
	}
	for _, suffix := range []string{".bz2", ".tbz2", ".xz", ".txz", ".lz4", ".lz"} {
		if strings.HasSuffix(place, suffix) {
			return fmt.Errorf("write %s: bk compresses with gzip and zstd only; write to tar:- and pipe that on", place)
		}
	}
	info, err := os.Stat(place)
	switch {
	case err == nil && info.IsDir():
		t.isDir = true
		return nil
	case err == nil:
		return fmt.Errorf("write %s: it exists already, and an archive is never replaced", place)
	case !errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("look at the place for the archive: %w", err)
	}
	if strings.HasSuffix(place, "/") {
		t.isDir = true
		if err := os.MkdirAll(place, 0o700); err != nil {
			return fmt.Errorf("make the directory for archives: %w", err)
		}
	}
	return nil
}

// create begins the archive of a snapshot. held reports that there is one.
func (t *target) create(s *format.Snapshot) (out *output, held bool, err error) {
	if !t.isDir {
		if t.used != "" {
			return nil, false, fmt.Errorf("write snapshot %s: one archive holds one snapshot, and %s has %s: name a directory, with a slash at its end, for several", s.ID, t.place, t.used)
		}
		t.used = s.ID.String()
	}
	if t.place == "-" {
		o := &output{name: "standard output"}
		o.w = bufio.NewWriterSize(t.stdout, 1<<18)
		return o, false, nil
	}
	path := t.place
	if t.isDir {
		path = filepath.Join(t.place, archiveName(s))
		if held, err := holds(path, s.ID); held || err != nil {
			return nil, held, err
		}
	}
	out, err = createFile(path)
	return out, false, err
}

// holds reports whether the archive of the snapshot is there.
func holds(path string, id format.ID) (bool, error) {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for an archive of snapshot %s: %w", id, err)
	}
	a := archive{path: path, info: info}
	if s := a.ownSnapshot(); s == nil || s.ID != id {
		return false, fmt.Errorf("write %s: it exists already, and is not an archive of snapshot %s", path, id)
	}
	return true, nil
}

// archiveName returns the name of a snapshot's archive in a directory: time,
// host and the beginning of the id.
func archiveName(s *format.Snapshot) string {
	var parts []string
	if s.Time != nil && s.Time.Printable() {
		parts = append(parts, s.Time.Time().Format("20060102T150405Z"))
	}
	host := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '.' || r == '-' || r == '_' {
			return r
		}
		return '_'
	}, s.Host)
	if host = strings.TrimLeft(host, "."); host != "" {
		parts = append(parts, host[:min(len(host), 64)])
	}
	return strings.Join(append(parts, s.ID.Short()), "-") + ".tar"
}

// output is one archive that is being written.
type output struct {
	name   string
	w      *bufio.Writer
	coder  io.WriteCloser // what compresses; nil: nothing
	file   *os.File       // nil: standard output
	temp   string         // name that it has until it is complete
	offset int64          // without compression
}

// recordSize is what the length of an archive is a multiple of.
const recordSize = 20 * blockSize

func createFile(path string) (*output, error) {
	dir, base := filepath.Split(path)
	// Nobody else is to read what may be secret files of everybody.
	file, err := os.CreateTemp(filepath.Clean(dir+"."), "."+base[:min(len(base), 100)]+".*.part")
	if err != nil {
		return nil, fmt.Errorf("make the archive: %w", err)
	}
	o := &output{name: path, file: file, temp: file.Name()}
	var w io.Writer = file
	switch {
	case strings.HasSuffix(base, ".gz"), strings.HasSuffix(base, ".tgz"):
		o.coder = gzip.NewWriter(file)
		w = o.coder
	case strings.HasSuffix(base, ".zst"), strings.HasSuffix(base, ".tzst"):
		coder, err := zstd.NewWriter(file)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("prepare compression: %w", err), o.abandon())
		}
		o.coder, w = coder, coder
	}
	o.w = bufio.NewWriterSize(w, 1<<18)
	return o, nil
}

func (o *output) write(b []byte) error {
	n, err := o.w.Write(b)
	o.offset += int64(n)
	if err != nil {
		return fmt.Errorf("write to %s: %w", o.name, err)
	}
	return nil
}

// pad fills up the last block.
func (o *output) pad() error { return o.write(zeroes[:padded(o.offset)-o.offset]) }

// finish marks the end and gives the archive its name.
func (o *output) finish() error {
	end := (o.offset + 2*blockSize + recordSize - 1) / recordSize * recordSize
	if err := o.write(zeroes[:end-o.offset]); err != nil {
		return err
	}
	err := o.w.Flush()
	if err == nil && o.coder != nil {
		err = o.coder.Close()
	}
	if err != nil {
		return fmt.Errorf("write to %s: %w", o.name, err)
	}
	if o.file == nil {
		return nil
	}
	if err := o.file.Sync(); err != nil {
		return fmt.Errorf("write to %s: %w", o.name, err)
	}
	if err := o.place(); err != nil {
		return fmt.Errorf("give the archive its name: %w", err)
	}
	err = o.file.Close()
	o.file = nil
	if err != nil {
		return fmt.Errorf("close %s: %w", o.name, err)
	}
	return nil
}

// place renames the archive, but never over another file.
func (o *output) place() error {
	err := os.Link(o.temp, o.name)
	switch {
	case err == nil:
		if err := os.Remove(o.temp); err != nil {
			return err
		}
	case errors.Is(err, os.ErrExist):
		return err
	default:
		// The file system has no hard links.
		if _, err := os.Lstat(o.name); err == nil {
			return &os.PathError{Op: "rename to", Path: o.name, Err: os.ErrExist}
		}
		if err := os.Rename(o.temp, o.name); err != nil {
			return err
		}
	}
	dir, err := os.Open(filepath.Dir(o.name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// abandon removes what was not finished.
func (o *output) abandon() error {
	if o.file == nil {
		return nil
	}
	err := o.file.Close()
	o.file = nil
	if remove := os.Remove(o.temp); !errors.Is(remove, os.ErrNotExist) {
		err = errors.Join(err, remove)
	}
	return err
}
