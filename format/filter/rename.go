package filter

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/bk-backup/bk/format"
)

// Rename moves what is at From, and all below it, to To. Both are paths as in
// entries: relative to the root, "" is the root itself.
type Rename struct{ From, To string }

// renames moves paths by their longest prefix that is renamed.
type renames struct {
	rules []Rename // longest From first
	strip bool     // nothing comes but what is at From, above it or below it
}

// moved says what becomes of a path.
type moved uint8

const (
	movedOK    moved = iota
	movedGone        // a directory on the way to From that To takes the place of
	movedClash       // the path lies where another one moves to
)

// newRenames checks that no two prefixes are moved to the same place: then a
// path in the output comes from one place only, whatever the stream holds.
func newRenames(rules []Rename) (*renames, error) {
	r := &renames{rules: slices.Clone(rules)}
	slices.SortFunc(r.rules, func(a, b Rename) int {
		return cmp.Or(cmp.Compare(len(b.From), len(a.From)), cmp.Compare(a.From, b.From))
	})
	for i, rule := range r.rules {
		for _, path := range []string{rule.From, rule.To} {
			if err := format.CheckPath(path); err != nil {
				return nil, fmt.Errorf("rename %q to %q: %w", rule.From, rule.To, err)
			}
		}
		if rule.From == rule.To {
			return nil, fmt.Errorf("rename %q to %q: both are the same", rule.From, rule.To)
		}
		for _, other := range r.rules[:i] {
			if other.From == rule.From {
				return nil, fmt.Errorf("%q is renamed both to %q and to %q", rule.From, other.To, rule.To)
			}
			if atOrBelow(other.To, rule.To) || atOrBelow(rule.To, other.To) {
				return nil, fmt.Errorf("%q and %q cannot be renamed to %q and %q: one place lies in the other",
					rule.From, other.From, rule.To, other.To)
			}
		}
	}
	return r, nil
}

// newStrip makes prefix the root.
func newStrip(prefix string) (*renames, error) {
	if prefix == "" {
		return nil, fmt.Errorf("the prefix to strip is the root: nothing would change")
	}
	r, err := newRenames([]Rename{{From: prefix}})
	if err != nil {
		return nil, err
	}
	r.strip = true
	return r, nil
}

func atOrBelow(path, dir string) bool { return path == dir || format.IsBelow(path, dir) }

// keepsOrder reports whether sorted paths are sorted after the move.
func (r *renames) keepsOrder() bool {
	return r.strip || len(r.rules) == 1 && r.rules[0].From == ""
}

// path returns the new path.
func (r *renames) path(path string) (string, moved) {
	for _, rule := range r.rules {
		if !atOrBelow(path, rule.From) {
			continue
		}
		rest := strings.TrimPrefix(path[len(rule.From):], "/")
		return joinPath(rule.To, rest), movedOK
	}
	for _, rule := range r.rules {
		if !atOrBelow(path, rule.To) {
			continue
		}
		if format.IsBelow(rule.From, path) {
			return rule.To, movedGone
		}
		return "", movedClash
	}
	return path, movedOK
}

func joinPath(dir, rest string) string {
	if dir == "" || rest == "" {
		return dir + rest
	}
	return dir + "/" + rest
}

// cleared returns where the renamed prefixes lie that were below path, which is
// taken away with all below it, and false if one lies in the way: below the new
// path, but not taken away.
func (r *renames) cleared(path, newPath string) (also []string, ok bool) {
	for _, rule := range r.rules {
		wasBelow := format.IsBelow(rule.From, path)
		isBelow := atOrBelow(rule.To, newPath)
		if isBelow && !wasBelow && !atOrBelow(path, rule.From) {
			return nil, false
		}
		if wasBelow && !isBelow {
			also = append(also, rule.To)
		}
	}
	return also, true
}

// moveStage changes paths. Paths that were sorted need not be afterwards, and
// then the snapshots say so.
type moveStage struct {
	moves *renames

	mayHave bool // something may be in the listing before a path's record comes
	silent  bool // the last record did not pass: nor do x- records behind it
	// The last remove that was emitted: several paths above a prefix that is
	// stripped become the root.
	removed    string
	hasRemoved bool

	snapshot format.Snapshot
	record   format.Entry
}

