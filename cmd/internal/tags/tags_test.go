package tags

import (
	"slices"
	"testing"
)

func TestChange(t *testing.T) {
	for _, c := range []struct {
		tag       Tag
		old, want []string
	}{
		{Tag{Add: []string{"a,b", "c"}}, []string{"b"}, []string{"b", "a", "c"}},
		{Tag{Remove: []string{"a", "b,x"}}, []string{"b", "c", "a"}, []string{"c"}},
		{Tag{Add: []string{"a"}, Remove: []string{"b"}}, []string{"b"}, []string{"a"}},
		{Tag{Set: []string{"x,y,x"}}, []string{"b"}, []string{"x", "y"}},
		{Tag{Set: []string{""}}, []string{"b"}, nil},
		{Tag{Add: []string{"a"}}, []string{"a"}, []string{"a"}},
	} {
		change, err := c.tag.change()
		if err != nil {
			t.Fatal(err)
		}
		if got := change(slices.Clone(c.old)); !slices.Equal(got, c.want) {
			t.Errorf("%+v: %q became %q, want %q", c.tag, c.old, got, c.want)
		}
	}
	for _, bad := range []Tag{{}, {Set: []string{"a"}, Add: []string{"b"}}} {
		if _, err := bad.change(); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}
