// Package dir is object storage in a directory of a local or mounted file
// system. Each object is a file below the root whose path is the object's name;
// tmp/ has files that are still being written.
//
// Start reading at [Store], then [Store.Create], where durability is made. The
// package imports package store alone; programs import it to open storage, and
// tests may.
package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/bk-backup/bk/repo/store"
)

// Options has what can be chosen about a directory. The zero value is good.
type Options struct {
	// OpenFilesMax is how many files ReadAt keeps open between calls; 0 means 64.
	OpenFilesMax int
}

// Store is a store.Store in a directory. Nothing is ever read or written
// outside that directory: a symbolic link that leads out of it is an error.
// Symbolic links within it are followed.
//
// Files are made with the root directory's permission to read, without any to
// write, and directories with all of the root directory's permissions, both
// less the umask; so a root that a group can read gives a repository that the
// group can read.
type Store struct {
	path  string
	place string
	root  *os.Root
	top   *os.File // the root directory itself
	perm  fs.FileMode
	files *files
	syncs *syncs
	// linksOnly makes publish do without renaming, as it has to on some file
	// systems. Tests set it.
	linksOnly bool

	mu    sync.Mutex
	known map[string]bool // directories whose path is known to be durable
}

// Open opens a directory that exists. It creates nothing, and a Store that is
// only read never writes, so a directory on a read-only file system will do.
func Open(path string, options Options) (*Store, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, openError("open", path, err)
	}
	top, err := root.Open(".")
	if err != nil {
		root.Close()
		return nil, openError("open", path, err)
	}
	info, err := top.Stat()
	if err != nil {
		top.Close()
		root.Close()
		return nil, openError("open", path, err)
	}
	if options.OpenFilesMax <= 0 {
		options.OpenFilesMax = 64
	}
	return &Store{
		path:  path,
		place: placeOf(path),
		root:  root,
		top:   top,
		perm:  info.Mode().Perm() | 0o700,
		files: newFiles(options.OpenFilesMax),
		syncs: newSyncs((*os.File).Sync),
		known: map[string]bool{".": true},
	}, nil
}

// Create makes a directory, or takes an empty one, and opens it. Directories
// above it must exist: if a disk is not mounted, nothing is to be written to
// the place where it belongs.
func Create(path string, options Options) (*Store, error) {
	err := os.Mkdir(path, 0o700)
	switch {
	case err == nil:
		err = syncDirectory(filepath.Dir(filepath.Clean(path)))
	case errors.Is(err, fs.ErrExist):
		err = checkEmpty(path)
	}
	if err != nil {
		return nil, openError("create", path, err)
	}
	return Open(path, options)
}

// placeOf returns the one name of a directory that does not change with the
// working directory, or the spelling.
func placeOf(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	return path
}

// Place returns the directory's absolute path, without symbolic links, as it was
// when it was opened.
func (s *Store) Place() string { return s.place }

// Scheme opens and creates directories for store.Open and store.Create.
func Scheme(options Options) store.Scheme {
	return store.Scheme{
		Open: func(_ context.Context, path string) (store.Store, error) {
			s, err := Open(path, options)
			if err != nil {
				return nil, err
			}
			return s, nil
		},
		Create: func(_ context.Context, path string) (store.Store, error) {
			s, err := Create(path, options)
			if err != nil {
				return nil, err
			}
			return s, nil
		},
	}
}

// String returns the path as it was given.
func (s *Store) String() string { return s.path }

// Close closes all files. Calls that come later fail.
func (s *Store) Close() error {
	s.files.close()
	err := errors.Join(s.top.Close(), s.root.Close())
	if errors.Is(err, fs.ErrClosed) {
		return nil
	}
	return err
}

// Now returns the time that the file system gives to a new file. It need not
// be the system's clock, on a network file system for example.
func (s *Store) Now(ctx context.Context) (time.Time, error) {
	if err := ctx.Err(); err != nil {
		return time.Time{}, s.fail("read clock of", "", err)
	}
	f, temporary, err := s.createTemporary()
	if err != nil {
		return time.Time{}, s.fail("read clock of", "", err)
	}
	info, err := f.Stat()
	if err := errors.Join(err, f.Close(), s.root.Remove(temporary)); err != nil {
		return time.Time{}, s.fail("read clock of", "", err)
	}
	return info.ModTime().UTC(), nil
}

// hidden says whether a name in the root directory is not part of the storage.
// A file system has lost+found in its root directory, which only root can read.
func hidden(name string) bool {
	return name == store.TemporaryDir || name == "lost+found"
}

func checkEmpty(path string) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != "lost+found" {
			return fmt.Errorf("%w and is not empty: it has %s", store.ErrExists, e.Name())
		}
	}
	return nil
}

func syncDirectory(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
