package repo

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/internal/mp"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/store/storetest"
)

// forgotten reads all forget objects.
func forgotten(t *testing.T, r *Repository) (all []forgetBody) {
	t.Helper()
	err := r.store.List(t.Context(), seal.KindForget.Dir(), func(info store.Info) error {
		plain, err := r.getObject(t.Context(), info.Name, seal.KindForget)
		if err != nil {
			return err
		}
		body, err := r.keys.VerifyForget(plain)
		if err != nil {
			return err
		}
		var b forgetBody
		all = append(all, b)
		return mp.Decode(body, &all[len(all)-1])
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func ids(list []*Snapshot) (out []format.ID) {
	for _, s := range list {
		out = append(out, s.ID)
	}
	return out
}

func relist(t testing.TB, r *Repository) []*Snapshot {
	t.Helper()
	list, damage, err := r.List(context.Background())
	if err != nil || len(damage) > 0 {
		t.Fatal(err, damage)
	}
	return list
}

func TestForget(t *testing.T) {
	m := randomHistory(rand.New(rand.NewPCG(5, 5)), 4, 10)
	r, list := stored(t, m)
	now := time.Date(2026, 5, 6, 7, 8, 9, 10, time.UTC)
	r.opts.Now = func() time.Time { return now }
	if err := r.Forget(t.Context(), nil, ""); err != nil || len(forgotten(t, r)) > 0 {
		t.Errorf("nothing to forget left a record: %v", err)
	}
	if err := r.Forget(t.Context(), []*Snapshot{list[2], list[0]}, "why"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]format.ID{list[1].ID, list[3].ID}, ids(relist(t, r))); diff != "" {
		t.Error(diff)
	}
	client, repository := r.keys.Client(), r.keys.Repository()
	var slots []byte
	for _, s := range []*Snapshot{list[2], list[0]} {
		slots = append(append(slots, s.Client[:]...), s.Session[:]...)
		slots = binary.BigEndian.AppendUint64(slots, s.Number)
	}
	want := []forgetBody{{
		Slots:  slots,
		Client: client[:], Reason: []byte("why"), Repository: repository[:],
		Snapshots: [][]byte{list[2].ID[:], list[0].ID[:]}, Time: []int64{now.Unix(), 10},
	}}
	if diff := cmp.Diff(want, forgotten(t, r)); diff != "" {
		t.Error(diff)
	}
	// Those that are left are whole, and forgetting twice is no error.
	got := expand(t, r, format.ExportOptions{})
	if len(got) != 2 || len(got[0]) != len(m[1]) {
		t.Errorf("%d snapshots are left", len(got))
	}
	if err := r.Forget(t.Context(), list[:1], "again"); err != nil {
		t.Error(err)
	}
}

// TestForgetIsRecordedFirst makes each call to storage fail in turn.
func TestForgetIsRecordedFirst(t *testing.T) {
	for call := 1; ; call++ {
		st := initStore(t)
		if _, err := tryImport(t, st, randomHistory(rand.New(rand.NewPCG(5, 6)), 3, 5)); err != nil {
			t.Fatal(err)
		}
		r := mustOpen(t, st)
		list := relist(t, r)
		faulty := storetest.NewFaulty(r.store, storetest.Fault{Call: call, Forever: true})
		r.store = faulty
		err := r.Forget(t.Context(), list[:2], "")
		r.store = faulty.Store
		left, recorded := len(relist(t, r)), len(forgotten(t, r))
		switch {
		case err == nil && call == 1:
			t.Fatal("no call failed")
		case err == nil:
			if left != 1 || recorded != 1 {
				t.Errorf("%d snapshots left, %d records", left, recorded)
			}
			return
		case left < 3 && recorded == 0:
			t.Errorf("call %d: a snapshot is gone, and nothing recorded it", call)
		case !errors.Is(err, storetest.ErrInjected):
			t.Errorf("call %d: %v", call, err)
		}
	}
}

func TestRetag(t *testing.T) {
	m := randomHistory(rand.New(rand.NewPCG(5, 7)), 3, 20)
	r, list := stored(t, m)
	add := func(old []string) []string {
		if slices.Contains(old, "new") {
			return old
		}
		return append(old, "new")
	}
	done, err := r.Retag(t.Context(), list, list[1:], add)
	if err != nil || len(done) != 2 {
		t.Fatal(len(done), err)
	}
	after := relist(t, r)
	if diff := cmp.Diff([]format.ID{list[0].ID, done[0].New.ID, done[1].New.ID}, ids(after)); diff != "" {
		t.Error(diff)
	}
	for i, d := range done {
		s := after[i+1]
		if d.Old != list[i+1] || s.ID == d.Old.ID || s.Root != d.Old.Root || s.Entries != d.Old.Entries || s.Bytes != d.Old.Bytes {
			t.Errorf("%+v became %+v", d.Old, s)
		}
		want := *d.Old.Meta.Clone()
		want.ID, want.Tags = s.ID, append(want.Tags, "new")
		want.Origin = s.Meta.Origin
		if diff := cmp.Diff(&want, &s.Meta); diff != "" {
			t.Error(diff)
		}
		if s.Imported != d.Old.Imported {
			t.Error("an imported snapshot is not known by the id it came with any more")
		}
	}
	if records := forgotten(t, r); len(records) != 1 || len(records[0].Snapshots) != 2 {
		t.Errorf("%+v", records)
	}
	if got := expand(t, r, format.ExportOptions{}); len(got) != 3 {
		t.Errorf("%d snapshots", len(got))
	}
	// The same again changes nothing.
	if done, err := r.Retag(t.Context(), after, after[1:], add); err != nil || len(done) != 0 {
		t.Errorf("%d snapshots changed, error %v", len(done), err)
	}
	// The same history again is recognised.
	sink, err := r.Import(t.Context(), ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(m.write(t, sink), sink.Close()); err != nil || sink.Summary().HeldAlready != 3 {
		t.Errorf("%d held already, error %v", sink.Summary().HeldAlready, err)
	}
}

// TestRetagBackup: a snapshot that was made here stays known by its first id.
func TestRetagBackup(t *testing.T) {
	r := newRepo(t, seal.SuiteAES256GCM)
	sink, err := r.Import(t.Context(), ImportOptions{Backup: true})
	if err != nil {
		t.Fatal(err)
	}
	m := randomHistory(rand.New(rand.NewPCG(5, 8)), 1, 5)
	if err := errors.Join(m.write(t, sink), sink.Close()); err != nil {
		t.Fatal(err)
	}
	first := relist(t, r)[0]
	for _, tag := range []string{"x", "y"} {
		list := relist(t, r)
		if _, err := r.Retag(t.Context(), list, list, func([]string) []string { return []string{tag} }); err != nil {
			t.Fatal(err)
		}
	}
	last := relist(t, r)[0]
	if !slices.Equal(last.Meta.Tags, []string{"y"}) || last.Imported != first.ID || last.Meta.Origin == nil || last.Meta.Origin.ID != string(first.ID[:]) {
		t.Errorf("%+v", last)
	}
}
