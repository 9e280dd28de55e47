package bitset

import "testing"

func TestSet(t *testing.T) {
	var s Set
	numbers := []int{0, 1, 63, 64, 65, 1000}
	for _, n := range numbers {
		if s.Has(n) {
			t.Errorf("%d is there before it was added", n)
		}
		s.Add(n)
		s.Add(n)
	}
	for _, n := range numbers {
		if !s.Has(n) {
			t.Errorf("%d is not there", n)
		}
	}
	for _, n := range []int{2, 62, 66, 999, 1001, 1 << 40} {
		if s.Has(n) {
			t.Errorf("%d is there", n)
		}
	}
	if s.Clear(); s.Has(0) || s.Has(1000) {
		t.Error("a cleared set has numbers")
	}
}
