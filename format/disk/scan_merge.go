package disk

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/bk-backup/bk/format"
)

// merge goes through the files that the walk finds and through the previous
// listing, in the order of the paths, and makes items of what differs.
type merge struct {
	*Scanner
	walker *walker
	memo   ownerMemo

	prev     *format.Entry // the next of the previous listing; nil at its end
	prevPath string        // its path, or that of the one before
	matched  bool          // prev is done with, once the next path comes
	gone     string        // what lies below here left the listing with it
	hasGone  bool

	links       map[linkKey]*linkGroup
	named       groupNames
	linksWeight int64
	group       *group
}

func newMerge(s *Scanner) *merge {
	return &merge{
		Scanner: s,
		walker:  newWalker(),
		memo:    ownerMemo{cache: &s.owners},
		links:   make(map[linkKey]*linkGroup),
		group:   s.newGroup(),
	}
}

// run does it all. It returns an error only if the scan cannot go on.
func (m *merge) run() error {
	if err := m.advance(); err != nil {
		return err
	}
	var err error
	if m.options.Stdin != nil {
		err = m.stdin()
	} else {
		err = m.scanRoots()
	}
	if err != nil {
		return err
	}
	for m.prev != nil {
		if err := m.removePrev(); err != nil {
			return err
		}
	}
	return m.flush()
}

func (m *merge) scanRoots() error {
	top, err := m.walk.root(m.tree, m.walker)
	if err != nil {
		return fmt.Errorf("scan: %w", err)
	}
	if m.tree.isRoot {
		return m.directory(top.path, &top.status, top)
	}
	if err := m.await(top); err != nil {
		return err
	}
	if top.err != nil {
		return fmt.Errorf("scan: open /: %w", top.err)
	}
	return m.contents(top)
}

// await returns when a job of the walk is done. What is ready is not kept
// waiting for it.
func (m *merge) await(job walkJob) error {
	if !job.job().isDone() && (len(m.group.items) > 0 || m.group.unchanged.Entries > unchangedMax) {
		if err := m.flush(); err != nil {
			return err
		}
	}
	return m.walk.need(m.ctx, job, m.walker)
}

// contents goes through what lies in a directory.
func (m *merge) contents(l *listing) error {
	for i, b := range l.batches {
		if err := m.await(b); err != nil {
			return err
		}
		for j := range b.nodes {
			if err := m.node(&b.nodes[j]); err != nil {
				return err
			}
		}
		m.walk.consumed(len(b.nodes))
		l.batches[i] = nil
	}
	return nil
}

func (m *merge) node(n *node) error {
	switch {
	case n.err != nil:
		return m.trouble(n.path, troubleOf("stat", n.path, n.err))
	case len(n.path) > format.PathSizeMax:
		// The commit can only name what lies above.
		above := n.path
		for len(above) > format.PathSizeMax {
			above = format.ParentPath(above)
		}
		return m.trouble(above, trouble{LossLimit, fmt.Errorf("a path below /%s has %d bytes, more than a stream can hold", above, len(n.path))})
	case n.sub != nil:
		return m.directory(n.path, &n.status, n.sub)
	}
	if _, ok := n.status.kind(); !ok {
		return m.trouble(n.path, trouble{LossUnreadable, fmt.Errorf("/%s is of no type known, its mode is %o", n.path, n.status.mode)})
	}
	return m.file(n)
}

// trouble reports what became of a path that is not in the listing.
func (m *merge) trouble(path string, t trouble) error {
	it, err := m.add(taskNone, path, 0)
	if err == nil {
		it.troubles = append(it.troubles, t)
	}
	return err
}

