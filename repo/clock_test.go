package repo

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestClocksSetBack sets the clocks of storage and client back a year, between
// the steps of backups and collections, and right again.
func TestClocksSetBack(t *testing.T) {
	t.Parallel()
	const year = 365 * 24 * time.Hour
	m := randomHistory(rand.New(rand.NewPCG(4, 40)), 6, 20)
	for back := 0; back < 6; back += underRace(1, 2) {
		st := initStore(t)
		clock := newClock(st)
		opts := CollectOptions{Grace: time.Hour, MaxUnused: -1}
		now := 0
		step := func(work func()) {
			if now == back {
				clock.move(-year)
			}
			work()
			checkWhole(t, st, m.listings(), nil)
			clock.move(2 * time.Hour)
			now++
		}
		step(func() { importOneByOne(t, st, m[:3]) })
		step(func() { forget(t, st, func(n int) bool { return n == 1 }) })
		step(func() { mustCollect(t, st, opts) })
		step(func() { importOneByOne(t, st, m[:5]) })
		step(func() { mustCollect(t, st, opts) })
		step(func() { forget(t, st, func(n int) bool { return n == 0 }) })
		for range 3 { // the clock is late, and then right
			step(func() { mustCollect(t, st, opts) })
		}
		clock.move(year)
		for range 3 {
			step(func() { mustCollect(t, st, opts) })
		}
		if sum := mustCollect(t, st, CollectOptions{Grace: time.Hour, MaxUnused: -1, DryRun: true}); sum.Condemned.Packs+sum.Waiting.Packs > 0 {
			t.Errorf("set back at step %d: not all was collected: %+v", back, sum)
		}
		if list := checkWhole(t, st, m.listings(), nil); len(list) != 4 {
			t.Errorf("set back at step %d: %d snapshots", back, len(list))
		}
	}
}
