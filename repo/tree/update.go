package tree

import (
	"context"
	"errors"
	"fmt"

	"github.com/bk-backup/bk/format"
)

// Stats says what an update made and what it took.
type Stats struct {
	Entries uint64 // of the new listing
	Bytes   uint64 // plain bytes of content of the new listing

	NodesLoaded int // of the old listing
	NodesSaved  int
	BytesSaved  int64 // plain bytes of the saved nodes
	Puts        int
	Removes     int
}

// Updater makes a new listing of an old one and edits, given in path order. It
// reads and writes only the nodes that edits touch and those up to the next
// place where old and new nodes end alike; the root is the one that building
// the new listing from nothing gives. It keeps a few nodes of each level in
// memory, whatever the number of edits.
//
//	listing + edits -> level 0: leaves -> level 1 -> ... -> root
//
// The old listing is taken to be valid: an edit is checked against what stands
// right before it, not against all of the old entries.
type Updater struct {
	ctx     context.Context
	chunks  Chunks
	f       *fetcher
	cut     *cutter
	oldRoot format.ID
	top     *node // nil when there is nothing old
	levels  []*level
	enc     itemEncoder
	item    Item
	stats   Stats
	err     error

	edited   bool
	lastPath string // of the last edit
	lastPut  bool

	// The entry that stands last before the current place in the new listing.
	prev      *item // an old one, or nil
	prevPath  string
	prevIsDir bool
	entry     format.Entry
}

// NewBuilder returns an Updater of the empty listing.
func NewBuilder(ctx context.Context, chunks Chunks, key SplitKey) *Updater {
	u := &Updater{ctx: ctx, chunks: chunks, f: newFetcher(ctx, chunks, 0), cut: newCutter(key), prevIsDir: true}
	u.f.leaves = true
	return u
}

// NewUpdater returns an Updater of the listing with the given root.
func NewUpdater(ctx context.Context, chunks Chunks, key SplitKey, root format.ID) (*Updater, error) {
	u := NewBuilder(ctx, chunks, key)
	top, err := openRoot(u.f, root)
	if err != nil {
		return nil, err
	}
	u.oldRoot = root
	if len(top.items) > 0 {
		u.top = top
	}
	return u, nil
}

// Put adds an entry, or replaces the one at its path. Unless it is a directory,
// what was below its path is removed. Content and eof are as for EncodeItem.
//
// Paths come in ascending order, each once, but that Put may follow Remove of
// the same path. An entry below one that is not a directory is an error of
// format.ClassTree, one out of order of format.ClassOrder; errors are sticky.
func (u *Updater) Put(e *format.Entry, content Content, eof []byte) error {
	if u.err == nil {
		u.err = u.enc.encode(u.ctx, u.chunks, &u.item, e, content, eof)
	}
	if u.err == nil {
		u.err = u.put(&u.item, e.Type == format.TypeDir)
	}
	return u.err
}

// PutItem is Put of an item of a listing in the same chunks.
func (u *Updater) PutItem(it *Item) error {
	if u.err == nil {
		u.err = it.Decode(u.ctx, &u.entry)
	}
	if u.err == nil {
		u.err = u.put(it, u.entry.Type == format.TypeDir)
	}
	return u.err
}

func (u *Updater) putItem(it *Item, isDir bool) error {
	if u.err == nil {
		u.err = u.put(it, isDir)
	}
	return u.err
}

// Remove removes the entry at a path and all below it; there may be none.
func (u *Updater) Remove(path string) error {
	if u.err == nil {
		u.err = u.remove(path)
	}
	return u.err
}

func (u *Updater) put(it *Item, isDir bool) error {
	if err := u.inOrder(it.Path, true); err != nil {
		return err
	}
	l, err := u.level(0)
	if err != nil {
		return err
	}
	if err := l.advance(it.Path, false); err != nil {
		return err
	}
	to := bound{it.Path, after}
	if !isDir {
		to.kind = afterBelow
	}
	if err := l.drop(to); err != nil {
		return err
	}
	if err := u.checkAbove(it.Path); err != nil {
		return err
	}
	u.prev, u.prevPath, u.prevIsDir = nil, it.Path, isDir
	u.stats.Puts++
	return l.put(it.Path, it.n, it.raw, 1, it.bytes)
}

func (u *Updater) remove(path string) error {
	if err := format.CheckPath(path); err != nil {
		return err
	}
	if err := u.inOrder(path, false); err != nil {
		return err
	}
	u.stats.Removes++
	l, err := u.level(0)
	if err != nil {
		return err
	}
	if err := l.advance(path, true); err != nil {
		return err
	}
	return l.drop(bound{path, afterBelow})
}

