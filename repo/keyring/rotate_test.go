package keyring

import (
	"errors"
	"testing"

	"github.com/bk-backup/bk/repo/internal/vectors"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/store/mem"
	"github.com/bk-backup/bk/repo/store/storetest"
)

// twoCredentials returns a repository that opens with secretText and with
// "battery".
func twoCredentials(t testing.TB) *mem.Store {
	t.Helper()
	st, k := made(t)
	if _, err := (&Editor{Keyring: k, Store: st, Now: now}).AddCredential(t.Context(), "second", Passphrase("battery", cheap)); err != nil {
		t.Fatal(err)
	}
	return st
}

func TestReload(t *testing.T) {
	st, k := made(t)
	if same, err := k.Reload(t.Context(), st); err != nil || same != k {
		t.Errorf("nothing changed, and the keys are %p, not %p: %v", same, k, err)
	}
	e := &Editor{Keyring: k, Store: st}
	if _, err := e.AddEpoch(t.Context(), k.Own().ID); err != nil {
		t.Fatal(err)
	}
	latest, err := k.Reload(t.Context(), st)
	if err != nil {
		t.Fatal(err)
	}
	if n, key := latest.Own().CurrentEpoch(); n != 2 || *key != *e.Keyring.Own().EpochKey(2) || latest.Generation() != 1 || latest.used != k.used {
		t.Errorf("epoch %d, generation %d", n, latest.Generation())
	}
	if _, err := e.Revoke(t.Context(), "new", Passphrase("staple", cheap)); err != nil {
		t.Fatal(err)
	}
	for _, old := range []*Keyring{k, latest} {
		if _, err := old.Reload(t.Context(), st); !errors.Is(err, ErrRevoked) {
			t.Errorf("with the old client key: %v", err)
		}
	}
	if same, err := e.Keyring.Reload(t.Context(), st); err != nil || same != e.Keyring {
		t.Errorf("the keys that were just made: %v", err)
	}
}

