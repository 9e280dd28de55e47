package retention

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func at(text string) time.Time {
	for _, layout := range []string{"2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t
		}
	}
	panic(text)
}

// kept returns which items stay, newest last.
func kept(p Policy, items []Item) (out []int) {
	for i, v := range p.Apply(items, time.UTC) {
		if v.Keep() {
			out = append(out, i)
		}
	}
	return out
}

func TestReasons(t *testing.T) {
	items := []Item{
		{Time: at("2025-12-30 10:00"), Tags: []string{"a", "b"}},
		{Time: at("2025-12-31 10:00"), Tags: []string{"a"}},
		{Time: at("2026-01-05 08:00")},
		{Time: at("2026-01-05 08:30")},
		{Time: at("2026-01-05 09:00")},
	}
	for _, c := range []struct {
		policy Policy
		want   []string
	}{
		{Policy{}, []string{"", "", "", "", ""}},
		{Policy{Last: 2}, []string{"", "", "", "last", "last"}},
		{Policy{Last: All}, []string{"last", "last", "last", "last", "last"}},
		{Policy{Hourly: 2}, []string{"", "", "", "hourly", "hourly"}},
		{Policy{Hourly: 3}, []string{"", "hourly", "", "hourly", "hourly"}},
		{Policy{Daily: 1, Yearly: 1}, []string{"", "", "", "", "daily, yearly"}},
		{Policy{Daily: All}, []string{"daily", "daily", "", "", "daily"}},
		// 30 and 31 December 2025 lie in the first week of 2026.
		{Policy{Weekly: 2}, []string{"", "weekly", "", "", "weekly"}},
		{Policy{Weekly: 3}, []string{"oldest weekly", "weekly", "", "", "weekly"}},
		{Policy{Yearly: 2}, []string{"", "yearly", "", "", "yearly"}},
		{Policy{Within: Span{Hours: 1}}, []string{"", "", "", "within 1h", "within 1h"}},
		{Policy{Within: Span{Days: 5, Hours: 23}}, []string{"", "within 5d23h", "within 5d23h", "within 5d23h", "within 5d23h"}},
		{Policy{Tags: [][]string{{"a", "b"}}}, []string{"tag a,b", "", "", "", ""}},
		{Policy{Tags: [][]string{{"b"}, {"a"}}, Last: 1}, []string{"tag b, tag a", "tag a", "", "", "last"}},
	} {
		var got []string
		for _, v := range c.policy.Apply(items, time.UTC) {
			got = append(got, strings.Join(v.Reasons, ", "))
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%+v: %s", c.policy, diff)
		}
	}
}

func TestLocation(t *testing.T) {
	items := []Item{{Time: at("2026-01-01 22:00")}, {Time: at("2026-01-05 22:00")}, {Time: at("2026-01-05 23:30")}}
	if got := len(kept(Policy{Daily: All}, items)); got != 2 {
		t.Errorf("%d days in UTC", got)
	}
	var n int
	for _, v := range (&Policy{Daily: All}).Apply(items, time.FixedZone("", 3600)) {
		if v.Keep() {
			n++
		}
	}
	if n != 3 {
		t.Errorf("%d days an hour to the east", n)
	}
}

// TestAsOthers compares with what restic 0.14 kept of 44 snapshots, whose rules
// people know. That the oldest stays while a count is not used up is newer.
func TestAsOthers(t *testing.T) {
	b, err := os.ReadFile("testdata/restic.json")
	if err != nil {
		t.Fatal(err)
	}
	var recorded struct {
		Times    []time.Time
		Policies []struct {
			Flags []string
			Kept  []int
		}
	}
	if err := json.Unmarshal(b, &recorded); err != nil {
		t.Fatal(err)
	}
	items := make([]Item, len(recorded.Times))
	for i, at := range recorded.Times {
		items[i].Time = at
		if i%3 == 0 {
			items[i].Tags = append(items[i].Tags, "a")
		}
		if i%5 == 0 {
			items[i].Tags = append(items[i].Tags, "b")
		}
	}
	for _, c := range recorded.Policies {
		p := policyOf(t, c.Flags)
		var got []int
		for i, v := range p.Apply(items, time.UTC) {
			v.Reasons = slices.DeleteFunc(v.Reasons, func(reason string) bool { return strings.HasPrefix(reason, "oldest ") })
			if v.Keep() {
				got = append(got, i)
			}
		}
		if diff := cmp.Diff(c.Kept, got); diff != "" {
			t.Errorf("%v: %s", c.Flags, diff)
		}
	}
	if len(recorded.Policies) < 15 || len(items) < 40 {
		t.Error("the recorded data is not all there")
	}
}

