package restic

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/bk-backup/bk/repo/store"
)

// lostError is that of a blob which is neither where it should be nor anywhere
// else, because it is missing or damaged. Where storage failed otherwise at any of
// its places there is none: such trouble may pass.
type lostError struct{ err error }

func (e *lostError) Error() string { return e.err.Error() }
func (e *lostError) Unwrap() error { return e.err }

func isLost(err error) bool {
	var lost *lostError
	return errors.As(err, &lost)
}

// isDamage reports whether an error says that an object is missing, too short, or
// not what was stored.
func isDamage(err error) bool {
	return errors.Is(err, ErrDamaged) || errors.Is(err, store.ErrNotFound) || errors.Is(err, io.ErrUnexpectedEOF)
}

// fetchSound is fetch of content that calls lost for each blob that is damaged or
// missing, and goes on.
func (r *Repository) fetchSound(ctx context.Context, list []want, fn func(*want, []byte) error, lost func(*want, error)) error {
	// A blob that is sealed rightly and is not what it should be, either.
	load := func(w *want, opened []byte) error {
		err := fn(w, opened)
		if errors.Is(err, ErrDamaged) {
			err = &lostError{err}
		}
		return err
	}
	done := make(map[int]bool, len(list))
	take := func(w *want, opened []byte) error {
		err := load(w, opened)
		done[w.number] = err == nil
		return err
	}
	err := r.fetch(ctx, dataBlob, list, take)
	if err == nil || !isLost(err) {
		return err
	}
	if err := r.checkUnchanged(ctx, err); err != nil {
		return err
	}
	// The others one by one, to know which of them are whole.
	for i := range list {
		if w := &list[i]; !done[w.number] {
			err := r.fetch(ctx, dataBlob, list[i:i+1], load)
			switch {
			case err == nil:
			case isLost(err):
				lost(w, err)
			default:
				return err
			}
		}
	}
	return nil
}

// checkUnchanged fails with why where the index that was read is no longer there:
// then blobs are not lost, but somewhere else since a prune, or the storage is gone
// as a whole.
func (r *Repository) checkUnchanged(ctx context.Context, why error) error {
	names, err := r.indexNames(ctx)
	if err != nil {
		return fmt.Errorf("%w; %w", why, err)
	}
	for _, name := range r.index.Load().names {
		if !slices.Contains(names, name) {
			return fmt.Errorf("%w; %s, which was read before, is gone: run it again once restic prune is done", why, name)
		}
	}
	return nil
}
