package repo

import (
	"context"
	"fmt"
	"slices"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/chunker"
	"github.com/bk-backup/bk/repo/tree"
)

// Listing walks the entries of a snapshot in path order.
type Listing struct {
	ctx   context.Context
	rd    *tree.Reader
	item  *tree.Item
	entry format.Entry
}

// Listing opens the listing of a snapshot, or what is at and below a path of it.
func (r *Repository) Listing(ctx context.Context, s *Snapshot, below string) (*Listing, error) {
	opts := tree.ReaderOptions{Below: below, ReadAhead: 4 * r.workers()}
	lost, err := r.knownLost(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the listing of snapshot %s: %w", s.ID, err)
	}
	if len(lost) > 0 {
		opts.Lost = lost.meta
		opts.OnLost = func(path, before string) {
			r.opts.Log.Warn("a part of the listing is known to be lost", "snapshot", s.ID.String(), "from", "/"+path, "up to", "/"+before)
		}
	}
	rd, err := tree.NewReader(ctx, tree.Listing{Chunks: metaReader{r}, Root: s.Root}, opts)
	if err != nil {
		return nil, fmt.Errorf("read the listing of snapshot %s: %w", s.ID, err)
	}
	return &Listing{ctx: ctx, rd: rd}, nil
}

// Next returns the next entry, valid until the next call; io.EOF at the end.
func (l *Listing) Next() (*format.Entry, error) {
	it, err := l.rd.Next()
	if err != nil {
		return nil, err
	}
	l.item = it
	if err := it.Decode(l.ctx, &l.entry); err != nil {
		return nil, err
	}
	return &l.entry, nil
}

// SkipBelow moves past all that lies below the entry that Next returned last,
// without reading what holds nothing else.
func (l *Listing) SkipBelow() error { return l.rd.SkipBelow() }

// Close releases what was being read ahead.
func (l *Listing) Close() error {
	l.rd.Close()
	return nil
}

// Predecessor returns the newest snapshot in a list, oldest first, that was made
// of the same roots on the same host, or nil.
func Predecessor(list []*Snapshot, host string, roots []string) *Snapshot {
	want := slices.Sorted(slices.Values(roots))
	for i := len(list) - 1; i >= 0; i-- {
		s := list[i]
		if s.Meta.Host == host && slices.Equal(slices.Sorted(slices.Values(s.Meta.Roots)), want) {
			return s
		}
	}
	return nil
}

// Splitters returns the factory of a splitter with the secrets of the
// repository's own group, so that its members cut alike.
func (r *Repository) Splitters(spec chunker.Spec) (*chunker.Factory, error) {
	taken := &r.own.ChunkerKeys
	f, err := chunker.New(spec, chunker.Keyed{
		Secret: [32]byte(r.own.Split), Polynomial: taken.Polynomial, Seed: taken.Seed, HasSeed: taken.HasSeed,
	})
	if err != nil {
		return nil, fmt.Errorf("prepare the splitter %s: %w", spec, err)
	}
	return f, nil
}
