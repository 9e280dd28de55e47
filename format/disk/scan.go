package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/chunker"
)

// ScanOptions says what to scan and how. Roots, Dir or Stdin, and ChunkerFor,
// are required; the zero value of everything else is safe.
type ScanOptions struct {
	// Roots are paths of files and directories. They are made absolute, links in
	// their parents are followed, a link as root itself is not. Entries are named
	// from "/" ("home/u/x"), and the directories above a root are entries too,
	// but "/" only if it is a root.
	Roots []string
	// Dir, if set, is scanned instead of Roots: a directory that stands for the
	// path At of the listing ("": its root), whatever lies above it. Errors name
	// paths of the listing.
	Dir, At string
	// Stdin, if set, is scanned instead of Roots: it becomes the content of one
	// file with the path StdinName. Where reading it fails, so does the scan, and
	// there is no snapshot. Close does not wait for a Read that blocks.
	Stdin     io.Reader
	StdinName string

	// Snapshot is the snapshot record. Where it has no Roots they are filled in.
	Snapshot format.Snapshot
	// Previous, if set, is the listing of Snapshot.Parent: only what differs from
	// it is handed out, and the content of a file that has not changed (type,
	// owner, mode, size, mtime, ctime, inode) is not read.
	Previous Previous
	// IgnoreInode and IgnoreCtime leave these out of that comparison, for file
	// systems that do not keep them stable.
	IgnoreInode, IgnoreCtime bool

	// Drop, if set, reports whether an entry is not wanted by its path, as in
	// format.ExportOptions. A directory stays an entry unless skipBelow. It is
	// called by several goroutines at a time.
	Drop func(path string, isDir bool) (drop, skipBelow bool)
	// ExcludeCaches leaves out what lies beside a CACHEDIR.TAG with the signature
	// of that convention.
	ExcludeCaches bool
	// ExcludeIfPresent names files, as "name" or "name:header": where one lies in a
	// directory (and begins with the header) all else there is left out.
	ExcludeIfPresent []string
	// OneFileSystem stays on the file system of each root: a mount point is an
	// entry without what is below it, unless that is a root.
	OneFileSystem bool

	// ChunkerFor returns who cuts the content of a file, given its path and size
	// (0 for Stdin): a function for new splitters, and the splitter's canonical
	// text, which is recorded with the file and stands for it: one text, one
	// splitter. It is called by several goroutines at a time.
	ChunkerFor func(path string, size uint64) (newSplitter func() chunker.Splitter, name string)
	// Compress makes zstd payloads at Level, in the goroutines that read; the
	// header then announces format.FeatureZstd. Otherwise payloads are plain, and
	// Data.Checked is set.
	Compress bool
	Level    format.Level
	// Dedup sends chunks that were sent before as refs. It remembers some hundred
	// thousand of the last ones; older ones may be sent again.
	Dedup bool

	// Survey, if set, is that of Dir, and Inodes what was learnt by scans of other
	// trees that have files in common with this one. Files with several names are
	// then groups of hard links only as far as the names lie in Dir; the content
	// of what came with another tree is not read again; and a file is unchanged
	// beside Previous (which is to be a survey's listing) if it is the same inode,
	// otherwise its entry goes out. The same Inodes serve one scan after another.
	Survey *Survey
	Inodes *Inodes
	// Translate, if set, is given every entry that would go out and may change
	// it, be it into one of another type. read returns the content of a file of
	// at most 64 KiB. An error is a loss of the kind xattr and no more. It is
	// called by several goroutines at a time.
	Translate func(e *format.Entry, read func() ([]byte, error)) error
	// ListingOnly and Flat are those of format.ExportOptions: no content but eof
	// records; no refs, where what is needed for the latter is read again.
	ListingOnly, Flat bool

	// Atime records when files were last read. It is left out otherwise: it
	// differs from one scan to the next and is seldom wanted back.
	Atime bool
	// Workers is how many files are read at a time; 0 means GOMAXPROCS.
	Workers int
	// Producer and Created are written into the header.
	Producer string
	Created  *format.Time
	// Now is the clock; nil means time.Now.
	Now func() time.Time

	// OnError, if set, is called with everything that could not be read as it
	// should be, in the order of the paths, from within Next. The scan goes on.
	OnError func(path string, err error)
	// OnProgress, if set, is called now and then from within Next.
	OnProgress func(format.Progress)

	// afterWalk is called by tests between the walk's look at a file and its
	// reading.
	afterWalk func(path string)
	// openDirs, if set by a test, is how many directories may be open.
	openDirs int
}

// Previous is a listing, sorted by path.
// It is read by one goroutine of the scan.
type Previous interface {
	// Next returns the next entry, valid until the next call, then io.EOF.
	Next() (*format.Entry, error)
}

// Kinds of loss that a scan reports in its commit.
const (
	LossUnreadable = "unreadable" // a file or directory, or the rest of a file
	LossVanished   = "vanished"   // gone, or another type, since its directory was listed
	LossChanged    = "changed"    // written to while it was read; its content is as read
	LossXattr      = "xattr"      // extended attributes of a file
	LossLimit      = "limit"      // beyond what the stream can hold
)

