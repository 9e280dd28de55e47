package hardlinks

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/chunker"
)

// ErrNone: the directory has no snapshots that can be told by their names.
var ErrNone = errors.New("there is no directory whose name says that it is a snapshot")

// Options say how trees are read. The zero value is safe.
type Options struct {
	// Pattern tells the names of snapshots from others, and what in them is the
	// time: %Y %m %d %H %M %S %z, %s (seconds since 1970) or %N (a number; the time
	// is then that of the directory), * and ?. Default: dates in the usual forms,
	// or NAME.N.
	Pattern string
	// Zone is that of times in names; nil means UTC.
	Zone *time.Location
	// Inside is the directory in every snapshot that is the root of its listing.
	// InsideSet says that it was given; otherwise it is found out for the tools
	// that are known.
	Inside    string
	InsideSet bool
	// At is where the trees lie in the listings: "home/u" for copies of /home/u.
	At string
	// Host is the snapshots' host.
	Host string
	// Name is what the set is called; the ids of its snapshots depend on it. It is
	// to be given when trees have moved. Default: the absolute path of the place.
	Name string
	// NewSplitter cuts content, and Chunker is its canonical text. If it is nil
	// content is cut with gear:64KiB in the way that anybody can repeat.
	NewSplitter func() chunker.Splitter
	Chunker     string
	// Workers read, hash and compress; 0 means one for each processor.
	Workers int
	// TempDir is where metadata goes that does not fit into memory, in files
	// without a name; "" means where the system puts them.
	TempDir string
	// Compress makes zstd payloads at Level, unless the export asks for plain ones.
	Compress bool
	Level    format.Level
	// OnError, if set, is called with everything that is lost, from within the
	// source's Next.
	OnError func(path string, err error)
}

// defaultChunker cuts where nothing else is asked for.
var defaultChunker = chunker.Spec{Method: chunker.Gear, Min: 16 << 10, Avg: 64 << 10, Max: 256 << 10}

func (o *Options) prepare() error {
	if o.Zone == nil {
		o.Zone = time.UTC
	}
	if o.NewSplitter == nil {
		factory, err := chunker.New(defaultChunker, chunker.Public())
		if err != nil {
			return err
		}
		o.NewSplitter, o.Chunker = factory.Splitter, defaultChunker.String()
	}
	for _, p := range []*string{&o.Inside, &o.At} {
		*p = strings.Trim(*p, "/")
		if err := format.CheckPath(*p); err != nil {
			return err
		}
	}
	return nil
}

// System is a set of trees that can be read. It implements format.System.
type System struct {
	opts  Options
	found *found
}

var _ format.System = (*System)(nil)

// Open finds the snapshots in the directory at place. The error is ErrNone if
// there is none.
func Open(place string, opts Options) (*System, error) {
	if err := opts.prepare(); err != nil {
		return nil, fmt.Errorf("open hardlinks:%s: %w", place, err)
	}
	var custom *pattern
	if opts.Pattern != "" {
		var err error
		if custom, err = parsePattern(opts.Pattern); err != nil {
			return nil, err
		}
	}
	dir, err := filepath.Abs(place)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("open hardlinks:%s: %w", place, err)
	}
	if opts.Name == "" {
		opts.Name = dir
	}
	s := &System{opts: opts}
	if s.found, err = detect(dir, custom, opts.Zone); err != nil {
		return nil, err
	}
	if !opts.InsideSet {
		s.opts.Inside = s.found.inside()
	}
	s.enter()
	if len(s.found.trees) == 0 {
		return nil, fmt.Errorf("open hardlinks:%s: %w", place, ErrNone)
	}
	return s, nil
}

// enter leaves out the snapshots that do not have what is to be their listing.
func (s *System) enter() {
	if s.opts.Inside == "" {
		return
	}
	all := s.found.trees
	s.found.trees = nil
	for _, t := range all {
		t.path = filepath.Join(t.path, s.opts.Inside)
		info, err := os.Lstat(t.path)
		if err != nil || !info.IsDir() {
			s.found.skip(t.name, fmt.Sprintf("it has no directory %q", s.opts.Inside))
			continue
		}
		t.inode = inodeOf(info)
		s.found.trees = append(s.found.trees, t)
	}
}

// Skipped returns what lies beside the snapshots and is none, by name.
func (s *System) Skipped() []Skipped { return s.found.skipped }

// Inside returns the directory of every snapshot that is its listing's root.
func (s *System) Inside() string { return s.opts.Inside }

// Snapshots implements format.System. The ids are made of the set's name, how it
// is read, and what stays the same of each snapshot: its name if that is a time,
// otherwise its time.
func (s *System) Snapshots(context.Context) ([]*format.Snapshot, error) {
	list := make([]*format.Snapshot, len(s.found.trees))
	for i, t := range s.found.trees {
		list[i] = s.snapshot(t)
	}
	return list, nil
}

func (s *System) snapshot(t *tree) *format.Snapshot {
	made := format.TimeOf(t.time)
	return &format.Snapshot{
		ID: s.id(t), Time: &made, Host: s.opts.Host, Roots: []string{s.opts.At},
		Origin: &format.Origin{System: "hardlinks", Repository: s.opts.Name, ID: t.key},
	}
}

func (s *System) id(t *tree) format.ID {
	h := sha256.New()
	for _, part := range []string{"hardlinks", s.opts.Name, s.opts.Inside, s.opts.At, t.key} {
		h.Write([]byte(part))
		h.Write([]byte{0})
	}
	return format.ID(h.Sum(nil))
}

// lookup finds the tree of a snapshot.
func (s *System) lookup(id format.ID) (*tree, error) {
	for _, t := range s.found.trees {
		if s.id(t) == id {
			return t, nil
		}
	}
	return nil, fmt.Errorf("there is no tree with the snapshot %s", id)
}

// Close implements format.System. Nothing is held open.
func (s *System) Close() error { return nil }
