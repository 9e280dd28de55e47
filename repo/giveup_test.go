package repo

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/internal/mp"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/store/mem"
	"github.com/bk-backup/bk/repo/store/storetest"
)

func flip(b []byte) []byte { b[200] ^= 1; return b }

// withDamagedSnapshot is storage on which some snapshots of a list are damaged,
// and the names of their objects.
func withDamagedSnapshot(t testing.TB, st *mem.Store, which ...int) (*mem.Store, []string) {
	t.Helper()
	list := relist(t, mustOpen(t, st))
	st = st.Clone()
	var names []string
	for _, i := range which {
		names = append(names, list[i].objectName())
		st.Damage(list[i].objectName(), flip)
	}
	return st, names
}

// giveUpHistory is storage with a chain of snapshots.
func giveUpHistory(t testing.TB) (*mem.Store, model) {
	t.Helper()
	m := randomHistory(rand.New(rand.NewPCG(11, 29)), 4, 8)
	st := initStore(t)
	importOneByOne(t, st, m)
	return st, m
}

func mustGiveUp(t testing.TB, st store.Store, names ...string) *Repaired {
	t.Helper()
	return mustRepair(t, st, RepairOptions{GiveUp: names})
}

// checkNothingLeft checks that nobody complains, and that garbage is collected.
func checkNothingLeft(t testing.TB, st store.Store, m model, snapshots int) {
	t.Helper()
	if list := checkWhole(t, st, m.listings(), nil); len(list) != snapshots {
		t.Errorf("%d snapshots, not %d", len(list), snapshots)
	}
	for _, f := range check(t, st, readAll).Findings {
		t.Errorf("%s %s: %v", f.What, f.Object, f.Err)
	}
	if _, err := collect(st, CollectOptions{MaxUnused: -1}); err != nil {
		t.Errorf("collect: %v", err)
	}
}

// TestGiveUp gives up each snapshot of a chain, damaged in many ways: it is gone,
// and recorded; nobody complains, nor does a machine that remembers it; the rest is
// whole; and once more changes nothing.
func TestGiveUp(t *testing.T) {
	t.Parallel()
	begin, m := giveUpHistory(t)
	list := relist(t, mustOpen(t, begin))
	for i, s := range list {
		for what, harm := range harms(t, begin, s.objectName()) {
			if harm == nil || i != 1 && what != "half" {
				continue
			}
			st, seer := begin.Clone(), newMachine(t)
			seer.list(st)
			st.Damage(s.objectName(), harm)
			if _, err := collect(st, CollectOptions{}); !errors.Is(err, ErrUnreadable) || !errors.Is(err, seal.ErrDamaged) {
				t.Fatalf("%s: collect: %v", what, err)
			}
			before := objects(t, st, "")
			want := []GivenUp{{Object: s.objectName()}}
			would := mustRepair(t, st, RepairOptions{GiveUp: []string{s.objectName()}, DryRun: true})
			if diff := cmp.Diff(want, would.GivenUp) + cmp.Diff(before, objects(t, st, "")); diff != "" {
				t.Errorf("%s: would: %s", what, diff)
			}
			_, short, _ := strings.Cut(strings.TrimPrefix(s.objectName(), "snapshots/"), "/")
			if diff := cmp.Diff(want, mustGiveUp(t, st, short).GivenUp); diff != "" {
				t.Errorf("%s: %s", what, diff)
			}
			records := forgotten(t, mustOpen(t, st))
			if len(records) != 1 || !slices.Equal(records[0].Snapshots[0], make([]byte, 32)) || string(records[0].Reason) != giveUpReason {
				t.Errorf("%s: recorded: %+v", what, records)
			}
			if last := i == len(list)-1; last != (len(records[0].Named) == 0) {
				t.Errorf("%s: snapshot %d: the record names %d", what, i, len(records[0].Named))
			}
			if _, hidden := seer.list(st); len(hidden) > 0 {
				t.Errorf("%s: hidden from who saw it: %v", what, hidden)
			}
			if seen := seer.open(st).loadSeen(); slices.ContainsFunc(seen.heads, func(h seenHead) bool { return h.id == s.ID }) {
				t.Errorf("%s: it is remembered still: %v", what, seen)
			}
			after := objects(t, st, "")
			if out := mustGiveUp(t, st, s.objectName()); len(out.GivenUp) > 0 {
				t.Errorf("%s: once more: %+v", what, out.GivenUp)
			}
			if diff := cmp.Diff(after, objects(t, st, "")); diff != "" {
				t.Errorf("%s: once more: %s", what, diff)
			}
			checkNothingLeft(t, st, m, len(list)-1)
			if _, hidden := seer.list(st); len(hidden) > 0 {
				t.Errorf("%s: hidden from who saw it: %v", what, hidden)
			}
		}
	}
}