func TestRevoke(t *testing.T) {
	st := twoCredentials(t)
	k, err := Open(t.Context(), st, pass(secretText))
	if err != nil {
		t.Fatal(err)
	}
	e := &Editor{Keyring: k, Store: st, Now: now}
	id, err := e.Revoke(t.Context(), "new", Passphrase("staple", cheap))
	if err != nil {
		t.Fatal(err)
	}
	opened, err := Open(t.Context(), st, pass("staple"))
	if err != nil {
		t.Fatal(err)
	}
	if n, _ := opened.Own().CurrentEpoch(); n != 2 || opened.used != id || *opened.clientKey == *k.clientKey || opened.Own().EpochKey(1) == nil {
		t.Errorf("epoch %d of a new client key: %t", n, *opened.clientKey != *k.clientKey)
	}
	if string(opened.PublicKey()) != string(k.PublicKey()) || opened.Own().Label != k.Own().Label || opened.Own().Split != k.Own().Split {
		t.Error("keys changed that are for ever")
	}
	for _, text := range []string{secretText, "battery"} {
		if _, err := Open(t.Context(), st, pass(text)); !errors.Is(err, ErrNoKeyFits) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if list, err := opened.ListCredentials(t.Context(), st); err != nil || len(list) != 1 || list[0].ID != id {
		t.Errorf("credentials are %+v, %v", list, err)
	}
	if _, err := (&Editor{Keyring: k, Store: st}).Revoke(t.Context(), "late", Passphrase("late", cheap)); !errors.Is(err, ErrConflict) {
		t.Errorf("with keys that were replaced: %v", err)
	}
	if list, err := opened.ListCredentials(t.Context(), st); err != nil || len(list) != 1 {
		t.Errorf("a revocation that came too late left a credential: %+v, %v", list, err)
	}
}

// TestStaleCredential: a credential whose client key never came to be, or is not
// the client's any more, is passed over.
func TestStaleCredential(t *testing.T) {
	st, k := made(t)
	stop := storetest.NewCrash(st, 2, storetest.Lost) // the credential is there, the client chunk is not
	if _, err := (&Editor{Keyring: k, Store: stop}).Revoke(t.Context(), "new", Passphrase(secretText, cheap)); !errors.Is(err, storetest.ErrCrashed) {
		t.Fatal(err)
	}
	if list, err := k.ListCredentials(t.Context(), st); err != nil || len(list) != 2 {
		t.Fatalf("credentials are %+v, %v", list, err)
	}
	again, err := Open(t.Context(), st, pass(secretText)) // both open, one of them nothing
	if err != nil || again.used != k.used {
		t.Fatal(err)
	}
	if err := (&Editor{Keyring: again, Store: st}).RemoveCredential(t.Context(), again.used); !errors.Is(err, ErrInUse) {
		t.Errorf("what opens was removed for what does not: %v", err)
	}
}

// change is one thing that an Editor does. secret opens the repository if it was
// done; without it secretText does.
type change struct {
	name   string
	secret string
	do     func(t *testing.T, e *Editor) error
}

var changes = []change{
	{"add a credential", "staple", func(t *testing.T, e *Editor) error {
		_, err := e.AddCredential(t.Context(), "new", Passphrase("staple", cheap))
		return err
	}},
	{"remove a credential", secretText, func(t *testing.T, e *Editor) error {
		list, err := e.Keyring.ListCredentials(t.Context(), e.Store)
		for _, c := range list {
			if err == nil && !c.Used {
				err = e.RemoveCredential(t.Context(), c.ID)
			}
		}
		return err
	}},
	{"change the passphrase", "staple", func(t *testing.T, e *Editor) error {
		_, err := e.ChangePassphrase(t.Context(), Passphrase("staple", cheap))
		return err
	}},
	{"begin an epoch", secretText, func(t *testing.T, e *Editor) error {
		_, err := e.AddEpoch(t.Context(), e.Keyring.Own().ID)
		return err
	}},
	{"revoke", "staple", func(t *testing.T, e *Editor) error {
		_, err := e.Revoke(t.Context(), "new", Passphrase("staple", cheap))
		return err
	}},
}

// checkOpens checks that somebody can open the repository, with keys of before
// the change or of after it, and that the change can be made then.
func (c *change) checkOpens(t *testing.T, st store.Store, before *Keyring, changeErr error) {
	t.Helper()
	k, err := Open(t.Context(), st, pass(c.secret))
	if err != nil {
		if changeErr == nil {
			t.Fatalf("it was done, and does not open: %v", err)
		}
		if k, err = Open(t.Context(), st, pass(secretText)); err != nil {
			t.Fatalf("nobody can open it: %v (the failure was %v)", err, changeErr)
		}
	}
	for _, e := range before.Own().Epochs {
		if key := k.Own().EpochKey(e.Number); key == nil || *key != e.Key {
			t.Errorf("the key of epoch %d is lost", e.Number)
		}
	}
	if k.Own().Label != before.Own().Label || string(k.PublicKey()) != string(before.PublicKey()) {
		t.Error("keys changed that are for ever")
	}
	if changeErr == nil {
		return
	}
	if err := c.do(t, &Editor{Keyring: k, Store: st}); err != nil {
		t.Errorf("once more: %v", err)
	}
	if _, err := Open(t.Context(), st, pass(c.secret)); err != nil {
		t.Errorf("after all: %v", err)
	}
}

// TestEditCrashes stops the machine at every change to storage that an Editor
// makes.
func TestEditCrashes(t *testing.T) {
	begin := twoCredentials(t)
	for _, c := range changes {
		t.Run(c.name, func(t *testing.T) {
			var before *Keyring
			var err error
			crashes := storetest.EachCrash(t, func(*testing.T) store.Store { return begin.Clone() },
				func(t *testing.T, s *storetest.Crash) {
					if before, err = Open(t.Context(), s, pass(secretText)); err != nil {
						t.Fatal(err)
					}
					if err = c.do(t, &Editor{Keyring: before, Store: s, Rand: vectors.Rand(c.name)}); err != nil && !errors.Is(err, storetest.ErrCrashed) {
						t.Error(err)
					}
				},
				func(t *testing.T, s store.Store, _ int) { c.checkOpens(t, s, before, err) })
			t.Logf("%s: %d crashes", c.name, crashes)
		})
	}
}

// TestEditFaults fails every call to storage that an Editor makes.
func TestEditFaults(t *testing.T) {
	begin := twoCredentials(t)
	for _, c := range changes {
		t.Run(c.name, func(t *testing.T) {
			faults := 0
			for _, f := range []storetest.Fault{
				{Mode: storetest.Before}, {Mode: storetest.After},
				{Mode: storetest.Before, Forever: true}, {Mode: storetest.After, Forever: true},
				{Mode: storetest.Before, Method: storetest.Create, Forever: true, Err: store.ErrFull},
			} {
				faults += storetest.EachFault(t, f, func(*testing.T) store.Store { return begin.Clone() }, func(t *testing.T, s *storetest.Faulty) {
					before, err := Open(t.Context(), s.Store, pass(secretText))
					if err != nil {
						t.Fatal(err)
					}
					err = c.do(t, &Editor{Keyring: before, Store: s})
					if (err != nil) != (s.Fired() > 0) && !errors.Is(err, seal.ErrDamaged) {
						t.Errorf("%d faults, and the error is %v", s.Fired(), err)
					}
					c.checkOpens(t, s.Store, before, err)
				})
			}
			t.Logf("%s: %d faults", c.name, faults)
		})
	}
}
