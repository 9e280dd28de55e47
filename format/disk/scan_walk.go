package disk

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/bk-backup/bk/format"
)

const (
	// batchNames is how many files of a directory one job looks at.
	batchNames = 256
	// walkAheadMax is how many files the walk may know that the merge has not
	// come to; each takes some 300 bytes.
	walkAheadMax = 16384
	// direntsSize is the size of the buffer that directories are listed into.
	direntsSize = 128 << 10
)

// walk lists directories and takes the status of all files, ahead of the merge.
//
// Its jobs lie on a stack in the order in which the merge will need them, the
// next on top. Walkers take from the top as long as they are not too far ahead.
// The merge waits for no job that nobody has begun: it does such a job itself,
// so that the bound cannot lock anything up.
type walk struct {
	dirs    *dirs
	options *ScanOptions
	markers []marker

	mu      sync.Mutex
	wake    sync.Cond
	stack   []walkJob
	ahead   int // files known and not consumed
	stopped bool
}

// walkJob is a listing or a batch.
type walkJob interface {
	job() *jobState
	run(w *walk, p *walker)
}

// jobState says whether somebody has begun a job and whether it is done.
type jobState struct {
	begun atomic.Bool
	done  chan struct{}
}

func newJobState() jobState { return jobState{done: make(chan struct{})} }

func (s *jobState) job() *jobState { return s }

// claim makes the job the caller's, once.
func (s *jobState) claim() bool { return s.begun.CompareAndSwap(false, true) }

func (s *jobState) isDone() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// walker is what a goroutine that walks owns.
type walker struct {
	*prober
	dirents []byte
}

func newWalker() *walker { return &walker{newProber(), make([]byte, direntsSize)} }

// listing is the job of opening a directory and listing it.
type listing struct {
	jobState
	dir     *dir
	path    string
	status  status
	roots   *rootTree   // roots below this directory, if any
	only    bool        // nothing but what leads to roots is walked
	descend bool        // false at a mount point that is not entered
	device  format.Rdev // that is not left with OneFileSystem

	// Results, once done:
	err     error // the directory cannot be opened or listed
	xattrs  []format.Xattr
	xattrE  error
	flags   []string
	batches []*batch
}

// dirName is a name in a directory, with the type that the listing tells.
type dirName struct {
	name cname
	kind uint8 // unix.DT_...
}

func sortNames(names []dirName) {
	slices.SortFunc(names, func(a, b dirName) int { return cmp.Compare(a.name, b.name) })
}

// batch is the job of taking the status of some files of a directory.
type batch struct {
	jobState
	listing *listing
	names   []dirName

	nodes []node // once done
}

// node is a file that the walk has found.
type node struct {
	path   string
	name   cname
	in     *dir
	status status
	err    error    // the status could not be taken
	sub    *listing // of a directory
}

// marker is a file whose presence says that the rest of its directory is not
// wanted.
type marker struct {
	name   string
	header []byte // what it must begin with
}

// cacheMarker is the convention of bford.info/cachedir.
var cacheMarker = marker{"CACHEDIR.TAG", []byte("Signature: 8a477f597d28d172789f06886806bc55")}

// parseMarkers reads "name" or "name:header".
func parseMarkers(options *ScanOptions) []marker {
	var markers []marker
	if options.ExcludeCaches {
		markers = append(markers, cacheMarker)
	}
	for _, text := range options.ExcludeIfPresent {
		name, header, _ := strings.Cut(text, ":")
		markers = append(markers, marker{name, []byte(header)})
	}
	return markers
}

func newWalk(options *ScanOptions) *walk {
	openMax := options.openDirs
	if openMax == 0 {
		openMax = openDirsMax()
	}
	w := &walk{dirs: newDirs(openMax), options: options, markers: parseMarkers(options)}
	w.wake.L = &w.mu
	return w
}

// root returns the job that the walk begins with, and puts it on the stack.
func (w *walk) root(roots *rootTree, p *walker) (*listing, error) {
	place, at := "/", ""
	if w.options.Dir != "" {
		place, at = w.options.Dir, w.options.At
	}
	l := &listing{jobState: newJobState(), dir: newAncestor(place), path: at, roots: roots, only: !roots.isRoot, descend: true}
	if err := p.statAt(unix.AT_FDCWD, newCname(place), 0, &l.status); err != nil {
		return nil, fmt.Errorf("look at %s: %w", place, err)
	}
	l.device = l.status.dev
	w.push(l)
	return l, nil
}

