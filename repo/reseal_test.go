package repo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/internal/mp"
	"github.com/bk-backup/bk/repo/keyring"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/store/mem"
)

// rotate begins a new epoch.
func rotate(t testing.TB, st store.Store) {
	t.Helper()
	r := mustOpen(t, st)
	e := keyring.Editor{Keyring: r.Keyring(), Store: st}
	if _, err := e.AddEpoch(context.Background(), r.own.ID); err != nil {
		t.Fatal(err)
	}
}

// oldObjects lists storage and returns the objects that are sealed under another
// epoch than the given one, by what their headers say.
func oldObjects(t testing.TB, st store.Store, epoch uint32) (old []string) {
	t.Helper()
	for _, name := range objects(t, st, "") {
		var header [seal.HeaderSize]byte
		if err := st.ReadAt(context.Background(), name, header[:], 0); err != nil {
			t.Fatal(err)
		}
		h, err := seal.ParseHeader(header[:])
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if h.Epoch != 0 && h.Epoch != epoch {
			old = append(old, fmt.Sprintf("%s under epoch %d", name, h.Epoch))
		}
	}
	return old
}

// facts are what of snapshots must not change when they are sealed again.
type facts struct {
	ID       format.ID
	Received time.Time
}

func factsOf(list []*Snapshot) (all []facts) {
	for _, s := range list {
		all = append(all, facts{s.ID, s.Received})
	}
	return all
}

// checkResealed checks that nothing is left under earlier epochs and all is
// whole.
func checkResealed(t testing.TB, st store.Store, m model, want []facts, epoch uint32) {
	t.Helper()
	if old := oldObjects(t, st, epoch); len(old) > 0 {
		t.Fatalf("%d objects are left: %q", len(old), old)
	}
	list := checkWhole(t, st, m.listings(), nil)
	if diff := cmp.Diff(want, factsOf(list)); diff != "" {
		t.Fatal(diff)
	}
}

// TestReseal moves a repository to new keys, a bit at a time, twice, while it is
// in use.
func TestReseal(t *testing.T) {
	t.Parallel()
	m := randomHistory(rand.New(rand.NewPCG(1, 30)), 6, 60)
	st := initStore(t)
	clock := newClock(st)
	importOneByOne(t, st, m[:4])
	forget(t, st, func(n int) bool { return n == 1 })
	clock.move(time.Hour)
	mustCollect(t, st, CollectOptions{Grace: 24 * time.Hour, MaxUnused: -1}) // a plan that waits
	begin := factsOf(relist(t, mustOpen(t, st)))
	reader := mustOpen(t, st) // it knows nothing of new keys

	rotate(t, st)
	before := storedBytes(t, st)
	if _, err := tryImport(t, st, m[:4]); err != nil { // what was forgotten comes back
		t.Fatal(err)
	}
	if added := storedBytes(t, st) - before; added > before {
		t.Errorf("%d bytes were stored again under new keys, where %d were there", added, before)
	}
	for _, name := range objects(t, st, "sessions/") {
		t.Errorf("%s is left", name)
	}
	opts := CollectOptions{Grace: time.Hour, MaxUnused: -1, Reseal: true, MaxReseal: 1}
	runs, resealed := 0, PackSum{}
	for left := -1; left != 0; runs++ {
		sum := mustCollect(t, st, opts)
		resealed.Packs += sum.Resealed.Packs
		if sum.Resealed.Packs > 1 {
			t.Fatalf("%d packs were copied, though one is the bound: %+v", sum.Resealed.Packs, sum)
		}
		if runs == 2 { // somebody works on it meanwhile
			if _, err := tryImport(t, st, m); err != nil {
				t.Fatal(err)
			}
		}
		for _, s := range relist(t, reader) {
			if got, err := contentOf(t, reader, s); err != nil || cmp.Diff(m.listings()[number(s)], got) != "" {
				t.Fatalf("run %d: a reader that opened before: %v", runs, err)
			}
		}
		checkWhole(t, st, m.listings(), nil)
		clock.move(2 * time.Hour)
		left = sum.OldPacks.Packs + sum.OldObjects
		if runs > 60 {
			t.Fatalf("%d packs and %d other objects are left after %d runs", sum.OldPacks.Packs, sum.OldObjects, runs)
		}
	}
	if resealed.Packs < 5 || runs < 5 {
		t.Errorf("%d packs were copied in %d runs", resealed.Packs, runs)
	}
	list := relist(t, mustOpen(t, st))
	if len(list) != len(m) {
		t.Fatalf("%d snapshots", len(list))
	}
	after := factsOf(list)
	checkResealed(t, st, m, after, 2)
	kept := 0
	for _, f := range begin {
		for _, g := range after {
			if f == g {
				kept++
			}
		}
	}
	if kept != len(begin) {
		t.Errorf("%d of %d snapshots kept id and time of receipt: %v, %v", kept, len(begin), begin, after)
	}

	rotate(t, st)
	clock.move(time.Hour)
	sum := mustCollect(t, st, CollectOptions{MaxUnused: -1, Reseal: true})
	if sum.OldPacks.Packs+sum.OldObjects > 0 || sum.Resealed.Packs == 0 {
		t.Errorf("%+v", sum)
	}
	checkResealed(t, st, m, after, 3)
	if sum := mustCollect(t, st, CollectOptions{MaxUnused: -1, Reseal: true}); sum.Resealed.Packs+sum.Condemned.Packs > 0 {
		t.Errorf("there was nothing to do: %+v", sum)
	}
	checkCompletes(t, st, m, nil)
}

