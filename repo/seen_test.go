package repo

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/repo/keyring"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/store/mem"
)

// machine is a computer with a cache of its own.
type machine struct {
	t     *testing.T
	cache string
}

func newMachine(t *testing.T) machine { return machine{t, t.TempDir()} }

func (c machine) open(st store.Store) *Repository {
	c.t.Helper()
	secrets := keyring.Secrets{Passphrase: func(context.Context) (string, error) { return "p", nil }}
	r, err := Open(context.Background(), st, secrets, Options{Workers: 2, CacheDir: c.cache})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { r.Close() })
	return r
}

// list returns the snapshots and what is hidden of those seen before.
func (c machine) list(st store.Store) (list []*Snapshot, hidden []string) {
	c.t.Helper()
	list, damage, err := c.open(st).List(context.Background())
	if err != nil {
		c.t.Fatal(err)
	}
	for _, d := range damage {
		if !errors.Is(d.Err, ErrRolledBack) {
			c.t.Fatal(d.Err)
		}
		hidden = append(hidden, d.Name)
	}
	return list, hidden
}

func (c machine) backup(st store.Store, m model) {
	c.t.Helper()
	sink, err := c.open(st).Import(context.Background(), ImportOptions{})
	if err == nil {
		err = errors.Join(m.write(c.t, sink), sink.Close())
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c machine) forget(st store.Store, which func(i, n int) bool) {
	c.t.Helper()
	list, _ := c.list(st)
	var gone []*Snapshot
	for i, s := range list {
		if which(i, len(list)) {
			gone = append(gone, s)
		}
	}
	if err := c.open(st).Forget(context.Background(), gone, "test"); err != nil {
		c.t.Fatal(err)
	}
}

func newest(i, n int) bool { return i == n-1 }

// TestRollbackIsNoticed: storage that hides, drops or replays snapshots is
// noticed by a machine that looked before, and by no other.
func TestRollbackIsNoticed(t *testing.T) {
	m := randomHistory(rand.New(rand.NewPCG(3, 30)), 4, 10)
	for name, roll := range map[string]func(t *testing.T, old, now *mem.Store, list []*Snapshot) *mem.Store{
		"the newest is hidden": func(t *testing.T, _, now *mem.Store, list []*Snapshot) *mem.Store {
			return without(t, now, list[len(list)-1].objectName())
		},
		"all are hidden": func(t *testing.T, _, now *mem.Store, list []*Snapshot) *mem.Store {
			return without(t, now, objects(t, now, "snapshots/")...)
		},
		"an old state as a whole": func(_ *testing.T, old, _ *mem.Store, _ []*Snapshot) *mem.Store { return old },
	} {
		t.Run(name, func(t *testing.T) {
			here := newMachine(t)
			st := initStore(t)
			here.backup(st, m[:2])
			old := st.Clone()
			here.backup(st, m)
			list, hidden := here.list(st)
			if len(list) != 4 || len(hidden) > 0 {
				t.Fatalf("%d snapshots, hidden %v", len(list), hidden)
			}
			back := roll(t, old, st, list)
			for range 2 { // a second look tells the same
				if _, hidden := here.list(back); len(hidden) != 1 || hidden[0] != list[3].objectName() {
					t.Errorf("hidden: %v", hidden)
				}
			}
			if _, err := here.open(back).Collect(t.Context(), CollectOptions{}); !errors.Is(err, ErrRolledBack) {
				t.Errorf("a collection deletes what is hidden: %v", err)
			}
			if _, hidden := newMachine(t).list(back); len(hidden) > 0 {
				t.Errorf("a machine that never looked says that %v are hidden", hidden)
			}
			if _, hidden := here.list(st); len(hidden) > 0 {
				t.Errorf("they are there again: %v", hidden)
			}
			if err := here.open(back).AcceptRollback(); err != nil {
				t.Fatal(err)
			}
			if _, hidden := here.list(back); len(hidden) > 0 {
				t.Errorf("the rollback was accepted, and %v are hidden", hidden)
			}
		})
	}
}

// TestBackupKeepsAlarm has a backup be made on storage that went back: what is
// hidden is reported after it as before, until somebody accepts that.
func TestBackupKeepsAlarm(t *testing.T) {
	m := randomHistory(rand.New(rand.NewPCG(3, 31)), 4, 10)
	here, st := newMachine(t), initStore(t)
	here.backup(st, m[:2])
	back := st.Clone()
	here.backup(st, m[:3])
	list, _ := here.list(st)
	for range 2 {
		here.backup(back, m)
		if _, hidden := here.list(back); len(hidden) != 1 || hidden[0] != list[2].objectName() {
			t.Errorf("hidden behind a new snapshot: %v", hidden)
		}
	}
	if _, err := here.open(back).Collect(t.Context(), CollectOptions{}); !errors.Is(err, ErrRolledBack) {
		t.Errorf("a collection deletes what is hidden: %v", err)
	}
	if err := here.open(back).AcceptRollback(); err != nil {
		t.Fatal(err)
	}
	if _, hidden := here.list(back); len(hidden) > 0 {
		t.Errorf("the rollback was accepted, and %v are hidden", hidden)
	}
}

func without(t *testing.T, st *mem.Store, names ...string) *mem.Store {
	t.Helper()
	st = st.Clone()
	for _, name := range names {
		if err := st.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	return st
}

// TestReplayOfForgotten: what was forgotten comes back with its record gone.
func TestReplayOfForgotten(t *testing.T) {
	m := randomHistory(rand.New(rand.NewPCG(3, 31)), 3, 10)
	for _, other := range []bool{false, true} { // who forgets
		here := newMachine(t)
		st := initStore(t)
		here.backup(st, m)
		old := st.Clone()
		who := here
		if other {
			who = newMachine(t)
		}
		who.forget(st, func(i, _ int) bool { return i == 0 })
		here.list(st)
		if _, hidden := here.list(old); len(hidden) != 1 || !strings.HasPrefix(hidden[0], "forgets/") {
			t.Errorf("hidden: %v", hidden)
		}
	}
	// With the record there, the snapshot is one whose deletion was interrupted,
	// or that was brought back.
	here := newMachine(t)
	st := initStore(t)
	here.backup(st, m)
	old := st.Clone()
	list, _ := here.list(st)
	here.forget(st, newest)
	if out := check(t, st, CheckOptions{}); len(out.Findings) > 0 {
		t.Errorf("%+v", out.Findings[0])
	}
	stored, err := old.Get(t.Context(), list[2].objectName(), seal.ObjectSizeMax)
	if err == nil {
		err = st.Create(t.Context(), list[2].objectName(), stored)
	}
	if err != nil {
		t.Fatal(err)
	}
	out := check(t, st, CheckOptions{})
	if len(out.Findings) != 1 || out.Findings[0].What != Returned || out.Findings[0].Object != list[2].objectName() {
		t.Errorf("%+v", out.Findings)
	}
}

// TestForgettingIsNoRollback: what others do to a repository on purpose raises
// no alarm.
func TestForgettingIsNoRollback(t *testing.T) {
	m := randomHistory(rand.New(rand.NewPCG(3, 32)), 6, 10)
	here, there := newMachine(t), newMachine(t)
	st := initStore(t)
	here.backup(st, m[:4])
	alarm := func(what string) {
		t.Helper()
		if list, hidden := here.list(st); len(hidden) > 0 {
			t.Errorf("%s: %d snapshots, hidden %v", what, len(list), hidden)
		}
		if out := check(t, st, CheckOptions{}); len(out.Findings) > 0 {
			t.Errorf("%s: %+v", what, out.Findings[0])
		}
	}
	there.forget(st, newest)
	alarm("the newest was forgotten")
	there.backup(st, m[:5])
	alarm("another was made")
	there.forget(st, func(i, n int) bool { return i < n-1 })
	alarm("all but one were forgotten")
	if _, err := there.open(st).Collect(t.Context(), CollectOptions{}); err != nil {
		t.Fatal(err)
	}
	alarm("garbage was collected")
	r := there.open(st)
	list := relist(t, r)
	if _, err := r.Retag(t.Context(), list, list, func([]string) []string { return []string{"new"} }); err != nil {
		t.Fatal(err)
	}
	alarm("tags were changed")
	there.forget(st, func(int, int) bool { return true })
	alarm("all were forgotten")
	there.backup(st, m[:2])
	alarm("a new beginning")
	// A copy at another place may be older.
	elsewhere := named{st, "another place"}
	here.backup(st, m)
	if _, hidden := here.list(elsewhere); len(hidden) > 0 {
		t.Errorf("another place: %v", hidden)
	}
}

type named struct {
	store.Store
	name string
}

func (n named) String() string { return n.name }

// TestCheckChain: a snapshot that is hidden between others is noticed without
// having been seen before.
func TestCheckChain(t *testing.T) {
	m := randomHistory(rand.New(rand.NewPCG(3, 33)), 4, 10)
	st := initStore(t)
	importOneByOne(t, st, m)
	list := relist(t, mustOpen(t, st))
	for i, s := range list[:3] {
		out := check(t, without(t, st, s.objectName()), CheckOptions{})
		if len(out.Findings) != 1 || out.Findings[0].What != Hidden || !strings.Contains(out.Findings[0].Err.Error(), s.ID.String()) {
			t.Errorf("snapshot %d is hidden: %+v", i, out.Findings)
		}
	}
}

// TestSeenFile: a file that is no use is as none, and what is written is read.
// TestHiddenKeys: storage that hides the newest client chunk is noticed by a
// machine that saw it, which writes nothing then; and by whoever has a receipt of
// a snapshot that was made since.
func TestHiddenKeys(t *testing.T) {
	m := randomHistory(rand.New(rand.NewPCG(3, 31)), 3, 10)
	here, elsewhere := newMachine(t), newMachine(t)
	st := initStore(t)
	here.backup(st, m[:2])
	rotate(t, st)
	if _, hidden := here.list(st); len(hidden) > 0 {
		t.Fatalf("hidden: %v", hidden)
	}
	keys := objects(t, st, "clients/")
	newest := keys[len(keys)-1]
	before := without(t, st, newest)

	for range 2 {
		if list, hidden := here.list(before); len(list) != 2 || len(hidden) != 1 || hidden[0] != newest {
			t.Errorf("%d snapshots, hidden: %v, not %s", len(list), hidden, newest)
		}
	}
	written := objects(t, before, "")
	if _, err := here.open(before).Import(t.Context(), ImportOptions{}); !errors.Is(err, ErrRolledBack) || !strings.Contains(err.Error(), "keys") {
		t.Errorf("a backup under keys that were retired: %v", err)
	}
	if diff := cmp.Diff(written, objects(t, before, "")); diff != "" {
		t.Errorf("something was written: %s", diff)
	}
	if _, hidden := elsewhere.list(before); len(hidden) > 0 {
		t.Errorf("a machine that saw nothing noticed: %v", hidden)
	}
	if err := here.open(before).AcceptRollback(); err != nil {
		t.Fatal(err)
	}
	here.backup(before, m)

	// A process that was open all the while, and one that begins a session first.
	first := newMachine(t)
	old := first.open(without(t, st, newest))
	first.backup(st, m)
	if err := old.checkKeys(t.Context()); !errors.Is(err, ErrRolledBack) {
		t.Errorf("the keys that a session began under are not remembered: %v", err)
	}

	// What was written under the new keys since cannot be opened without them, and
	// if that is hidden as well, the receipt tells.
	list, _ := first.list(st)
	receipt := first.open(st).Receipt(list[len(list)-1])
	secrets := keyring.Secrets{Passphrase: func(context.Context) (string, error) { return "p", nil }}
	if r, err := Open(t.Context(), without(t, st, newest), secrets, Options{}); err == nil || !strings.Contains(err.Error(), "epoch 2") {
		t.Errorf("it opened: %v, %v", r, err)
	}
	hide := []string{newest}
	for _, old := range oldObjects(t, st, 1) {
		name, _, _ := strings.Cut(old, " ")
		hide = append(hide, name)
	}
	r := elsewhere.open(without(t, st, hide...))
	out, err := r.Check(t.Context(), CheckOptions{Expect: []Receipt{receipt}})
	if err != nil || !slices.ContainsFunc(out.Findings, func(f *Finding) bool { return f.What == Hidden && errors.Is(f.Err, ErrRolledBack) }) {
		t.Errorf("the receipt holds: %v", err)
	}
}

func TestSeenFile(t *testing.T) {
	m := randomHistory(rand.New(rand.NewPCG(3, 34)), 2, 5)
	here := newMachine(t)
	st := initStore(t)
	here.backup(st, m)
	here.forget(st, func(i, _ int) bool { return i == 0 })
	files, err := filepath.Glob(filepath.Join(here.cache, "*", "seen-*"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	good, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	s, err := parseSeen(strings.NewReader(string(good)))
	if err != nil || s.String() != string(good) || len(s.heads) != 1 || s.heads[0].sequence != 2 || s.forget == "" {
		t.Errorf("%q is %+v, %v", good, s, err)
	}
	for _, bad := range []string{"", "bk seen 2\n", "bk seen 1\nsnapshot x y z\n", "bk seen 1\nsnapshot a 1 00\n", "bk seen 1\nother line\n"} {
		if err := os.WriteFile(files[0], []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, hidden := here.list(st); len(hidden) > 0 {
			t.Errorf("%q: %v", bad, hidden)
		}
		if again, err := os.ReadFile(files[0]); err != nil || string(again) != string(good) {
			t.Errorf("after %q: %q, %v", bad, again, err)
		}
	}
}
