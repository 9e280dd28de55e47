//go:build linux

package disk

import (
	"errors"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Names are only ever looked up in a directory that is already open, one
// component at a time and never through a symbolic link, or all at once where
// the kernel holds the same (openat2). So no path leads out of the target,
// whatever is changed in it meanwhile.

// openBelow opens a path below an open directory.
func openBelow(root int, p string, flags int) (int, error) {
	if p == "" {
		p = "."
	}
	flags |= unix.O_NOFOLLOW | unix.O_CLOEXEC
	if len(p) < unix.PathMax {
		how := unix.OpenHow{
			Flags:   uint64(flags),
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
		}
		fd, err := unix.Openat2(root, p, &how)
		if !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EAGAIN) {
			return fd, err
		}
	}
	return openByComponent(root, p, flags)
}

// openByComponent is openBelow without openat2 and without a limit of length.
func openByComponent(root int, p string, flags int) (int, error) {
	dirfd := root
	for {
		name, rest, more := strings.Cut(p, "/")
		f := flags
		if more {
			f = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
		}
		fd, err := unix.Openat(dirfd, name, f, 0)
		if dirfd != root {
			unix.Close(dirfd)
		}
		if err != nil || !more {
			return fd, err
		}
		dirfd, p = fd, rest
	}
}

// openFileBelow opens a regular file below root for reading.
func openFileBelow(root int, p string) (int, error) {
	fd, err := openBelow(root, p, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return -1, errors.New("not a regular file any more")
	}
	return fd, nil
}

// readNames returns the first names of an open directory, all if max is -1.
func readNames(dirfd, max int) ([]string, error) {
	// A descriptor of its own, since reading moves the position.
	fd, err := unix.Openat(dirfd, ".", dirOpenFlags, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "directory")
	defer f.Close()
	names, err := f.Readdirnames(max)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return names, err
}
