package disk

import (
	"sync"

	"golang.org/x/sys/unix"
)

// dir is a directory that files are opened in. It is reached from its parent,
// name by name and never through a symbolic link, so that paths of any length
// work and nobody can lead the scan elsewhere by swapping a directory for a
// link. The ancestors of the roots are as the user wrote them: they are opened
// by their whole path, links included.
type dir struct {
	parent *dir
	name   cname
	path   cname // instead of parent and name, for an ancestor of a root

	opening sync.Mutex // held while the directory is opened

	// Under dirs.mu:
	fd         int // -1 while closed
	users      int
	prev, next *dir // in the list of idle directories
}

func newDir(parent *dir, name cname) *dir { return &dir{parent: parent, name: name, fd: -1} }

func newAncestor(path string) *dir { return &dir{path: newCname(path), fd: -1} }

// dirs keeps directories open for as long as its bound allows, the longest
// unused ones are closed first and opened again when needed. Any number of
// goroutines may use it.
type dirs struct {
	mu      sync.Mutex
	open    int
	openMax int
	idle    dir // head of a ring; idle.next is the longest unused
	closed  bool
}

func newDirs(openMax int) *dirs {
	d := &dirs{openMax: openMax}
	d.idle.prev, d.idle.next = &d.idle, &d.idle
	return d
}

// acquire returns a descriptor of d that stays open until release.
func (s *dirs) acquire(d *dir) (int, error) {
	if fd, ok := s.use(d); ok {
		return fd, nil
	}
	d.opening.Lock()
	defer d.opening.Unlock()
	if fd, ok := s.use(d); ok {
		return fd, nil
	}
	fd, err := s.openDir(d)
	if err != nil {
		return -1, err
	}
	s.mu.Lock()
	d.fd, d.users = fd, 1
	s.open++
	surplus := s.surplus()
	s.mu.Unlock()
	closeAll(surplus)
	return fd, nil
}

// use counts one more user of d if it is open.
func (s *dirs) use(d *dir) (int, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.fd < 0 {
		return -1, false
	}
	if d.users == 0 {
		d.prev.next, d.next.prev = d.next, d.prev
		d.prev, d.next = nil, nil
	}
	d.users++
	return d.fd, true
}

func (s *dirs) openDir(d *dir) (int, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NONBLOCK
	if d.parent == nil {
		fd, err := openQuietAt(unix.AT_FDCWD, d.path, flags)
		if err == unix.EACCES {
			// What may be passed but not listed serves as an ancestor.
			fd, err = openAt(unix.AT_FDCWD, d.path, unix.O_PATH|unix.O_DIRECTORY)
		}
		return fd, err
	}
	parent, err := s.acquire(d.parent)
	if err != nil {
		return -1, err
	}
	defer s.release(d.parent)
	return openQuietAt(parent, d.name, flags|unix.O_NOFOLLOW)
}

// release ends what acquire began.
func (s *dirs) release(d *dir) {
	s.mu.Lock()
	d.users--
	var surplus []int
	if d.users == 0 {
		last := s.idle.prev
		d.prev, d.next = last, &s.idle
		last.next, s.idle.prev = d, d
		surplus = s.surplus()
	}
	s.mu.Unlock()
	closeAll(surplus)
}

// surplus takes idle directories out until the bound holds again, and returns
// their descriptors. The caller holds mu.
func (s *dirs) surplus() []int {
	var fds []int
	for (s.open > s.openMax || s.closed) && s.idle.next != &s.idle {
		d := s.idle.next
		d.prev.next, d.next.prev = d.next, d.prev
		d.prev, d.next = nil, nil
		fds = append(fds, d.fd)
		d.fd = -1
		s.open--
	}
	return fds
}

// close closes all directories that nobody uses, and those in use as soon as
// they are released.
func (s *dirs) close() {
	s.mu.Lock()
	s.closed = true
	surplus := s.surplus()
	s.mu.Unlock()
	closeAll(surplus)
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// openDirsMax is how many directories a scan keeps open, given the limit of the
// process, of which files and the rest of the program need their share.
func openDirsMax() int {
	const most, least = 512, 16
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return least
	}
	return int(max(least, min(most, limit.Cur/4)))
}
