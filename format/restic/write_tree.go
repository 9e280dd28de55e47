package restic

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/bk-backup/bk/format"
)

// treeWriter makes the trees of a snapshot from what changed since its parent,
// which comes in the order of paths. Only directories with something below them
// that changed are read and written; of the others the parent's trees are named.
// It holds the directories from the root to where it is.
type treeWriter struct {
	ctx   context.Context
	w     *writer
	save  func(id format.ID, json []byte) error
	stack []*directory // the root first
}

// directory is one that is being written.
type directory struct {
	name string // last component
	path string
	// node is the beginning of the directory's own node, up to its content; or
	// the parent's whole node, in which the id of the tree stands at subtree.
	node    []byte
	subtree int
	old     *tree     // the parent's version, once it is needed
	oldID   format.ID // its tree, zero if it has none
	at      int       // nodes of old that are written, or gone
	json    []byte    // begun when something came
	count   int
}

// begin begins a listing on the parent's root tree, or with nothing.
func (t *treeWriter) begin(root format.ID) {
	t.stack = append(t.stack[:0], &directory{oldID: root})
}

func (t *treeWriter) top() *directory { return t.stack[len(t.stack)-1] }

// put adds an object that is no directory, given its node. What was at its path
// goes, with all below.
func (t *treeWriter) put(path string, node []byte) error {
	d, _, err := t.reach(path, true)
	if err != nil {
		return err
	}
	d.append(node)
	return nil
}

// putDir adds a directory, given its node up to the content, or changes it: what
// is below stays.
func (t *treeWriter) putDir(path string, node []byte) error {
	if path == "" {
		return nil
	}
	_, old, err := t.reach(path, true)
	if err != nil {
		return err
	}
	t.stack = append(t.stack, &directory{name: lastName(path), path: path, node: node, oldID: old})
	return nil
}

// remove takes a path and all below it away.
func (t *treeWriter) remove(path string) error {
	if path == "" {
		t.begin(format.ID{})
		return nil
	}
	_, _, err := t.reach(path, false)
	if errors.Is(err, errNoDirectory) {
		return nil
	}
	return err
}

// errNoDirectory says that there is nothing for a path to lie in.
var errNoDirectory = errors.New("there is no such directory")

// lastName returns the last component of a path.
func lastName(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// reach makes the directory that a path lies in the top of the stack, and goes on
// in it to the path's name, over the parent's node of that name, whose tree it
// returns. Directories that are not there are made, or are errNoDirectory.
func (t *treeWriter) reach(path string, create bool) (*directory, format.ID, error) {
	dir := ""
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		dir = path[:i]
	}
	for len(t.stack) > 1 && dir != t.top().path && !format.IsBelow(dir, t.top().path) {
		if err := t.close(); err != nil {
			return nil, format.ID{}, err
		}
	}
	for t.top().path != dir {
		if err := t.enter(dir, create); err != nil {
			return nil, format.ID{}, err
		}
	}
	d := t.top()
	ref, err := t.forward(d, lastName(path))
	if err != nil || ref == nil {
		return d, format.ID{}, err
	}
	old, _ := d.old.subtree(ref)
	return d, old, nil
}

// enter goes one directory further towards dir, which changes only below.
func (t *treeWriter) enter(dir string, create bool) error {
	d := t.top()
	rest := dir
	if d.path != "" {
		rest = dir[len(d.path)+1:]
	}
	name, _, _ := strings.Cut(rest, "/")
	child := &directory{name: name, path: join(d.path, name)}
	ref, err := t.forward(d, name)
	if err != nil {
		return err
	}
	if ref == nil {
		if !create {
			return errNoDirectory
		}
		child.node = appendImplied(nil, child.path)
	} else {
		id, ok := d.old.subtree(ref)
		if !ok && !create {
			d.append(d.old.raw(ref))
			return errNoDirectory
		}
		if !ok {
			e := format.Errorf(format.ClassTree, "something lies below %q, which is not a directory in the parent", child.path)
			e.Path = child.path
			return e
		}
		child.node, child.subtree, child.oldID = d.old.raw(ref), int(ref.subtree-ref.start), id
	}
	t.stack = append(t.stack, child)
	return nil
}

// appendImplied appends the node of a directory of which nothing is known.
func appendImplied(b []byte, path string) []byte {
	b = append(b, `{"name":`...)
	b = appendName(b, path)
	return append(b, `,"type":"dir","mode":2147484141,"mtime":"0001-01-01T00:00:00Z","atime":"0001-01-01T00:00:00Z","ctime":"0001-01-01T00:00:00Z"`...)
}

// forward copies what the parent's version of a directory has before a name, and
// passes over the node of that name, which it returns if there is one.
func (t *treeWriter) forward(d *directory, name string) (*nodeRef, error) {
	if d.old == nil {
		d.old = new(tree)
		if !d.oldID.IsZero() {
			old, err := t.w.readTree(t.ctx, d.oldID)
			if err != nil {
				return nil, fmt.Errorf("the parent's directory %q: %w", "/"+d.path, err)
			}
			d.old = old
		}
		d.json = append(make([]byte, 0, len(d.old.json)+1024), `{"nodes":[`...)
	}
	from := d.at
	for d.at < len(d.old.nodes) && d.old.nodes[d.at].name < name {
		d.at++
	}
	d.copy(from, d.at)
	if d.at < len(d.old.nodes) && d.old.nodes[d.at].name == name {
		d.at++
		return &d.old.nodes[d.at-1], nil
	}
	return nil, nil
}

// copy takes nodes of the parent's version over.
func (d *directory) copy(from, to int) {
	for i := from; i < to; i++ {
		d.append(d.old.raw(&d.old.nodes[i]))
	}
}

func (d *directory) append(node []byte) {
	if d.count > 0 {
		d.json = append(d.json, ',')
	}
	d.count++
	d.json = append(d.json, node...)
}

// close completes the top of the stack and puts its node into the directory above.
func (t *treeWriter) close() error {
	d := t.top()
	id, err := t.finish(d)
	if err != nil {
		return err
	}
	t.stack = t.stack[:len(t.stack)-1]
	above := t.top()
	if d.subtree == 0 {
		above.append(appendSubtree(d.node, id))
		return nil
	}
	above.append(d.node)
	at := len(above.json) - len(d.node) + d.subtree
	hex.Encode(above.json[at:], id[:])
	return nil
}

// finish stores a directory's tree, if it is another one than before.
func (t *treeWriter) finish(d *directory) (format.ID, error) {
	if d.old == nil {
		if !d.oldID.IsZero() {
			return d.oldID, nil
		}
		d.old, d.json = new(tree), append([]byte(nil), `{"nodes":[`...)
	}
	d.copy(d.at, len(d.old.nodes))
	json := append(d.json, "]}\n"...)
	if len(json) > treeSizeMax {
		return format.ID{}, fmt.Errorf("directory %q: its tree would have %d bytes, more than %d", "/"+d.path, len(json), treeSizeMax)
	}
	id := format.SumID(json)
	if id == d.oldID {
		return id, nil
	}
	return id, t.save(id, json)
}

// end completes the listing and returns its root tree.
func (t *treeWriter) end() (format.ID, error) {
	for len(t.stack) > 1 {
		if err := t.close(); err != nil {
			return format.ID{}, err
		}
	}
	return t.finish(t.top())
}
