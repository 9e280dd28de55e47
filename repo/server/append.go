package server

import (
	"context"
	"errors"

	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
)

// AppendOnly returns a store in which what a backup or an import does succeeds,
// and nothing else: packs, indexes, snapshots, sessions and notes about
// unfinished imports are created, and of these only sessions and notes deleted.
// Nothing that is committed can be deleted, forgotten, condemned or put out of
// sight, and no credential or key can be changed. Closing it closes s.
func AppendOnly(s store.Store) store.Store { return &appendOnly{s} }

type appendOnly struct{ store.Store }

// MayCreate says why an object of that name is not to be created, nil if it may.
func (a *appendOnly) MayCreate(name string) error {
	switch n, ok := seal.ParseName(name); {
	case !ok:
	case n.Kind.IsPack(), n.Kind == seal.KindIndex, n.Kind == seal.KindSession, n.Kind == seal.KindPartial:
		return nil
	case n.Kind == seal.KindSnapshot && n.Resealed == 0:
		return nil // one that was sealed again would stand before the first
	}
	return a.refuse("create", name)
}

func (a *appendOnly) Create(ctx context.Context, name string, data ...[]byte) error {
	if err := a.MayCreate(name); err != nil {
		return err
	}
	return a.Store.Create(ctx, name, data...)
}

func (a *appendOnly) Delete(ctx context.Context, name string) error {
	if n, ok := seal.ParseName(name); !ok || n.Kind != seal.KindSession && n.Kind != seal.KindPartial {
		return a.refuse("delete", name)
	}
	return a.Store.Delete(ctx, name)
}

func (a *appendOnly) refuse(op, name string) error {
	return &store.Error{Op: op, Name: name, Store: a.String(), Kind: store.ErrReadOnly, Err: errors.New("this access may only add backups")}
}