// TestResealTime stops copying when its time is over.
func TestResealTime(t *testing.T) {
	m := randomHistory(rand.New(rand.NewPCG(2, 30)), 3, 20)
	st := initStore(t)
	importOneByOne(t, st, m)
	rotate(t, st)
	r := mustOpen(t, st)
	now := time.Now()
	r.opts.Now = func() time.Time { now = now.Add(time.Second); return now }
	sum, err := r.Collect(t.Context(), CollectOptions{MaxUnused: -1, Reseal: true, MaxTime: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if sum.Resealed.Packs != 1 || sum.OldPacks.Packs < 4 {
		t.Errorf("%+v", sum)
	}
	checkWhole(t, st, m.listings(), nil)
}

// TestNewKeysAtOnce: whoever begins to write, also in a process that opened the
// repository before, uses the new epoch; and what it writes can be read by one
// that knows nothing of it.
func TestNewKeysAtOnce(t *testing.T) {
	m := faultHistory()
	st := initStore(t)
	writer, reader := mustOpen(t, st), mustOpen(t, st)
	rotate(t, st)
	importModel(t, writer, m)
	for _, name := range objects(t, st, "") {
		var header [seal.HeaderSize]byte
		if err := st.ReadAt(t.Context(), name, header[:], 0); err != nil {
			t.Fatal(err)
		}
		if h, err := seal.ParseHeader(header[:]); err != nil || h.Epoch == 1 {
			t.Errorf("%s: epoch %d, %v", name, h.Epoch, err)
		}
	}
	list := relist(t, reader)
	if len(list) != len(m) {
		t.Fatalf("%d snapshots", len(list))
	}
	for _, s := range list {
		got, err := contentOf(t, reader, s)
		if diff := cmp.Diff(m.listings()[number(s)], got); err != nil || diff != "" {
			t.Fatal(err, diff[:min(len(diff), 500)])
		}
	}
	// With another client key there is nothing to be done but open it anew.
	e := keyring.Editor{Keyring: mustOpen(t, st).Keyring(), Store: st}
	if _, err := e.Revoke(t.Context(), "", keyring.Passphrase("new", cheap)); err != nil {
		t.Fatal(err)
	}
	if _, err := writer.Import(t.Context(), ImportOptions{}); !errors.Is(err, keyring.ErrRevoked) {
		t.Errorf("to write under keys that were revoked: %v", err)
	}
	for _, s := range list {
		if _, err := contentOf(t, reader, s); err != nil {
			t.Errorf("to read what was there before: %v", err)
		}
	}
}

// resealable is storage under two epochs, with a void, a forget object, a plan
// and what a killed writer left.
func resealable(t testing.TB) (*mem.Store, model, []facts) {
	t.Helper()
	st, m := collectable(t)
	clock := newClock(st)
	mustCollect(t, st, CollectOptions{Grace: time.Hour, MaxUnused: -1})
	clock.move(2 * time.Hour)
	mustCollect(t, st, CollectOptions{Grace: time.Hour, MaxUnused: -1}) // voids, gone
	r := mustOpen(t, st)
	note := seal.Name{Kind: seal.KindPartial, Client: r.keys.Client(), Session: seal.SessionID{1}}
	if err := r.createObject(t.Context(), note.String(), note.Kind, mp.Encode(&partialBody{Snapshot: make([]byte, 32)})); err != nil {
		t.Fatal(err)
	}
	rotate(t, st)
	if n := len(objects(t, st, "snapshots/")); n < 3 {
		t.Fatalf("%d snapshot objects: there is no void among them", n)
	}
	return st, m, factsOf(relist(t, mustOpen(t, st)))
}

func reseal(st store.Store) error {
	_, err := collect(st, CollectOptions{MaxUnused: -1, Reseal: true})
	return err
}

// checkReseals checks what an interrupted reseal left, and completes it.
func checkReseals(t *testing.T, st store.Store, m model, want []facts) {
	t.Helper()
	if diff := cmp.Diff(want, factsOf(checkWhole(t, st, m.listings(), nil))); diff != "" {
		t.Fatal(diff)
	}
	for range 2 { // the first expires who was interrupted
		if err := reseal(st); err != nil {
			t.Fatal(err)
		}
	}
	checkResealed(t, st, m, want, 2)
}

// TestForgetWhileResealed forgets snapshots at every moment of their being
// sealed again: none comes back.
func TestForgetWhileResealed(t *testing.T) {
	begin, m, _ := resealable(t)
	for call := int64(1); ; call++ {
		st := begin.Clone()
		forgetter := mustOpen(t, st)
		list := relist(t, forgetter)
		hook := &callHook{Store: st, at: call, do: func() {
			if err := forgetter.Forget(t.Context(), list, "test"); err != nil {
				t.Errorf("forget: %v", err)
			}
		}}
		err := reseal(hook)
		if err != nil && !errors.Is(err, ErrMissing) && !errors.Is(err, store.ErrNotFound) {
			t.Fatalf("call %d: %v", call, err)
		}
		if hook.calls.Load() < call {
			break
		}
		if left := checkWhole(t, st, m.listings(), nil); len(left) > 0 {
			t.Fatalf("call %d: %d snapshots came back", call, len(left))
		}
	}
}

// callHook does something before one of the calls that change storage.
type callHook struct {
	store.Store
	at    int64
	calls atomic.Int64 // packs are deleted in parallel
	do    func()
}

func (h *callHook) step() {
	if h.calls.Add(1) == h.at {
		h.do()
	}
}

func (h *callHook) Create(ctx context.Context, name string, data ...[]byte) error {
	h.step()
	return h.Store.Create(ctx, name, data...)
}

func (h *callHook) Delete(ctx context.Context, name string) error {
	h.step()
	return h.Store.Delete(ctx, name)
}

// TestResealIsNoRollback: what this machine saw before is there, under other
// names.
func TestResealIsNoRollback(t *testing.T) {
	st, _, want := resealable(t)
	dir := t.TempDir()
	open := func() *Repository {
		secrets := keyring.Secrets{Passphrase: func(context.Context) (string, error) { return "p", nil }}
		r, err := Open(t.Context(), st, secrets, Options{CacheDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		return r
	}
	relist(t, open())
	for range 2 {
		if err := reseal(st); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if diff := cmp.Diff(want, factsOf(relist(t, open()))); diff != "" {
				t.Fatal(diff)
			}
		}
		rotate(t, st)
	}
	checked, err := open().Check(t.Context(), CheckOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range checked.Findings {
		t.Errorf("%s: %s %v", f.Object, f.What, f.Err)
	}
}
