package tree

import "github.com/bk-backup/bk/format"

// Gap is a part of a listing that cannot be had, since a node cannot: the entries
// from Path up to Before, or to the end if Before is empty.
type Gap struct {
	ID           format.ID // of the node
	Path, Before string
	Err          error // why; nil if it is known to be lost
}

// covers reports whether a path lies in the gap.
func (g *Gap) covers(path string) bool {
	return format.ComparePaths(path, g.Path) >= 0 && (g.Before == "" || format.ComparePaths(path, g.Before) < 0)
}

// coversAll reports whether all that a node can hold lies in the gap.
func (g *Gap) coversAll(r ref) bool {
	return g.covers(r.path) && (g.Before == "" || r.limit != "" && format.ComparePaths(r.limit, g.Before) <= 0)
}

// gapOptions say what becomes of nodes that cannot be had.
type gapOptions struct {
	lost  func(id format.ID) bool // those that are known to be lost; or nil
	onGap func(Gap) error         // or nil
}

func (o *gapOptions) isLost(id format.ID) bool { return o.lost != nil && o.lost(id) }
