package loss

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format"
)

func TestMerge(t *testing.T) {
	var c Counts
	c.Add("b", "x")
	c.Add("a", "y")
	c.Merge(Counts{{Kind: "b", Count: 3, Paths: []string{"z"}}, {Kind: "c", Count: 2}, {Kind: "d", Count: 1, Paths: []string{"p", "q"}}})
	want := Counts{
		{Kind: "a", Count: 1, Paths: []string{"y"}},
		{Kind: "b", Count: 4, Paths: []string{"x", "z"}},
		{Kind: "c", Count: 2},
		{Kind: "d", Count: 1, Paths: []string{"p", "q"}},
	}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Error(diff)
	}
	for range 2 * format.LossPathsMax {
		c.Add("a", "y")
	}
	if n := len(c[0].Paths); n != format.LossPathsMax || c[0].Count != 1+2*format.LossPathsMax {
		t.Errorf("%d paths of %d", n, c[0].Count)
	}
}
