package restic

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"github.com/bk-backup/bk/format"
)

// change is one difference between two snapshots as the stream says it: an
// entry, or with entry nil a removal. It is valid until the call that it was
// given to returns, but for the entry, which may be kept.
type change struct {
	path  string
	entry *format.Entry
	file  *node // of a file: what content it has
	old   *node // the parent's version, if that is a file, too
}

// walk finds the changes between two snapshots, in the order of the stream,
// which is restic's: directory by directory, names bytewise. Trees of the same
// id are equal and are not read; nodes of the same JSON are not decoded.
type walk struct {
	trees *treeLoader
	drop  func(path string, isDir bool) (drop, skipBelow bool) // or nil
	found func(*change) error
	lost  func(kind, path string)

	sides  [2]side // of the pair that is looked at
	bodies [2][]byte
}

// side is one of two nodes of a name.
type side struct {
	there      bool
	node       node
	entry      *format.Entry
	tree       *format.ID // of a directory
	drop, skip bool       // what the caller's patterns say
}

// pair is two nodes of one name, by their numbers; -1 where there is none.
type pair struct{ old, new int }

// dir finds the changes below a directory. A nil id stands for no directory.
func (w *walk) dir(path string, oldID, newID *format.ID) error {
	if oldID != nil && newID != nil && *oldID == *newID {
		return nil
	}
	trees := [2]*tree{new(tree), new(tree)}
	for i, id := range [2]*format.ID{oldID, newID} {
		if id == nil {
			continue
		}
		t, err := w.trees.load(*id)
		if err != nil {
			return fmt.Errorf("directory %q: %w", "/"+path, err)
		}
		trees[i] = t
	}
	for _, kind := range trees[1].lost {
		w.lost(kind, path)
	}
	pairs := pairUp(trees[0], trees[1])
	subtrees, places := w.subtrees(path, trees, pairs)
	asked := 0 // of subtrees
	for i, p := range pairs {
		for asked < len(subtrees) && places[asked] <= i {
			n := w.trees.ahead(subtrees[asked:])
			asked += max(n, 1)
		}
		if err := w.pair(path, trees, p); err != nil {
			return err
		}
	}
	return nil
}

// pairUp merges the nodes of two directories and leaves out what is equal.
func pairUp(older, newer *tree) []pair {
	pairs := make([]pair, 0, max(len(newer.nodes), len(older.nodes)))
	i, j := 0, 0
	for i < len(older.nodes) || j < len(newer.nodes) {
		c := 0
		switch {
		case i == len(older.nodes):
			c = 1
		case j == len(newer.nodes):
			c = -1
		default:
			c = cmp.Compare(older.nodes[i].name, newer.nodes[j].name)
		}
		switch {
		case c < 0:
			pairs = append(pairs, pair{i, -1})
			i++
		case c > 0:
			pairs = append(pairs, pair{-1, j})
			j++
		default:
			if !bytes.Equal(older.raw(&older.nodes[i]), newer.raw(&newer.nodes[j])) {
				pairs = append(pairs, pair{i, j})
			}
			i++
			j++
		}
	}
	return pairs
}

// subtrees returns the trees that a walk through pairs will most likely load,
// and the number of the pair that each belongs to.
func (w *walk) subtrees(dir string, trees [2]*tree, pairs []pair) (ids []format.ID, places []int) {
	for i, p := range pairs {
		if p.new < 0 {
			continue
		}
		ref := &trees[1].nodes[p.new]
		newID, ok := trees[1].subtree(ref)
		if !ok {
			continue
		}
		if w.drop != nil {
			if drop, skip := w.drop(join(dir, ref.name), true); drop && skip {
				continue
			}
		}
		if p.old >= 0 {
			oldID, ok := trees[0].subtree(&trees[0].nodes[p.old])
			if oldID == newID {
				continue
			}
			if ok {
				ids, places = append(ids, oldID), append(places, i)
			}
		}
		ids, places = append(ids, newID), append(places, i)
	}
	return ids, places
}

