package store

import (
	"context"
	"time"
)

// ReadOnly returns a store that reads what r holds and refuses to change it,
// with ErrReadOnly. It refuses Now as well, since some storage has to be
// written to tell its time. Closing it closes r.
func ReadOnly(r Reader) Store { return readOnly{r} }

type readOnly struct{ Reader }

func (s readOnly) Create(_ context.Context, name string, _ ...[]byte) error {
	return s.refuse("create", name)
}

func (s readOnly) Delete(_ context.Context, name string) error {
	return s.refuse("delete", name)
}

func (s readOnly) Now(context.Context) (time.Time, error) {
	return time.Time{}, s.refuse("read clock of", "")
}

func (s readOnly) refuse(op, name string) error {
	return &Error{Op: op, Name: name, Store: s.String(), Kind: ErrReadOnly, Fix: "it was opened for reading only; open it for writing"}
}
