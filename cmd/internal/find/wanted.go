package find

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/filter"
)

// wanted is what an entry must be like.
type wanted struct {
	patterns *filter.Patterns
	types    []format.Type
	sizes    []sizeBound
	times    []timeBound
}

// sizeBound asks for files of more bytes, or fewer.
type sizeBound struct {
	size   uint64
	larger bool
}

// timeBound asks for what was changed later, or earlier.
type timeBound struct {
	at    format.Time
	newer bool
}

// match reports whether an entry is what is looked for. What an entry does not
// say cannot be what was asked for.
func (w *wanted) match(e *format.Entry) bool {
	if !w.patterns.Picks(e.Path, e.Type == format.TypeDir) || len(w.types) > 0 && !slices.Contains(w.types, e.Type) {
		return false
	}
	for _, b := range w.sizes {
		if e.Type != format.TypeFile || e.Has&format.HasSize == 0 || e.Size == b.size || e.Size > b.size != b.larger {
			return false
		}
	}
	for _, b := range w.times {
		if c := e.Mtime.Compare(b.at); e.Has&format.HasMtime == 0 || c == 0 || c > 0 != b.newer {
			return false
		}
	}
	return true
}

// path reports whether an object at a path may be what is looked for, whatever
// it is.
func (w *wanted) path(path string) bool {
	return w.patterns.Picks(path, true) || w.patterns.Picks(path, false)
}

// skip reports whether nothing at or below a directory can be.
func (w *wanted) skip(dir string) bool {
	_, skipBelow := w.patterns.Match(dir, true)
	return skipBelow
}

// drop is what an export need not hand out; it fits format.ExportOptions.
// Directories above what is wanted pass, since their removal tells that of what
// they held; a pattern for directories lets files pass, since one may have taken
// a directory's place.
func (w *wanted) drop(path string, isDir bool) (drop, skipBelow bool) {
	if isDir {
		return w.patterns.Match(path, true)
	}
	return !w.patterns.Picks(path, false) && !w.patterns.Picks(path, true), false
}

// wanted turns the flags into predicates.
func (c *Find) wanted(now time.Time) (*wanted, error) {
	w := new(wanted)
	var rules []filter.Rule
	for _, text := range c.Patterns {
		pattern, not := strings.CutPrefix(text, "!")
		rules = append(rules, filter.Rule{Pattern: pattern, Keep: !not})
	}
	var err error
	if w.patterns, err = filter.NewPatterns(rules, c.IgnoreCase); err != nil {
		return nil, err
	}
	for _, name := range c.Type {
		typ := format.Type(name)
		if !slices.Contains(types, typ) {
			return nil, fmt.Errorf("--type: there is no type %q: the types are %v", name, types)
		}
		w.types = append(w.types, typ)
	}
	return w, w.bounds(c, now)
}

var types = []format.Type{
	format.TypeFile, format.TypeDir, format.TypeSymlink, format.TypeChar, format.TypeBlock, format.TypeFifo, format.TypeSocket,
}

func (w *wanted) bounds(c *Find, now time.Time) error {
	for _, b := range []struct {
		flag, text string
		larger     bool
	}{{"larger-than", c.LargerThan, true}, {"smaller-than", c.SmallerThan, false}} {
		if b.text == "" {
			continue
		}
		size, err := filter.ParseSize(b.text)
		if err != nil {
			return fmt.Errorf("--%s: %w", b.flag, err)
		}
		bound := sizeBound{size, b.larger}
		w.sizes = append(w.sizes, bound)
	}
	for _, b := range []struct {
		flag, text string
		newer      bool
	}{{"newer-than", c.NewerThan, true}, {"older-than", c.OlderThan, false}} {
		if b.text == "" {
			continue
		}
		at, err := filter.ParseTime(b.text, now)
		if err != nil {
			return fmt.Errorf("--%s: %w", b.flag, err)
		}
		w.times = append(w.times, timeBound{at, b.newer})
	}
	return nil
}