// work does jobs until the walk is stopped.
func (w *walk) work(p *walker) {
	for {
		w.mu.Lock()
		for !w.stopped && (len(w.stack) == 0 || w.ahead >= walkAheadMax) {
			w.wake.Wait()
		}
		if w.stopped {
			w.mu.Unlock()
			return
		}
		last := len(w.stack) - 1
		job := w.stack[last]
		w.stack[last] = nil
		w.stack = w.stack[:last]
		w.mu.Unlock()
		w.do(job, p)
	}
}

// do runs a job unless somebody else has begun it, and reports whether it did.
func (w *walk) do(job walkJob, p *walker) bool {
	if !job.job().claim() {
		return false
	}
	job.run(w, p)
	close(job.job().done)
	return true
}

// need returns when the job is done, doing it if nobody has begun it.
func (w *walk) need(ctx context.Context, job walkJob, p *walker) error {
	if w.do(job, p) {
		return ctx.Err()
	}
	select {
	case <-job.job().done:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// push puts jobs onto the stack such that the first is on top.
func (w *walk) push(jobs ...walkJob) {
	if len(jobs) == 0 {
		return
	}
	w.mu.Lock()
	for _, job := range slices.Backward(jobs) {
		w.stack = append(w.stack, job)
	}
	w.mu.Unlock()
	w.wake.Broadcast()
}

// consumed says that the merge has done with n files.
func (w *walk) consumed(n int) {
	w.mu.Lock()
	full := w.ahead >= walkAheadMax
	w.ahead -= n
	full = full && w.ahead < walkAheadMax
	w.mu.Unlock()
	if full {
		w.wake.Broadcast()
	}
}

func (w *walk) stop() {
	w.mu.Lock()
	w.stopped = true
	w.mu.Unlock()
	w.wake.Broadcast()
}

// run opens and lists the directory. A small one is looked at in the same go.
func (l *listing) run(w *walk, p *walker) {
	fd, err := w.dirs.acquire(l.dir)
	if err != nil {
		l.err = err
		l.describeClosed(w, p)
		return
	}
	defer w.dirs.release(l.dir)
	l.xattrs, l.xattrE = p.xattrsFD(fd)
	if errors.Is(l.xattrE, unix.EBADF) {
		// An ancestor that we may pass but not list is not open for reading.
		l.describeClosed(w, p)
	} else {
		l.flags = flagsFD(fd, &l.status)
	}
	if !l.descend {
		return
	}
	var names []dirName
	if l.only {
		names = l.roots.names()
	} else if names, l.err = p.list(fd); l.err != nil {
		return
	}
	sortNames(names)
	if !l.only {
		names = w.unmarked(fd, names)
	}
	for chunk := range slices.Chunk(names, batchNames) {
		l.batches = append(l.batches, &batch{jobState: newJobState(), listing: l, names: chunk})
	}
	if len(l.batches) == 1 {
		w.do(l.batches[0], p)
		return
	}
	jobs := make([]walkJob, len(l.batches))
	for i, b := range l.batches {
		jobs[i] = b
	}
	w.push(jobs...)
}

// describeClosed finds out what can be known of a directory that may not be read.
func (l *listing) describeClosed(w *walk, p *walker) {
	l.flags = flagsOf(&l.status)
	if l.dir.parent == nil {
		l.xattrs, l.xattrE = p.xattrsAt(unix.AT_FDCWD, l.dir.path)
		return
	}
	parent, err := w.dirs.acquire(l.dir.parent)
	if err != nil {
		l.xattrE = err
		return
	}
	defer w.dirs.release(l.dir.parent)
	l.xattrs, l.xattrE = p.xattrsAt(parent, l.dir.name)
}

// list returns the names in a directory as they come. The descriptor must be
// newly opened: it has a position, which is the end afterwards.
func (p *walker) list(fd int) ([]dirName, error) {
	var blob strings.Builder
	type place struct {
		from, to int
		kind     uint8
	}
	var places []place
	for {
		n, err := unix.Getdents(fd, p.dirents)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			break
		}
		for rest := p.dirents[:n]; len(rest) > direntNameAt; {
			size := int(binary.NativeEndian.Uint16(rest[16:]))
			if size <= direntNameAt || size > len(rest) {
				return nil, unix.EIO
			}
			name := rest[direntNameAt:size]
			if end := bytes.IndexByte(name, 0); end >= 0 {
				name = name[:end]
			}
			if s := string(name); s != "." && s != ".." && s != "" {
				from := blob.Len()
				blob.Write(name)
				places = append(places, place{from, blob.Len(), rest[18]})
				blob.WriteByte(0)
			}
			rest = rest[size:]
		}
	}
	text := blob.String()
	names := make([]dirName, len(places))
	for i, at := range places {
		names[i] = dirName{cname(text[at.from:at.to]), at.kind}
	}
	return names, nil
}

// direntNameAt is where the name lies in struct linux_dirent64: after inode and
// offset of eight bytes, the length of two and the type of one.
const direntNameAt = 19

// unmarked returns names, or the marker alone if the directory has one.
func (w *walk) unmarked(fd int, names []dirName) []dirName {
	for _, m := range w.markers {
		i, found := slices.BinarySearchFunc(names, m.name, func(n dirName, name string) int {
			return cmp.Compare(string(n.name), name)
		})
		if found && m.matches(fd, names[i].name) {
			return names[i : i+1]
		}
	}
	return names
}

// matches reports whether name begins with the header.
func (m *marker) matches(dirfd int, name cname) bool {
	if len(m.header) == 0 {
		return true
	}
	fd, err := openQuietAt(dirfd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	buf := make([]byte, len(m.header))
	n, err := readFull(fd, buf, 0)
	return err == nil && bytes.Equal(buf[:n], m.header)
}

// run takes the status of each name that is wanted.
func (b *batch) run(w *walk, p *walker) {
	l := b.listing
	b.nodes = make([]node, 0, len(b.names))
	fd, err := w.dirs.acquire(l.dir)
	if err == nil {
		defer w.dirs.release(l.dir)
	}
	var subs []walkJob
	for _, n := range b.names {
		node := node{path: joinPath(l.path, n.name), name: n.name, in: l.dir}
		if n.kind != unix.DT_UNKNOWN && w.dropped(node.path, n.kind == unix.DT_DIR) {
			continue
		}
		if node.err = err; err == nil {
			node.err = b.stat(fd, &node, p)
		}
		if node.err == nil {
			if n.kind == unix.DT_UNKNOWN && w.dropped(node.path, node.status.isDir()) {
				continue
			}
			if !w.enter(l, &node) {
				continue
			}
		}
		b.nodes = append(b.nodes, node)
		if node.sub != nil {
			subs = append(subs, node.sub)
		}
	}
	b.names = nil
	w.mu.Lock()
	w.ahead += len(b.nodes)
	w.mu.Unlock()
	w.push(subs...)
}

// dropped reports whether the options leave a path out. A directory stays if
// something below it may be wanted.
func (w *walk) dropped(path string, isDir bool) bool {
	if w.options.Drop == nil {
		return false
	}
	drop, skipBelow := w.options.Drop(path, isDir)
	return drop && (!isDir || skipBelow)
}

// stat takes the status of a node. Links on the way to a root are followed: in
// the listing they are directories, or nothing could lie below them.
func (b *batch) stat(fd int, n *node, p *walker) error {
	if err := p.statAt(fd, n.name, unix.AT_SYMLINK_NOFOLLOW, &n.status); err != nil {
		return err
	}
	if t := b.listing.roots.child(n.name); t != nil && !t.isRoot && n.status.isSymlink() && b.listing.only {
		return p.statAt(fd, n.name, 0, &n.status)
	}
	return nil
}

// enter prepares the listing of a directory and reports whether the node is
// wanted at all.
func (w *walk) enter(l *listing, n *node) bool {
	roots := l.roots.child(n.name)
	away := w.options.OneFileSystem && !l.only && n.status.dev != l.device && (roots == nil || !roots.isRoot)
	if !n.status.isDir() || len(n.path) > format.PathSizeMax {
		return !away
	}
	n.sub = &listing{
		jobState: newJobState(),
		dir:      newDir(l.dir, n.name),
		path:     n.path,
		status:   n.status,
		roots:    roots,
		only:     l.only,
		descend:  true,
		device:   l.device,
	}
	if roots != nil && roots.isRoot {
		n.sub.only, n.sub.device = false, n.status.dev
	} else if l.only {
		n.sub.dir = newAncestor("/" + n.path)
	} else if away {
		n.sub.only, n.sub.descend = true, roots != nil
	}
	return true
}
