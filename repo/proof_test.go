package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
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

// operation is something that changes a repository, and what must hold whatever
// interrupts it. The keys' own changes are proven in package keyring.
type operation struct {
	name  string
	begin *mem.Store
	do    func(t *testing.T, st store.Store) (committed []*Snapshot, err error)
	// check checks what is there and that doing it again completes it. done says
	// that do reported no error.
	check func(t *testing.T, st store.Store, committed []*Snapshot, done bool)
	// stride is which part of the points are tried without BK_PROOF.
	stride int
}

// proof counts what was tried.
type proof struct {
	mu   sync.Mutex
	rows []string
	sums [4]int
}

func (p *proof) add(name string, counts [4]int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rows = append(p.rows, fmt.Sprintf("%-28s %8d %8d %8d %8d", name, counts[0], counts[1], counts[2], counts[3]))
	for i, n := range counts {
		p.sums[i] += n
	}
}

// faultsProven are the faults that every operation meets at every call.
var faultsProven = []storetest.Fault{
	{Mode: storetest.Before},
	{Mode: storetest.Before, Forever: true},
	{Mode: storetest.After},
	{Mode: storetest.After, Forever: true},
	{Mode: storetest.Before, Method: storetest.Create, Forever: true, Err: store.ErrFull},
	{Mode: storetest.Before, Method: storetest.Delete, Forever: true, Err: store.ErrReadOnly},
	{Mode: storetest.Short, Method: storetest.List},
	{Mode: storetest.Short, Method: storetest.ReadAt},
}

// randomCrashes is how many crashes with several changes under way each operation
// meets, without BK_PROOF.
const randomCrashes = 10

// TestProof stops or fails every operation that changes a repository at every
// point: a crash at each change, which is applied, lost or torn; crashes at which
// every change under way has a fate of its own; and failures of each call, before
// or after its effect, once or for ever. With BK_PROOF nothing is left out.
func TestProof(t *testing.T) {
	t.Parallel()
	var p proof
	t.Run("operations", func(t *testing.T) {
		for _, op := range operations(t) {
			t.Run(op.name, func(t *testing.T) {
				t.Parallel()
				p.add(op.name, op.prove(t))
			})
		}
	})
	t.Logf("%-28s %8s %8s %8s %8s", "", "crashes", "random", "at once", "faults")
	for _, row := range p.rows {
		t.Log(row)
	}
	t.Logf("%-28s %8d %8d %8d %8d", "sum", p.sums[0], p.sums[1], p.sums[2], p.sums[3])
}

// prove returns how many crashes there were, how many with several changes under
// way, how many these were together, and how many faults.
func (op *operation) prove(t *testing.T) (counts [4]int) {
	stride, randoms := max(op.stride, 1), randomCrashes
	if os.Getenv("BK_PROOF") != "" {
		stride, randoms = 1, 20*randomCrashes
	} else if testing.Short() {
		stride *= 4
	} else if raceEnabled {
		stride, randoms = 5*stride, randomCrashes/3
	}
	changes := 0
	for change, done := 1, false; !done && !t.Failed(); change += stride {
		for _, fate := range []storetest.Fate{storetest.Applied, storetest.Lost, storetest.Torn} {
			t.Run(fmt.Sprintf("crash at change %d %s", change, fate), func(t *testing.T) {
				c := storetest.NewCrash(op.begin.Clone(), change, fate)
				if done = !op.crash(t, c); !done {
					counts[0]++
				}
				changes = c.Changes()
			})
		}
	}
	for seed := range randoms {
		change := 1 + seed*max(changes, 1)/randoms
		t.Run(fmt.Sprintf("crash %d at change %d", seed, change), func(t *testing.T) {
			c := storetest.NewRandomCrash(op.begin.Clone(), change, uint64(seed))
			if op.crash(t, c) {
				counts[1]++
			}
			counts[2] += c.UnderWay()
		})
	}
	for i, fault := range faultsProven {
		fault.Call = 1 + i%stride
		for fired := 1; fired > 0 && !t.Failed(); fault.Call += stride {
			t.Run(fault.String(), func(t *testing.T) {
				s := storetest.NewFaulty(op.begin.Clone(), fault)
				committed, err := op.do(t, s)
				if err != nil {
					checkExplains(t, err, storetest.ErrInjected, store.ErrFull, store.ErrReadOnly, store.ErrExists, io.ErrUnexpectedEOF)
				}
				op.check(t, s.Store, committed, err == nil)
				if fired = s.Fired(); fired > 0 {
					counts[3]++
				}
			})
		}
	}
	return counts
}

