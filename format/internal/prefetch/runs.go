package prefetch

import "iter"

const (
	readSizeMax = 1 << 20  // bytes read at a time, where what is wanted lies close together
	readGapMax  = 32 << 10 // bytes that may lie unused between two wants of one read
)

// Runs yields the parts of wants that lie close together, so that one read
// serves each. wants are sorted by file and start; where says in which file one
// lies, from where and to where.
func Runs[W any, F comparable](wants []W, where func(*W) (file F, start, end int64)) iter.Seq[[]W] {
	return func(yield func([]W) bool) {
		for lo := 0; lo < len(wants); {
			first, begin, end := where(&wants[lo])
			hi := lo + 1
			for ; hi < len(wants); hi++ {
				file, start, last := where(&wants[hi])
				if file != first || start > end+readGapMax || last-begin > readSizeMax {
					break
				}
				end = max(end, last)
			}
			if !yield(wants[lo:hi]) {
				return
			}
			lo = hi
		}
	}
}
