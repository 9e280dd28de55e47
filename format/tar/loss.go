package tar

import (
	"slices"
	"strings"

	"github.com/bk-backup/bk/format"
)

// lossCounter counts what is lost, by kind.
type lossCounter map[string]*format.Loss

func (c lossCounter) add(kind, path string) {
	loss := c[kind]
	if loss == nil {
		loss = &format.Loss{Kind: kind}
		c[kind] = loss
	}
	loss.Count++
	if len(loss.Paths) < format.LossPathsMax {
		loss.Paths = append(loss.Paths, path[:min(len(path), format.PathSizeMax)])
	}
}

// merge adds what somebody else counted.
func (c lossCounter) merge(l format.Loss) {
	loss := c[l.Kind]
	if loss == nil {
		loss = &format.Loss{Kind: l.Kind}
		c[l.Kind] = loss
	}
	loss.Count += l.Count
	loss.Paths = append(loss.Paths, l.Paths[:min(len(l.Paths), format.LossPathsMax-len(loss.Paths))]...)
}

func (c lossCounter) sorted() []format.Loss {
	var out []format.Loss
	for _, loss := range c {
		out = append(out, *loss)
	}
	slices.SortFunc(out, func(a, b format.Loss) int { return strings.Compare(a.Kind, b.Kind) })
	return out
}
