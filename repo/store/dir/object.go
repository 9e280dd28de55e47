package dir

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"syscall"
	"time"

	"github.com/bk-backup/bk/repo/store"
)

// Create stores an object. The file is written to tmp/ and made durable there,
// then it gets its name, and then its directory is made durable: so nobody sees
// a part of it, not even after a crash.
func (s *Store) Create(ctx context.Context, name string, data ...[]byte) error {
	if err := cmp.Or(ctx.Err(), store.CheckName(name)); err != nil {
		return s.fail("create", name, err)
	}
	if err := s.create(ctx, name, data); err != nil {
		return s.fail("create", name, err)
	}
	return nil
}

func (s *Store) create(ctx context.Context, name string, data [][]byte) error {
	directory, err := s.directory(path.Dir(name))
	if err != nil {
		return err
	}
	defer directory.Close()
	if _, err := s.root.Lstat(name); err == nil {
		return s.exists(name, directory)
	}
	temporary, err := s.writeTemporary(data)
	if err != nil {
		return err
	}
	err = ctx.Err()
	if err == nil {
		err = s.publish(temporary, directory, name)
	}
	if err != nil {
		s.root.Remove(temporary)
		if errors.Is(err, fs.ErrExist) {
			return s.exists(name, directory)
		}
		return err
	}
	return s.syncs.sync(path.Dir(name), directory)
}

// exists returns the error for a name that is taken. Whoever took it may not
// have made the directory durable yet, but the caller will rely on the object.
func (s *Store) exists(name string, directory *os.File) error {
	info, err := s.root.Lstat(name)
	if err == nil && info.IsDir() {
		return errors.New("there is a directory of that name")
	}
	if err := s.syncs.sync(path.Dir(name), directory); err != nil {
		return err
	}
	return store.ErrExists
}

// writeTemporary writes a durable file to tmp/ and returns its path.
func (s *Store) writeTemporary(data [][]byte) (string, error) {
	f, temporary, err := s.createTemporary()
	if err != nil {
		return "", err
	}
	for _, part := range data {
		if _, err = f.Write(part); err != nil {
			break
		}
	}
	if err == nil {
		err = s.syncs.file(f)
	}
	// A network file system may say only here that the data did not arrive.
	if err := cmp.Or(err, f.Close()); err != nil {
		s.root.Remove(temporary)
		return "", err
	}
	return temporary, nil
}

func (s *Store) createTemporary() (*os.File, string, error) {
	temporary := store.TemporaryDir + "/" + rand.Text()
	for made := false; ; made = true {
		f, err := s.root.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, s.perm&0o444)
		if made || !errors.Is(err, fs.ErrNotExist) {
			return f, temporary, err
		}
		if err := s.root.Mkdir(store.TemporaryDir, s.perm); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, "", err
		}
	}
}

// publish gives a temporary file its name, unless that is taken.
func (s *Store) publish(temporary string, directory *os.File, name string) error {
	if !s.linksOnly {
		err := renameNoReplace(s.top, temporary, directory, path.Base(name))
		if !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	err := s.root.Link(temporary, name)
	if errors.Is(err, fs.ErrExist) && s.same(temporary, name) {
		// A network file system repeated the request after its answer was lost.
		err = nil
	}
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EPERM) {
		return fmt.Errorf("the file system can neither rename without replacing nor make hard links: %w", cause(err))
	}
	if err == nil {
		// If this fails, a second name of the object stays in tmp/ and is
		// removed as any leftover is.
		s.root.Remove(temporary)
	}
	return err
}

func (s *Store) same(a, b string) bool {
	infoA, errA := s.root.Lstat(a)
	infoB, errB := s.root.Lstat(b)
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}

