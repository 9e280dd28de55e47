package tar

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/chunker"
)

// Options say how archives are read. The zero value is safe.
type Options struct {
	// Stdin is read where the place is "-".
	Stdin io.Reader
	// Host and Time, if set, are the snapshot's, whatever the archive or the time
	// of its file says.
	Host string
	Time *format.Time
	// NewSplitter cuts content, and Chunker is its canonical text. If it is nil
	// content is cut with gear:64KiB in the way that anybody can repeat.
	NewSplitter func() chunker.Splitter
	Chunker     string
	// Compress makes zstd payloads at Level, unless the export asks for plain ones.
	Compress bool
	Level    format.Level
	// LookupUser and LookupGroup find the numbers of names in ACLs of which the
	// archive has only the text; nil: nobody is known.
	LookupUser, LookupGroup func(name string) (id uint32, ok bool)
	// Workers hash and compress; 0 means one for each processor.
	Workers int
	// TempDir is where metadata goes that does not fit into memory, in files
	// without a name; "" means where the system puts them.
	TempDir string
	// Random is where the id of a stream's snapshot is drawn from; nil means
	// crypto/rand.
	Random io.Reader
	// OnError, if set, is called with everything that is lost, from within the
	// source's Next.
	OnError func(path string, err error)

	chunker string
}

// defaultChunker cuts archives where nothing else is asked for.
var defaultChunker = chunker.Spec{Method: chunker.Gear, Min: 16 << 10, Avg: 64 << 10, Max: 256 << 10}

func (o *Options) prepare() error {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Random == nil {
		o.Random = rand.Reader
	}
	o.chunker = o.Chunker
	if o.NewSplitter == nil {
		factory, err := chunker.New(defaultChunker, chunker.Public())
		if err != nil {
			return err
		}
		o.NewSplitter, o.chunker = factory.Splitter, defaultChunker.String()
	}
	return nil
}

// System is an archive, or a directory of archives, that can be read. It
// implements format.System.
type System struct {
	opts     Options
	archives []*archive
	listed   bool
	file     *os.File // an archive that is no regular file
}

var _ format.System = (*System)(nil)

// Open opens the archive at place: a file, "-" for Options.Stdin, or a directory
// whose archives (.tar, .tar.gz, .tgz, .tar.zst, .tzst, .tar.bz2, .tbz2) are a
// snapshot each. Compression is found by content, not by name.
func Open(ctx context.Context, place string, opts Options) (*System, error) {
	s := &System{opts: opts}
	if err := s.opts.prepare(); err != nil {
		return nil, err
	}
	if place == "-" {
		if opts.Stdin == nil {
			return nil, errors.New("open tar:-: there is no standard input")
		}
		s.archives = []*archive{{name: "the archive on standard input", stream: opts.Stdin}}
		return s, nil
	}
	info, err := os.Stat(place)
	if err != nil {
		return nil, fmt.Errorf("open the archive: %w", err)
	}
	if !info.IsDir() {
		a := &archive{name: place, path: place, info: info}
		if !info.Mode().IsRegular() {
			// A named pipe or a tape can be read once, from beginning to end.
			file, err := os.Open(place)
			if err != nil {
				return nil, fmt.Errorf("open the archive: %w", err)
			}
			a = &archive{name: place, stream: file}
			s.file = file
		}
		s.archives = []*archive{a}
		return s, nil
	}
	if s.archives, err = archivesIn(place); err != nil {
		return nil, err
	}
	return s, nil
}

// archiveSuffixes are those of archives in a directory.
var archiveSuffixes = []string{".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar.bz2", ".tbz2"}

func archivesIn(dir string) ([]*archive, error) {
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list the archives: %w", err)
	}
	var archives []*archive
	for _, n := range names {
		name := n.Name()
		if strings.HasPrefix(name, ".") || !slices.ContainsFunc(archiveSuffixes, func(x string) bool { return strings.HasSuffix(name, x) }) {
			continue
		}
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("list the archives: %w", err)
		}
		if info.Mode().IsRegular() {
			archives = append(archives, &archive{name: path, path: path, info: info})
		}
	}
	return archives, nil
}

// Snapshots implements format.System. It reads every archive that is a file
// once, since its id is made of its content; that of a stream is random, and
// the snapshot says Unstable.
func (s *System) Snapshots(ctx context.Context) ([]*format.Snapshot, error) {
	if err := s.list(ctx); err != nil {
		return nil, err
	}
	list := make([]*format.Snapshot, 0, len(s.archives))
	for _, a := range s.archives {
		list = append(list, a.snapshot.Clone())
	}
	return list, nil
}

// Imported returns, for each archive that this package wrote, the ids that its
// snapshot had when it was written, the newest first. It reads only how archives
// begin. All say Changed: nothing can be a difference to what is in an archive.
func (s *System) Imported(context.Context) ([][]format.HeldID, error) {
	var held [][]format.HeldID
	for _, a := range s.archives {
		if a.info == nil {
			return nil, errors.New("an archive in a pipe is read once: name its file, or the directory that it is in")
		}
		own := a.ownSnapshot()
		if own == nil {
			continue
		}
		ids := format.HeldAs(own)
		for i := range ids {
			ids[i].Changed = true
		}
		held = append(held, ids)
	}
	return held, nil
}

func (s *System) list(ctx context.Context) error {
	if s.listed {
		return nil
	}
	for _, a := range s.archives {
		if err := a.identify(ctx, &s.opts); err != nil {
			return fmt.Errorf("read %s: %w", a.name, err)
		}
	}
	slices.SortStableFunc(s.archives, func(a, b *archive) int {
		if a.snapshot.Time == nil || b.snapshot.Time == nil {
			return 0
		}
		return a.snapshot.Time.Compare(*b.snapshot.Time)
	})
	// Copies of one archive are one snapshot.
	seen := make(map[format.ID]bool)
	s.archives = slices.DeleteFunc(s.archives, func(a *archive) bool {
		again := seen[a.snapshot.ID]
		seen[a.snapshot.ID] = true
		return again
	})
	s.listed = true
	return nil
}

// Export implements format.System. Archives know no parents: every snapshot goes
// out whole, with refs to the chunks of those before. What opts asks for as a
// difference or as copies is therefore complete instead; Held is refused.
func (s *System) Export(ctx context.Context, opts format.ExportOptions) (format.SourceCloser, error) {
	if opts.Held {
		return nil, errors.New("a tar archive has content, not the names of what a receiver holds: leave out --held")
	}
	if err := s.list(ctx); err != nil {
		return nil, err
	}
	chosen := s.archives
	if len(opts.Snapshots) > 0 {
		chosen = nil
		for _, id := range opts.Snapshots {
			i := slices.IndexFunc(s.archives, func(a *archive) bool { return a.snapshot.ID == id })
			if i < 0 {
				return nil, fmt.Errorf("there is no archive with the snapshot %s", id)
			}
			chosen = append(chosen, s.archives[i])
		}
	}
	return newSource(ctx, chosen, s.opts, opts), nil
}

// Close closes what is open.
func (s *System) Close() error {
	var err error
	for _, a := range s.archives {
		if a.input != nil {
			err = errors.Join(err, a.input.Close())
		}
	}
	if s.file != nil {
		err = errors.Join(err, s.file.Close())
	}
	return err
}
