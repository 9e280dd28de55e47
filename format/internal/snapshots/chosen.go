// Package snapshots has what systems do alike that read each snapshot by itself
// and may find some damaged: choosing those of an export, and saying under which
// ids they are held. Start at Choose. S is a snapshot as the system knows it. Any
// package below format may import it; it imports format alone.
package snapshots

import (
	"context"
	"fmt"

	"github.com/bk-backup/bk/format"
)

// Lister returns all snapshots of a system, oldest first, and why those that are
// missing are.
type Lister[S any, E error] func(ctx context.Context) (list []*S, damage []E, err error)

// Chosen is which snapshots an export is of.
type Chosen[S any] struct {
	List  []*S
	Base  *S // what the first is a difference to; nil: none
	whole bool
}

// Parent returns what the ith of the list is a difference to, or nil.
func (c *Chosen[S]) Parent(i int) *S {
	switch {
	case c.whole:
		return nil
	case i > 0:
		return c.List[i-1]
	}
	return c.Base
}

// Choose looks up the snapshots that are asked for. Where one of all cannot be
// read, all cannot be had.
func Choose[S any, E error](ctx context.Context, opts *format.ExportOptions, list Lister[S, E], one func(context.Context, format.ID) (*S, error)) (*Chosen[S], error) {
	c := &Chosen[S]{whole: opts.Whole()}
	if len(opts.Snapshots) == 0 {
		all, damage, err := list(ctx)
		if err != nil {
			return nil, err
		}
		if len(damage) > 0 {
			return nil, fmt.Errorf("export all snapshots: %w", damage[0])
		}
		c.List = all
	}
	for _, id := range opts.Snapshots {
		s, err := one(ctx, id)
		if err != nil {
			return nil, fmt.Errorf("export snapshot %s: %w", id, err)
		}
		c.List = append(c.List, s)
	}
	if !opts.Base.IsZero() {
		base, err := one(ctx, opts.Base)
		if err != nil {
			return nil, fmt.Errorf("export a difference to snapshot %s: %w", opts.Base, err)
		}
		if !c.whole {
			c.Base = base
		}
	}
	return c, nil
}
