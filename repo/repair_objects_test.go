package repo

import (
	"context"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/store/mem"
	"github.com/bk-backup/bk/repo/store/storetest"
)

// fromCopy are options that look for what is lost in a copy of a repository.
func fromCopy(t *testing.T, st *mem.Store) RepairOptions {
	t.Helper()
	return RepairOptions{From: []ChunkSource{mustOpen(t, st)}}
}

// TestRepairObjects damages each small object: a repair names it and leaves it
// alone, and with a copy of the repository puts it back as it was.
func TestRepairObjects(t *testing.T) {
	begin, _ := checkable(t, seal.SuiteAES256GCM)
	tried := map[seal.Kind]int{}
	for _, name := range objects(t, begin, "") {
		n, _ := seal.ParseName(name)
		if !slices.Contains(copiedKinds, n.Kind) {
			continue
		}
		for what, change := range harms(t, begin, name) {
			if change == nil {
				continue
			}
			st := begin.Clone()
			st.Damage(name, change)
			r, err := openStore(st)
			if err != nil {
				continue // without the keys nothing can be repaired
			}
			r.Close()
			before := objects(t, st, "")
			if out := mustRepair(t, st, RepairOptions{}); len(out.Objects) > 0 {
				t.Errorf("%s, %s: without a copy: %v", name, what, out.Objects)
			}
			if diff := cmp.Diff(before, objects(t, st, "")); diff != "" {
				t.Errorf("%s, %s: something was changed: %s", name, what, diff)
			}
			opts := fromCopy(t, begin)
			opts.DryRun = true
			if out := mustRepair(t, st, opts); !slices.Equal(out.Objects, []string{name}) {
				t.Errorf("%s, %s: would put back %v", name, what, out.Objects)
			}
			out := mustRepair(t, st, fromCopy(t, begin))
			if !slices.Equal(out.Objects, []string{name}) {
				t.Errorf("%s, %s: put back: %v", name, what, out.Objects)
			}
			is, err := st.Get(t.Context(), name, 1<<30)
			was, _ := begin.Get(t.Context(), name, 1<<30)
			if err != nil || string(is) != string(was) {
				t.Errorf("%s, %s: it is not as it was: %v", name, what, err)
			}
			if findings := check(t, st, readAll).Findings; len(findings) > 0 {
				t.Errorf("%s, %s: %+v", name, what, findings[0])
			}
			tried[n.Kind]++
		}
	}
	if tried[seal.KindSnapshot] == 0 || tried[seal.KindForget] == 0 {
		t.Errorf("tried: %v", tried)
	}
}

// TestRepairHidden: a snapshot that another one names, and that is neither there
// nor forgotten, comes back from a copy with all that it needs; one that was
// forgotten does not.
func TestRepairHidden(t *testing.T) {
	begin, m := checkable(t, seal.SuiteAES256GCM)
	list := relist(t, mustOpen(t, begin))
	gone := list[1]
	st := without(t, begin, gone.objectName())
	out := mustRepair(t, st, fromCopy(t, begin))
	if !slices.Equal(out.Objects, []string{"snapshot " + gone.ID.String()}) {
		t.Errorf("put back: %v", out.Objects)
	}
	checkWhole(t, st, m.listings(), list)

	later := begin.Clone()
	forget(t, later, func(n int) bool { return n == number(gone) })
	if out := mustRepair(t, later, fromCopy(t, begin)); len(out.Objects) > 0 || len(relist(t, mustOpen(t, later))) != len(list)-1 {
		t.Errorf("what was forgotten came back: %v", out.Objects)
	}
	// Nor does what is damaged and was forgotten: deleting it was interrupted.
	if err := later.Create(t.Context(), gone.objectName(), []byte("damaged")); err != nil {
		t.Fatal(err)
	}
	if out := mustRepair(t, later, fromCopy(t, begin)); len(out.Objects) > 0 {
		t.Errorf("what was forgotten came back: %v", out.Objects)
	}
}

// TestRepairObjectsOfOthers: another repository, even one with the same content,
// is no copy.
func TestRepairObjectsOfOthers(t *testing.T) {
	begin, _ := checkable(t, seal.SuiteAES256GCM)
	other, _ := checkable(t, seal.SuiteAES256GCM)
	name := relist(t, mustOpen(t, begin))[0].objectName()
	begin.Damage(name, func(b []byte) []byte { b[200] ^= 1; return b })
	if out := mustRepair(t, begin, fromCopy(t, other)); len(out.Objects) > 0 {
		t.Errorf("put back: %v", out.Objects)
	}
}

// TestRepairObjectsCrashes stops a repair with a copy at every change that it
// makes: the next one completes it, since the snapshot that was damaged is named
// by a later one.
func TestRepairObjectsCrashes(t *testing.T) {
	t.Parallel()
	begin, m := checkable(t, seal.SuiteAES256GCM)
	list := relist(t, mustOpen(t, begin))
	damaged := begin.Clone()
	damaged.Damage(list[1].objectName(), func(b []byte) []byte { b[200] ^= 1; return b })
	copied := mustOpen(t, begin)
	cases := storetest.EachCrash(t,
		func(*testing.T) store.Store { return damaged.Clone() },
		func(t *testing.T, s *storetest.Crash) {
			if _, err := tryRepair(s, RepairOptions{From: []ChunkSource{copied}}); s.Crashed() == (err == nil) {
				t.Errorf("crashed: %t, error: %v", s.Crashed(), err)
			}
		},
		func(t *testing.T, s store.Store, _ int) {
			mustRepair(t, s, RepairOptions{From: []ChunkSource{copied}})
			checkWhole(t, s, m.listings(), list)
			r, err := openStore(s)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if out, err := r.Check(context.Background(), readAll); err != nil || len(out.Findings) > 0 {
				t.Errorf("after the crash and another repair: %+v, %v", out.Findings, err)
			}
		})
	if cases < 4 {
		t.Errorf("%d crashes", cases)
	}
}
