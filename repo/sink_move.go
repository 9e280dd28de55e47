package repo

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/tree"
)

// MoveParent makes a listing of a snapshot's in which all that it has lies below
// the path above, and returns it. Differences to that snapshot that are written
// afterwards apply to this listing. It is for snapshots of programs that name what
// they back up from somewhere else than "/". It costs the listing's metadata, and
// is called before the header is written.
func (s *Sink) MoveParent(ctx context.Context, snap *Snapshot, above string) (*Listing, error) {
	root, err := s.moveListing(ctx, snap, above)
	if err != nil {
		return nil, fmt.Errorf("move the listing of snapshot %s below %q: %w", snap.ID, "/"+above, err)
	}
	moved := *snap
	moved.Root = root
	s.known[snap.ID] = holding{&moved, claimOwn}
	rd, err := tree.NewReader(ctx, tree.Listing{Chunks: s.saver, Root: root}, tree.ReaderOptions{ReadAhead: 4 * s.r.workers()})
	if err != nil {
		return nil, err
	}
	return &Listing{ctx: ctx, rd: rd}, nil
}

func (s *Sink) moveListing(ctx context.Context, snap *Snapshot, above string) (format.ID, error) {
	from, err := s.r.Listing(ctx, snap, ListingOptions{})
	if err != nil {
		return format.ID{}, err
	}
	defer from.Close()
	to := tree.NewBuilder(ctx, s.saver, tree.SplitKey(s.r.own.Split))
	for {
		it, err := from.rd.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return format.ID{}, err
		}
		moved := it.Clone()
		if moved.Path = above; it.Path != "" {
			moved.Path += "/" + it.Path
		}
		if err := to.PutItem(moved); err != nil {
			return format.ID{}, err
		}
	}
	root, _, err := to.Finish()
	if err != nil {
		return format.ID{}, err
	}
	return root, s.pool.wait()
}
