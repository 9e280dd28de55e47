package restic

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/bk-backup/bk/format"
)

// tree is one directory: the JSON of its nodes, divided but not yet decoded.
type tree struct {
	json  []byte
	nodes []nodeRef // in the order of the names
	lost  []string  // kinds of loss: nodes that cannot be entries of a directory, left out
}

// nodeRef is one node of a tree: what a walk over two trees has to know of it.
type nodeRef struct {
	start, end uint32 // of its object in the tree's JSON
	subtree    uint32 // where the 64 digits of its subtree's id begin; 0: it has none
	name       string
}

// raw returns the node's JSON object.
func (t *tree) raw(n *nodeRef) []byte { return t.json[n.start:n.end] }

// subtree returns the id of the tree below a node, and whether there is one.
func (t *tree) subtree(n *nodeRef) (id format.ID, ok bool) {
	if n.subtree == 0 {
		return id, false
	}
	parseHexID(&id, t.json[n.subtree:])
	return id, true
}

// find returns the node of a name, or nil.
func (t *tree) find(name string) *nodeRef {
	i, ok := slices.BinarySearchFunc(t.nodes, name, func(n nodeRef, name string) int { return cmp.Compare(n.name, name) })
	if !ok {
		return nil
	}
	return &t.nodes[i]
}

// parseTree divides the JSON of a tree blob, which it keeps, and puts the nodes
// into order: restic keeps them so, but not everybody does.
func parseTree(b []byte) (*tree, error) {
	if len(b) > math.MaxUint32 {
		return nil, fmt.Errorf("a tree of %d bytes: %w", len(b), ErrDamaged)
	}
	t := &tree{json: b}
	s := scanner{b: b}
	s.object(func(key []byte) {
		if string(key) != "nodes" {
			s.skip()
			return
		}
		t.nodes = t.nodes[:0]
		s.array(func() { t.add(&s) })
	})
	s.end()
	if s.err != nil {
		return nil, s.err
	}
	byName := func(a, b nodeRef) int { return cmp.Compare(a.name, b.name) }
	if !slices.IsSortedFunc(t.nodes, byName) {
		slices.SortStableFunc(t.nodes, byName)
	}
	kept := t.nodes[:0]
	for i := range t.nodes {
		switch n := t.nodes[i]; {
		case len(n.name) > format.NameSizeMax:
			t.lost = append(t.lost, format.LossLimit)
		case !isName(n.name), len(kept) > 0 && kept[len(kept)-1].name == n.name:
			t.lost = append(t.lost, format.LossDamaged)
		default:
			kept = append(kept, n)
		}
	}
	t.nodes = kept
	return t, nil
}

// add reads one node as far as a nodeRef needs it.
func (t *tree) add(s *scanner) {
	s.space()
	n := nodeRef{start: uint32(s.i)}
	hasName := false
	if s.null() {
		s.fail("a node is null")
		return
	}
	s.object(func(key []byte) {
		switch string(key) {
		case "name":
			quoted := s.text()
			if s.err == nil {
				name, err := unquoteName(quoted)
				if err != nil {
					s.fail("the name %q: %v", quoted, err)
				}
				n.name, hasName = name, true
			}
		case "subtree":
			n.subtree = 0
			if s.null() {
				return
			}
			s.space()
			at := s.i + 1
			var id format.ID
			if s.id(&id); s.err == nil {
				n.subtree = uint32(at)
			}
		default:
			s.skip()
		}
	})
	if s.err == nil && !hasName {
		s.fail("a node has no name")
	}
	n.end = uint32(s.i)
	t.nodes = append(t.nodes, n)
}

// unquoteName takes apart what restic makes of a name's bytes: a Go string
// literal without its quotes. b is UTF-8.
func unquoteName(b []byte) (string, error) {
	if bytes.IndexByte(b, '\\') < 0 && bytes.IndexByte(b, '"') < 0 && bytes.IndexByte(b, '\n') < 0 {
		return string(b), nil
	}
	return strconv.Unquote(`"` + string(b) + `"`)
}

// isName reports whether a name can be that of an entry in a directory.
func isName(name string) bool {
	switch name {
	case "", ".", "..":
		return false
	}
	return strings.IndexByte(name, '/') < 0 && strings.IndexByte(name, 0) < 0
}

// id reads an id, which must be 64 hexadecimal digits.
func (s *scanner) id(id *format.ID) {
	s.space()
	if s.err != nil {
		return
	}
	if rest := s.b[s.i:]; len(rest) >= 66 && rest[0] == '"' && rest[65] == '"' && parseHexID(id, rest[1:]) {
		s.i += 66
		return
	}
	s.fail("an id is not 64 hexadecimal digits")
}

// parseHexID reads the 64 digits at the beginning of b.
func parseHexID(id *format.ID, b []byte) bool {
	_, err := hex.Decode(id[:], b[:2*len(id)])
	return err == nil
}
