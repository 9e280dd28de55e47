package find

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bk-backup/bk/format"
)

// version is one state of an object and the snapshots that have it, which follow
// each other in their history.
type version struct {
	path        string
	body        []byte        // of the entry, without its path; or
	decoded     *format.Entry // the entry, valid while it is handed out
	first, last *format.Snapshot
	snapshots   int
	from        int // place of first in the history, where versions are sorted by it
}

// entry decodes the body, which this package encoded.
func (v *version) entry() (*format.Entry, error) {
	if v.decoded != nil {
		return v.decoded, nil
	}
	return decode(v.path, v.body)
}

func decode(path string, body []byte) (*format.Entry, error) {
	e := new(format.Entry)
	_, err := e.ParseBody(body, false)
	e.Path = path
	if err != nil {
		return nil, fmt.Errorf("entry %q: %w", path, err)
	}
	return e, nil
}

// versions follows the objects that are wanted through a history.
type versions struct {
	want    *wanted
	history []*format.Snapshot
	now     int  // number of the snapshot that is being read, from 1
	whole   bool // it is sent whole: what it does not name is gone

	root  node // those that are there now
	found []version
	file  *format.Entry // waits for its size
}

// node is a directory, or the name of an object in one, on the way to the
// objects that are there now. Entries are kept encoded: that takes a quarter of
// the memory.
type node struct {
	children map[string]*node
	path     string
	body     []byte // nil: only a way
	since    int    // number of the first snapshot that has it
	seen     int    // number of the last snapshot that named it
}

// record takes the next record of the source.
func (v *versions) record(rec format.Record) error {
	switch rec := rec.(type) {
	case *format.Snapshot:
		if v.now == len(v.history) || rec.ID != v.history[v.now].ID {
			return fmt.Errorf("read the listings: snapshot %s came out of turn", rec.ID)
		}
		v.now++
		v.whole = rec.Parent.IsZero()
	case *format.Entry:
		if rec.Type != format.TypeFile {
			return v.put(rec)
		}
		v.file = rec.Clone()
	case *format.EOF:
		v.file.Size, v.file.Has = rec.Size, v.file.Has|format.HasSize
		return v.put(v.file)
	case *format.Remove:
		v.remove(rec.Path)
	case *format.Commit:
		if v.whole {
			v.sweep(&v.root)
		}
	}
	return nil
}

// put is an entry of the snapshot.
func (v *versions) put(e *format.Entry) error {
	wanted := v.want.match(e)
	n := v.find(e.Path, wanted)
	if n == nil {
		return nil
	}
	if e.Type != format.TypeDir {
		v.closeBelow(n)
	}
	if !wanted {
		v.close(n)
		return nil
	}
	if n.body != nil {
		old, err := decode(n.path, n.body)
		if err != nil {
			return err
		}
		if old.Equal(e) {
			n.seen = v.now
			return nil
		}
	}
	v.close(n)
	n.path, n.body, n.since, n.seen = e.Path, e.AppendBody(nil, false), v.now, v.now
	return nil
}

// find returns the node of a path, making it if that is asked for; else nil if
// there is none.
func (v *versions) find(path string, make bool) *node {
	n := &v.root
	for path != "" {
		name, rest, _ := strings.Cut(path, "/")
		child := n.children[name]
		if child == nil {
			if !make {
				return nil
			}
			child = new(node)
			if n.children == nil {
				n.children = map[string]*node{}
			}
			n.children[name] = child
		}
		n, path = child, rest
	}
	return n
}

// remove is a path that is gone with all below it.
func (v *versions) remove(path string) {
	if n := v.find(path, false); n != nil {
		v.close(n)
		v.closeBelow(n)
	}
}

func (v *versions) closeBelow(n *node) {
	for _, child := range n.children {
		v.close(child)
		v.closeBelow(child)
	}
	n.children = nil
}

// close ends the version that the snapshots before this one have.
func (v *versions) close(n *node) {
	// One that began with this snapshot is replaced before it was ever there.
	if n.body != nil && n.since < v.now {
		v.found = append(v.found, version{path: n.path, body: n.body, first: v.history[n.since-1], last: v.history[v.now-2], snapshots: v.now - n.since})
	}
	n.body = nil
}

// sweep closes what a whole listing did not name.
func (v *versions) sweep(n *node) {
	if n.body != nil && n.seen < v.now {
		v.close(n)
	}
	for _, child := range n.children {
		v.sweep(child)
	}
}

// finish returns all versions, by path and then by time.
func (v *versions) finish() []version {
	v.now++
	v.close(&v.root)
	v.closeBelow(&v.root)
	slices.SortStableFunc(v.found, func(a, b version) int { return format.ComparePaths(a.path, b.path) })
	return v.found
}
