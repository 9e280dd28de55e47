package retention

import (
	"testing"
	"time"
)

// TestClockSetBack: the clock of a client is set back a year, and right again
// later. What it made meanwhile stays as what was made then, costs nobody a place,
// and goes in its turn.
func TestClockSetBack(t *testing.T) {
	day := func(n int) time.Time { return at("2026-03-01").AddDate(0, 0, n) }
	var items []Item
	for n := range 30 {
		it := Item{Time: day(n), Received: day(n).Add(time.Minute)}
		if n >= 20 {
			it.Time = it.Time.AddDate(-1, 0, 0)
		}
		items = append(items, it)
	}
	p := &Policy{Last: 3, Daily: 7}
	for made, want := range map[int][]int{
		20: {13, 14, 15, 16, 17, 18, 19},
		// Three with a wrong clock: they stay, and so do the seven before them.
		23: {13, 14, 15, 16, 17, 18, 19, 20, 21, 22},
		30: {13, 14, 15, 16, 17, 18, 19, 23, 24, 25, 26, 27, 28, 29},
	} {
		verdicts := p.Apply(items[:made], time.UTC)
		keep := map[int]bool{}
		for _, i := range want {
			keep[i] = true
		}
		for i := range verdicts {
			if keep[i] && !verdicts[i].Keep() {
				t.Errorf("%d made: %d goes", made, i)
			}
			if !keep[i] && verdicts[i].Keep() {
				t.Errorf("%d made: %d stays: %q", made, i, verdicts[i].Reasons)
			}
		}
	}
	// The clock is right again: what was made meanwhile goes in its turn.
	for n := 30; n < 45; n++ {
		items = append(items, Item{Time: day(n), Received: day(n)})
	}
	for i, v := range p.Apply(items, time.UTC) {
		if v.Keep() != (i >= 38) {
			t.Errorf("later: %d: %q", i, v.Reasons)
		}
	}
}
