package dir

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/bk-backup/bk/repo/store"
)

// fail makes the error of an operation: it finds the kind and leaves out the
// paths of the file system, which the object's name says better.
func (s *Store) fail(op, name string, err error) error {
	e := &store.Error{Op: op, Name: name, Store: s.path, Err: cause(err)}
	for _, kind := range []error{store.ErrNotFound, store.ErrExists, store.ErrTooLarge, store.ErrName} {
		if errors.Is(err, kind) {
			return e
		}
	}
	read := op == "read" || op == "stat" || op == "list"
	var number syscall.Errno
	switch {
	case missing(err) && (read || op == "delete"):
		e.Kind, e.Err = store.ErrNotFound, nil
	case errors.Is(err, syscall.ENOTDIR):
		e.Err = errors.New("a directory of its name is an object")
	case errors.Is(err, fs.ErrNotExist):
		e.Err = errors.New("its temporary file or its directory was removed meanwhile")
		e.Fix = "let nothing else change what lies in the directory, then run it again"
	case strings.Contains(err.Error(), "path escapes from parent"):
		e.Err = errors.New("a symbolic link leads out of the directory")
		e.Fix = "mount what it leads to in its place (mount --bind), or open the directory that holds both"
	case !errors.As(err, &number):
	case number == syscall.ENOSPC || number == syscall.EDQUOT:
		e.Kind, e.Fix = store.ErrFull, "free some space or raise the quota, then run it again; what was stored stays"
	case number == syscall.EROFS:
		e.Kind, e.Fix = store.ErrReadOnly, "mount the file system for writing; it may have gone read-only after an error, see the kernel's log"
	case (number == syscall.EACCES || number == syscall.EPERM) && !read:
		e.Kind, e.Fix = store.ErrReadOnly, "check the owner and the permissions of the directory"
	case number == syscall.EACCES || number == syscall.EPERM:
		e.Fix = "check the owner and the permissions of the file and of the directories above it"
	case number == syscall.EIO:
		e.Fix = "the disk may be failing: see the kernel's log"
	case number == syscall.EMFILE || number == syscall.ENFILE || number == syscall.ESTALE ||
		number == syscall.ETIMEDOUT || number == syscall.EAGAIN || number == syscall.ENOBUFS:
		e.Kind = store.ErrTemporary
	}
	return e
}

// openError makes the error of opening or creating the root directory.
func openError(op, path string, err error) error {
	e := &store.Error{Op: op + " storage", Store: path, Err: cause(err)}
	switch {
	case errors.Is(err, store.ErrExists):
		e.Fix = "give another path, or open what is there"
	case errors.Is(err, syscall.ENOTDIR):
		e.Err, e.Fix = errors.New("it is not a directory"), "check the path"
	case errors.Is(err, fs.ErrNotExist) && op == "create":
		e.Kind, e.Err = store.ErrNotFound, errors.New("the directory above it does not exist")
		e.Fix = "check the path and that its disk is mounted; then make the directory above it"
	case errors.Is(err, fs.ErrNotExist):
		e.Kind, e.Err = store.ErrNotFound, errors.New("there is no such directory")
		e.Fix = "check the path and that its disk is mounted"
	case errors.Is(err, fs.ErrPermission):
		e.Fix = "check the owner and the permissions of the directory"
	}
	return e
}

// missing says whether an error means that there is no file of that name.
func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ENAMETOOLONG)
}

// cause returns what is below the errors that name paths.
func cause(err error) error {
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		return path.Err
	case errors.As(err, &link):
		return link.Err
	}
	return err
}
