// Package store is object storage behind one small interface: immutable objects
// under slash-separated names. It holds the interface ([Reader], [Store]), the
// errors, the names, and what wraps or finds a store of any kind ([ReadOnly],
// [Retry], [Open]).
//
// Start reading at [Store]. The implementations are packages below this one
// (dir, mem); storetest has the suite that each of them passes and the means to
// make storage fail. Package store imports nothing of this module. Everything
// that reads or writes a repository may import it: repo and what is below it,
// format/* for foreign repositories (which need only a Reader), and programs.
package store

import (
	"context"
	"time"
)

// Info describes an object.
type Info struct {
	Name string
	Size int64 // bytes
	// Created is the time at which the storage received the object, by the
	// storage's clock (the one of [Store.Now]), in UTC. Its resolution is the
	// storage's; a second is the coarsest that is allowed.
	Created time.Time
}

// Reader reads objects. All methods may be called concurrently, and none
// touches a buffer that it was given once it has returned. Errors have an
// *[Error] in their chain, but for those of callbacks.
//
// A Reader takes names as they are on storage (see [CheckReadName]), so that
// foreign repositories can be read.
type Reader interface {
	// ReadAt fills p from offset off of an object. It fails with
	// io.ErrUnexpectedEOF if the object ends before off+len(p), and then the
	// content of p is not defined; with ErrNotFound if there is no such object.
	// An object that another process deleted may stay readable for a while.
	ReadAt(ctx context.Context, name string, p []byte, off int64) error

	// Get returns a whole object, which the caller may then modify. It fails
	// with ErrTooLarge, before it allocates, if the object is longer than
	// sizeMax bytes, and with ErrNotFound if there is none.
	Get(ctx context.Context, name string, sizeMax int64) ([]byte, error)

	// Stat describes an object without reading it, or fails with ErrNotFound.
	Stat(ctx context.Context, name string) (Info, error)

	// List calls fn for every object whose name begins with prefix, in
	// ascending bytewise order of the whole names. prefix is empty or ends in
	// "/"; that nothing lies below it is no error. Listings can be long: they
	// are streamed, and fn may use the store meanwhile. An object created or
	// deleted during the call may or may not be seen; every other one is seen
	// once. An error of fn ends the listing and is returned as it is.
	List(ctx context.Context, prefix string, fn func(Info) error) error

	// String says in messages which storage this is, without any secret.
	String() string

	// Close releases what the store holds open. It may be called again.
	Close() error
}

// Store also creates and deletes objects. Objects are never overwritten and
// never renamed, so that any object storage can be a Store.
type Store interface {
	Reader

	// Create stores an object under a name that does not exist yet, and
	// returns after it is durable. If there is an object of that name already
	// it fails with ErrExists, and that object is durable too; of concurrent
	// creators exactly one succeeds. Nobody ever sees a part of an object.
	// The object is what the parts of data are together; they are only read, and
	// not after the call. After any other error the object may or may not exist,
	// and exists whole if it does.
	//
	// The name must satisfy CheckName, and no name may be a directory of
	// another one: with an object "a" there must be no "a/b". Storage may
	// refuse the second; the first stays what it was.
	Create(ctx context.Context, name string, data ...[]byte) error

	// Delete removes an object and returns after that is durable, or fails
	// with ErrNotFound. A name that was deleted should not be used again:
	// other processes may still see its former content.
	Delete(ctx context.Context, name string) error

	// Now returns the time by the storage's clock, in UTC. It can be compared
	// with Info.Created: an object created after the call is not older than
	// the result, but for the resolution of the clock. It may cost a write.
	Now(ctx context.Context) (time.Time, error)
}

// Cleaner is a store that can leave something behind when a writer is killed.
// Leftovers are never listed and never read; they only take up space.
type Cleaner interface {
	// Clean removes leftovers that are older than ageMin by the storage's
	// clock, and returns their number. A writer whose temporary file is taken
	// away fails, so ageMin should exceed the time that writing an object can
	// take by far: LeftoverAge is meant for it.
	Clean(ctx context.Context, ageMin time.Duration) (int, error)
}

// Place returns what tells one storage from another, however it was named when it
// was opened: for a directory the absolute path without symbolic links, otherwise
// what String says.
func Place(s Store) string {
	for {
		if p, ok := s.(interface{ Place() string }); ok {
			return p.Place()
		}
		w, ok := s.(interface{ Unwrap() Store })
		if !ok {
			return s.String()
		}
		s = w.Unwrap()
	}
}

// LeftoverAge is the age from which leftovers are taken for abandoned.
const LeftoverAge = 24 * time.Hour

// Clean removes the leftovers of s, or of the store that it wraps, and returns
// their number. A store that leaves nothing behind is not an error.
func Clean(ctx context.Context, s Store, ageMin time.Duration) (int, error) {
	for {
		if c, ok := s.(Cleaner); ok {
			return c.Clean(ctx, ageMin)
		}
		w, ok := s.(interface{ Unwrap() Store })
		if !ok {
			return 0, nil
		}
		s = w.Unwrap()
	}
}
