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
	snap  *Snapshot
	opts  ListingOptions
	rd    *tree.Reader
	item  *tree.Item
	entry format.Entry
}

// ListingOptions choose what a Listing hands out; the zero value is everything.
type ListingOptions struct {
	// Below is a path: only what is at and below it is read.
	Below string
	// OnGap, if set, is told of what cannot be read, and the rest comes. If it is
	// nil, what is known to be lost is logged, and anything else is an error.
	OnGap func(Gap)
}

// Listing opens the listing of a snapshot. Close must be called.
func (r *Repository) Listing(ctx context.Context, s *Snapshot, opts ListingOptions) (*Listing, error) {
	lost, err := r.knownLost(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the listing of snapshot %s: %w", s.ID, err)
	}
	l := &Listing{ctx: ctx, snap: s, opts: opts}
	l.rd, err = tree.NewReader(ctx, tree.Listing{Chunks: metaReader{r}, Root: s.Root}, tree.ReaderOptions{
		Below: opts.Below, ReadAhead: 4 * r.workers(), Lost: lost.metaFunc(),
		OnGap: func(gap tree.Gap) error {
			switch {
			case opts.OnGap != nil:
				l.gap(gapOf(gap))
			case gap.Err != nil:
				return gap.Err
			default:
				r.opts.Log.Warn("a part of the listing is known to be lost", "snapshot", s.ID.String(), "from", "/"+gap.Path, "up to", "/"+gap.Before)
			}
			return nil
		},
	})
	if err != nil {
		return nil, fmt.Errorf("read the listing of snapshot %s: %w", s.ID, err)
	}
	return l, nil
}

func (l *Listing) gap(g Gap) {
	g.Snapshots = []*Snapshot{l.snap}
	l.opts.OnGap(g)
}

// Next returns the next entry, valid until the next call; io.EOF at the end.
func (l *Listing) Next() (*format.Entry, error) {
	for {
		it, err := l.rd.Next()
		if err != nil {
			return nil, err
		}
		l.item = it
		if err = it.Decode(l.ctx, &l.entry); err == nil {
			return &l.entry, nil
		}
		if l.opts.OnGap == nil || !isGap(l.ctx, err) {
			return nil, err
		}
		l.gap(Gap{Path: it.Path, One: true, Err: err})
	}
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
