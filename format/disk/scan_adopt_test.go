package disk

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format"
)

// forget returns the listing as a program would have made it that does not know
// some of the numbers.
func (m model) forget(what format.Has) model {
	c := m.clone()
	for p, f := range c {
		g := *f
		g.Has &^= what
		if what&format.HasInode != 0 {
			g.Inode = 0
		}
		if what&format.HasCtime != 0 {
			g.Ctime = format.Time{}
		}
		c[p] = &g
	}
	return c
}

// TestScanAdopts goes on from listings without inode numbers, as borg's are, and
// without ctimes, as copies' are: what to leave out of the comparison has to be
// said once, and not of later scans.
func TestScanAdopts(t *testing.T) {
	for _, c := range []struct {
		why     string
		unknown format.Has
		options ScanOptions
		closely bool // attributes have to be read
	}{
		{"no inodes", format.HasInode, ScanOptions{IgnoreInode: true}, false},
		{"no inodes and ctimes", format.HasInode | format.HasCtime, ScanOptions{IgnoreInode: true, IgnoreCtime: true}, true},
	} {
		t.Run(c.why, func(t *testing.T) {
			tree := newTestTree(t)
			tree.tricky()
			first := scan(t, nil, ScanOptions{Roots: []string{tree.root}})
			o := c.options
			o.Roots = []string{tree.root}
			if !c.closely {
				o.afterWalk = func(path string) { t.Errorf("%s was looked at closely", path) }
			}
			second := scan(t, first.model.forget(c.unknown), o)
			// Hard links without ctimes are read: names of one file could differ.
			if second.copies < 10 || !c.closely && second.data > 0 || len(second.removes) > 0 {
				t.Errorf("%d copies, %d chunks sent; removed %q", second.copies, second.data, second.removes)
			}
			if !c.closely && second.stats.Unchanged < second.stats.Entries-5 {
				t.Errorf("counted %+v", second.stats)
			}
			if !slices.Contains(second.header.Features, format.FeatureCopy) {
				t.Errorf("features %q", second.header.Features)
			}
			diffModels(t, first.model.below(tree.root), second.model.below(tree.root))
			for p, f := range second.model.below(tree.root) {
				// Directories are compared without either.
				if f.Type != format.TypeDir && (f.Inode != first.model[p].Inode || f.Ctime != first.model[p].Ctime) {
					t.Errorf("%s has inode %d, ctime %v; want %d, %v", p, f.Inode, f.Ctime, first.model[p].Inode, first.model[p].Ctime)
				}
			}
			third := scan(t, second.model, ScanOptions{Roots: []string{tree.root}})
			if third.data > 0 || third.copies > 0 || len(third.model.below(tree.root)) != len(first.model.below(tree.root)) {
				t.Errorf("a scan without these options sent %q", third.entries)
			}
			if diff := cmp.Diff(second.model.below(tree.root).paths(), third.model.below(tree.root).paths()); diff != "" {
				t.Error(diff)
			}
		})
	}
}