// Process takes one record.
func (s *moveStage) Process(rec format.Record, emit func(format.Record) error) error {
	switch r := rec.(type) {
	case *format.Extension:
		if s.silent {
			return nil
		}
		return emit(r)
	case *format.Snapshot:
		s.silent = false
		return emit(s.begin(r))
	case *format.Entry:
		return s.entry(r, emit)
	case *format.Remove:
		return s.remove(r, emit)
	case *format.CopyRange:
		return s.copyRange(r, emit)
	case *format.Commit:
		s.silent = false
		return emit(mapLosses(r, s.lossPath))
	}
	s.silent = false
	return emit(rec)
}

func (s *moveStage) begin(r *format.Snapshot) *format.Snapshot {
	s.hasRemoved = false
	s.mayHave = !r.Parent.IsZero() || r.Unsorted
	s.snapshot = *r
	s.snapshot.Unsorted = r.Unsorted || !s.moves.keepsOrder()
	s.snapshot.Roots = nil
	for _, root := range r.Roots {
		path, how := s.moves.path(root)
		if how != movedClash && !slices.Contains(s.snapshot.Roots, path) {
			s.snapshot.Roots = append(s.snapshot.Roots, path)
		}
	}
	return &s.snapshot
}

func (s *moveStage) lossPath(path string) (string, bool) {
	path, how := s.moves.path(path)
	return path, how == movedOK
}

func (s *moveStage) entry(r *format.Entry, emit func(format.Record) error) error {
	path, how := s.moves.path(r.Path)
	isDir := r.Type == format.TypeDir
	s.silent = how == movedGone && isDir
	switch {
	case s.silent:
		return nil
	case how != movedOK:
		return fmt.Errorf("path %q lies where --rename moves another one: drop it first, or rename to a place that is free", r.Path)
	case path == "" && !isDir:
		return fmt.Errorf("path %q is of the type %s and cannot become the root", r.Path, r.Type)
	}
	if !isDir && s.mayHave {
		if err := s.clear(r.Path, path, emit); err != nil {
			return err
		}
	}
	s.hasRemoved = false
	if path == r.Path {
		return emit(r)
	}
	s.record = *r
	s.record.Path = path
	return emit(&s.record)
}

// clear removes what was moved away from below a path that ends to be a
// directory.
func (s *moveStage) clear(path, newPath string, emit func(format.Record) error) error {
	also, ok := s.moves.cleared(path, newPath)
	if !ok {
		return fmt.Errorf("path %q is taken away with all below it, but --rename moved something there: rename to a place outside of it", path)
	}
	for _, path := range also {
		if err := s.emitRemove(&format.Remove{Path: path}, emit); err != nil {
			return err
		}
	}
	return nil
}

func (s *moveStage) emitRemove(r *format.Remove, emit func(format.Record) error) error {
	if s.hasRemoved && s.removed == r.Path {
		return nil
	}
	s.removed, s.hasRemoved = r.Path, true
	return emit(r)
}

func (s *moveStage) remove(r *format.Remove, emit func(format.Record) error) error {
	path, how := s.moves.path(r.Path)
	s.silent = how != movedOK
	if how == movedOK {
		if err := s.clear(r.Path, path, emit); err != nil {
			return err
		}
		return s.emitRemove(&format.Remove{Path: path, Extra: r.Extra}, emit)
	}
	// Nothing of this path is in the output, but what was below may be.
	for _, rule := range s.moves.rules {
		if format.IsBelow(rule.From, r.Path) {
			if err := s.emitRemove(&format.Remove{Path: rule.To}, emit); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *moveStage) copyRange(r *format.CopyRange, emit func(format.Record) error) error {
	if !r.HasFrom {
		return emit(r)
	}
	out := *r
	var how moved
	if out.From, how = s.moves.path(r.From); how != movedOK {
		return refuse("a file is copied from %q, where --rename moves another path", r.From)
	}
	return emit(&out)
}
