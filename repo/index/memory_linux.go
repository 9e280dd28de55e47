package index

import (
	"os"

	"golang.org/x/sys/unix"
)

// memoryFile makes a file that lies in memory and ends with the program.
func memoryFile() (*os.File, error) {
	fd, err := unix.MemfdCreate("bk-index", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	return os.NewFile(uintptr(fd), "an index in memory"), nil
}
