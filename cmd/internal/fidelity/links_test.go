package fidelity

import (
	"testing"

	"github.com/bk-backup/bk/format"
)

// TestLinks compares groups of hard links that two systems name in their own ways.
func TestLinks(t *testing.T) {
	for name, test := range map[string]struct {
		a, b []string // names of the groups of four paths
		same bool
	}{
		"none":             {[]string{"", "", "", ""}, []string{"", "", "", ""}, true},
		"other names":      {[]string{"x", "y", "x", "y"}, []string{"1", "x", "1", "x"}, true},
		"a group of one":   {[]string{"x", "y", "x", ""}, []string{"1", "", "1", ""}, true},
		"one less":         {[]string{"x", "", "x", "x"}, []string{"1", "", "1", ""}, false},
		"joined":           {[]string{"x", "y", "x", "y"}, []string{"1", "1", "1", "1"}, false},
		"in another order": {[]string{"x", "x", "y", "y"}, []string{"x", "y", "x", "y"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			a, b, same := make(links), make(links), true
			for i, path := range []string{"a", "b", "c", "d"} {
				one := a.first(&format.Entry{Path: path, Hardlink: test.a[i]})
				other := b.first(&format.Entry{Path: path, Hardlink: test.b[i]})
				same = same && one == other
			}
			if same != test.same {
				t.Errorf("same: %t", same)
			}
		})
	}
}
