package tree

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/bk-backup/bk/format"
)

// item is one item of a node: of a leaf an entry, of an inner node a child.
type item struct {
	path     string
	pathSize int    // of path, which is known only when the whole node is
	raw      []byte // the encoding behind shared and suffix, part of the node's chunk
	n        int    // elements of the item's array

	// Of a leaf's item: where body and content end in raw; the eof follows.
	bodyEnd, contentEnd int
	// Of an inner node's.
	id format.ID

	entries uint64 // entries in it: 1 in a leaf
	bytes   uint64 // plain bytes of content in it
}

func (it *item) body() []byte    { return it.raw[:it.bodyEnd] }
func (it *item) content() []byte { return it.raw[it.bodyEnd:it.contentEnd] }

// node is a leaf (level 0) or an inner node, decoded.
type node struct {
	id    format.ID
	level int
	items []item

	entries uint64 // sums over the items
	bytes   uint64

	limit string // where what follows the node begins; "" if nothing does
	paths []byte // scratch
	plain []byte // what the items point into, if it is the node's own
}

// ref is what a parent knows of a node.
type ref struct {
	id      format.ID
	level   int
	root    bool // the root has no parent: level, path and sums are not known
	path    string
	limit   string // where what follows begins; "" if nothing does
	entries uint64
	bytes   uint64
}

func (n *node) child(i int) ref {
	it, limit := &n.items[i], n.limit
	if i+1 < len(n.items) {
		limit = n.items[i+1].path
	}
	return ref{id: it.id, level: n.level - 1, path: it.path, limit: limit, entries: it.entries, bytes: it.bytes}
}

// check compares a node with what its parent says of it.
func (n *node) check(r ref) error {
	switch {
	case r.root:
		return nil
	case n.level != r.level:
		return fmt.Errorf("its level is %d, where its parent's is %d", n.level, r.level+1)
	case len(n.items) == 0:
		return errors.New("it has no items, and is not the root")
	case n.items[0].path != r.path:
		return fmt.Errorf("it begins at path %.200q, not at %.200q as its parent says", n.items[0].path, r.path)
	case r.limit != "" && format.ComparePaths(n.items[len(n.items)-1].path, r.limit) >= 0:
		return fmt.Errorf("it ends at path %.200q, but what follows begins at %.200q", n.items[len(n.items)-1].path, r.limit)
	case n.entries != r.entries || n.bytes != r.bytes:
		return fmt.Errorf("it holds %d entries and %d bytes of content, not %d and %d as its parent says", n.entries, n.bytes, r.entries, r.bytes)
	}
	return nil
}

// loadNode loads a node and checks it. Into, if not nil, is a node that nobody
// uses any more, whose memory is used again.
func loadNode(ctx context.Context, l Loader, r ref, into *node) (*node, error) {
	plain, err := l.Load(ctx, r.id)
	if err != nil {
		return nil, &NodeError{r.id, "node", err}
	}
	if into == nil {
		into = new(node)
	}
	into.id, into.limit = r.id, r.limit
	if err := into.parse(plain); err != nil {
		return nil, &NodeError{r.id, "node", err}
	}
	if err := into.check(r); err != nil {
		return nil, &NodeError{r.id, "node", err}
	}
	return into, nil
}

// parse decodes a leaf or an inner node. The items point into b.
func (n *node) parse(b []byte) error {
	if len(b) > nodeSizeMax {
		return fmt.Errorf("it has %d bytes, more than %d", len(b), nodeSizeMax)
	}
	n.level, n.entries, n.bytes = 0, 0, 0
	n.items, n.paths = n.items[:0], n.paths[:0]
	w := wire{b: b}
	elements := w.array(3)
	switch tag := string(w.str()); {
	case w.err != nil:
		return w.err
	case tag == "leaf" && elements == 2:
	case tag == "node" && elements == 3:
		n.level = int(w.uint(levelMax))
		if w.err == nil && n.level == 0 {
			return errors.New("an inner node has the level 0")
		}
	default:
		return fmt.Errorf("it is an array of %d elements that begins with %.200q, not a leaf or an inner node", elements, tag)
	}
	count := w.array(itemsMax)
	if w.err == nil && n.level > 0 && count == 0 {
		return errors.New("an inner node has no children")
	}
	n.items = slices.Grow(n.items, count)
	for len(n.items) < count && w.err == nil {
		n.parseItem(&w)
		if w.err != nil {
			return fmt.Errorf("item %d: %w", len(n.items)-1, w.err)
		}
	}
	w.end()
	if w.err != nil {
		return w.err
	}
	return n.setPaths()
}

