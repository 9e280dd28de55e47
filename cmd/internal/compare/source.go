package compare

import (
	"context"
	"errors"
	"io"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/cmd/internal/listing"
	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo"
)

// changes hands out what differs between two snapshots.
type changes interface {
	// Next returns the next change, valid until the next call; io.EOF at the end.
	Next() (*repo.Change, error)
	// Difference returns what content differs; nil where that is not known.
	Difference() *repo.Difference
	Close()
}

// open compares two snapshots of one system. OnGap, if not nil, is told of what
// cannot be read of a bk repository.
func open(ctx context.Context, snaps *cli.Snapshots, older, newer *format.Snapshot, below string, onGap func(repo.Gap)) (changes, error) {
	if snaps.Repo != nil {
		diff, err := snaps.Repo.Diff(ctx, snaps.Own(older), snaps.Own(newer), repo.ListingOptions{Below: below, OnGap: onGap})
		if err != nil {
			return nil, err
		}
		return repoChanges{diff}, nil
	}
	m := new(merge)
	for i, snap := range []*format.Snapshot{older, newer} {
		entries, err := listing.Open(ctx, snaps, snap, below, onGap)
		if err != nil {
			m.Close()
			return nil, err
		}
		m.sides[i].entries = entries
	}
	return m, nil
}

type repoChanges struct{ *repo.Diff }

func (c repoChanges) Difference() *repo.Difference {
	d := c.Diff.Difference()
	return &d
}

// merge compares two whole listings side by side.
type merge struct {
	sides  [2]side
	change repo.Change
}

// side is a listing and its next entry.
type side struct {
	entries listing.Entries
	head    *format.Entry // nil: to be read, or the listing is over
	over    bool
	taken   bool // the head was handed out
}

// fill makes the head the next entry that was not handed out.
func (s *side) fill() error {
	if s.over || s.head != nil && !s.taken {
		return nil
	}
	e, err := s.entries.Next()
	if errors.Is(err, io.EOF) {
		s.head, s.over = nil, true
		return nil
	}
	s.head, s.taken = e, false
	return err
}

// Next implements changes.
func (m *merge) Next() (*repo.Change, error) {
	older, newer := &m.sides[0], &m.sides[1]
	for {
		if err := errors.Join(older.fill(), newer.fill()); err != nil {
			return nil, err
		}
		var order int
		switch {
		case older.over && newer.over:
			return nil, io.EOF
		case older.over:
			order = 1
		case newer.over:
			order = -1
		default:
			order = format.ComparePaths(older.head.Path, newer.head.Path)
		}
		m.change = repo.Change{}
		if order <= 0 {
			older.taken = true
			m.change.Old, m.change.Path = older.head, older.head.Path
		}
		if order >= 0 {
			newer.taken = true
			m.change.New, m.change.Path = newer.head, newer.head.Path
		}
		if order == 0 && older.head.Equal(newer.head) {
			continue
		}
		m.change.Content = order == 0 && contentDiffers(older.head, newer.head)
		return &m.change, nil
	}
}

// contentDiffers judges by size and time, as there is nothing else to go by.
func contentDiffers(a, b *format.Entry) bool {
	return a.Type == format.TypeFile && b.Type == format.TypeFile && (a.Size != b.Size || a.Mtime != b.Mtime)
}

// Difference implements changes.
func (*merge) Difference() *repo.Difference { return nil }

// Close implements changes.
func (m *merge) Close() {
	for _, s := range m.sides {
		if s.entries != nil {
			s.entries.Close()
		}
	}
}