// crash reports whether the crash came before the operation was over.
func (op *operation) crash(t *testing.T, c *storetest.Crash) bool {
	committed, err := op.do(t, c)
	if err != nil {
		checkExplains(t, err, storetest.ErrCrashed)
	}
	crashed := c.Crashed()
	op.check(t, c.After(), committed, err == nil)
	return crashed
}

// operations are all that change a repository.
func operations(t *testing.T) []*operation {
	m := faultHistory()
	some := initStore(t) // the first snapshot is there
	if _, err := tryImport(t, some, m[:1]); err != nil {
		t.Fatal(err)
	}
	all := initStore(t)
	if _, err := tryImport(t, all, m); err != nil {
		t.Fatal(err)
	}
	garbage, kept := collectable(t)
	waiting := garbage.Clone()
	clock := newClock(waiting)
	mustCollect(t, waiting, CollectOptions{Grace: time.Hour, MaxUnused: -1})
	clock.move(2 * time.Hour)
	old, oldModel, oldFacts := resealable(t)
	hurtSnapshot, hopeless := withDamagedSnapshot(t, all, 1)

	imports := func(opts ImportOptions) func(t *testing.T, st store.Store) ([]*Snapshot, error) {
		return func(t *testing.T, st store.Store) ([]*Snapshot, error) {
			sum, err := tryImportWith(t, st, m, opts)
			return sum.Snapshots, err
		}
	}
	collects := func(opts CollectOptions) func(t *testing.T, st store.Store) ([]*Snapshot, error) {
		return func(t *testing.T, st store.Store) ([]*Snapshot, error) {
			_, err := collect(st, opts)
			return nil, err
		}
	}
	collected := func(t *testing.T, st store.Store, _ []*Snapshot, _ bool) { checkCollected(t, st, kept) }
	completes := func(t *testing.T, st store.Store, committed []*Snapshot, _ bool) { checkCompletes(t, st, m, committed) }
	return []*operation{
		{name: "init", begin: mem.New(), do: initAgain, check: checkInit},
		{name: "backup", begin: some, do: imports(ImportOptions{Backup: true}), check: func(t *testing.T, st store.Store, committed []*Snapshot, done bool) {
			if list := checkWhole(t, st, m.listings(), committed); done && len(list) != 1+len(m) {
				t.Fatalf("it was done, and %d snapshots are there", len(list))
			}
		}},
		{name: "import", begin: some, do: imports(ImportOptions{}), check: completes, stride: 2},
		{name: "tag", begin: all, do: tagAll, check: func(t *testing.T, st store.Store, _ []*Snapshot, done bool) {
			checkTagged(t, st, m, done)
		}, stride: 2},
		{name: "forget", begin: all, do: forgetAll, check: checkForgotten(m), stride: 2},
		{name: "rewrite", begin: all, do: rewriteAll, check: checkRewritten(m), stride: 3},
		{name: "collect: condemn", begin: garbage, do: collects(CollectOptions{Grace: time.Hour, MaxUnused: -1}), check: collected, stride: 4},
		{name: "collect: delete", begin: waiting, do: collects(CollectOptions{Grace: time.Hour, MaxUnused: -1}), check: collected, stride: 4},
		{name: "collect: both at once", begin: garbage, do: collects(CollectOptions{MaxUnused: -1}), check: collected, stride: 6},
		{name: "reseal", begin: old, do: collects(CollectOptions{MaxUnused: -1, Reseal: true}), stride: 8,
			check: func(t *testing.T, st store.Store, _ []*Snapshot, _ bool) { checkReseals(t, st, oldModel, oldFacts) }},
		{name: "give up", begin: hurtSnapshot, do: givesUp(hopeless), check: checkGivenUp(m, hopeless), stride: 3},
	}
}

// initAgain makes a repository, if there is none.
func initAgain(_ *testing.T, st store.Store) ([]*Snapshot, error) {
	r, err := Init(context.Background(), st, keyring.InitOptions{
		Suite: seal.SuiteAES256GCM, Passphrase: "p", Argon2: cheap, Chunker: "gear:64KiB", Compression: "default",
	}, Options{Workers: 2})
	if err != nil {
		return nil, err
	}
	return nil, r.index.Close()
}

func checkInit(t *testing.T, st store.Store, _ []*Snapshot, done bool) {
	_, err := openStore(st)
	if done && err != nil {
		t.Fatalf("it was made and does not open: %v", err)
	}
	if err != nil {
		if _, err := initAgain(t, st); err != nil {
			t.Fatalf("once more: %v", err)
		}
	}
	checkCompletes(t, st, faultHistory()[:1], nil)
}