// parseItem decodes an item; its path goes into paths until setPaths.
func (n *node) parseItem(w *wire) {
	n.items = append(n.items, item{})
	it := &n.items[len(n.items)-1]
	last := 0
	if len(n.items) > 1 {
		last = n.items[len(n.items)-2].pathSize
	}
	it.n = w.array(5)
	shared := int(w.uint(uint64(last)))
	suffix := w.bin()
	if w.err != nil {
		return
	}
	if shared+len(suffix) > format.PathSizeMax {
		w.fail("its path has %d bytes, more than %d", shared+len(suffix), format.PathSizeMax)
		return
	}
	before := n.paths[len(n.paths)-last:]
	if len(n.items) > 1 && comparePaths(before[shared:], suffix) >= 0 {
		w.fail("path %.200q does not come after %.200q", string(before[:shared])+string(suffix), before)
		return
	}
	n.paths = append(append(n.paths, before[:shared]...), suffix...)
	start := w.i
	if n.level == 0 {
		it.parseEntry(w, start)
	} else {
		it.parseChild(w)
	}
	if w.err != nil {
		return
	}
	it.raw = w.b[start:w.i]
	it.pathSize = shared + len(suffix)
	n.entries += it.entries
	n.bytes += it.bytes
	if n.entries > format.FileSizeMax || n.bytes > format.FileSizeMax {
		w.fail("the sums of entries or bytes are more than %d", uint64(format.FileSizeMax))
	}
}

func (it *item) parseEntry(w *wire, start int) {
	if it.n < 3 {
		w.fail("it has %d elements, not 3 to 5", it.n)
		return
	}
	bodyOrID(w)
	it.bodyEnd = w.i - start
	if it.n > 3 {
		it.bytes = checkPieces(w, contentInlineMax)
	}
	it.contentEnd = w.i - start
	if it.n > 4 {
		bodyOrID(w)
	}
	it.entries = 1
}

// bodyOrID moves past a map, or past the id of the chunk that has it.
func bodyOrID(w *wire) {
	if w.isMap() {
		w.skip()
		return
	}
	w.id()
}

func (it *item) parseChild(w *wire) {
	if it.n != 5 {
		w.fail("it has %d elements, not 5", it.n)
		return
	}
	it.id = w.id()
	it.entries = w.uint(format.FileSizeMax)
	it.bytes = w.uint(format.FileSizeMax)
	if w.err == nil && it.entries == 0 {
		w.fail("a child has no entries")
	}
}

// setPaths gives the items their paths, as parts of one string.
func (n *node) setPaths() error {
	all := string(n.paths)
	at, good := 0, ""
	for i := range n.items {
		it := &n.items[i]
		it.path = all[at : at+it.pathSize]
		at += it.pathSize
		if n.level == 0 {
			if err := format.CheckPathAfter(it.path, good); err != nil {
				return fmt.Errorf("item %d: %w", i, err)
			}
			good = it.path
		}
	}
	return nil
}

// comparePaths is format.ComparePaths for bytes.
func comparePaths(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if x, y := a[i], b[i]; x != y {
			if x == '/' || y != '/' && x < y {
				return -1
			}
			return 1
		}
	}
	return len(a) - len(b)
}

// nodeWriter fills one node.
type nodeWriter struct {
	level   int
	buf     []byte // room for the head, then the items
	items   int
	first   string
	last    string
	entries uint64
	bytes   uint64
	child   format.ID // of an inner node, the first child
}

const headRoom = 16

// size returns the bytes of the encoded items.
func (w *nodeWriter) size() int { return len(w.buf) - headRoom }

func (w *nodeWriter) reset() {
	if w.buf == nil {
		w.buf = make([]byte, headRoom, 32<<10)
	}
	w.buf = w.buf[:headRoom]
	w.items, w.first, w.last, w.entries, w.bytes = 0, "", "", 0, 0
}

// add appends an item of n elements, of which raw are those behind the suffix.
func (w *nodeWriter) add(path string, n int, raw []byte, entries, bytes uint64) {
	shared := 0
	if w.items == 0 {
		w.first = path
		if w.level > 0 {
			w.child = (&wire{b: raw}).id()
		}
	} else {
		shared = sharedLength(w.last, path)
	}
	w.buf = append(w.buf, 0x90|byte(n))
	w.buf = appendUint(w.buf, uint64(shared))
	w.buf = appendBin(w.buf, path[shared:])
	w.buf = append(w.buf, raw...)
	w.last = path
	w.items++
	w.entries += entries
	w.bytes += bytes
}

func sharedLength(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// onlyChild returns the child of an inner node that has one, else a zero ref.
func (w *nodeWriter) onlyChild() ref {
	if w.level == 0 || w.items != 1 {
		return ref{}
	}
	return ref{id: w.child, level: w.level - 1, path: w.first, entries: w.entries, bytes: w.bytes}
}

// save stores the node and begins the next one.
func (w *nodeWriter) save(ctx context.Context, c Chunks) (ref, int, error) {
	var room [headRoom]byte
	head := room[:0]
	if w.level == 0 {
		head = appendStr(append(head, 0x92), "leaf")
	} else {
		head = appendUint(appendStr(append(head, 0x93), "node"), uint64(w.level))
	}
	head = appendArray(head, w.items)
	plain := w.buf[headRoom-len(head):]
	copy(plain, head)
	id, err := c.Save(ctx, plain)
	if err != nil {
		return ref{}, 0, fmt.Errorf("save a node of the listing: %w", err)
	}
	r := ref{id: id, level: w.level, path: w.first, entries: w.entries, bytes: w.bytes}
	size := len(plain)
	w.reset()
	return r, size, nil
}

// appendChild appends what an inner node's item has behind the suffix.
func appendChild(dst []byte, r ref) []byte {
	dst = append(append(dst, 0xc4, byte(len(r.id))), r.id[:]...)
	return appendUint(appendUint(dst, r.entries), r.bytes)
}
