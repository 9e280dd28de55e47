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

// Diff opens the difference between two snapshots, or between what they have at
// and below a path. Close must be called.
func (r *Repository) Diff(ctx context.Context, older, newer *Snapshot, below string) (*Diff, error) {
	loader := metaReader{r}
	diff, err := tree.NewDiff(ctx, tree.Listing{Chunks: loader, Root: older.Root}, tree.Listing{Chunks: loader, Root: newer.Root},
		tree.DiffOptions{Below: below, ReadAhead: 2 * r.workers()})
	if err != nil {
		return nil, fmt.Errorf("compare snapshots %s and %s: %w", older.ID.Short(), newer.ID.Short(), err)
	}
	return &Diff{r: r, ctx: ctx, diff: diff, older: chunkCount{ids: newIDSet()}, new: chunkCount{ids: newIDSet()}}, nil
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
		d.change = Change{Path: c.Path}
		if c.Old != nil {
			d.change.Old = &d.entries[0]
			if err := c.Old.Decode(d.ctx, d.change.Old); err != nil {
				return nil, err
			}
		}
		if c.New != nil {
			d.change.New = &d.entries[1]
			if err := c.New.Decode(d.ctx, d.change.New); err != nil {
				return nil, err
			}
		}
		if c.Old != nil && c.New != nil {
			same := c.Old.SameContent(c.New)
			d.change.Content = !same && d.change.Old.Type == format.TypeFile && d.change.New.Type == format.TypeFile
			if same && d.change.Old.Equal(d.change.New) {
				continue
			}
		}
		if err := d.count(c); err != nil {
			return nil, fmt.Errorf("compare the content of %q: %w", "/"+c.Path, err)
		}
		return &d.change, nil
	}
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
