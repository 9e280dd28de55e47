package retain

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo"
	"github.com/bk-backup/bk/repo/retention"
)

func snap(n int, host, root, tag string) *repo.Snapshot {
	at := time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC)
	stamp := format.TimeOf(at)
	return &repo.Snapshot{ID: format.ID{byte(n)}, Received: at, Meta: format.Snapshot{Host: host, Roots: []string{root, "z"}, Tags: []string{tag}, Time: &stamp}}
}

func TestGroup(t *testing.T) {
	list := []*repo.Snapshot{snap(1, "a", "x", "t"), snap(2, "b", "x", "u"), snap(3, "a", "y", "t"), snap(4, "a", "x", "u")}
	for _, c := range []struct {
		by    grouping
		names []string
		sizes []int
	}{
		{grouping{}, []string{"all snapshots"}, []int{4}},
		{grouping{host: true}, []string{"host a", "host b"}, []int{3, 1}},
		{grouping{host: true, paths: true}, []string{"host a, /x /z", "host b, /x /z", "host a, /y /z"}, []int{2, 1, 1}},
		{grouping{tags: true}, []string{"tags t", "tags u"}, []int{2, 2}},
	} {
		var names []string
		var sizes []int
		for _, g := range group(list, c.by) {
			names, sizes = append(names, g.name), append(sizes, len(g.snaps))
		}
		if diff := cmp.Diff(c.names, names) + cmp.Diff(c.sizes, sizes); diff != "" {
			t.Errorf("%+v: %s", c.by, diff)
		}
	}
}

func TestJudge(t *testing.T) {
	g := group([]*repo.Snapshot{snap(1, "a", "x", "t"), snap(2, "a", "x", "u"), snap(3, "a", "x", "")}, grouping{})[0]
	g.judge(&retention.Policy{Last: 1, Tags: [][]string{{"t"}}})
	if diff := cmp.Diff([][]string{{"tag t"}, nil, {"last"}}, g.reasons); diff != "" {
		t.Error(diff)
	}
	if gone := g.gone(); len(gone) != 1 || gone[0].ID != (format.ID{2}) {
		t.Errorf("%d go", len(gone))
	}
	// A snapshot whose time lies in the future does not push another out.
	future := snap(9, "a", "x", "")
	future.Received = time.Date(2026, 1, 4, 0, 0, 0, 0, time.UTC)
	g = group([]*repo.Snapshot{snap(3, "a", "x", ""), future}, grouping{})[0]
	g.judge(&retention.Policy{Last: 1})
	if len(g.gone()) > 0 {
		t.Error("a false time costs another snapshot its place")
	}
}

func TestPolicyFlags(t *testing.T) {
	f := PolicyFlags{KeepLast: retention.All, KeepDaily: 3, KeepWithin: retention.Span{Days: 2}, KeepTag: []string{"a,b", "c"}, GroupBy: "host, tags"}
	p, by, err := f.policy()
	if err != nil || by != (grouping{host: true, tags: true}) {
		t.Error(by, err)
	}
	want := &retention.Policy{Last: retention.All, Daily: 3, Within: retention.Span{Days: 2}, Tags: [][]string{{"a", "b"}, {"c"}}}
	if diff := cmp.Diff(want, p); diff != "" {
		t.Error(diff)
	}
	if got, want := f.text(), "--keep-last unlimited --keep-daily 3 --keep-within 2d --keep-tag a,b --keep-tag c --group-by host, tags"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for _, bad := range []PolicyFlags{{GroupBy: "moon"}, {KeepTag: []string{""}}} {
		if _, _, err := bad.policy(); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
	for text, want := range map[string]Count{"0": 0, "12": 12, "unlimited": -1, "-1": -1} {
		var c Count
		if err := c.UnmarshalText([]byte(text)); err != nil || c != want {
			t.Errorf("%q: %d, %v", text, c, err)
		}
	}
	for _, text := range []string{"", "-2", "x", "1.5"} {
		if new(Count).UnmarshalText([]byte(text)) == nil {
			t.Errorf("%q was taken for a count", text)
		}
	}
}