// tagAll adds a tag to all snapshots.
func tagAll(t *testing.T, st store.Store) ([]*Snapshot, error) {
	r, list, err := openList(st)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	_, err = r.Retag(context.Background(), list, list, func([]string) []string { return []string{"t"} })
	return nil, err
}

// openList opens a repository and lists its snapshots.
func openList(st store.Store) (*Repository, []*Snapshot, error) {
	r, err := openStore(st)
	if err != nil {
		return nil, nil, err
	}
	list, damage, err := r.List(context.Background())
	for _, d := range damage {
		err = errors.Join(err, d.Err)
	}
	if err != nil {
		r.Close()
		return nil, nil, err
	}
	return r, list, nil
}

// checkTagged: every snapshot is there, with the tag or without, perhaps both.
func checkTagged(t *testing.T, st store.Store, m model, done bool) {
	for tries := 0; tries < 2; tries++ {
		list := checkWhole(t, st, m.listings(), nil)
		there, tagged := map[int]bool{}, map[int]bool{}
		for _, s := range list {
			there[number(s)] = true
			tagged[number(s)] = tagged[number(s)] || len(s.Meta.Tags) == 1 && s.Meta.Tags[0] == "t"
		}
		if len(there) != len(m) {
			t.Fatalf("%d of %d snapshots are left", len(there), len(m))
		}
		if done && (len(list) != len(m) || len(tagged) != len(m)) {
			t.Fatalf("it was done, and %d snapshots are there, %d of them tagged", len(list), len(tagged))
		}
		if _, err := tagAll(t, st); err != nil {
			t.Fatal(err)
		}
	}
}

// forgetAll forgets all snapshots but the last.
func forgetAll(t *testing.T, st store.Store) ([]*Snapshot, error) {
	r, list, err := openList(st)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return nil, r.Forget(context.Background(), list[:len(list)-1], "proof")
}

// checkForgotten: what is missing stands in a record, and the rest is whole.
func checkForgotten(m model) func(t *testing.T, st store.Store, _ []*Snapshot, done bool) {
	return func(t *testing.T, st store.Store, _ []*Snapshot, done bool) {
		list := checkWhole(t, st, m.listings(), nil)
		recorded, err := mustOpen(t, st).forgotten(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if len(list)+len(recorded.ids) < len(m) || len(list) < 1 || done && len(list) != 1 {
			t.Fatalf("%d snapshots are there, %d stand in a record", len(list), len(recorded.ids))
		}
		checkCompletes(t, st, m, nil)
	}
}

// isLeftOut says what a rewriting leaves out.
func isLeftOut(path string) bool { return strings.HasPrefix(path, "d1") }

// rewriteAll leaves something out of all snapshots, in place, as bk-rewrite does:
// the new ones are committed before the old ones are forgotten.
func rewriteAll(t *testing.T, st store.Store) ([]*Snapshot, error) {
	r, list, err := openList(st)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	src, err := r.Export(context.Background(), format.ExportOptions{Held: true, Drop: func(path string, _ bool) (bool, bool) { return isLeftOut(path), true }})
	if err != nil {
		return nil, err
	}
	defer src.Close()
	sink, err := r.Import(context.Background(), ImportOptions{Held: true})
	if err != nil {
		return nil, err
	}
	err = format.Copy(context.Background(), sink, src)
	if closeErr := sink.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return nil, err
	}
	return nil, r.Forget(context.Background(), list, "rewritten")
}

// checkRewritten: each snapshot is there as it was or as it becomes, perhaps both.
func checkRewritten(m model) func(t *testing.T, st store.Store, _ []*Snapshot, done bool) {
	whole := m.listings()
	return func(t *testing.T, st store.Store, _ []*Snapshot, done bool) {
		r := mustOpen(t, st)
		there := map[int]bool{}
		for _, s := range relist(t, r) {
			got, err := contentOf(t, r, s)
			if err != nil {
				t.Fatal(err)
			}
			there[number(s)] = true
			rest := maps.Clone(whole[number(s)])
			maps.DeleteFunc(rest, func(path, _ string) bool { return isLeftOut(path) })
			isWhole := !done && maps.Equal(got, whole[number(s)])
			if diff := cmp.Diff(rest, got); diff != "" && !isWhole {
				t.Fatalf("snapshot %d: %s", number(s), diff[:min(len(diff), 1000)])
			}
		}
		if len(there) != len(m) {
			t.Fatalf("%d of %d snapshots are left", len(there), len(m))
		}
	}
}