func policyOf(t *testing.T, flags []string) (p Policy) {
	counts := map[string]*int{
		"--keep-last": &p.Last, "--keep-hourly": &p.Hourly, "--keep-daily": &p.Daily,
		"--keep-weekly": &p.Weekly, "--keep-monthly": &p.Monthly, "--keep-yearly": &p.Yearly,
	}
	for i := 0; i < len(flags); i += 2 {
		var err error
		switch value := flags[i+1]; flags[i] {
		case "--keep-within":
			p.Within, err = ParseSpan(value)
		case "--keep-tag":
			p.Tags = append(p.Tags, strings.Split(value, ","))
		default:
			*counts[flags[i]], err = strconv.Atoi(value)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func randomItems(rng *rand.Rand, n int) []Item {
	items := make([]Item, n)
	for i := range items {
		items[i].Time = at("2026-01-01").Add(time.Duration(rng.Int64N(int64(800 * 24 * time.Hour))))
		items[i].Received = items[i].Time.Add(time.Duration(rng.Int64N(int64(time.Hour))))
		if rng.IntN(4) == 0 {
			items[i].Tags = []string{"t"}
		}
	}
	return items
}

func randomPolicy(rng *rand.Rand) Policy {
	p := Policy{Last: rng.IntN(3), Hourly: rng.IntN(3), Daily: rng.IntN(4), Weekly: rng.IntN(3), Monthly: rng.IntN(4), Yearly: rng.IntN(3)}
	if rng.IntN(3) == 0 {
		p.Within = Span{Days: rng.IntN(50)}
	}
	if rng.IntN(4) == 0 {
		p.Tags = [][]string{{"t"}}
	}
	return p
}

// TestDoubtfulCostNobodyAPlace adds snapshots with false times to a series: what
// would have stayed stays.
func TestDoubtfulCostNobodyAPlace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		items, p := randomItems(rng, rng.IntN(40)), randomPolicy(rng)
		honest := kept(p, items)
		all := slices.Clone(items)
		for range rng.IntN(20) {
			received := at("2027-06-01")
			shift := time.Duration(rng.Int64N(int64(500*24*time.Hour))) + 25*time.Hour
			if rng.IntN(2) == 0 {
				shift = -shift
			}
			all = append(all, Item{Time: received.Add(shift), Received: received, Imported: shift > 0 && rng.IntN(2) == 0})
		}
		after := kept(p, all)
		for _, i := range honest {
			if !slices.Contains(after, i) {
				t.Fatalf("policy %+v: item %d at %s lost its place", p, i, items[i].Time)
			}
		}
	})
}

// TestAllDoubtful: a repository whose objects have lost their times is judged as
// one that has them.
func TestAllDoubtful(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 2))
		items, p := randomItems(rng, rng.IntN(40)), randomPolicy(rng)
		want := kept(p, items)
		copied := at("2040-01-01")
		for i := range items {
			items[i].Received = copied
		}
		if diff := cmp.Diff(want, kept(p, items)); diff != "" {
			t.Fatalf("policy %+v: %s", p, diff)
		}
	})
}

// TestOrderDoesNotMatter, and more rules keep no less.
func TestOrderAndMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 3))
		items, p := randomItems(rng, rng.IntN(40)), randomPolicy(rng)
		want := kept(p, items)
		order := rng.Perm(len(items))
		shuffled := make([]Item, len(items))
		for i, n := range order {
			shuffled[n] = items[i]
		}
		var got []int
		for _, n := range kept(p, shuffled) {
			got = append(got, slices.Index(order, n))
		}
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("policy %+v: %s", p, diff)
		}
		p.Last++
		if more := kept(p, items); len(more) < len(want) {
			t.Fatalf("policy %+v keeps %d, one less %d", p, len(more), len(want))
		}
	})
}

func TestDoubtful(t *testing.T) {
	received := at("2026-03-10")
	for _, c := range []struct {
		late     time.Duration // of the time against the receipt
		imported bool
		want     bool
	}{
		{0, false, false}, {-23 * time.Hour, false, false}, {-25 * time.Hour, false, true}, {-25 * time.Hour, true, false},
		{23 * time.Hour, false, false}, {25 * time.Hour, false, true}, {25 * time.Hour, true, true},
	} {
		it := Item{Time: received.Add(c.late), Received: received, Imported: c.imported}
		if it.Doubtful() != c.want {
			t.Errorf("%v imported=%t: %t", c.late, c.imported, !c.want)
		}
		if it.Received = (time.Time{}); it.Doubtful() {
			t.Error("doubtful without a receipt")
		}
	}
}

func TestSpan(t *testing.T) {
	for text, want := range map[string]Span{
		"1y5m7d2h": {1, 5, 7, 2}, "2w": {Days: 14}, "36h": {Hours: 36}, "1d1d": {Days: 2}, "0h": {},
	} {
		got, err := ParseSpan(text)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
		again, err := ParseSpan(got.String())
		if err != nil || again != got {
			t.Errorf("%q, printed %q: %+v, %v", text, got, again, err)
		}
	}
	for _, text := range []string{"", "5", "d", "5x", "-1d", "1d ", "99999999d", "1.5d", "99999999999999999999d"} {
		if s, err := ParseSpan(text); err == nil {
			t.Errorf("%q was taken for %+v", text, s)
		}
	}
	if got, want := (Span{1, 1, 1, 1}).Before(at("2026-03-15 12:00")), at("2025-02-14 11:00"); !got.Equal(want) {
		t.Errorf("%v, want %v", got, want)
	}
	if fmt.Sprint(Span{}) != "0h" {
		t.Error(Span{})
	}
}
