package snapshots

import (
	"context"
	"fmt"

	"github.com/bk-backup/bk/format"
)

// Held returns for each snapshot in a place the ids that it goes by, its own
// first, and the oldest snapshot first: for bk-import --list-imported.
func Held[S any, E error](ctx context.Context, place fmt.Stringer, list Lister[S, E], as func(*S) []format.HeldID) ([][]format.HeldID, error) {
	all, damage, err := list(ctx)
	if err != nil {
		return nil, err
	}
	if len(damage) > 0 {
		return nil, fmt.Errorf("find out what %s holds: %w", place, damage[0])
	}
	out := make([][]format.HeldID, len(all))
	for i, s := range all {
		out[i] = as(s)
	}
	return out, nil
}
