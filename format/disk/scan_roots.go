package disk

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bk-backup/bk/format"
)

// rootTree is the part of the file system above the roots: all that is walked
// of a directory in it are its children, unless it is a root itself.
type rootTree struct {
	path     string // as in entries
	isRoot   bool
	children map[string]*rootTree
}

// names returns the names of the children in the order of the walk.
func (t *rootTree) names() []dirName {
	names := make([]dirName, 0, len(t.children))
	for name := range t.children {
		names = append(names, dirName{name: newCname(name), kind: unix.DT_UNKNOWN})
	}
	sortNames(names)
	return names
}

// child returns the subtree of name, nil if there is none or t is nil.
func (t *rootTree) child(name cname) *rootTree {
	if t == nil {
		return nil
	}
	return t.children[string(name)]
}

// newRootTree makes the paths absolute, checks that one of them at least is there,
// and returns the tree with the roots' paths as they are in entries, sorted, each
// once. Of those that are not there the walk reports the loss: a path that is gone
// one night must not keep the others from being backed up.
func newRootTree(paths []string) (*rootTree, []string, error) {
	tree := &rootTree{}
	var roots []string
	var missing error // the first
	found := false
	for _, p := range paths {
		if p == "" || strings.IndexByte(p, 0) >= 0 {
			return nil, nil, fmt.Errorf("scan %q: this is not a path", p)
		}
		abs, err := filepath.Abs(p)
		if err != nil {
			return nil, nil, fmt.Errorf("scan %q: find the working directory: %w", p, err)
		}
		if _, err := os.Lstat(abs); err == nil {
			found = true
		} else if missing == nil {
			missing = fmt.Errorf("scan %q: look at the root: %w", p, err)
		}
		rel := strings.TrimPrefix(abs, "/")
		if err := format.CheckPath(rel); err != nil {
			return nil, nil, fmt.Errorf("scan %q: %w", p, err)
		}
		tree.add(rel)
		roots = append(roots, rel)
	}
	if !found {
		return nil, nil, missing
	}
	slices.SortFunc(roots, format.ComparePaths)
	return tree, slices.Compact(roots), nil
}

func (t *rootTree) add(rel string) {
	node := t
	for rest := rel; rest != ""; {
		name, after, _ := strings.Cut(rest, "/")
		child := node.children[name]
		if child == nil {
			if node.children == nil {
				node.children = make(map[string]*rootTree)
			}
			child = &rootTree{path: joinPath(node.path, cname(name))}
			node.children[name] = child
		}
		node, rest = child, after
	}
	node.isRoot = true
}

// joinPath returns the path of name in dir.
func joinPath(dir string, name cname) string {
	if dir == "" {
		return strings.Clone(string(name))
	}
	return dir + "/" + string(name)
}
