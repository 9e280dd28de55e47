//go:build linux

package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/bk-backup/bk/format"
)

// Rehearse finds out what a restore into target would lose. It makes everything
// but content in a directory of its own on the same file system: in target, or
// where that is missing in the nearest directory above it that is there; and
// takes it away again. Files get holes for content, which take no space. src is
// an export with ListingOnly of what is to be restored; of the options it looks
// at Prefix and those about owners.
//
// What the content itself would lose is not known: names of one file that turn
// out to differ, and holes.
func Rehearse(ctx context.Context, target string, src format.Source, opts RestoreOptions) (losses []format.Loss, err error) {
	above, err := nearestDir(target)
	if err != nil {
		return nil, fmt.Errorf("rehearse a restore: %w", err)
	}
	// Nobody else gets at what is made with the modes that it is to have.
	stage, err := os.MkdirTemp(above, ".bk-rehearsal-")
	if err != nil {
		return nil, ofTarget(target, fmt.Errorf("rehearse a restore: %w", err))
	}
	defer func() {
		err = ofTarget(target, err) // stage will be gone
		if errRemove := removeTree(above, filepath.Base(stage)); errRemove != nil {
			err = errors.Join(err, fmt.Errorf("take away what a restore was rehearsed with: %w", errRemove))
		}
	}()
	sink, err := NewRestore(ctx, filepath.Join(stage, "target"), RestoreOptions{
		Overwrite: OverwriteAlways, Prefix: opts.Prefix, NumericOwner: opts.NumericOwner,
		LookupUser: opts.LookupUser, LookupGroup: opts.LookupGroup,
		Workers: opts.Workers, MemoryChunks: opts.MemoryChunks, Log: opts.Log, OnProgress: opts.OnProgress,
	})
	if err != nil {
		return nil, err
	}
	err = format.Copy(ctx, sink, src, zeros{})
	if errClose := sink.Close(); err == nil {
		err = errClose
	}
	return sink.Summary().Losses, err
}

// nearestDir returns target or the next directory above that is there.
func nearestDir(target string) (string, error) {
	dir, err := filepath.Abs(target)
	if err != nil {
		return "", err
	}
	for {
		info, err := os.Stat(dir)
		switch {
		case err == nil && !info.IsDir():
			return "", fmt.Errorf("%s is not a directory", dir)
		case err == nil:
			return dir, nil
		case !errors.Is(err, os.ErrNotExist):
			return "", err
		}
		dir = filepath.Dir(dir)
	}
}

// removeTree removes name and all below it from a directory, flags or not.
func removeTree(dir, name string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	c := clearer{soft: true, visit: func(int, string, string, *unix.Stat_t) (keep, gone bool, err error) { return false, false, nil }}
	left, err := c.remove(fd, name, name)
	if err == nil && left {
		err = fmt.Errorf("%s could not be emptied", filepath.Join(dir, name))
	}
	return err
}

// zeros gives files the content that a listing lacks: a hole of their size.
type zeros struct{}

// Process implements format.Stage.
func (zeros) Process(rec format.Record, emit func(format.Record) error) error {
	if eof, ok := rec.(*format.EOF); ok && eof.Size > 0 {
		if err := emit(&format.Hole{Size: eof.Size}); err != nil {
			return err
		}
		rec = &format.EOF{Size: eof.Size}
	}
	return emit(rec)
}
