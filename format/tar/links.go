package tar

import (
	"fmt"

	"github.com/bk-backup/bk/format"
)

// link emits a hard link: the entry and the content of what it names, under its
// own path. The first link to a member makes both a group, of which that member
// has to learn: it is emitted once more.
func (s *source) link(u *unit, units <-chan *unit, p *parser) error {
	e := u.entry
	target, err := s.index.find(u.link)
	if err != nil {
		return err
	}
	if target == nil && u.hasData && !u.dropped {
		// Some archives have the content again with each link.
		s.report(u)
		return s.leaf(u, units, p)
	}
	if err := s.discard(u, units, p); err != nil {
		return err
	}
	switch {
	case u.link == e.Path:
		return nil
	case target == nil:
		if !u.dropped {
			s.lose(format.LossUnreadable, e.Path, fmt.Errorf("it is a hard link to %q, which does not come before it", u.link))
		}
		return nil
	case u.dropped:
		return s.index.alias(e.Path, target.place, true)
	case !s.canRepeat(target):
		if s.export.Flat {
			return fmt.Errorf("hard link %q: %w", "/"+e.Path, errNeedsSeek)
		}
		s.lose(format.LossUnreadable, e.Path, fmt.Errorf("it is a hard link to %q, which was dropped and not read: %w", u.link, errNeedsSeek))
		return nil
	}
	if target.group == "" {
		if err := s.index.begin(target); err != nil {
			return err
		}
		if !target.dropped {
			first := *target
			if err := s.repeat(&first, target.entry.Path); err != nil {
				return err
			}
		}
	}
	if err := s.index.alias(e.Path, target.place, false); err != nil {
		return err
	}
	return s.repeat(target, e.Path)
}

// needsSeekError says that content has to be read a second time.
type needsSeekError struct{}

var errNeedsSeek error = needsSeekError{}

func (needsSeekError) Error() string {
	return "its content lies further ahead, and a compressed archive, or one in a pipe, cannot be read there again"
}

// FixText says what to do.
func (needsSeekError) FixText() string {
	return "uncompress the archive into a file first, with gunzip or zstd -d, and name that file"
}

// stored reports whether a member's chunks were sent and remembered.
func (s *source) stored(r *record) bool {
	return r.entry.Type != format.TypeFile || s.export.ListingOnly || !r.dropped && !s.export.Flat
}

// canRepeat reports whether a member's content can be emitted again.
func (s *source) canRepeat(r *record) bool {
	return s.stored(r) || r.entry.Size == 0 || s.input.seek != nil
}

// repeat emits a member that came before as one of its group.
func (s *source) repeat(r *record, path string) error {
	e := r.entry
	e.Path, e.Hardlink = path, r.group
	if err := s.entry(&e); err != nil {
		return err
	}
	switch {
	case e.Type != format.TypeFile:
		return nil
	case s.export.ListingOnly, e.Size == 0:
		return s.eof(e.Size)
	case !s.stored(r):
		return s.readAgain(r)
	}
	err := s.index.piecesOf(r, func(p *piece) error { return s.piece(p, false) })
	if err != nil {
		return err
	}
	return s.closeFile()
}

// readAgain emits the content of a member from the archive.
func (s *source) readAgain(r *record) error {
	in, err := s.input.from(r.at)
	if err != nil {
		return err
	}
	units, p := s.parse(in, r.at, true)
	u, err := s.unit(units, p)
	if err != nil {
		return err
	}
	if u == nil || u.entry == nil {
		return fmt.Errorf("read %q again: it is not where it was", r.entry.Path)
	}
	if err := s.content(u, units, p, false); err != nil {
		return err
	}
	// The parser ends by itself behind the member.
	if u, err := s.unit(units, p); u != nil || err != nil {
		return fmt.Errorf("read %q again: %w", r.entry.Path, err)
	}
	return nil
}