// directory makes the item of a directory, whose entry the walk has all of, and
// goes on below it.
func (m *merge) directory(path string, st *status, l *listing) error {
	if err := m.await(l); err != nil {
		return err
	}
	if l.err != nil && isVanished(l.err) {
		return m.trouble(path, troubleOf("open", path, l.err))
	}
	prev, had, err := m.match(path, true)
	if err != nil {
		return err
	}
	if prev != nil && l.err == nil && l.xattrE == nil && m.sameStatus(prev, st, "") &&
		slices.Equal(prev.Xattrs, l.xattrs) && slices.Equal(prev.Flags, l.flags) {
		m.unchanged(st)
		return m.contents(l)
	}
	it, err := m.add(taskEntry, path, 0)
	if err != nil {
		return err
	}
	it.had = had
	st.fill(&it.entry, path, &m.memo)
	it.entry.Xattrs, it.entry.Flags = l.xattrs, l.flags
	it.translate(&m.options, nil)
	if l.xattrE != nil {
		it.note(LossXattr, "read attributes of", l.xattrE)
	}
	if l.err != nil {
		it.note(LossUnreadable, "list", l.err)
	}
	return m.contents(l)
}

// file makes the item of anything but a directory, or none if nothing changed.
func (m *merge) file(n *node) error {
	st := &n.status
	prev, had, err := m.match(n.path, false)
	if err != nil {
		return err
	}
	link, names, err := m.linkOf(n, prev)
	if err != nil {
		return err
	}
	hardlink := ""
	if link != nil {
		hardlink = link.name
	}
	isFile := st.isFile()
	same := prev != nil && m.sameStatus(prev, st, hardlink)
	if same && prev.Has&format.HasCtime != 0 && prev.Ctime == st.ctime && m.sameInode(prev, st) {
		if !m.adopts(prev) {
			m.unchanged(st)
			return nil
		}
		it, err := m.add(taskEntry, n.path, 0)
		if err != nil {
			return err
		}
		it.had, it.status = had, *st
		it.adopt(prev.Clone(), &m.memo)
		return nil
	}
	if m.options.Survey != nil {
		same = false // a survey knows no more of a file than its status
	} else if isFile {
		// Of the rest only a reader can tell, and only if ctime need not agree.
		same = same && m.options.IgnoreCtime && m.sameInode(prev, st) && link == nil
	}
	known, err := m.knownContent(st)
	if err != nil {
		return err
	}
	what, reserved := taskMeta, int64(0)
	switch {
	case isFile && link != nil && link.content != nil:
		what, known = taskLink, nil
	case isFile:
		what = taskFile
		if known == nil && !m.options.ListingOnly {
			reserved = reserveSize(st.size)
		}
	}
	it, err := m.add(what, n.path, reserved)
	if err != nil {
		return err
	}
	it.name, it.dir, it.status = n.name, n.in, *st
	it.had, it.hardlink, it.names, it.known = had, hardlink, names, known
	if same {
		it.prev = prev.Clone()
	}
	if isFile && link != nil {
		m.keepContent(link, it, st)
	}
	return nil
}

// knownContent returns the content of a file that came with another tree, or nil.
func (m *merge) knownContent(st *status) (*knownContent, error) {
	if m.options.Inodes == nil || !st.isFile() || st.nlink < 2 || m.options.Flat || m.options.ListingOnly {
		return nil, nil
	}
	return m.options.Inodes.find(st)
}

// linkOf returns the group of a file with several names, nil for other files,
// and how many there are; 0 stands for what the status says. prev is the previous
// entry of its path, or nil.
func (m *merge) linkOf(n *node, prev *format.Entry) (*linkGroup, uint32, error) {
	if n.status.nlink < 2 {
		return nil, 0, nil
	}
	key := linkKey{n.status.dev, n.status.ino}
	left, names := n.status.nlink, uint32(0)
	if m.options.Survey != nil {
		var err error
		if names, err = m.options.Survey.namesOf(key); err != nil {
			return nil, 0, err
		}
		if names < 2 {
			return nil, 1, nil
		}
		left = names
	}
	g := m.links[key]
	if g == nil {
		g = &linkGroup{name: m.nameGroup(n, prev), left: left}
		m.links[key] = g
	}
	if g.left--; g.left == 0 {
		delete(m.links, key)
		m.linksWeight -= g.weight
	}
	return g, names, nil
}

