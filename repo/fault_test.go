package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/keyring"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/store/mem"
	"github.com/bk-backup/bk/repo/store/storetest"
)

// A test of faults works on a repository in memory and a history: what is on
// storage at the beginning, and what every snapshot must hold that is listed.

// initStore makes an empty repository.
func initStore(t testing.TB) *mem.Store {
	t.Helper()
	st := mem.New()
	r, err := Init(context.Background(), st, keyring.InitOptions{
		Suite: seal.SuiteAES256GCM, Passphrase: "p", Argon2: cheap, Chunker: "gear:64KiB", Compression: "default",
	}, Options{Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	return st
}

func openStore(st store.Store) (*Repository, error) {
	secrets := keyring.Secrets{Passphrase: func(context.Context) (string, error) { return "p", nil }}
	return Open(context.Background(), st, secrets, Options{Workers: 2})
}

func mustOpen(t testing.TB, st store.Store) *Repository {
	t.Helper()
	r, err := openStore(st)
	if err != nil {
		t.Fatalf("the repository does not open: %v", err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// tryImport opens the repository in st and imports a history. It returns the
// snapshots that were reported as committed.
func tryImport(t testing.TB, st store.Store, m model) (Imported, error) {
	t.Helper()
	return tryImportWith(t, st, m, ImportOptions{})
}

// tryImportWith is tryImport with options.
func tryImportWith(t testing.TB, st store.Store, m model, opts ImportOptions) (Imported, error) {
	t.Helper()
	r, err := openStore(st)
	if err != nil {
		return Imported{}, err
	}
	defer r.Close()
	sink, err := r.Import(context.Background(), opts)
	if err != nil {
		return Imported{}, err
	}
	err = m.write(t, sink)
	if closeErr := sink.Close(); err == nil {
		err = closeErr
	}
	return sink.Summary(), err
}

// number is which snapshot of a history one is.
func number(s *Snapshot) int { return int(s.Meta.Time.Sec) }

// contentOf exports one snapshot.
func contentOf(t testing.TB, r *Repository, s *Snapshot) (map[string]string, error) {
	t.Helper()
	src, err := r.Export(context.Background(), format.ExportOptions{Snapshots: []format.ID{s.ID}})
	if err != nil {
		return nil, err
	}
	defer src.Close()
	var stream bytes.Buffer
	if err := format.Copy(context.Background(), format.NewWriter(&stream, format.WriterOptions{}), src); err != nil {
		return nil, err
	}
	return expandStream(t, &stream, nil)[0], nil
}

// checkWhole checks that every listed snapshot holds what it must, and that the
// given ones are listed.
func checkWhole(t testing.TB, st store.Store, want []map[string]string, committed []*Snapshot) []*Snapshot {
	t.Helper()
	r := mustOpen(t, st)
	list, damage, err := r.List(context.Background())
	if err != nil || len(damage) > 0 {
		t.Fatalf("list: %v, %v", damage, err)
	}
	listed := map[format.ID]bool{}
	for _, s := range list {
		listed[s.ID] = true
		got, err := contentOf(t, r, s)
		if err != nil {
			t.Fatalf("snapshot %d: %v", number(s), err)
		}
		if diff := cmp.Diff(want[number(s)], got); diff != "" {
			t.Fatalf("snapshot %d: %s", number(s), diff[:min(len(diff), 1000)])
		}
	}
	for _, s := range committed {
		if !listed[s.ID] {
			t.Fatalf("snapshot %d was reported as committed and is not listed", number(s))
		}
	}
	return list
}

// checkCompletes checks what is there, imports the history once more, and then
// all of it must be there, and once.
func checkCompletes(t testing.TB, st store.Store, m model, committed []*Snapshot) {
	t.Helper()
	want := m.listings()
	list := checkWhole(t, st, want, committed)
	sum, err := tryImport(t, st, m)
	if err != nil {
		t.Fatalf("the second import: %v", err)
	}
	if sum.HeldAlready != len(list) || len(sum.Snapshots) != len(m)-len(list) {
		t.Fatalf("the second import: %d held and %d new, where %d were there", sum.HeldAlready, len(sum.Snapshots), len(list))
	}
	if list = checkWhole(t, st, want, sum.Snapshots); len(list) != len(m) {
		t.Fatalf("%d snapshots after the second import", len(list))
	}
}

// checkExplains checks that an error says what was attempted, on what, and why.
func checkExplains(t testing.TB, err error, causes ...error) {
	t.Helper()
	var se *store.Error
	if !errors.As(err, &se) || se.Op == "" || se.Name == "" && se.Op != "read clock of" {
		t.Errorf("the error names no operation and object: %v", err)
		return
	}
	if !strings.Contains(err.Error(), se.Name) {
		t.Errorf("the error does not show %s: %v", se.Name, err)
	}
	for _, cause := range causes {
		if errors.Is(err, cause) {
			return
		}
	}
	t.Errorf("the error has not the cause %v: %v", causes, err)
}

func faultHistory() model { return randomHistory(rand.New(rand.NewPCG(8, 8)), 3, 12) }

// TestImportRetries lets every call fail once with a failure that passes.
func TestImportRetries(t *testing.T) {
	t.Parallel()
	m := faultHistory()
	begin := initStore(t)
	cases := 0
	for _, mode := range []storetest.Mode{storetest.Before, storetest.After} {
		cases += storetest.StrideFaults(t, storetest.Fault{Mode: mode, Err: store.ErrTemporary}, underRace(1, 3),
			func(*testing.T) store.Store { return begin.Clone() },
			func(t *testing.T, s *storetest.Faulty) {
				patient := store.Retry(s, store.Policy{Sleep: func(context.Context, time.Duration) error { return nil }})
				sum, err := tryImport(t, patient, m)
				if err != nil || len(sum.Snapshots) != len(m) {
					t.Fatalf("%d snapshots: %v", len(sum.Snapshots), err)
				}
				checkWhole(t, s.Store, m.listings(), sum.Snapshots)
			})
	}
	t.Logf("%d faults", cases)
}

// TestExportFaults fails every call of an export: it fails, or it is right.
func TestExportFaults(t *testing.T) {
	t.Parallel()
	m := faultHistory()
	want := m.listings()
	begin := initStore(t)
	if _, err := tryImport(t, begin, m); err != nil {
		t.Fatal(err)
	}
	cases := 0
	for _, f := range []storetest.Fault{
		{Mode: storetest.Before},
		{Mode: storetest.Before, Forever: true},
		{Mode: storetest.Short, Method: storetest.ReadAt},
	} {
		cases += storetest.EachFault(t, f, func(*testing.T) store.Store { return begin }, func(t *testing.T, s *storetest.Faulty) {
			r, err := openStore(s)
			if err != nil {
				checkExplains(t, err, storetest.ErrInjected)
				return
			}
			defer r.Close()
			list, damage, err := r.List(context.Background())
			if err != nil {
				checkExplains(t, err, storetest.ErrInjected)
				return
			}
			for _, d := range damage {
				checkExplains(t, d.Err, storetest.ErrInjected)
			}
			for _, snap := range list {
				got, err := contentOf(t, r, snap)
				if err != nil {
					checkExplains(t, err, storetest.ErrInjected, io.ErrUnexpectedEOF)
				} else if diff := cmp.Diff(want[number(snap)], got); diff != "" {
					t.Fatalf("snapshot %d: %s", number(snap), diff[:min(len(diff), 1000)])
				}
			}
		})
	}
	t.Logf("%d faults", cases)
}

// TestImportsAtOnce runs several imports into one repository.
func TestImportsAtOnce(t *testing.T) {
	t.Parallel()
	st := initStore(t)
	base := faultHistory()
	histories := make([]model, 4)
	var want []map[string]string
	for i := range histories {
		histories[i] = append(model{base[0]}, randomHistory(rand.New(rand.NewPCG(uint64(i), 9)), 2, 12)...)
		want = append(want, histories[i].listings()...)
	}
	var wg sync.WaitGroup
	sums := make([]Imported, len(histories))
	errs := make([]error, len(histories))
	begun := make(chan struct{})
	for i := range histories {
		// All of them begin before the first commits: none sees another's.
		sink, err := mustOpen(t, st).Import(context.Background(), ImportOptions{})
		if err != nil {
			t.Fatal(err)
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			<-begun
			errs[i] = errors.Join(histories[i].write(t, sink), sink.Close())
			sums[i] = sink.Summary()
		}()
	}
	close(begun)
	wg.Wait()
	r := mustOpen(t, st)
	all := 0
	for i, sum := range sums {
		// The first snapshot is the same in all: who comes late finds it there.
		if errs[i] != nil || sum.HeldAlready > 1 || len(sum.Snapshots)+sum.HeldAlready != 3 {
			t.Fatalf("import %d: %d snapshots, %d held already, %v", i, len(sum.Snapshots), sum.HeldAlready, errs[i])
		}
		all += len(sum.Snapshots)
		for n, s := range sum.Snapshots {
			n += sum.HeldAlready
			got, err := contentOf(t, r, s)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want[3*i+n], got); diff != "" {
				t.Fatalf("import %d, snapshot %d: %s", i, n, diff[:min(len(diff), 1000)])
			}
		}
	}
	if list, damage, err := r.List(context.Background()); len(list) != all || len(damage) > 0 || err != nil {
		t.Fatalf("%d snapshots, %v, %v", len(list), damage, err)
	}
}

// objects returns the names of all objects.
func objects(t testing.TB, st store.Store, prefix string) (names []string) {
	t.Helper()
	err := st.List(context.Background(), prefix, func(info store.Info) error {
		names = append(names, info.Name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// readable returns which snapshots can be exported, and why the others cannot.
func readable(t *testing.T, st store.Store, want []map[string]string) (ok [8]bool, problems []error) {
	t.Helper()
	r, err := openStore(st)
	if err != nil {
		return ok, []error{err}
	}
	defer r.Close()
	list, damage, err := r.List(context.Background())
	if err != nil {
		return ok, []error{err}
	}
	for _, d := range damage {
		problems = append(problems, fmt.Errorf("%s: %w", d.Name, d.Err))
	}
	for _, s := range list {
		got, err := contentOf(t, r, s)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		if diff := cmp.Diff(want[number(s)], got); diff != "" {
			t.Fatalf("snapshot %d came back wrong: %s", number(s), diff[:min(len(diff), 1000)])
		}
		ok[number(s)] = true
	}
	return ok, problems
}

// TestDamage damages every object in several ways. What can be read without the
// object can be read, and what cannot is refused by the object's name.
func TestDamage(t *testing.T) {
	t.Parallel()
	m := faultHistory()
	want := m.listings()
	begin := initStore(t)
	for i := range m { // an index for each snapshot
		if _, err := tryImport(t, begin, m[:i+1]); err != nil {
			t.Fatal(err)
		}
	}
	cases := 0
	for _, name := range objects(t, begin, "") {
		without := begin.Clone()
		if err := without.Delete(context.Background(), name); err != nil {
			t.Fatal(err)
		}
		unaffected, _ := readable(t, without, want)
		kind, _ := seal.ParseName(name)
		for what, change := range map[string]func(b []byte) []byte{
			"kind":          func(b []byte) []byte { b[9] ^= 1; return b },
			"salt":          func(b []byte) []byte { b[70] ^= 1; return b },
			"begin of body": func(b []byte) []byte { b[min(130, len(b)-1)] ^= 1; return b },
			"last byte":     func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
			"half":          func(b []byte) []byte { return b[:len(b)/2] },
			"150 bytes":     func(b []byte) []byte { return b[:150] },
			"empty":         func([]byte) []byte { return nil },
		} {
			cases++
			t.Run(name[:min(len(name), 20)]+" "+what, func(t *testing.T) {
				st := begin.Clone()
				st.Damage(name, change)
				ok, problems := readable(t, st, want)
				for i := range m {
					if unaffected[i] && !ok[i] {
						t.Errorf("snapshot %d needs none of it and cannot be read: %v", i, problems)
					}
				}
				for _, err := range problems {
					if !strings.Contains(err.Error(), name) {
						t.Errorf("the object is not named: %v", err)
					}
				}
				hidden := what == "kind" || what == "salt" || what == "last byte" || what == "half" // nothing that a reader of a pack looks at
				if len(problems) == 0 && kind.Kind != seal.KindIndex && !(kind.Kind.IsPack() && hidden) {
					t.Error("the damage was not noticed")
				}
			})
		}
	}
	t.Logf("%d cases", cases)
}

// TestDamagedIndexHeals damages every index: packs say themselves what they hold,
// and the next writer lists them again.
func TestDamagedIndexHeals(t *testing.T) {
	m := faultHistory()
	st := initStore(t)
	if _, err := tryImport(t, st, m[:2]); err != nil {
		t.Fatal(err)
	}
	for _, name := range objects(t, st, "index/") {
		st.Damage(name, func(b []byte) []byte { return b[:len(b)/2] })
	}
	packs := len(objects(t, st, "packs/"))
	checkCompletes(t, st, m, nil)
	r := mustOpen(t, st)
	if n := len(objects(t, st, "packs/")) - packs; n > 3 { // two data packs, as many as there are workers, and one of the listing
		t.Errorf("%d packs were written for one snapshot", n)
	}
	unlisted, err := r.unlistedPacks(context.Background())
	if err != nil || len(unlisted) > 0 {
		t.Errorf("%d packs are not listed: %v", len(unlisted), err)
	}
}
