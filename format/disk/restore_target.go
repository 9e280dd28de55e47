//go:build linux

package disk

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// TargetError is what ends a restore because nothing more can be written to its
// target: the file system is full, or must not be written to. Files that were not
// complete then are no losses: they are missing as those are that had not begun.
type TargetError struct {
	Target string // as the caller named it
	Err    error  // names the path at which it was noticed
}

// Error implements error.
func (e *TargetError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *TargetError) Unwrap() error { return e.Err }

// FixText says what to do.
func (e *TargetError) FixText() string {
	const again = " and run the same again: it goes on from there"
	switch {
	case errors.Is(e.Err, unix.EROFS):
		return fmt.Sprintf("make the file system of %s writable (mount -o remount,rw), or restore into a directory elsewhere", e.Target)
	case errors.Is(e.Err, unix.EDQUOT):
		return fmt.Sprintf("make room in the quota on the file system of %s, or have it raised,%s", e.Target, again)
	}
	return fmt.Sprintf("make room on the file system of %s (df shows the space, df -i the number of files that it still takes)%s", e.Target, again)
}

// stops reports whether an error concerns the target as a whole, so that going
// on would only repeat it.
func stops(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EROFS)
}

// stopFor ends the whole restore where an error is about the target as a whole.
func (r *Restore) stopFor(f *outFile, err error) {
	if stops(err) {
		r.cancel(fmt.Errorf("restore %s: %w", r.show(f.path), err))
	}
}

// ofTarget makes a TargetError of an error that stops a restore, wherever that
// came from: tables and chunks that are kept aside lie in the target, too.
func ofTarget(target string, err error) error {
	if !stops(err) {
		return err
	}
	return &TargetError{Target: target, Err: err}
}
