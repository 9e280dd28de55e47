package filter

import "github.com/bk-backup/bk/format"

// merge makes one sorted difference of two that apply one after another. The
// newer one is given record by record; the older one is read from a run, and
// what of it is still true goes out before the newer record that it precedes.
//
// Where the older difference took a directory away, or put something else in
// its place, and the newer one makes a directory there again, the result is a
// remove and then an entry of the same path: the directory begins empty
// (spec/stream.md, "Order").
type merge struct {
	older *runReader
	head  format.Record // the older entry or remove that is next; nil: none is left
	emit  func(format.Record) error
	whole bool // the result is a whole listing: removes are not needed

	cleared    string // the newer difference took away what the older one has here and below
	hasCleared bool
	silent     bool // the last newer record was not needed: nor are x- records behind it
}

// newMerge begins a merge with an older run, whose records go to emit.
func newMerge(older *run, whole bool, emit func(format.Record) error) (*merge, error) {
	r, err := older.open()
	if err != nil {
		return nil, err
	}
	m := &merge{older: r, emit: emit, whole: whole}
	m.head, err = r.next()
	return m, err
}

// newer takes the next record of the newer difference, which goes to emit.
func (m *merge) newer(rec format.Record, emit func(format.Record) error) error {
	switch r := rec.(type) {
	case *format.Entry:
		m.silent = false
		if err := m.beforeEntry(r); err != nil {
			return err
		}
	case *format.Remove:
		if err := m.advance(&r.Path); err != nil {
			return err
		}
		m.clear(r.Path)
		if m.silent = m.whole; m.silent {
			return nil
		}
	case *format.Extension:
		if m.silent {
			return nil
		}
	}
	return emit(rec)
}

func (m *merge) beforeEntry(r *format.Entry) error {
	if err := m.advance(&r.Path); err != nil {
		return err
	}
	if r.Type != format.TypeDir {
		m.clear(r.Path)
		return nil
	}
	if m.isCleared(r.Path) {
		return nil
	}
	// The older records of the same path are outdone, but not what they took
	// away from below it.
	emptied := false
	for m.head != nil && recordPath(m.head) == r.Path {
		e, isEntry := m.head.(*format.Entry)
		emptied = emptied || !isEntry || e.Type != format.TypeDir
		if err := m.next(nil); err != nil {
			return err
		}
	}
	if !emptied || m.whole {
		return nil
	}
	return m.emit(&format.Remove{Path: r.Path})
}

// clear notes that what the older difference has at the path and below is
// outdone.
func (m *merge) clear(path string) {
	if !m.isCleared(path) {
		m.cleared, m.hasCleared = path, true
	}
}

func (m *merge) isCleared(path string) bool { return m.hasCleared && atOrBelow(path, m.cleared) }

// finish lets the rest of the older difference through.
func (m *merge) finish() error { return m.advance(nil) }

// advance lets the older records through that come before a path; nil: all.
func (m *merge) advance(to *string) error {
	for m.head != nil {
		path := recordPath(m.head)
		if to != nil && format.ComparePaths(path, *to) >= 0 {
			return nil
		}
		emit := m.emit
		if _, isRemove := m.head.(*format.Remove); m.isCleared(path) || isRemove && m.whole {
			emit = nil
		}
		if err := m.next(emit); err != nil {
			return err
		}
	}
	return nil
}

// next gives the head, and the content that belongs to it, to emit, if there is
// one, and reads on to the next head.
func (m *merge) next(emit func(format.Record) error) error {
	for {
		if emit != nil {
			if err := emit(m.head); err != nil {
				return err
			}
		}
		var err error
		if m.head, err = m.older.next(); err != nil {
			return err
		}
		switch m.head.(type) {
		case nil, *format.Entry, *format.Remove:
			return nil
		}
	}
}

// recordPath returns the path of an entry or a remove.
func recordPath(rec format.Record) string {
	switch r := rec.(type) {
	case *format.Entry:
		return r.Path
	case *format.Remove:
		return r.Path
	}
	return ""
}