// nameGroup names the group of a file that is the first of it: as in the previous
// listing, where that was of another program and has names of its own, so that
// files which did not change are not read for the sake of a name; otherwise by its
// path. No two groups of a listing get one name.
func (m *merge) nameGroup(n *node, prev *format.Entry) string {
	name := groupName(n.path)
	if prev != nil && prev.Hardlink != "" && m.options.Survey == nil && m.named.isNew(prev.Hardlink) &&
		prev.Has&format.HasCtime != 0 && prev.Ctime == n.status.ctime && m.sameInode(prev, &n.status) {
		name = prev.Hardlink
	}
	if !m.named.isNew(name) {
		name = groupName(n.path + "\x00") // which no path has
	}
	m.named.add(name)
	return name
}

// groupNames are the names that groups have got, 64 keyed bits of each: who makes
// a stream cannot aim at a name that is then not taken over, which costs reading a
// file and no more.
type groupNames struct {
	seed maphash.Seed
	set  map[uint64]struct{}
}

func (g *groupNames) isNew(name string) bool {
	if g.set == nil {
		return true
	}
	_, ok := g.set[maphash.String(g.seed, name)]
	return !ok
}

func (g *groupNames) add(name string) {
	if g.set == nil {
		g.seed, g.set = maphash.MakeSeed(), make(map[uint64]struct{})
	}
	g.set[maphash.String(g.seed, name)] = struct{}{}
}

// groupName is what a group of hard links is called, by the first of its paths.
func groupName(first string) string {
	sum := sha256.Sum256([]byte(first))
	return string(sum[:])
}

// keepContent has the content recorded for the names to come, or repeated.
func (m *merge) keepContent(g *linkGroup, it *item, st *status) {
	if g.content == nil && g.left > 0 && !m.options.Flat {
		weight := linkWeight(st.size)
		if m.linksWeight+weight <= linksWeightMax {
			m.linksWeight += weight
			g.weight = weight
			g.content = &linkContent{}
		}
	}
	it.content = g.content
}

// unchanged counts an entry that the previous listing has just so.
func (m *merge) unchanged(st *status) {
	u := &m.group.unchanged
	u.Entries++
	u.Unchanged++
	switch {
	case st.isFile():
		u.Files++
		u.BytesUnchanged += st.size
	case st.isDir():
		u.Dirs++
	}
}

// sameStatus reports whether the previous entry agrees with the status in
// everything that is part of an entry's equality.
func (m *merge) sameStatus(e *format.Entry, st *status, hardlink string) bool {
	const known = format.HasMode | format.HasUID | format.HasGID | format.HasMtime
	kind, _ := st.kind()
	return e.Type == kind && e.Has&known == known &&
		e.Mode == uint32(st.mode&0o7777) && e.UID == st.uid && e.GID == st.gid &&
		e.User == m.memo.user(st.uid) && e.Group == m.memo.group(st.gid) &&
		e.Mtime == st.mtime && e.Hardlink == hardlink && len(e.Extra) == 0 &&
		(kind != format.TypeFile || e.Has&format.HasSize != 0 && e.Size == st.size) &&
		(kind != format.TypeChar && kind != format.TypeBlock || e.Rdev == st.rdev)
}

func (m *merge) sameInode(e *format.Entry, st *status) bool {
	return m.options.IgnoreInode || e.Has&format.HasInode != 0 && e.Inode == st.ino
}

// match takes out of the listing whatever the previous one has before path. It
// returns the previous entry of path, valid until the next call, and whether
// there was anything at path or below.
func (m *merge) match(path string, isDir bool) (prev *format.Entry, had bool, err error) {
	if m.matched {
		m.matched = false
		if err := m.advance(); err != nil {
			return nil, false, err
		}
	}
	for m.prev != nil && format.ComparePaths(m.prev.Path, path) < 0 {
		if err := m.removePrev(); err != nil {
			return nil, false, err
		}
	}
	if m.prev != nil && m.prev.Path == path && !m.isGone() {
		prev, had, m.matched = m.prev, true, true
	} else if m.prev != nil && format.IsBelow(m.prev.Path, path) && !m.isGone() {
		had = true
	}
	if !isDir {
		// An entry that is not a directory takes what was below out with it, and
		// so does its removal if it comes to that.
		m.gone, m.hasGone = path, true
	}
	return prev, had, nil
}

