package store

import (
	"errors"
	"strings"
)

// These are the kinds of failure that callers tell apart, with errors.Is.
var (
	// ErrNotFound: there is no object of that name (or no storage at that place).
	ErrNotFound = errors.New("not found")
	// ErrExists: an object of that name is there already.
	ErrExists = errors.New("exists already")
	// ErrTooLarge: the object is longer than the caller accepts.
	ErrTooLarge = errors.New("larger than allowed")
	// ErrReadOnly: the storage, or the right to it, is for reading only.
	ErrReadOnly = errors.New("storage cannot be written")
	// ErrFull: the storage, or the quota on it, is used up.
	ErrFull = errors.New("storage is full")
	// ErrName: the name or prefix cannot be the name of an object.
	ErrName = errors.New("invalid name")
	// ErrTemporary: the same call may succeed later; see Retry.
	ErrTemporary = errors.New("temporary failure")
)

// Error is a failed operation on a store.
type Error struct {
	Op    string // what was attempted: "create", "read", "stat", "list", "delete", "read clock of", "open"
	Name  string // the object or prefix; empty if it concerns the whole store
	Store string // the store, as its String method has it
	Kind  error  // one of the sentinels of this package, or nil
	Err   error  // the cause; may be nil if Kind says all
	Fix   string // what a person can do about it; may be empty
}

// Error says in one line what was attempted, on what, and why it failed. It
// does not contain Fix.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Name != "" {
		b.WriteString(" " + e.Name + " in")
	}
	if e.Store != "" {
		b.WriteString(" " + e.Store)
	}
	for _, err := range e.Unwrap() {
		b.WriteString(": " + err.Error())
	}
	return b.String()
}

// Unwrap returns Kind and Err, as far as they are set.
func (e *Error) Unwrap() []error {
	var errs []error
	for _, err := range []error{e.Kind, e.Err} {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}
