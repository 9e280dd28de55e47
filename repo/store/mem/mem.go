// Package mem is object storage in memory, for tests. Its clock can be set, its
// content can be copied, and an object can be damaged. Start reading at
// [Store]. It imports package store alone; tests of any package may import it.
package mem

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bk-backup/bk/repo/store"
)

// listRun is how many objects a listing takes at a time while it holds the lock.
const listRun = 256

// Store is a store.Store in memory. The zero value is not usable: use New.
// Close does nothing, so that a test can close and open "the same storage"
// again as a program does.
type Store struct {
	mu      sync.Mutex
	now     func() time.Time
	objects map[string]object
	names   []string // the keys of objects, sorted
}

type object struct {
	data    []byte // never modified once it is here
	created time.Time
}

// New returns empty storage with the system's clock.
func New() *Store {
	return &Store{now: time.Now, objects: map[string]object{}}
}

// SetClock makes now the storage's clock.
func (s *Store) SetClock(now func() time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = now
}

// Clone returns a copy that shares nothing that can change, with the same clock.
func (s *Store) Clone() *Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &Store{now: s.now, objects: maps.Clone(s.objects), names: slices.Clone(s.names)}
}

// Damage replaces an object's content by what change makes of a copy of it, as
// failing storage could, and says whether there is such an object.
func (s *Store) Damage(name string, change func(data []byte) []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[name]
	if ok {
		o.data = change(bytes.Clone(o.data))
		s.objects[name] = o
	}
	return ok
}

// String returns "memory".
func (s *Store) String() string { return "memory" }

// Close does nothing.
func (s *Store) Close() error { return nil }

// Now returns the time by the storage's clock.
func (s *Store) Now(ctx context.Context) (time.Time, error) {
	if err := ctx.Err(); err != nil {
		return time.Time{}, s.fail("read clock of", "", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now().Round(0).UTC(), nil
}

// Create stores an object. It refuses a name that would make another one a
// directory, so that tests notice a layout which a file system cannot hold.
func (s *Store) Create(ctx context.Context, name string, data ...[]byte) error {
	if err := cmp.Or(ctx.Err(), store.CheckName(name)); err != nil {
		return s.fail("create", name, err)
	}
	whole := bytes.Join(data, nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	i, found := slices.BinarySearch(s.names, name)
	if found {
		return s.fail("create", name, store.ErrExists)
	}
	below, _ := slices.BinarySearch(s.names, name+"/")
	if below < len(s.names) && strings.HasPrefix(s.names[below], name+"/") {
		return s.fail("create", name, errors.New("there are objects below that name"))
	}
	for j := range len(name) {
		if name[j] == '/' {
			if _, ok := s.objects[name[:j]]; ok {
				return s.fail("create", name, errors.New(name[:j]+" is an object and cannot be a directory"))
			}
		}
	}
	s.objects[name] = object{whole, s.now().Round(0).UTC()}
	s.names = slices.Insert(s.names, i, name)
	return nil
}

// Delete removes an object.
func (s *Store) Delete(ctx context.Context, name string) error {
	if err := cmp.Or(ctx.Err(), store.CheckReadName(name)); err != nil {
		return s.fail("delete", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i, found := slices.BinarySearch(s.names, name)
	if !found {
		return s.fail("delete", name, store.ErrNotFound)
	}
	delete(s.objects, name)
	s.names = slices.Delete(s.names, i, i+1)
	return nil
}

// ReadAt fills p from offset off of an object.
func (s *Store) ReadAt(ctx context.Context, name string, p []byte, off int64) error {
	o, err := s.find(ctx, "read", name)
	if err != nil {
		return err
	}
	if off < 0 {
		return s.fail("read", name, errors.New("negative offset"))
	}
	if off > int64(len(o.data))-int64(len(p)) {
		return s.fail("read", name, io.ErrUnexpectedEOF)
	}
	copy(p, o.data[off:])
	return nil
}

// Get returns a copy of a whole object.
func (s *Store) Get(ctx context.Context, name string, sizeMax int64) ([]byte, error) {
	o, err := s.find(ctx, "read", name)
	if err != nil {
		return nil, err
	}
	if int64(len(o.data)) > sizeMax {
		return nil, s.fail("read", name, store.ErrTooLarge)
	}
	return append([]byte{}, o.data...), nil
}

// Stat describes an object.
func (s *Store) Stat(ctx context.Context, name string) (store.Info, error) {
	o, err := s.find(ctx, "stat", name)
	if err != nil {
		return store.Info{}, err
	}
	return store.Info{Name: name, Size: int64(len(o.data)), Created: o.created}, nil
}

// List calls fn for the objects below prefix, in order. It holds no lock then.
func (s *Store) List(ctx context.Context, prefix string, fn func(store.Info) error) error {
	if err := store.CheckPrefix(prefix); err != nil {
		return s.fail("list", prefix, err)
	}
	for from := prefix; ; {
		run := s.run(prefix, from)
		for _, info := range run {
			if err := ctx.Err(); err != nil {
				return s.fail("list", prefix, err)
			}
			if err := fn(info); err != nil {
				return err
			}
		}
		if len(run) < listRun {
			return nil
		}
		from = run[listRun-1].Name + "\x00"
	}
}

// run describes the first objects below prefix that do not come before from.
func (s *Store) run(prefix, from string) []store.Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, _ := slices.BinarySearch(s.names, from)
	var run []store.Info
	for _, name := range s.names[i:] {
		if !strings.HasPrefix(name, prefix) || len(run) == listRun {
			break
		}
		o := s.objects[name]
		run = append(run, store.Info{Name: name, Size: int64(len(o.data)), Created: o.created})
	}
	return run
}

func (s *Store) find(ctx context.Context, op, name string) (object, error) {
	if err := cmp.Or(ctx.Err(), store.CheckReadName(name)); err != nil {
		return object{}, s.fail(op, name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[name]
	if !ok {
		return object{}, s.fail(op, name, store.ErrNotFound)
	}
	return o, nil
}

func (s *Store) fail(op, name string, err error) error {
	return &store.Error{Op: op, Name: name, Store: s.String(), Err: err}
}