func (m *merge) isGone() bool { return m.hasGone && format.IsBelow(m.prev.Path, m.gone) }

// removePrev removes the next previous entry, unless that was done by a removal
// or an entry above it, and goes on to the one behind it.
func (m *merge) removePrev() error {
	if m.matched {
		m.matched = false
		return m.advance()
	}
	if !m.isGone() {
		m.gone, m.hasGone = m.prev.Path, true
		if _, err := m.add(taskRemove, m.prev.Path, 0); err != nil {
			return err
		}
		if m.prev.Path == "" {
			// With the root all is gone, also what the new listing has again.
			m.prev = nil
			return nil
		}
	}
	return m.advance()
}

// advance reads the next previous entry.
func (m *merge) advance() error {
	if m.options.Previous == nil {
		return nil
	}
	e, err := m.options.Previous.Next()
	if errors.Is(err, io.EOF) {
		m.prev = nil
		return nil
	}
	if err != nil {
		return fmt.Errorf("scan: read the previous listing after %q: %w", m.prevPath, err)
	}
	if m.prev != nil && format.ComparePaths(m.prevPath, e.Path) >= 0 {
		return fmt.Errorf("scan: the previous listing has %q after %q, out of order", e.Path, m.prevPath)
	}
	m.prev, m.prevPath = e, e.Path
	return nil
}

// unchangedMax is how many entries may pass without an item before Next hears of
// them, for the sake of progress.
const unchangedMax = 1024

// newGroup returns an empty group, whose items never move.
func (s *Scanner) newGroup() *group {
	g, _ := s.groups.Get().(*group)
	if g == nil {
		g = &group{items: make([]item, 0, groupItemsMax)}
	}
	*g = group{items: g.items[:0], done: make(chan struct{})}
	return g
}

// add begins an item that has reserved bytes of the budget.
func (m *merge) add(what task, path string, reserved int64) (*item, error) {
	g := m.group
	if len(g.items) == groupItemsMax || g.size+reserved > groupSizeMax && len(g.items) > 0 {
		if err := m.flush(); err != nil {
			return nil, err
		}
	}
	if reserved > 0 {
		// What this group holds back, and nobody can give back before it is sent
		// on, is so little that the rest of the budget is always enough.
		if err := m.budget.Acquire(m.ctx, reserved); err != nil {
			return nil, err
		}
	}
	g = m.group
	g.items = append(g.items, item{task: what, path: path, reserved: reserved})
	g.size += reserved
	g.work = g.work || what == taskMeta || what == taskFile
	return &g.items[len(g.items)-1], nil
}

// flush sends the group on, first to Next so that the order is kept, then to
// the readers.
func (m *merge) flush() error {
	g := m.group
	if len(g.items) == 0 && g.unchanged == (ScanStats{}) {
		return nil
	}
	m.group = m.newGroup()
	select {
	case m.out <- g:
	case <-m.ctx.Done():
		return m.ctx.Err()
	}
	if !g.work {
		close(g.done)
		return nil
	}
	select {
	case m.tasks <- g:
		return nil
	case <-m.ctx.Done():
		return m.ctx.Err()
	}
}

// stdin makes the one item of a scan of standard input.
func (m *merge) stdin() error {
	_, had, err := m.match(m.options.StdinName, false)
	if err != nil {
		return err
	}
	it, err := m.add(taskEntry, m.options.StdinName, streamReserve)
	if err != nil {
		return err
	}
	now := format.TimeOf(m.options.Now())
	uid, gid := uint32(unix.Geteuid()), uint32(unix.Getegid())
	it.had = had
	it.entry = format.Entry{
		Path: it.path, Type: format.TypeFile,
		Has:  format.HasMode | format.HasUID | format.HasGID | format.HasMtime,
		Mode: 0o600, UID: uid, GID: gid, User: m.memo.user(uid), Group: m.memo.group(gid), Mtime: now,
	}
	newSplitter, name := m.options.ChunkerFor(it.path, 0)
	it.entry.Chunker = name
	it.stream = newStream(m.Scanner, newSplitter())
	go it.stream.readAll(m.options.Stdin)
	return nil
}
