package repo

import (
	"context"
	"fmt"
	"io"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/tree"
)

// Change is a path at which two snapshots differ: Old is nil if the entry was
// added, New if it was removed.
type Change struct {
	Path     string
	Old, New *format.Entry
	// Content says that both are files, and of different content.
	Content bool
}

// Difference sums up content that one of two snapshots has and the other has
// not: what lies in entries that differ, each chunk once.
type Difference struct {
	Chunks, Bytes               uint64 // in the newer one alone
	ChunksRemoved, BytesRemoved uint64 // in the older one alone
}

// Diff walks through what differs between two snapshots. It reads what differs:
// parts of the listings that both have, and the lists of content that two
// versions of a file share, are never loaded.
type Diff struct {
	r          *Repository
	ctx        context.Context
	diff       *tree.Diff
	sides      [2]*Snapshot
	onGap      func(Gap)
	change     Change
	entries    [2]format.Entry
	older, new chunkCount
	common     chunkCount
}

// chunkCount is a set of chunks and what they amount to.
type chunkCount struct {
	ids           *idSet
	chunks, bytes uint64
}

// Diff opens the difference between two snapshots. Close must be called. What
// lies in a gap of one of the listings is compared in neither.
func (r *Repository) Diff(ctx context.Context, older, newer *Snapshot, opts ListingOptions) (*Diff, error) {
	d := &Diff{r: r, ctx: ctx, sides: [2]*Snapshot{older, newer}, onGap: opts.OnGap, older: chunkCount{ids: newIDSet()}, new: chunkCount{ids: newIDSet()}}
	loader := metaReader{r}
	do := tree.DiffOptions{Below: opts.Below, ReadAhead: 2 * r.workers()}
	lost, err := r.knownLost(ctx)
	if opts.OnGap != nil {
		do.Lost = lost.metaFunc()
		do.OnGap = func(isNewer bool, gap tree.Gap) error {
			side := older
			if isNewer {
				side = newer
			}
			d.gap(gapOf(gap), side)
			return nil
		}
	}
	if err == nil {
		d.diff, err = tree.NewDiff(ctx, tree.Listing{Chunks: loader, Root: older.Root}, tree.Listing{Chunks: loader, Root: newer.Root}, do)
	}
	if err != nil {
		return nil, fmt.Errorf("compare snapshots %s and %s: %w", older.ID.Short(), newer.ID.Short(), err)
	}
	return d, nil
}

func (d *Diff) gap(g Gap, snapshots ...*Snapshot) {
	g.Snapshots = snapshots
	d.onGap(g)
}

// Next returns the next change, in path order, valid until the next call. At the
// end the error is io.EOF. Entries that differ in informative keys alone (atime,
// ctime, inode ...) are passed over.
func (d *Diff) Next() (*Change, error) {
	for {
		c, err := d.diff.Next()
		if err != nil {
			return nil, err
		}
		if whole, err := d.decode(c); err != nil {
			return nil, err
		} else if !whole {
			continue
		}
		if c.Old != nil && c.New != nil {
			same := c.Old.SameContent(c.New)
			d.change.Content = !same && d.change.Old.Type == format.TypeFile && d.change.New.Type == format.TypeFile
			if same && d.change.Old.Equal(d.change.New) {
				continue
			}
		}
		if err := d.count(c); err != nil && d.onGap != nil && isGap(d.ctx, err) {
			d.gap(Gap{Path: c.Path, One: true, Err: err}, d.sides[:]...)
		} else if err != nil {
			return nil, fmt.Errorf("compare the content of %q: %w", "/"+c.Path, err)
		}
		return &d.change, nil
	}
}

// decode makes the change of what the listings have. It is not whole if one of
// the entries cannot be read.
func (d *Diff) decode(c *tree.Change) (whole bool, err error) {
	d.change = Change{Path: c.Path}
	for i, it := range []*tree.Item{c.Old, c.New} {
		if it == nil {
			continue
		}
		err := it.Decode(d.ctx, &d.entries[i])
		if err != nil && d.onGap != nil && isGap(d.ctx, err) {
			d.gap(Gap{Path: c.Path, One: true, Err: err}, d.sides[i])
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	if c.Old != nil {
		d.change.Old = &d.entries[0]
	}
	if c.New != nil {
		d.change.New = &d.entries[1]
	}
	return true, nil
}

// count adds the chunks of a change that only one side has.
func (d *Diff) count(c *tree.Change) error {
	var older, newer tree.Content
	if c.Old != nil {
		older = c.Old.Content()
	}
	if c.New != nil {
		newer = c.New.Content()
	}
	if older.Equal(newer) {
		return nil
	}
	if err := d.countOnly(older, newer, &d.new, &d.older); err != nil {
		return err
	}
	return d.countOnly(newer, older, &d.older, &d.new)
}

// countOnly adds the chunks of to that from has not.
func (d *Diff) countOnly(from, to tree.Content, into, other *chunkCount) error {
	segments, err := tree.NewContentDiff(d.ctx, metaReader{d.r}, from, to)
	if err != nil {
		return err
	}
	for {
		s, err := segments.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if s.Same || s.Piece.IsHole() || !into.ids.add(s.Piece.ID, uint32(s.Size)) {
			continue
		}
		into.chunks++
		into.bytes += s.Size
		if _, both := other.ids.get(s.Piece.ID); both {
			d.common.chunks++
			d.common.bytes += s.Size
		}
	}
}

// Difference returns the sums over the changes so far. Content that moved from
// one path to another counts on neither side.
func (d *Diff) Difference() Difference {
	return Difference{
		Chunks: d.new.chunks - d.common.chunks, Bytes: d.new.bytes - d.common.bytes,
		ChunksRemoved: d.older.chunks - d.common.chunks, BytesRemoved: d.older.bytes - d.common.bytes,
	}
}

// Close releases what was being read ahead.
func (d *Diff) Close() { d.diff.Close() }
