package spill

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestSorter sorts with little memory and with much, and wants what sorting in
// memory gives.
func TestSorter(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, test := range []struct{ rows, keys, memory int }{
		{0, 1, 1 << 20}, {1, 1, 1 << 20}, {1000, 50, 1 << 20}, {1000, 50, 1}, {5000, 5000, 1000}, {20_000, 300, 5000},
	} {
		s := NewSorter(t.TempDir(), strings.Compare)
		s.max = test.memory
		var want []string
		for i := range test.rows {
			key := fmt.Sprint(rng.IntN(test.keys))
			value := fmt.Sprint(i, strings.Repeat("v", rng.IntN(40)))
			want = append(want, key+"\x00"+value)
			if err := s.Add(key, []byte(value)); err != nil {
				t.Fatal(err)
			}
		}
		slices.SortStableFunc(want, func(a, b string) int {
			a, _, _ = strings.Cut(a, "\x00")
			b, _, _ = strings.Cut(b, "\x00")
			return strings.Compare(a, b)
		})
		var got []string
		err := s.Each(func(key string, value []byte) error {
			got = append(got, key+"\x00"+string(value))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%+v: %s", test, diff)
		}
		again := 0
		if err := s.Each(func(string, []byte) error { again++; return nil }); err != nil || again > 0 {
			t.Errorf("%+v: %d rows afterwards, %v", test, again, err)
		}
	}
}