// pair finds the changes at one name and below.
func (w *walk) pair(dir string, trees [2]*tree, p pair) error {
	var path string
	for i, n := range [2]int{p.old, p.new} {
		w.sides[i].there = false
		if n < 0 {
			continue
		}
		ref := &trees[i].nodes[n]
		if path == "" {
			path = join(dir, ref.name)
		}
		if err := w.look(i, path, trees[i], ref); err != nil {
			return fmt.Errorf("file or directory %q: %w", "/"+path, err)
		}
	}
	older, newer := &w.sides[0], &w.sides[1]
	switch {
	case newer.there && newer.drop:
		return w.dropped(path)
	case newer.there:
		return w.passed(path)
	case older.there:
		return w.gone(path, older)
	}
	return nil
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// look decodes a node of the older (0) or newer (1) tree. What the stream cannot
// hold counts as not being there.
func (w *walk) look(i int, path string, t *tree, ref *nodeRef) error {
	s := &w.sides[i]
	if err := s.node.parse(t.raw(ref)); err != nil {
		return err
	}
	lost := func(kind string) {
		if i == 1 && !s.drop {
			w.lost(kind, path)
		}
	}
	isDir := s.node.kind == "dir"
	s.drop, s.skip = false, false
	if w.drop != nil {
		s.drop, s.skip = w.drop(path, isDir)
	}
	s.entry, s.there = s.node.entry(path, lost)
	s.tree = nil
	if isDir && s.there {
		id, ok := t.subtree(ref)
		if !ok {
			return fmt.Errorf("its node names no tree: %w", ErrDamaged)
		}
		s.tree = &id
	}
	return nil
}

// passed is for a path that is there and wanted.
func (w *walk) passed(path string) error {
	older, newer := &w.sides[0], &w.sides[1]
	oldTree, newTree := older.below(), newer.tree
	if !older.there || older.drop || !w.equal() {
		c := change{path: path, entry: newer.entry}
		if newer.entry.Type == format.TypeFile {
			c.file = &newer.node
			if older.there && !older.drop && older.entry.Type == format.TypeFile {
				c.old = &older.node
			}
		}
		if err := w.found(&c); err != nil {
			return err
		}
	}
	if newTree == nil {
		return nil
	}
	return w.dir(path, oldTree, newTree)
}

// below returns the tree below a directory of which something may be in the
// listing, or nil.
func (s *side) below() *format.ID {
	if !s.there || s.drop && s.skip {
		return nil
	}
	return s.tree
}

// equal reports whether both sides say the same, be it in keys that are
// informative: a listing that came as differences is the same as one that came
// whole.
func (w *walk) equal() bool {
	older, newer := &w.sides[0], &w.sides[1]
	w.bodies[0] = older.entry.AppendBody(w.bodies[0][:0], false)
	w.bodies[1] = newer.entry.AppendBody(w.bodies[1][:0], false)
	return bytes.Equal(w.bodies[0], w.bodies[1]) &&
		slices.Equal(older.node.content, newer.node.content) && older.node.err == newer.node.err
}

// dropped is for a path that is there and not wanted. Patterns can look at the
// type: what had another type in the parent may have passed.
func (w *walk) dropped(path string) error {
	older, newer := &w.sides[0], &w.sides[1]
	oldTree, newTree := older.below(), newer.tree
	if newer.skip {
		newTree = nil
	}
	switch {
	case older.there && !older.drop:
		if err := w.found(&change{path: path}); err != nil {
			return err
		}
		oldTree = nil
	case newTree == nil && oldTree != nil:
		return w.removeBelow(path, oldTree)
	}
	if newTree == nil {
		return nil
	}
	return w.dir(path, oldTree, newTree)
}

// gone is for a path that is no longer there.
func (w *walk) gone(path string, older *side) error {
	if !older.drop {
		return w.found(&change{path: path})
	}
	if below := older.below(); below != nil {
		return w.removeBelow(path, below)
	}
	return nil
}

// removeBelow removes what passed of what was below a directory that did not.
func (w *walk) removeBelow(dir string, id *format.ID) error {
	t, err := w.trees.load(*id)
	if err != nil {
		return fmt.Errorf("directory %q: %w", "/"+dir, err)
	}
	for i := range t.nodes {
		path := join(dir, t.nodes[i].name)
		if err := w.look(0, path, t, &t.nodes[i]); err != nil {
			return fmt.Errorf("file or directory %q: %w", "/"+path, err)
		}
		if !w.sides[0].there {
			continue
		}
		if err := w.gone(path, &w.sides[0]); err != nil {
			return err
		}
	}
	return nil
}
