package repo

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/bk-backup/bk/repo/pack"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/store/mem"
)

// TestCheckAfterLateIndex: an index that a slow writer stored after a collection
// deleted what it lists is no damage, as a plan says that those packs are gone.
func TestCheckAfterLateIndex(t *testing.T) {
	st := initStore(t)
	importOneByOne(t, st, randomHistory(rand.New(rand.NewPCG(4, 50)), 4, 20))
	late := map[string][]byte{}
	for _, name := range objects(t, st, "index/") {
		b, err := st.Get(t.Context(), name, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		late[name] = b
	}
	forget(t, st, func(n int) bool { return n < 3 })
	mustCollect(t, st, CollectOptions{MaxUnused: -1})
	mustCollect(t, st, CollectOptions{MaxUnused: -1})
	for name, b := range late {
		if err := st.Create(t.Context(), name, b); err != nil && !errors.Is(err, store.ErrExists) {
			t.Fatal(err)
		}
	}
	if out := check(t, st, readAll); len(out.Findings) > 0 {
		t.Errorf("%d findings: %+v", len(out.Findings), out.Findings[0])
	}
	// Without the plan it is not known why they are not there.
	if out := check(t, without(t, st, objects(t, st, "condemned/")...), readAll); len(out.Findings) == 0 {
		t.Error("packs that an index lists are missing, and there is no finding")
	}
}

// afterListing does something whenever objects were listed, before anybody can
// read them.
type afterListing struct {
	*mem.Store
	prefix string
	do     func()
}

func (a afterListing) List(ctx context.Context, prefix string, fn func(store.Info) error) error {
	var all []store.Info
	err := a.Store.List(ctx, prefix, func(info store.Info) error { all = append(all, info); return nil })
	if prefix == a.prefix {
		a.do()
	}
	for _, info := range all {
		if err == nil {
			err = fn(info)
		}
	}
	return err
}

// TestCheckBesideDeletion: what is deleted as garbage between being listed and
// being read is no damage; what snapshots need is.
func TestCheckBesideDeletion(t *testing.T) {
	begin, _ := checkable(t, seal.SuiteAES256GCM)
	// Packs of a writer that was killed: no index lists them.
	imported := begin.Clone()
	if _, err := tryImport(t, imported, randomHistory(rand.New(rand.NewPCG(5, 50)), 1, 20)); err != nil {
		t.Fatal(err)
	}
	fresh, listed := begin.Clone(), objects(t, begin, "packs/")
	addPacks(t, fresh, imported)
	var garbage []string
	for _, name := range objects(t, fresh, "packs/") {
		if !slices.Contains(listed, name) {
			garbage = append(garbage, name)
		}
	}
	if len(garbage) == 0 {
		t.Fatal("no pack is unlisted")
	}
	for _, opts := range []CheckOptions{{}, readAll} {
		st := fresh.Clone()
		r, err := openStore(afterListing{st, "packs/", func() {
			for _, name := range garbage {
				_ = st.Delete(context.Background(), name)
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		out, err := r.Check(t.Context(), opts)
		if err != nil || len(out.Findings) > 0 {
			t.Errorf("garbage that went: %v, %+v", err, out)
		}
		r.Close()

		st = begin.Clone()
		needed := objects(t, st, "packs/")[0]
		if r, err = openStore(afterListing{st, "packs/", func() { _ = st.Delete(context.Background(), needed) }}); err != nil {
			t.Fatal(err)
		}
		out, err = r.Check(t.Context(), opts)
		if err != nil || !slices.ContainsFunc(out.Findings, func(f *Finding) bool { return f.What == Missing && f.Object == needed }) {
			t.Errorf("a pack that is listed and went: %v, %+v", err, out)
		}
		r.Close()
	}
}

// addPacks stores the packs of another repository that this one has not got, and
// returns how many there are.
func addPacks(t *testing.T, to, from *mem.Store) (n int) {
	t.Helper()
	held := objects(t, to, "packs/")
	for _, name := range objects(t, from, "packs/") {
		if slices.Contains(held, name) {
			continue
		}
		n++
		b, err := from.Get(t.Context(), name, 1<<30)
		if err == nil {
			err = to.Create(t.Context(), name, b)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// TestCheckBesideCopies: packs of a writer that has not come to its index are no
// damage when they hold again what snapshots have elsewhere, however much better
// the new place is. They are found where there is no other.
func TestCheckBesideCopies(t *testing.T) {
	st := initStore(t)
	importOneByOne(t, st, randomHistory(rand.New(rand.NewPCG(6, 50)), 3, 20))
	rotate(t, st)
	sealed := st.Clone()
	mustCollect(t, sealed, CollectOptions{Reseal: true, MaxUnused: -1})
	if addPacks(t, st, sealed) == 0 {
		t.Fatal("nothing was sealed again")
	}
	if out := check(t, st, readAll); len(out.Findings) > 0 {
		t.Errorf("%d findings: %+v", len(out.Findings), out.Findings[0])
	}
	out := check(t, without(t, st, objects(t, st, "index/")...), readAll)
	if !slices.ContainsFunc(out.Findings, func(f *Finding) bool { return f.What == Unlisted }) {
		t.Error("there is no index, and no pack is found to be unlisted")
	}
}

// TestRankListed: packs that no index lists come after all others, and among
// themselves in the same order.
func TestRankListed(t *testing.T) {
	st := initStore(t)
	rotate(t, st)
	k := checker{survey: survey{r: mustOpen(t, st), packs: map[[32]byte]*packState{}, plans: []*plan{{number: 1}, {number: 2}}}}
	last := int32(-1)
	for _, adopted := range []bool{false, true} {
		for i, state := range []packState{
			{stored: true, epoch: 2}, {stored: true, epoch: 1}, {stored: true, epoch: 2, planned: true, plan: 2},
			{stored: true, epoch: 2, planned: true, plan: 1}, {stored: true, epoch: 2, gone: true},
		} {
			state.adopted = adopted
			k.packs[[32]byte{1}] = &state
			if rank := k.rankListed(pack.Info{Name: [32]byte{1}}); rank <= last || rank >= rankLost {
				t.Errorf("adopted %t, state %d: rank %d after %d", adopted, i, rank, last)
			} else {
				last = rank
			}
		}
	}
}

// TestCheckBesideIndex: an index may take the place of another while indexes are
// listed, so that neither is seen.
func TestCheckBesideIndex(t *testing.T) {
	begin, _ := checkable(t, seal.SuiteAES256GCM)
	late := map[string][]byte{}
	for _, name := range objects(t, begin, "index/") {
		b, err := begin.Get(t.Context(), name, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		late[name] = b
	}
	st := without(t, begin, objects(t, begin, "index/")...)
	if out := check(t, st, readAll); len(out.Findings) == 0 {
		t.Fatal("there is no index, and no finding")
	}
	r, err := openStore(afterListing{st, "index/", func() {
		for name, b := range late {
			_ = st.Create(context.Background(), name, b)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if out, err := r.Check(t.Context(), readAll); err != nil || len(out.Findings) > 0 {
		t.Errorf("indexes that came while they were listed: %v, %+v", err, out)
	}
}
