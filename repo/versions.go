package repo

import (
	"context"
	"fmt"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/tree"
)

// VersionsOptions choose what Versions hands out.
type VersionsOptions struct {
	// Want reports whether entries at a path are asked for; nil means all are.
	// Skip reports whether nothing at or below a directory is; nil means no.
	Want, Skip func(path string) bool
	// OnGap, if set, is told of what cannot be read, and the rest comes; if it is
	// nil, Next fails there.
	OnGap func(Gap)
}

// Versions walks the entries of many snapshots at once, in path order. What
// snapshots share is read once. Memory does not grow with the listings.
type Versions struct {
	ctx       context.Context
	snapshots []*Snapshot
	union     *tree.Union
	opts      VersionsOptions
	versions  []Version
}

// Version is an entry as some of the snapshots have it; it goes by their places
// in the list that Versions was given.
type Version struct {
	Entry format.Entry
	In    tree.Set
}

// unionAhead is how many leaves are read ahead; one takes some 50 KiB.
const unionAhead = 96

// Versions opens the listings of snapshots. Close must be called.
func (r *Repository) Versions(ctx context.Context, snapshots []*Snapshot, opts VersionsOptions) (*Versions, error) {
	v := &Versions{ctx: ctx, snapshots: snapshots, opts: opts}
	lost, err := r.knownLost(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the listings: %w", err)
	}
	uo := tree.UnionOptions{Want: opts.Want, Skip: opts.Skip, ReadAhead: unionAhead, Lost: lost.metaFunc()}
	if opts.OnGap != nil {
		uo.OnGap = func(gap tree.UnionGap) error { v.gap(gapOf(gap.Gap), gap.In); return nil }
	}
	roots := make([]format.ID, len(snapshots))
	for i, s := range snapshots {
		roots[i] = s.Root
	}
	if v.union, err = tree.NewUnion(ctx, metaReader{r}, roots, uo); err != nil {
		return nil, fmt.Errorf("read the listings: %w", err)
	}
	return v, nil
}

// gap tells the caller about a gap in the listings of a set.
func (v *Versions) gap(g Gap, in tree.Set) {
	for i, s := range v.snapshots {
		if in.Has(i) {
			g.Snapshots = append(g.Snapshots, s)
		}
	}
	v.opts.OnGap(g)
}

// Next returns the next path and its versions, which differ in their metadata,
// content, or keys that are only informative; valid until the next call. At the
// end the error is io.EOF.
func (v *Versions) Next() ([]Version, error) {
	for {
		path, variants, err := v.union.Next()
		if err != nil {
			return nil, err
		}
		for len(v.versions) < len(variants) {
			v.versions = append(v.versions, Version{})
		}
		n := 0
		for i := range variants {
			out := &v.versions[n]
			err := variants[i].Item.Decode(v.ctx, &out.Entry)
			if v.opts.OnGap != nil && isGap(v.ctx, err) {
				v.gap(Gap{Path: path, One: true, Err: err}, variants[i].In)
				continue
			}
			if err != nil {
				return nil, err
			}
			out.In = variants[i].In
			n++
		}
		if n > 0 {
			return v.versions[:n], nil
		}
	}
}

// Close releases what is being read ahead.
func (v *Versions) Close() error {
	v.union.Close()
	return nil
}
