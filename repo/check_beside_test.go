package repo

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

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
	for _, name := range objects(t, imported, "packs/") {
		b, err := imported.Get(t.Context(), name, 1<<30)
		if err == nil && !slices.Contains(listed, name) {
			err = fresh.Create(t.Context(), name, b)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
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
