//go:build !linux

package dir

import (
	"errors"
	"os"
)

// renameNoReplace is not to be had everywhere; Store.publish has another way.
func renameNoReplace(*os.File, string, *os.File, string) error { return errors.ErrUnsupported }
