package retention

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// All, as a count of a Policy, keeps every one.
const All = -1

// Policy says what is kept. A snapshot stays if any of the rules keeps it.
type Policy struct {
	// Last keeps so many of the newest snapshots.
	Last int
	// The newest snapshot of so many hours, days ... that have one: the newest
	// such hours. Weeks are those of ISO 8601. While a count is not used up, the
	// oldest snapshot of all is kept too, so that history reaches as far back as
	// it can.
	Hourly, Daily, Weekly, Monthly, Yearly int
	// Within keeps what is newer than this before the newest snapshot.
	Within Span
	// Tags keeps the snapshots that have all tags of any of these lists.
	Tags [][]string
}

// IsZero reports whether the policy has no rules: then it would keep nothing.
func (p *Policy) IsZero() bool {
	return p.Last == 0 && p.Hourly == 0 && p.Daily == 0 && p.Weekly == 0 && p.Monthly == 0 && p.Yearly == 0 &&
		p.Within.IsZero() && len(p.Tags) == 0
}

// Item is a snapshot as a policy sees it.
type Item struct {
	Time time.Time // when it says that it was made
	Tags []string
	// Received is when storage received it; zero where that is not known.
	Received time.Time
	// Imported says that it was made elsewhere, so that it may well be older
	// than its receipt.
	Imported bool
}

// doubtMax is how far the time of a snapshot may lie from its receipt.
const doubtMax = 24 * time.Hour

// Doubtful reports whether an item's time cannot be what it says: it lies after
// its receipt or, if the item was not imported, long before it.
func (it *Item) Doubtful() bool {
	if it.Received.IsZero() {
		return false
	}
	early := it.Received.Sub(it.Time)
	return early < -doubtMax || early > doubtMax && !it.Imported
}

// Verdict says why an item stays; without reasons it goes.
type Verdict struct{ Reasons []string }

// Keep reports whether the item stays.
func (v *Verdict) Keep() bool { return len(v.Reasons) > 0 }

// Apply judges the snapshots of one series. The verdicts are in the order of the
// items, whatever that is. Hours and days are those of the location.
//
// An item whose time is doubtful (a clock that was wrong, somebody who wants
// others pushed out) never costs another one its place: what the policy keeps of
// the others alone stays. The doubtful ones themselves are judged among all, by
// the times they give and also by when they were received: what was made today
// by a clock that is a year late is kept as what was made today. Where all are
// doubtful, as in a repository that was copied without its objects' times,
// receipts say nothing, and nothing else is judged than otherwise.
func (p *Policy) Apply(items []Item, loc *time.Location) []Verdict {
	newestFirst := make([]int, len(items))
	for i := range items {
		newestFirst[i] = i
	}
	slices.SortStableFunc(newestFirst, func(a, b int) int { return items[b].Time.Compare(items[a].Time) })
	verdicts := p.judge(items, newestFirst, loc)
	sure := slices.DeleteFunc(slices.Clone(newestFirst), func(i int) bool { return items[i].Doubtful() })
	if len(sure) == len(items) || len(sure) == 0 {
		return verdicts
	}
	for i, v := range p.judge(items, sure, loc) {
		verdicts[i].join(v, " of those with a sure time")
	}
	received := slices.Clone(items)
	for i := range received {
		if received[i].Doubtful() {
			received[i].Time = received[i].Received
		}
	}
	slices.SortStableFunc(newestFirst, func(a, b int) int { return received[b].Time.Compare(received[a].Time) })
	for i, v := range p.judge(received, newestFirst, loc) {
		if items[i].Doubtful() {
			verdicts[i].join(v, " by when it was received")
		}
	}
	return verdicts
}

// join adds the reasons of another verdict that are not among a verdict's own.
func (v *Verdict) join(other Verdict, how string) {
	for _, reason := range other.Reasons {
		if !slices.Contains(v.Reasons, reason) {
			v.Reasons = append(v.Reasons, reason+how)
		}
	}
}

// bucket is one rule that keeps the newest snapshot of each period.
type bucket struct {
	name  string
	left  int
	of    func(t time.Time) [2]int // the period that a moment lies in
	last  [2]int
	begun bool
}

func (p *Policy) buckets() []bucket {
	all := []bucket{
		{name: "hourly", left: p.Hourly, of: func(t time.Time) [2]int { return [2]int{dayNumber(t), t.Hour()} }},
		{name: "daily", left: p.Daily, of: func(t time.Time) [2]int { return [2]int{dayNumber(t)} }},
		{name: "weekly", left: p.Weekly, of: func(t time.Time) [2]int { y, w := t.ISOWeek(); return [2]int{y, w} }},
		{name: "monthly", left: p.Monthly, of: func(t time.Time) [2]int { return [2]int{t.Year(), int(t.Month())} }},
		{name: "yearly", left: p.Yearly, of: func(t time.Time) [2]int { return [2]int{t.Year()} }},
	}
	return slices.DeleteFunc(all, func(b bucket) bool { return b.left == 0 })
}

func dayNumber(t time.Time) int { return t.Year()*1000 + t.YearDay() }

// judge gives the verdicts over the items in order, which are newest first.
func (p *Policy) judge(items []Item, order []int, loc *time.Location) []Verdict {
	verdicts := make([]Verdict, len(items))
	if len(order) == 0 {
		return verdicts
	}
	since := p.Within.Before(items[order[0]].Time)
	buckets := p.buckets()
	for n, i := range order {
		it := &items[i]
		keep := func(reason string) { verdicts[i].Reasons = append(verdicts[i].Reasons, reason) }
		if p.Last == All || n < p.Last {
			keep("last")
		}
		for b := range buckets {
			if reason := buckets[b].take(it.Time.In(loc), n == len(order)-1); reason != "" {
				keep(reason)
			}
		}
		if !p.Within.IsZero() && it.Time.After(since) {
			keep(fmt.Sprintf("within %s", p.Within))
		}
		for _, list := range p.Tags {
			if !slices.ContainsFunc(list, func(tag string) bool { return !slices.Contains(it.Tags, tag) }) {
				keep("tag " + strings.Join(list, ","))
			}
		}
	}
	return verdicts
}

// take asks a bucket for the next older snapshot; "" if it does not keep it.
func (b *bucket) take(t time.Time, oldest bool) string {
	if b.left == 0 {
		return ""
	}
	period := b.of(t)
	repeated := b.begun && period == b.last
	if repeated && !oldest {
		return ""
	}
	b.last, b.begun = period, true
	if b.left > 0 {
		b.left--
	}
	if repeated {
		return "oldest " + b.name
	}
	return b.name
}