// ScanStats counts what a scan has met.
type ScanStats struct {
	Entries, Files, Dirs    uint64 // in the resulting listing
	New, Changed, Unchanged uint64 // of Entries, beside Previous
	Removed                 uint64 // remove records
	BytesRead               uint64 // of content
	BytesUnchanged          uint64 // content of files that were not read
}

const (
	// fileSizeInline is the greatest file that is read as a whole; greater ones
	// are streams.
	fileSizeInline = 1 << 20
	// streamReserve is what a stream takes from the budget.
	streamReserve = 12 << 20
)

// budgetSize bounds the content that is held in memory, in bytes.
func budgetSize(workers int) int64 { return min(32+2*int64(workers), 48) << 20 }

// Scanner is a scan under way, a format.Source.
type Scanner struct {
	options ScanOptions
	roots   []string
	tree    *rootTree

	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup

	walk     *walk
	owners   ownerCache
	budget   *semaphore.Weighted
	tasks    chan *group   // for readers
	segments chan *segment // for hashers
	out      chan *group   // for Next, in order
	mergeErr error         // valid once out is closed
	sent     *sentSet      // nil unless Dedup
	groups   sync.Pool     // of *group that went out

	emitter
}

// Scan begins a scan. It fails if the options contradict each other or a root
// is not there. The caller closes the Scanner.
func Scan(ctx context.Context, options ScanOptions) (*Scanner, error) {
	s := &Scanner{options: options}
	if err := s.prepare(); err != nil {
		return nil, err
	}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	workers := s.options.Workers
	s.walk = newWalk(&s.options)
	s.budget = semaphore.NewWeighted(budgetSize(workers))
	s.tasks = make(chan *group, 2*workers)
	s.segments = make(chan *segment, workers)
	s.out = make(chan *group, 64)
	switch {
	case options.Dedup && options.Inodes != nil:
		s.sent = options.Inodes.sent
	case options.Dedup:
		s.sent = newSentSet()
	}
	s.begin()
	s.start(workers)
	return s, nil
}

// prepare checks the options and fills in defaults.
func (s *Scanner) prepare() error {
	o := &s.options
	if o.ChunkerFor == nil {
		return errors.New("scan: no ChunkerFor is given")
	}
	if (o.Previous == nil) != o.Snapshot.Parent.IsZero() {
		return errors.New("scan: a previous listing and a parent's id come together or not at all")
	}
	if err := o.checkSources(); err != nil {
		return err
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Stdin != nil {
		o.StdinName = strings.TrimPrefix(path.Clean("/"+o.StdinName), "/")
		if o.StdinName == "" {
			return errors.New("scan: the standard input needs a name")
		}
		if err := format.CheckPath(o.StdinName); err != nil {
			return fmt.Errorf("scan: name the standard input: %w", err)
		}
		s.roots = []string{o.StdinName}
	} else if o.Dir != "" {
		s.tree, s.roots = &rootTree{isRoot: true}, []string{o.At}
	} else {
		var err error
		if s.tree, s.roots, err = newRootTree(o.Roots); err != nil {
			return err
		}
	}
	if o.Snapshot.Roots == nil {
		o.Snapshot.Roots = s.roots
	}
	return nil
}

// checkSources refuses what contradicts itself about what is scanned.
func (o *ScanOptions) checkSources() error {
	given := 0
	for _, is := range []bool{o.Stdin != nil, len(o.Roots) > 0, o.Dir != ""} {
		if is {
			given++
		}
	}
	switch {
	case given != 1:
		return errors.New("scan: either roots, a directory or a standard input must be given")
	case o.Dedup && o.Flat:
		return errors.New("scan: a flat stream has no refs")
	case o.Survey != nil && o.Dir == "" || (o.Survey == nil) != (o.Inodes == nil):
		return errors.New("scan: a survey, inodes and a directory come together")
	}
	if err := format.CheckPath(o.At); err != nil {
		return fmt.Errorf("scan: place the directory in the listing: %w", err)
	}
	return nil
}

// start starts the goroutines.
func (s *Scanner) start(workers int) {
	context.AfterFunc(s.ctx, s.walk.stop)
	for range workers {
		s.wg.Go(func() { s.walk.work(newWalker()) })
		s.wg.Go(func() {
			r := newReader(s)
			for g := range s.tasks {
				r.do(g)
			}
		})
		s.wg.Go(func() {
			for {
				select {
				case seg := <-s.segments:
					s.hash(seg)
				case <-s.ctx.Done():
					return
				}
			}
		})
	}
	s.wg.Go(func() {
		s.mergeErr = newMerge(s).run()
		s.walk.stop()
		close(s.tasks)
		close(s.out)
	})
}

// Close ends the scan, wherever it stands, and closes what it holds open.
func (s *Scanner) Close() error {
	s.cancel(errClosed)
	s.wg.Wait()
	s.walk.dirs.close()
	return nil
}

var errClosed = errors.New("the scan was closed")

// Roots returns the roots as they are named in entries.
func (s *Scanner) Roots() []string { return s.roots }

// Stats returns what the records handed out so far amount to. It is to be
// called by the goroutine that calls Next.
func (s *Scanner) Stats() ScanStats { return s.stats }

var _ format.SourceCloser = (*Scanner)(nil)