// directory opens a directory and makes it, if need be, with those above it. On
// the first use of a directory its path is made durable even if it is there,
// since whoever made it may have crashed before doing so.
func (s *Store) directory(name string) (*os.File, error) {
	s.mu.Lock()
	known := s.known[name]
	s.mu.Unlock()
	if known {
		directory, err := s.root.Open(name)
		if !errors.Is(err, fs.ErrNotExist) {
			return directory, err
		}
	}
	if name == "." {
		return nil, errors.New("the directory of the storage was removed")
	}
	above, err := s.directory(path.Dir(name))
	if err != nil {
		return nil, err
	}
	defer above.Close()
	if err := s.root.Mkdir(name, s.perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if err := s.syncs.sync(path.Dir(name), above); err != nil {
		return nil, err
	}
	directory, err := s.root.Open(name)
	if err != nil {
		return nil, err
	}
	if info, err := directory.Stat(); err != nil || !info.IsDir() {
		directory.Close()
		return nil, cmp.Or(err, error(syscall.ENOTDIR))
	}
	s.mu.Lock()
	s.known[name] = true
	s.mu.Unlock()
	return directory, nil
}

// Delete removes an object.
func (s *Store) Delete(ctx context.Context, name string) error {
	if err := s.checkRead(ctx, name); err != nil {
		return s.fail("delete", name, err)
	}
	if err := s.delete(name); err != nil {
		return s.fail("delete", name, err)
	}
	return nil
}

func (s *Store) delete(name string) error {
	if _, err := s.stat(name); err != nil {
		return err
	}
	directory, err := s.root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer directory.Close()
	err = s.root.Remove(name)
	s.files.forget(name)
	if err != nil {
		return err
	}
	return s.syncs.sync(path.Dir(name), directory)
}

// ReadAt fills p from offset off of an object.
func (s *Store) ReadAt(ctx context.Context, name string, p []byte, off int64) error {
	if err := s.checkRead(ctx, name); err != nil {
		return s.fail("read", name, err)
	}
	if off < 0 {
		return s.fail("read", name, errors.New("negative offset"))
	}
	f, err := s.files.use(name, func() (*os.File, error) {
		f, _, err := s.open(name)
		return f, err
	})
	if err != nil {
		return s.fail("read", name, err)
	}
	defer s.files.done(f)
	if len(p) == 0 {
		info, err := f.Stat()
		if err == nil && off > info.Size() {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return s.fail("read", name, err)
		}
		return nil
	}
	if off > math.MaxInt64-int64(len(p)) {
		return s.fail("read", name, io.ErrUnexpectedEOF)
	}
	n, err := f.ReadAt(p, off)
	switch {
	case n == len(p):
		return nil
	case err == io.EOF:
		return s.fail("read", name, io.ErrUnexpectedEOF)
	}
	s.files.forget(name) // another try gets a new file
	return s.fail("read", name, err)
}

// Get returns a whole object.
func (s *Store) Get(ctx context.Context, name string, sizeMax int64) ([]byte, error) {
	if err := s.checkRead(ctx, name); err != nil {
		return nil, s.fail("read", name, err)
	}
	f, info, err := s.open(name)
	if err != nil {
		return nil, s.fail("read", name, err)
	}
	defer f.Close()
	if info.Size() > sizeMax {
		return nil, s.fail("read", name, fmt.Errorf("%w: %d bytes, at most %d are expected", store.ErrTooLarge, info.Size(), sizeMax))
	}
	data := make([]byte, info.Size())
	if _, err := io.ReadFull(f, data); err != nil {
		if err == io.EOF { // it became shorter
			err = io.ErrUnexpectedEOF
		}
		return nil, s.fail("read", name, err)
	}
	return data, nil
}

// Stat describes an object.
func (s *Store) Stat(ctx context.Context, name string) (store.Info, error) {
	if err := s.checkRead(ctx, name); err != nil {
		return store.Info{}, s.fail("stat", name, err)
	}
	info, err := s.stat(name)
	if err != nil {
		return store.Info{}, s.fail("stat", name, err)
	}
	return describe(name, info), nil
}

// stat returns what the file system says about an object.
func (s *Store) stat(name string) (fs.FileInfo, error) {
	info, err := s.root.Stat(name)
	if err == nil && !info.Mode().IsRegular() {
		return nil, fs.ErrNotExist
	}
	return info, err
}

// open opens the file of an object. It does not wait for a writer if the name
// is that of a pipe.
func (s *Store) open(name string) (*os.File, fs.FileInfo, error) {
	f, err := s.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

func (s *Store) checkRead(ctx context.Context, name string) error {
	if err := cmp.Or(ctx.Err(), store.CheckReadName(name)); err != nil {
		return err
	}
	if hidden(first(name)) {
		return fs.ErrNotExist
	}
	return nil
}

func describe(name string, info fs.FileInfo) store.Info {
	return store.Info{Name: name, Size: info.Size(), Created: info.ModTime().UTC()}
}

// Clean removes the files in tmp/ that writers left behind when they were
// killed, as far as they are older than ageMin, and returns their number.
func (s *Store) Clean(ctx context.Context, ageMin time.Duration) (int, error) {
	now, err := s.Now(ctx)
	if err != nil {
		return 0, err
	}
	entries, err := fs.ReadDir(s.root.FS(), store.TemporaryDir)
	if err != nil {
		return 0, s.fail("clean", store.TemporaryDir+"/", err)
	}
	removed := 0
	for _, entry := range entries {
		name := store.TemporaryDir + "/" + entry.Name()
		info, err := s.root.Lstat(name)
		if err == nil && info.Mode().IsRegular() && now.Sub(info.ModTime()) > ageMin {
			if err = s.root.Remove(name); err == nil {
				removed++
			}
		}
		// What is gone meanwhile was published or cleaned by someone else.
		if err := cmp.Or(ctx.Err(), err); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return removed, s.fail("clean", name, err)
		}
	}
	return removed, nil
}
