package tree

import (
	"github.com/bk-backup/bk/format"
)

// level is one level of a tree that is being updated: it walks the old items of
// the level, takes edits of them, and fills new nodes. What that does to the
// sequence of its nodes are edits of the level above.
//
// It is synced while it stands where an old node begins and a new one would,
// with nothing to write: all old nodes from there on stay as they are until an
// edit comes, so they are not even loaded. An edit opens the node that it falls
// into, and a burst begins: old items are copied and edited until old and new
// nodes begin at the same item again. Then the new nodes take the place of the
// old ones of the burst in the level above.
type level struct {
	u      *Updater
	n      int
	cur    *cursor // over the old nodes; nil if the old tree has no such level
	i      int     // next old item in the cursor's node
	synced bool
	ended  bool // the old items are exhausted
	w      nodeWriter
	child  []byte // scratch

	// The burst.
	from     string    // where the first old node of it begins
	fromID   format.ID // that node
	consumed int       // old nodes; more than one counts as many
	begun    bool      // whether the level above has been told
	held     ref       // the burst's first new node, while it is the only one
	hasHeld  bool

	saved     int // nodes
	lastSaved format.ID
	lastOnly  ref // the only child of that node, if it has one
}

// untouched reports whether no edit has come.
func (l *level) untouched() bool {
	return l.cur != nil && l.synced && l.saved == 0 && len(l.cur.frames) == 0
}

// advance moves to the place of an edit: all old items before the path are kept.
// If an item with that very path stands there, the edit is known to replace it
// by one with the same path, unless gone is set: then the old node that begins
// with it may begin no more, and the node before it is opened too.
func (l *level) advance(path string, gone bool) error {
	if l.cur == nil {
		return nil
	}
	keep, open := bound{path, before}, bound{path, after}
	if gone {
		open = keep
	}
	for {
		if l.synced {
			if err := l.openAt(open); err != nil {
				return err
			}
		}
		if done, err := l.copyTo(keep); err != nil || done {
			return err
		}
		next, ok := l.cur.nextPath()
		if !ok {
			l.ended = true
			return nil
		}
		if !open.over(next) {
			return nil
		}
		if err := l.passBoundary(next); err != nil {
			return err
		}
	}
}

// openAt begins a burst at the last node that begins before the bound.
func (l *level) openAt(b bound) error {
	if err := l.cur.seek(b); err != nil {
		return err
	}
	n := l.cur.node()
	l.i, l.synced = 0, false
	l.from, l.fromID, l.consumed, l.begun = n.items[0].path, n.id, 1, false
	return nil
}

// copyTo copies old items of the cursor's node that lie before the bound. It
// reports whether one behind it was found.
func (l *level) copyTo(b bound) (found bool, err error) {
	if l.ended {
		return true, nil
	}
	items := l.cur.node().items
	for l.i < len(items) {
		it := &items[l.i]
		if !b.over(it.path) {
			return true, nil
		}
		if l.n == 0 {
			l.u.prev = it
		}
		if err := l.put(it.path, it.n, it.raw, it.entries, it.bytes); err != nil {
			return false, err
		}
		l.i++
	}
	return false, nil
}

// passBoundary goes on behind the cursor's node: if the next old node begins
// where a new one does, the burst is over, else that node belongs to it.
func (l *level) passBoundary(next string) error {
	if !l.u.cut.begins(l.n, next, l.w.items, l.w.size()) {
		l.i = 0
		l.consumed++
		return l.cur.next()
	}
	if err := l.save(); err != nil {
		return err
	}
	l.synced = true
	return l.endBurst(bound{next, before})
}

// drop removes the old items up to the bound. Nodes that lie wholly before it
// are not loaded.
func (l *level) drop(to bound) error {
	if l.cur == nil || l.ended {
		return nil
	}
	items := l.cur.node().items
	for l.i < len(items) && to.over(items[l.i].path) {
		l.i++
	}
	if l.i < len(items) {
		return nil
	}
	next, ok := l.cur.nextPath()
	if !ok {
		l.consumed += 2
		l.ended = true
		return nil
	}
	if !to.over(next) {
		return nil
	}
	if err := l.cur.seek(to); err != nil {
		return err
	}
	l.consumed += 2
	l.i = l.cur.node().first(to)
	return nil
}

// put appends an item of n elements to the new items.
func (l *level) put(path string, n int, raw []byte, entries, bytes uint64) error {
	if l.u.cut.begins(l.n, path, l.w.items, l.w.size()) {
		if err := l.save(); err != nil {
			return err
		}
	}
	l.w.add(path, n, raw, entries, bytes)
	return nil
}

// putChild appends a node of the level below.
func (l *level) putChild(r ref) error {
	l.child = appendChild(l.child[:0], r)
	return l.put(r.path, 5, l.child, r.entries, r.bytes)
}

// save stores the node being filled, if it has items, and gives it to the level
// above.
func (l *level) save() error {
	if l.w.items == 0 {
		return nil
	}
	l.lastOnly = l.w.onlyChild()
	r, size, err := l.w.save(l.u.ctx, l.u.chunks)
	if err != nil {
		return err
	}
	l.saved++
	l.lastSaved = r.id
	l.u.stats.NodesSaved++
	l.u.stats.BytesSaved += int64(size)
	if l.cur != nil && !l.begun && !l.hasHeld {
		l.held, l.hasHeld = r, true
		return nil
	}
	if err := l.giveHeld(); err != nil {
		return err
	}
	return l.give(r)
}

// giveHeld gives the burst's first new node to the level above, having moved
// that to where the burst's first old node stands. The new node begins with the
// same path, unless there is nothing before the burst: an edit that takes the
// first item of a node away opens the node before, too.
func (l *level) giveHeld() error {
	if !l.hasHeld {
		return nil
	}
	l.hasHeld = false
	parent, err := l.u.level(l.n + 1)
	if err != nil {
		return err
	}
	l.begun = true
	if err := parent.advance(l.from, false); err != nil {
		return err
	}
	return parent.putChild(l.held)
}

func (l *level) give(r ref) error {
	parent, err := l.u.level(l.n + 1)
	if err != nil {
		return err
	}
	return parent.putChild(r)
}

// endBurst has the level above drop the burst's old nodes, up to the bound.
func (l *level) endBurst(to bound) error {
	if l.hasHeld && l.consumed == 1 && l.held.id == l.fromID {
		l.hasHeld = false // the edits changed nothing
		return nil
	}
	if err := l.giveHeld(); err != nil {
		return err
	}
	parent, err := l.u.level(l.n + 1)
	if err != nil {
		return err
	}
	if !l.begun { // no new node came of it
		if err := parent.advance(l.from, false); err != nil {
			return err
		}
	}
	return parent.drop(to)
}

// copyRest copies old items until a burst is over or the old items are.
func (l *level) copyRest() error {
	for l.cur != nil && !l.synced && !l.ended {
		if _, err := l.copyTo(bound{kind: atEnd}); err != nil {
			return err
		}
		next, ok := l.cur.nextPath()
		if !ok {
			l.ended = true
			return nil
		}
		if err := l.passBoundary(next); err != nil {
			return err
		}
	}
	return nil
}

// finish ends the level: no more edits come.
func (l *level) finish() error {
	if err := l.copyRest(); err != nil {
		return err
	}
	if err := l.save(); err != nil {
		return err
	}
	if l.cur == nil || l.synced {
		return nil
	}
	l.synced = true
	return l.endBurst(bound{kind: atEnd})
}
