package borg

import (
	"bytes"
	"context"
	"fmt"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/internal/loss"
)

// change is one difference between two archives as the stream says it: an entry,
// or with entry nil a removal. It is valid until the call that it was given to
// returns.
type change struct {
	path  string
	entry *format.Entry
	file  *file // of the type file: what content it has
	old   *file // the parent's version, if that is a file, too
}

// changes finds the differences between two archives, in the order of the
// stream.
type changes struct {
	ctx    context.Context
	links  [2]*links
	parts  [2]bool // parts of files count, as they are all that there is
	drop   func(path string, isDir bool) (drop, skipBelow bool)
	found  func(*change) error
	losses *loss.Counts

	hidden [2][]byte // a key below which nothing of this side is there
	under  [2]bool   // whether hidden is set: the root's key is empty
	leaf   bool      // what hides the newer side is no directory
	sides  [2]side
	bodies [2][]byte
}

// side is a record of one of the two archives, and what becomes of it.
type side struct {
	rec        *record
	drop, skip bool // what the caller's patterns say
	file       file
	entry      *format.Entry
}

// walk goes through all records.
func (w *changes) walk(m *merge) error {
	for n := 0; ; n++ {
		older, newer, err := m.next()
		if err != nil {
			return err
		}
		if older == nil && newer == nil {
			return nil
		}
		if n%1024 == 0 && w.ctx.Err() != nil {
			return context.Cause(w.ctx)
		}
		if err := w.path(older, newer); err != nil {
			return err
		}
	}
}

// isBelow reports whether a key lies below another.
func isBelow(key, dir []byte) bool {
	if len(dir) == 0 {
		return len(key) > 0
	}
	return len(key) > len(dir) && key[len(dir)] == 0 && bytes.HasPrefix(key, dir)
}

// hide says that nothing below a key is there on one side.
func (w *changes) hide(side int, key []byte) {
	if w.under[side] && isBelow(key, w.hidden[side]) {
		return
	}
	w.hidden[side], w.under[side] = append(w.hidden[side][:0], key...), true
	if side == 1 {
		w.leaf = false
	}
}

// path finds the change at one path.
func (w *changes) path(older, newer *record) error {
	for i, rec := range [2]*record{older, newer} {
		s := &w.sides[i]
		*s = side{file: s.file}
		if rec == nil || rec.flags&recordPart != 0 && !w.parts[i] {
			continue
		}
		if w.under[i] && isBelow(rec.key, w.hidden[i]) {
			if i == 1 && w.leaf {
				w.losses.Add(format.LossDamaged, pathOf(rec.key))
			}
			continue
		}
		s.rec = rec
	}
	if a, b := w.sides[0].rec, w.sides[1].rec; w.drop == nil && a != nil && b != nil && a.at == b.at && a.flags&(recordSlave|recordMaybe) == 0 {
		w.leaves()
		return nil // most of them
	}
	if w.drop != nil {
		for i := range w.sides {
			w.ask(i)
		}
	}
	return w.differ()
}

// leaves hides what archives should not have below what is no directory.
func (w *changes) leaves() {
	for i := range w.sides {
		if rec := w.sides[i].rec; rec != nil && rec.flags&recordDir == 0 && !w.sides[i].drop {
			w.hide(i, rec.key)
			if i == 1 {
				w.leaf = true
			}
		}
	}
}

// ask asks the caller whether a path is wanted.
func (w *changes) ask(i int) {
	s := &w.sides[i]
	if s.rec == nil {
		return
	}
	isDir := s.rec.flags&recordDir != 0
	s.drop, s.skip = w.drop(pathOf(s.rec.key), isDir)
	if s.drop && s.skip && isDir {
		w.hide(i, s.rec.key)
	}
}

// differ is for a path at which the two sides may differ.
func (w *changes) differ() error {
	older, newer := &w.sides[0], &w.sides[1]
	w.leaves()
	was, is := older.rec != nil && !older.drop, newer.rec != nil && !newer.drop
	if is {
		kept, err := w.passed(was)
		if kept || err != nil {
			return err
		}
		// It cannot be an entry: what was there goes.
	}
	if was {
		w.hide(0, older.rec.key)
		return w.found(&change{path: pathOf(older.rec.key)})
	}
	return nil
}

// passed is for what is there and wanted. It reports false for what the stream
// cannot have.
func (w *changes) passed(was bool) (kept bool, err error) {
	older, newer := &w.sides[0], &w.sides[1]
	if was {
		if same, err := w.sameRecord(); same || err != nil {
			return true, err
		}
	}
	c := change{}
	if err := w.look(1, func(kind string) { w.losses.Add(kind, pathOf(newer.rec.key)) }); err != nil || newer.entry == nil {
		return false, err
	}
	if was {
		if err := w.look(0, func(string) {}); err != nil {
			return false, fmt.Errorf("the version of the archive before: %w", err)
		}
		if older.entry != nil && w.equal() {
			return true, nil
		}
		if older.entry != nil && older.entry.Type == format.TypeFile {
			c.old = &older.file
		}
	}
	c.path, c.entry = newer.entry.Path, newer.entry
	if newer.file.isFile() {
		c.file = &newer.file
	}
	if newer.rec.flags&recordDir == 0 {
		w.hide(0, newer.rec.key) // goes with the entry
	}
	return true, w.found(&c)
}

// sameRecord reports whether both archives have an item byte by byte.
func (w *changes) sameRecord() (bool, error) {
	a, b := w.sides[0].rec, w.sides[1].rec
	if a.at != b.at && (a.flags != b.flags || !bytes.Equal(a.raw, b.raw)) {
		return false, nil
	}
	return sameLinks(w.links[0], w.links[1], a, b)
}

// look decodes one side's item.
func (w *changes) look(i int, lost func(kind string)) error {
	s := &w.sides[i]
	if err := w.links[i].resolve(&s.file, s.rec); err != nil {
		return err
	}
	entry, ok := s.file.entry(s.file.path, s.file.group, lost)
	if ok {
		s.entry = entry
	}
	return nil
}

// equal reports whether both sides say the same, be it in keys that are
// informative: a listing that came as differences is the same as one that came
// whole.
func (w *changes) equal() bool {
	older, newer := &w.sides[0], &w.sides[1]
	w.bodies[0] = older.entry.AppendBody(w.bodies[0][:0], false)
	w.bodies[1] = newer.entry.AppendBody(w.bodies[1][:0], false)
	return bytes.Equal(w.bodies[0], w.bodies[1]) && older.file.orphan == newer.file.orphan &&
		sameChunks(older.file.chunks, newer.file.chunks) && sameChunks(older.file.healthy, newer.file.healthy)
}

func sameChunks(a, b []chunkRef) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].id != b[i].id || a[i].size != b[i].size {
			return false
		}
	}
	return true
}
