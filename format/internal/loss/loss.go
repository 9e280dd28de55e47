// Package loss counts what a system cannot keep, for the commits of a stream
// (spec/stream.md, "Losses"). Start at Counts. Any package below format may
// import it; it imports format alone.
package loss

import (
	"slices"
	"strings"

	"github.com/bk-backup/bk/format"
)

// Counts count losses by kind, sorted as a commit has them. The zero value is
// ready.
type Counts []format.Loss

// Add counts one loss of a kind at a path.
func (c *Counts) Add(kind, path string) { c.add(kind, 1, path) }

// Merge adds what was counted elsewhere, perhaps by somebody who counts wrongly.
func (c *Counts) Merge(other Counts) {
	for _, x := range other {
		c.add(x.Kind, x.Count, x.Paths...)
	}
}

func (c *Counts) add(kind string, count uint64, paths ...string) {
	i, found := slices.BinarySearchFunc(*c, kind, func(x format.Loss, kind string) int { return strings.Compare(x.Kind, kind) })
	if !found {
		*c = slices.Insert(*c, i, format.Loss{Kind: kind})
	}
	x := &(*c)[i]
	x.Count += count
	for _, path := range paths[:min(len(paths), format.LossPathsMax-len(x.Paths))] {
		x.Paths = append(x.Paths, path[:min(len(path), format.PathSizeMax)])
	}
}

// Clone returns a copy to which others can add.
func (c Counts) Clone() Counts {
	out := slices.Clone(c)
	for i := range out {
		out[i].Paths = slices.Clone(out[i].Paths)
	}
	return out
}
