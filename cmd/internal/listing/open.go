package listing

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo"
)

// Entries walks the entries of a listing in the order of paths.
type Entries interface {
	// Next returns the next entry, valid until the next call. Sizes of files are
	// there. At the end the error is io.EOF.
	Next() (*format.Entry, error)
	// SkipBelow moves past what lies below the entry that Next returned last.
	SkipBelow() error
	Close() error
}

// Open walks what a snapshot has at and below a path. Of a bk repository only
// that is read, and onGap, if not nil, is told of what cannot be. The listing of a system that does not hand it out in order is
// held in memory and sorted.
func Open(ctx context.Context, snaps *cli.Snapshots, snap *format.Snapshot, below string, onGap func(repo.Gap)) (Entries, error) {
	if own := snaps.Own(snap); own != nil {
		return snaps.Repo.Listing(ctx, own, repo.ListingOptions{Below: below, OnGap: onGap})
	}
	src, err := snaps.System.Export(ctx, format.ExportOptions{
		Snapshots: []format.ID{snap.ID}, Full: true, ListingOnly: true, Drop: outside(below),
	})
	if err != nil {
		return nil, fmt.Errorf("read the listing of snapshot %s: %w", snap.ID.Short(), err)
	}
	s := &sourceEntries{ctx: ctx, src: src}
	if err := s.begin(); err != nil {
		return nil, errors.Join(err, src.Close())
	}
	return s, nil
}

// outside drops what is neither at nor below a path.
func outside(below string) func(string, bool) (bool, bool) {
	if below == "" {
		return nil
	}
	return func(path string, _ bool) (drop, skipBelow bool) {
		if path == below || format.IsBelow(path, below) {
			return false, false
		}
		return true, path != "" && !format.IsBelow(below, path)
	}
}

// sourceEntries are the entries of the one snapshot in a source.
type sourceEntries struct {
	ctx    context.Context
	src    format.SourceCloser
	entry  format.Entry
	skip   string // what lies below this path is passed over
	skips  bool
	sorted []*format.Entry // of a snapshot that is unsorted; else nil
	held   bool            // whether sorted is used
}

// begin reads up to the first entry, or everything if that must be sorted.
func (s *sourceEntries) begin() error {
	for {
		rec, err := s.src.Next()
		if err != nil {
			return noEnd(err)
		}
		if snap, ok := rec.(*format.Snapshot); ok {
			if !snap.Unsorted {
				return nil
			}
			return s.sort()
		}
	}
}

// sort collects the entries; the last record for a path counts.
func (s *sourceEntries) sort() error {
	s.held = true
	byPath := make(map[string]*format.Entry)
	for {
		e, removed, err := s.read()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if e != nil {
			byPath[e.Path] = e.Clone()
			continue
		}
		for path := range byPath {
			if path == removed || format.IsBelow(path, removed) {
				delete(byPath, path)
			}
		}
	}
	for _, e := range byPath {
		s.sorted = append(s.sorted, e)
	}
	slices.SortFunc(s.sorted, func(a, b *format.Entry) int { return format.ComparePaths(a.Path, b.Path) })
	return nil
}

// read returns the next entry, or the path of the next remove.
func (s *sourceEntries) read() (e *format.Entry, removed string, err error) {
	for {
		if err := s.ctx.Err(); err != nil {
			return nil, "", err
		}
		rec, err := s.src.Next()
		if err != nil {
			return nil, "", noEnd(err)
		}
		switch rec := rec.(type) {
		case *format.Entry:
			s.entry = *rec.Clone()
			if rec.Type != format.TypeFile { // a file's size comes at its end
				return &s.entry, "", nil
			}
		case *format.EOF:
			s.entry.Size, s.entry.Has = rec.Size, s.entry.Has|format.HasSize
			return &s.entry, "", nil
		case *format.Remove:
			return nil, rec.Path, nil
		case *format.Commit:
			return nil, "", io.EOF
		}
	}
}

// noEnd makes an error of a source that ends before its snapshot does.
func noEnd(err error) error {
	if err == io.EOF {
		return errors.New("the source of the listing ended before the snapshot did")
	}
	return err
}

// Next implements Entries.
func (s *sourceEntries) Next() (*format.Entry, error) {
	for {
		e, err := s.next()
		if err != nil {
			return nil, err
		}
		if !s.skips || !format.IsBelow(e.Path, s.skip) {
			s.skips = false
			s.skip = e.Path
			return e, nil
		}
	}
}

func (s *sourceEntries) next() (*format.Entry, error) {
	if s.held {
		if len(s.sorted) == 0 {
			return nil, io.EOF
		}
		e := s.sorted[0]
		s.sorted = s.sorted[1:]
		return e, nil
	}
	for {
		e, _, err := s.read()
		if e != nil || err != nil {
			return e, err
		}
	}
}

// SkipBelow implements Entries.
func (s *sourceEntries) SkipBelow() error {
	s.skips = true
	return nil
}

// Close implements Entries.
func (s *sourceEntries) Close() error { return s.src.Close() }
