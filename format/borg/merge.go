package borg

import (
	"bytes"
	"container/heap"
	"slices"
)

// merge goes through the records of two archives side by side, in the order of
// their paths.
type merge struct {
	cursors []*runCursor // a heap
	group   []*runCursor // those that stand at the same path
}

const (
	mergeMemory    = 16 << 20 // bytes of all buffers together
	mergeBufferMin = 2 << 10
	mergeBufferMax = 128 << 10
)

// newMerge prepares merging the runs of an older and a newer archive.
func newMerge(log *runLog, older, newer []*run) (*merge, error) {
	all := slices.Concat(older, newer)
	for _, one := range all {
		one.pos = [2]int{}
	}
	for side, list := range [2][]*run{older, newer} {
		for i, one := range list {
			one.pos[side] = i + 1 // of one that comes twice, the last
		}
	}
	m := &merge{}
	size := min(max(mergeMemory/max(len(all), 1), mergeBufferMin), mergeBufferMax)
	seen := make(map[*run]bool, len(all))
	for _, one := range all {
		if seen[one] {
			continue
		}
		seen[one] = true
		c := newRunCursor(log.log, one, size)
		ok, err := c.next()
		if err != nil {
			return nil, err
		}
		if ok {
			m.cursors = append(m.cursors, c)
		}
	}
	heap.Init(m)
	return m, nil
}

// next returns the records of the next path: nil where an archive has none. They
// are valid until the next call. Both are nil at the end.
func (m *merge) next() (older, newer *record, err error) {
	for _, c := range m.group {
		ok, err := c.next()
		if err != nil {
			return nil, nil, err
		}
		if ok {
			heap.Push(m, c)
		}
	}
	m.group = m.group[:0]
	if len(m.cursors) == 0 {
		return nil, nil, nil
	}
	var best [2]*runCursor
	for len(m.cursors) > 0 {
		c := m.cursors[0]
		if len(m.group) > 0 && !bytes.Equal(c.key, m.group[0].key) {
			break
		}
		heap.Pop(m)
		m.group = append(m.group, c)
		for side := range best {
			// Of a path that comes twice in an archive, the last counts.
			if n := c.run.pos[side]; n > 0 && (best[side] == nil || n > best[side].run.pos[side]) {
				best[side] = c
			}
		}
	}
	if best[0] != nil {
		older = &best[0].record
	}
	if best[1] != nil {
		newer = &best[1].record
	}
	return older, newer, nil
}

// Len implements heap.Interface, as do the other methods.
func (m *merge) Len() int           { return len(m.cursors) }
func (m *merge) Less(i, j int) bool { return bytes.Compare(m.cursors[i].key, m.cursors[j].key) < 0 }
func (m *merge) Swap(i, j int)      { m.cursors[i], m.cursors[j] = m.cursors[j], m.cursors[i] }

// Push appends a cursor.
func (m *merge) Push(x any) { m.cursors = append(m.cursors, x.(*runCursor)) }

// Pop takes the last cursor.
func (m *merge) Pop() any {
	last := len(m.cursors) - 1
	c := m.cursors[last]
	m.cursors = m.cursors[:last]
	return c
}
