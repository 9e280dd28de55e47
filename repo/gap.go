package repo

import (
	"context"
	"errors"

	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/tree"
)

// Gap is a part of the listings of some snapshots that cannot be read: the
// entries from Path up to Before, or to the end if Before is empty. If One is
// set it is the entry at Path alone.
type Gap struct {
	Snapshots    []*Snapshot
	Path, Before string
	One          bool
	Err          error // which object it is, and why
}

// ErrKnownLost says that a part of a repository is beyond help, and that a list
// of damage says so (spec/repository.md, 12.2).
var ErrKnownLost = errors.New("it is known to be lost")

// gapOf is a gap in the listing of snapshots, which the caller adds.
func gapOf(g tree.Gap) Gap {
	if g.Err == nil {
		g.Err = &tree.NodeError{ID: g.ID, What: "node", Err: ErrKnownLost}
	}
	return Gap{Path: g.Path, Before: g.Before, Err: g.Err}
}

// isGap reports whether err says that a part of a listing cannot be read, and not
// that the caller gave up.
func isGap(ctx context.Context, err error) bool {
	var ne *tree.NodeError
	return ctx.Err() == nil && errors.As(err, &ne)
}

// IsDamage reports whether err says that a part of the repository is damaged or
// missing, while the rest of it may be whole.
func IsDamage(err error) bool {
	return errors.Is(err, seal.ErrDamaged) || errors.Is(err, seal.ErrWrongKey) || isLost(err)
}
