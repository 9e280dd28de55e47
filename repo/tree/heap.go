package tree

// heapPush adds x to a binary heap that has its least element on top; less
// compares elements by their places in it.
func heapPush[T any](h *[]T, x T, less func(i, j int) bool) {
	*h = append(*h, x)
	s := *h
	for i := len(s) - 1; i > 0; {
		up := (i - 1) / 2
		if !less(i, up) {
			return
		}
		s[i], s[up] = s[up], s[i]
		i = up
	}
}

// heapPop takes the least element.
func heapPop[T any](h *[]T, less func(i, j int) bool) T {
	s := *h
	top, last := s[0], len(s)-1
	s[0] = s[last]
	clear(s[last:])
	s = s[:last]
	*h = s
	for i := 0; ; {
		down := 2*i + 1
		if down >= len(s) {
			return top
		}
		if down+1 < len(s) && less(down+1, down) {
			down++
		}
		if !less(down, i) {
			return top
		}
		s[i], s[down] = s[down], s[i]
		i = down
	}
}
