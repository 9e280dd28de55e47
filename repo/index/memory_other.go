//go:build !linux

package index

import (
	"errors"
	"os"
)

// memoryFile is for Linux only.
func memoryFile() (*os.File, error) { return nil, errors.ErrUnsupported }