// TestGiveUpRefuses what is not damaged, and what nobody can tell, and changes
// nothing then, whatever else is named.
func TestGiveUpRefuses(t *testing.T) {
	begin, _ := giveUpHistory(t)
	list := relist(t, mustOpen(t, begin))
	st, damaged := withDamagedSnapshot(t, begin, 1)
	voided := seal.Name{Kind: seal.KindSnapshot, Client: list[0].Client, Session: seal.SessionID{1}}
	if err := mustOpen(t, st).createVoid(t.Context(), voided.String()); err != nil {
		t.Fatal(err)
	}
	other, missing := voided, voided
	other.Client[0]++
	missing.Number = 7
	before := objects(t, st, "")
	for name, want := range map[string]string{
		list[0].objectName():  ErrReadable.Error(),
		voided.String():       "it is whole, and no snapshot",
		missing.String():      "there is no such object",
		other.String():        "another client's",
		list[0].ID.Short():    "can have this name",
		"packs/" + damaged[0]: "can have this name",
	} {
		for _, dry := range []bool{false, true} {
			out, err := tryRepair(st, RepairOptions{GiveUp: []string{damaged[0], name}, DryRun: dry})
			if err == nil || !strings.Contains(err.Error(), want) || len(out.GivenUp) > 0 {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	failing := storetest.NewFaulty(st, storetest.Fault{Mode: storetest.Before, Method: storetest.Get, Call: 1, Forever: true})
	r := mustOpen(t, st)
	r.store = failing
	if _, err := r.Repair(t.Context(), RepairOptions{GiveUp: damaged}); !errors.Is(err, storetest.ErrInjected) {
		t.Errorf("storage fails: %v", err)
	}
	if diff := cmp.Diff(before, objects(t, st, "")); diff != "" {
		t.Errorf("something was changed: %s", diff)
	}
}

// TestGiveUpFrom: what a copy has comes back, and only the rest is given up.
func TestGiveUpFrom(t *testing.T) {
	begin, m := giveUpHistory(t)
	list := relist(t, mustOpen(t, begin))
	st, damaged := withDamagedSnapshot(t, begin, 1, 2)
	copied, _ := withDamagedSnapshot(t, begin, 2)
	opts := fromCopy(t, copied)
	opts.GiveUp, opts.DryRun = damaged, true
	want := []GivenUp{{Object: damaged[1]}}
	if out := mustRepair(t, st, opts); !slices.Equal(out.Objects, damaged[:1]) || !slices.Equal(out.GivenUp, want) {
		t.Errorf("would: %v, %v", out.Objects, out.GivenUp)
	}
	opts.DryRun = false
	if out := mustRepair(t, st, opts); !slices.Equal(out.Objects, damaged[:1]) || !slices.Equal(out.GivenUp, want) {
		t.Errorf("%v, %v", out.Objects, out.GivenUp)
	}
	checkNothingLeft(t, st, m, len(list)-1)
}

// TestGiveUpHidesNothing: that a snapshot was given up covers for that one alone,
// whoever else is missing.
func TestGiveUpHidesNothing(t *testing.T) {
	t.Parallel()
	begin, m := giveUpHistory(t)
	list := relist(t, mustOpen(t, begin))
	hidden := func(st store.Store) (ids []format.ID) {
		for _, f := range check(t, st, CheckOptions{}).Findings {
			if f.What != Hidden {
				t.Errorf("%s %s: %v", f.What, f.Object, f.Err)
			}
			ids = append(ids, f.Snapshot)
		}
		return ids
	}
	sorted := func(snaps ...*Snapshot) []format.ID {
		all := ids(snaps)
		sortIDs(all)
		return all
	}
	st, damaged := withDamagedSnapshot(t, begin, 1)
	mustGiveUp(t, st, damaged...)
	if got := hidden(without(t, st, list[0].objectName())); len(got) > 0 {
		t.Errorf("nobody names it any more, and it is missed: %v", got)
	}
	if diff := cmp.Diff(sorted(list[2]), hidden(without(t, st, list[2].objectName()))); diff != "" {
		t.Errorf("hidden afterwards: %s", diff)
	}
	// One is hidden when the other is given up: nobody knows which is which.
	st, damaged = withDamagedSnapshot(t, begin, 0)
	st = without(t, st, list[2].objectName())
	mustGiveUp(t, st, damaged...)
	if diff := cmp.Diff(sorted(list[0], list[2]), hidden(st)); diff != "" {
		t.Errorf("hidden before: %s", diff)
	}
	// One after another.
	st, damaged = withDamagedSnapshot(t, begin, 0, 2)
	mustGiveUp(t, st, damaged[0])
	mustGiveUp(t, st, damaged[1])
	checkNothingLeft(t, st, m, 2)
	// One is given up, and then the other comes back.
	st, damaged = withDamagedSnapshot(t, begin, 0, 2)
	mustGiveUp(t, st, damaged[0])
	mustRepair(t, st, fromCopy(t, begin))
	checkNothingLeft(t, st, m, 3)
	// It comes back after it was given up, and is forgotten then.
	st, damaged = withDamagedSnapshot(t, begin, 1)
	c := storetest.NewCrash(st, changesOf(t, st, damaged)-2, storetest.Lost) // neither deleted nor made void
	if _, err := tryRepair(c, RepairOptions{GiveUp: damaged}); err == nil {
		t.Fatal("no crash")
	}
	back := c.After()
	if len(forgotten(t, mustOpen(t, back))) != 1 || !slices.Contains(objects(t, back, ""), damaged[0]) {
		t.Fatal("it was stopped elsewhere")
	}
	mustRepair(t, back, fromCopy(t, begin))
	checkNothingLeft(t, back, m, 4)
	forget(t, back, func(n int) bool { return n == number(list[1]) })
	checkNothingLeft(t, back, m, 3)
}

// changesOf counts the changes that giving up makes.
func changesOf(t *testing.T, st *mem.Store, names []string) int {
	t.Helper()
	c := storetest.NewCrash(st.Clone(), 1<<30, storetest.Lost)
	if _, err := tryRepair(c, RepairOptions{GiveUp: names}); err != nil {
		t.Fatal(err)
	}
	return c.Changes()
}

// TestGiveUpReceipt: the receipt of what was given up holds if it is known that it
// was that one, since this machine remembers it or another snapshot names it.
func TestGiveUpReceipt(t *testing.T) {
	begin, m := giveUpHistory(t)
	r := mustOpen(t, begin)
	list := relist(t, r)
	for i, s := range list {
		for _, remembers := range []bool{false, true} {
			st, damaged := begin.Clone(), s.objectName()
			machine := newMachine(t)
			if remembers {
				machine.list(st)
			}
			st.Damage(damaged, flip)
			out, err := machine.open(st).Repair(t.Context(), RepairOptions{GiveUp: []string{damaged}})
			newest := i == len(list)-1
			if err != nil || len(out.GivenUp) != 1 || (out.GivenUp[0].Snapshot == s.ID) != (remembers && newest) {
				t.Fatalf("%+v, %v", out.GivenUp, err)
			}
			checked := check(t, st, CheckOptions{Expect: []Receipt{r.Receipt(s)}})
			if holds := len(checked.Findings) == 0; holds != (remembers || !newest) {
				t.Errorf("snapshot %d, remembered %t: %+v", i, remembers, checked.Findings)
			}
			for _, f := range checked.Findings {
				if f.What != Hidden || !strings.Contains(f.Err.Error(), "unless it is one of 1 that could not be read and were given up") {
					t.Errorf("%s: %v", f.What, f.Err)
				}
			}
			checkNothingLeft(t, st, m, len(list)-1)
		}
	}
}

// resealedTwice is storage on which a snapshot has two objects.
func resealedTwice(t *testing.T) (st *mem.Store, m model, first, twin string) {
	t.Helper()
	st, m = giveUpHistory(t)
	first = relist(t, mustOpen(t, st))[1].objectName()
	stored, err := st.Get(t.Context(), first, seal.ObjectSizeMax)
	rotate(t, st)
	if err = errors.Join(err, reseal(st), reseal(st), st.Create(t.Context(), first, stored)); err != nil {
		t.Fatal(err)
	}
	if twin = first + "-2"; !slices.Contains(objects(t, st, "snapshots/"), twin) {
		t.Fatal("there is no twin")
	}
	return st, m, first, twin
}

// TestGiveUpTwins: of a snapshot that has another object only the damaged one
// goes, and nothing is recorded; all of them go if all are damaged.
func TestGiveUpTwins(t *testing.T) {
	begin, m, first, twin := resealedTwice(t)
	for _, name := range []string{first, twin} {
		st := begin.Clone()
		st.Damage(name, flip)
		out := mustGiveUp(t, st, name)
		if len(out.GivenUp) != 1 || !out.GivenUp[0].Whole || out.GivenUp[0].Object != name {
			t.Errorf("%+v", out.GivenUp)
		}
		if n := len(forgotten(t, mustOpen(t, st))); n > 0 {
			t.Errorf("%d records", n)
		}
		checkNothingLeft(t, st, m, 4)
		if _, err := tryRepair(begin.Clone(), RepairOptions{GiveUp: []string{name}}); !errors.Is(err, ErrReadable) {
			t.Errorf("it is whole: %v", err)
		}
	}
	st := begin.Clone()
	st.Damage(first, flip)
	st.Damage(twin, flip)
	if out := mustGiveUp(t, st, twin); len(out.GivenUp) != 2 || out.GivenUp[0].Whole {
		t.Errorf("%+v", out.GivenUp)
	}
	checkNothingLeft(t, st, m, 3)
}

// openWriter is storage with a session that is open and has made two snapshots, of
// which the last is damaged.
func openWriter(t *testing.T) (st *mem.Store, m model, damaged, next string) {
	t.Helper()
	m = faultHistory()
	st = initStore(t)
	if _, err := tryImport(t, st, m[:2]); err != nil {
		t.Fatal(err)
	}
	r := mustOpen(t, st)
	slot := relist(t, r)[1].slot()
	if slot.Number != 1 {
		t.Fatalf("%s is not the second of its session", slot)
	}
	body := mp.Encode(&sessionBody{Begun: []int64{1, 0}, Client: slot.Client[:], Session: slot.Session[:]})
	name := seal.Name{Kind: seal.KindSession, Client: slot.Client, Session: slot.Session}
	if err := r.createObject(t.Context(), name.String(), seal.KindSession, body); err != nil {
		t.Fatal(err)
	}
	damaged = slot.String()
	st.Damage(damaged, flip)
	slot.Number++
	return st, m, damaged, slot.String()
}

// TestGiveUpOfWriter: the session of what is given up may be open, and is expired;
// what was damaged may have been what expired it, and then stays taken.
func TestGiveUpOfWriter(t *testing.T) {
	st, m, damaged, next := openWriter(t)
	if _, err := collect(st, CollectOptions{}); !errors.Is(err, seal.ErrDamaged) {
		t.Errorf("collect: %v", err)
	}
	mustGiveUp(t, st, damaged)
	for _, slot := range []string{damaged, next} {
		if err := st.Create(t.Context(), slot, nil); !errors.Is(err, store.ErrExists) {
			t.Errorf("the writer can go on in %s: %v", slot, err)
		}
	}
	checkNothingLeft(t, st, m, 1)
	if left := objects(t, st, "sessions/"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	checkCompletes(t, st, m, nil)
}

// TestGiveUpCrashes stops it at every change that it makes: the snapshot is
// damaged still or recorded, and the next run completes it.
func TestGiveUpCrashes(t *testing.T) {
	t.Parallel()
	written, m, damaged, next := openWriter(t)
	twins, chain, first, twin := resealedTwice(t)
	twins.Damage(first, flip)
	twins.Damage(twin, flip)
	for _, c := range []struct {
		begin *mem.Store
		m     model
		names []string
		left  int
		taken []string // slots that must stay so
	}{
		{written, m, []string{damaged}, 1, []string{damaged, next}},
		{twins, chain, []string{first}, 3, []string{first}},
	} {
		cases := storetest.EachCrash(t,
			func(*testing.T) store.Store { return c.begin.Clone() },
			func(t *testing.T, s *storetest.Crash) {
				if _, err := tryRepair(s, RepairOptions{GiveUp: c.names}); s.Crashed() == (err == nil) {
					t.Errorf("crashed: %t, error: %v", s.Crashed(), err)
				}
			},
			func(t *testing.T, s store.Store, _ int) {
				checkGivenUp(c.m, c.names)(t, s, nil, false)
				there := objects(t, s, "snapshots/")
				for _, slot := range c.taken {
					if !slices.Contains(there, slot) {
						t.Errorf("%s is free", slot)
					}
				}
				checkNothingLeft(t, s, c.m, c.left)
			})
		if cases < 12 {
			t.Errorf("%d crashes", cases)
		}
	}
}

// givesUp is an operation for TestProof.
func givesUp(names []string) func(t *testing.T, st store.Store) ([]*Snapshot, error) {
	return func(_ *testing.T, st store.Store) ([]*Snapshot, error) {
		_, err := tryRepair(st, RepairOptions{GiveUp: names})
		return nil, err
	}
}

// checkGivenUp: what was to be given up is there, damaged, or it is recorded; and
// doing it again completes it, whatever it was.
func checkGivenUp(m model, names []string) func(t *testing.T, st store.Store, _ []*Snapshot, done bool) {
	return func(t *testing.T, st store.Store, _ []*Snapshot, done bool) {
		r := mustOpen(t, st)
		_, damage, err := r.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		gone, err := r.forgotten(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			slot, _ := seal.ParseName(name)
			_, recorded := gone.slots[slot]
			damaged := slices.ContainsFunc(damage, func(d Damage) bool { return slotName(d.Name) == slotName(name) })
			if !damaged && !recorded || done && (damaged || !recorded) {
				t.Fatalf("done: %t, damaged: %t, recorded: %t", done, damaged, recorded)
			}
		}
		if out := mustGiveUp(t, st, names...); done && len(out.GivenUp) > 0 {
			t.Fatalf("it was done, and is done again: %+v", out.GivenUp)
		}
		if n := len(forgotten(t, mustOpen(t, st))); n != 1 {
			t.Fatalf("%d records", n)
		}
		checkWhole(t, st, m.listings(), nil)
		if findings := check(t, st, CheckOptions{}).Findings; len(findings) > 0 {
			t.Fatalf("%s %s: %v", findings[0].What, findings[0].Object, findings[0].Err)
		}
		if _, err := collect(st, CollectOptions{Grace: time.Hour}); err != nil {
			t.Fatalf("collect: %v", err)
		}
	}
}
