package dir

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// renameNoReplace renames a file, unless there is one of the new name. It
// fails with errors.ErrUnsupported where the kernel or the file system cannot.
func renameNoReplace(from *os.File, old string, to *os.File, name string) error {
	err := control(from, func(fromFd int) error {
		return control(to, func(toFd int) error {
			return unix.Renameat2(fromFd, old, toFd, name, unix.RENAME_NOREPLACE)
		})
	})
	if errors.Is(err, unix.EINVAL) { // the file system does not know the flag
		return errors.ErrUnsupported
	}
	return err
}

func control(f *os.File, fn func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var fnErr error
	if err := conn.Control(func(fd uintptr) { fnErr = fn(int(fd)) }); err != nil {
		return err
	}
	return fnErr
}