// inOrder checks and notes the path of an edit.
func (u *Updater) inOrder(path string, put bool) error {
	if u.edited {
		c := format.ComparePaths(u.lastPath, path)
		if c > 0 || c == 0 && (u.lastPut || !put) {
			e := format.Errorf(format.ClassOrder, "its path does not come after %.200q", u.lastPath)
			e.Path = path
			return e
		}
	}
	u.edited, u.lastPath, u.lastPut = true, path, put
	return nil
}

// checkAbove fails if the path lies below an entry that is not a directory.
// Nothing lies between such an entry and the first one below it, so it is enough
// to look at the entry before.
func (u *Updater) checkAbove(path string) error {
	if u.prev != nil {
		u.prevPath = u.prev.path
	}
	if u.prevPath == path || !format.IsBelow(path, u.prevPath) {
		return nil
	}
	if u.prev != nil {
		if err := decodeEntry(u.ctx, u.chunks, u.prev.path, u.prev.body(), &u.entry); err != nil {
			return err
		}
		u.prev, u.prevIsDir = nil, u.entry.Type == format.TypeDir
	}
	if u.prevIsDir {
		return nil
	}
	e := format.Errorf(format.ClassTree, "it lies below %.200q, which is not a directory", u.prevPath)
	e.Path = path
	return e
}

// Finish returns the root of the new listing. The Updater cannot be used again.
func (u *Updater) Finish() (root format.ID, stats Stats, err error) {
	defer u.f.close()
	if u.err != nil {
		return format.ID{}, Stats{}, u.err
	}
	u.err = errors.New("the listing was finished before")
	r, err := u.finish()
	if err != nil {
		return format.ID{}, Stats{}, err
	}
	u.stats.Entries, u.stats.Bytes = r.entries, r.bytes
	u.stats.NodesLoaded = u.f.loads
	return r.id, u.stats, nil
}

// Abort ends an update that is not finished.
func (u *Updater) Abort() {
	u.f.close()
	if u.err == nil {
		u.err = errors.New("the update was ended before it was finished")
	}
}

func (u *Updater) finish() (ref, error) {
	old := ref{id: u.oldRoot, root: true}
	if u.top != nil {
		old = u.top.child(0)
	}
	for n := 0; ; n++ {
		if n >= len(u.levels) || u.levels[n].untouched() {
			if n == 0 && u.top == nil {
				return u.empty()
			}
			return old, nil // nothing came of the edits
		}
		l := u.levels[n]
		if n > 0 && (u.top == nil || n >= u.top.level) {
			if err := l.copyRest(); err != nil {
				return ref{}, err
			}
			if l.saved == 0 && l.w.items == 0 {
				return u.empty()
			}
			if l.saved == 0 && l.w.items == 1 {
				return u.lowest(l.w.onlyChild())
			}
		}
		if err := l.finish(); err != nil {
			return ref{}, err
		}
		if n+1 >= len(u.levels) && u.top == nil {
			return u.empty()
		}
	}
}

// empty saves the empty listing.
func (u *Updater) empty() (ref, error) {
	w := nodeWriter{}
	w.reset()
	r, _, err := w.save(u.ctx, u.chunks)
	return r, err
}

// lowest returns the lowest node below r from which on the tree branches: the
// root is on the first level that has one node.
func (u *Updater) lowest(r ref) (ref, error) {
	for r.level > 0 {
		if l := u.levels[r.level]; l.saved > 0 && l.lastSaved == r.id {
			if l.lastOnly.id.IsZero() {
				return r, nil
			}
			r = l.lastOnly
			continue
		}
		n, err := u.f.node(r)
		if err != nil {
			return ref{}, err
		}
		if len(n.items) > 1 {
			return r, nil
		}
		r = n.child(0)
	}
	return r, nil
}

// level returns the state of a level, which is made when first needed.
func (u *Updater) level(n int) (*level, error) {
	if n > levelMax {
		return nil, fmt.Errorf("the listing needs more than %d levels", levelMax)
	}
	for len(u.levels) <= n {
		l := &level{u: u, n: len(u.levels)}
		l.w.level = l.n
		l.w.reset()
		if u.top != nil && l.n <= u.top.level {
			l.cur = &cursor{f: u.f, level: l.n, top: u.top}
			l.synced = true
		}
		u.levels = append(u.levels, l)
	}
	return u.levels[n], nil
}
