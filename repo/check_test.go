package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/keyring"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/store/mem"
	"github.com/bk-backup/bk/repo/store/storetest"
)

var readAll = CheckOptions{ReadData: Subset{All: true}}

// initSuite makes an empty repository with a cipher.
func initSuite(t testing.TB, suite seal.Suite) *mem.Store {
	t.Helper()
	st := mem.New()
	r, err := Init(context.Background(), st, keyring.InitOptions{
		Suite: suite, Passphrase: "p", Argon2: cheap, Chunker: "gear:64KiB", Compression: "default",
	}, Options{Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	return st
}

func check(t testing.TB, st store.Store, opts CheckOptions) *Checked {
	t.Helper()
	out, err := mustOpen(t, st).Check(context.Background(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// lossSet has "number path" for everything that cannot be restored.
type lossSet map[string]bool

// restorable finds out, by reading them, which entries of a history cannot be
// restored.
func restorable(t testing.TB, st store.Store, m model) lossSet {
	t.Helper()
	lost := lossSet{}
	r := mustOpen(t, st)
	list, _, err := r.List(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		for path, f := range m[number(s)] {
			var content bytes.Buffer
			file, err := r.File(context.Background(), s, path)
			if err == nil {
				err = file.Copy(context.Background(), &content)
			}
			switch {
			case errors.Is(err, ErrNotFile):
			case err != nil:
				lost[fmt.Sprint(number(s), " ", path)] = true
			case !bytes.Equal(content.Bytes(), plainOf(f)):
				t.Fatalf("snapshot %d: %s has other content", number(s), path)
			}
		}
	}
	return lost
}

// touchedBy is what findings say cannot be restored.
func touchedBy(t testing.TB, st store.Store, m model, findings []*Finding) lossSet {
	t.Helper()
	numbers := map[format.ID]int{}
	list, _, err := mustOpen(t, st).List(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		numbers[s.ID] = number(s)
	}
	lost := lossSet{}
	for _, f := range findings {
		for _, touched := range f.Touched {
			for _, id := range touched.Snapshots {
				for path := range m[numbers[id]] {
					if touched.Range {
						if format.ComparePaths(path, touched.Path) < 0 || touched.Before != "" && format.ComparePaths(path, touched.Before) >= 0 {
							continue
						}
					} else if path != touched.Path {
						continue
					}
					lost[fmt.Sprint(numbers[id], " ", path)] = true
				}
			}
		}
	}
	return lost
}

// checkable is a repository with objects of every kind that programs write.
func checkable(t testing.TB, suite seal.Suite) (*mem.Store, model) {
	t.Helper()
	m := randomHistory(rand.New(rand.NewPCG(9, 9)), 4, 14)
	// Long attributes and long contents lie in chunks of their own.
	long := file{entry: modelEntry("long", format.TypeFile)}
	long.entry.Xattrs = []format.Xattr{{Name: "user.x", Value: strings.Repeat("v", 5000)}}
	for i := range 40 {
		long.chunks = append(long.chunks, fmt.Sprint("piece ", i))
	}
	for i := range m {
		m[i]["long"] = long
	}
	st := initSuite(t, suite)
	importOneByOne(t, st, m)
	forget(t, st, func(n int) bool { return n == 1 })
	mustCollect(t, st, CollectOptions{Grace: 1 << 40, MaxUnused: -1})
	return st, m
}

func TestCheckWhole(t *testing.T) {
	for _, suite := range seal.Suites() {
		st, _ := checkable(t, suite)
		// What a writer left who was killed is no damage.
		c := storetest.NewCrash(st, 3, storetest.Lost)
		if _, err := tryImport(t, c, randomHistory(rand.New(rand.NewPCG(4, 22)), 1, 20)); err == nil {
			t.Fatal("no crash")
		}
		before := objects(t, st, "")
		for _, opts := range []CheckOptions{{}, readAll, {ReadData: Subset{Part: 1, Parts: 2}}, {ReadData: Subset{Share: 0.5}}, {ReadData: Subset{Bytes: 1}}} {
			out := check(t, st, opts)
			if len(out.Findings) > 0 {
				t.Errorf("%+v: %+v", opts, out.Findings[0])
			}
			if out.Snapshots != 3 || out.Packs.Packs != len(objects(t, st, "packs/")) || out.Needed == 0 || out.Needed > out.Chunks {
				t.Errorf("%+v: %+v", opts, out)
			}
			if n, all := out.PacksRead.Packs, out.Packs.Packs; opts.ReadData.IsZero() != (n == 0) || opts.ReadData.All != (n == all) {
				t.Errorf("%+v: %d of %d packs were read", opts.ReadData, n, all)
			}
		}
		if diff := cmp.Diff(before, objects(t, st, "")); diff != "" {
			t.Error(diff)
		}
	}
}

// TestSubsetsCoverAll: n parts of n are all packs, each once.
func TestSubsetsCoverAll(t *testing.T) {
	st, _ := checkable(t, seal.SuiteAES256GCM)
	sum := 0
	for part := uint32(1); part <= 3; part++ {
		sum += check(t, st, CheckOptions{ReadData: Subset{Part: part, Parts: 3}}).PacksRead.Packs
	}
	if all := len(objects(t, st, "packs/")); sum != all {
		t.Errorf("%d of %d packs", sum, all)
	}
}

// harms are the ways in which an object is damaged; nil deletes it.
func harms(t testing.TB, st *mem.Store, name string) map[string]func(b []byte) []byte {
	t.Helper()
	out := map[string]func(b []byte) []byte{
		"half":      func(b []byte) []byte { return b[:len(b)/2] },
		"150 bytes": func(b []byte) []byte { return b[:150] },
		"empty":     func([]byte) []byte { return nil },
		"longer":    func(b []byte) []byte { return append(b, 0) },
		"deleted":   nil,
	}
	info, err := st.Stat(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(uint64(info.Size), 1))
	for _, at := range []int64{9, 70, 128, 200, 2000, rng.Int64N(info.Size), info.Size - 1} {
		if at < info.Size {
			out[fmt.Sprint("byte ", at)] = func(b []byte) []byte { b[at] ^= 0x10; return b }
		}
	}
	return out
}

// TestCheckFindsDamage damages every object in many ways, under every cipher.
// The object is named, and so is exactly what then cannot be restored.
func TestCheckFindsDamage(t *testing.T) {
	t.Parallel()
	for _, suite := range seal.Suites() {
		begin, m := checkable(t, suite)
		cases, touching, unlisted, n := 0, 0, 0, 0
		for _, name := range objects(t, begin, "") {
			for what, change := range harms(t, begin, name) {
				if n++; n%underRace(1, 4) > 0 {
					continue
				}
				st := begin.Clone()
				if change == nil {
					if err := st.Delete(t.Context(), name); err != nil {
						t.Fatal(err)
					}
				} else {
					st.Damage(name, change)
				}
				r, err := openStore(st)
				if err != nil {
					continue // the keys; TestDamage says how that is told
				}
				cases++
				out, err := r.Check(t.Context(), readAll)
				r.Close()
				if err != nil {
					t.Fatalf("%s, %s: %v", name, what, err)
				}
				lost := restorable(t, st, m)
				if diff := cmp.Diff(lost, touchedBy(t, st, m, out.Findings)); diff != "" {
					t.Errorf("%s, %s: %s", name, what, diff)
				}
				if len(lost) > 0 {
					touching++
				}
				checkNamed(t, name, what, out.Findings)
				if slices.ContainsFunc(out.Findings, func(f *Finding) bool { return f.What == Unlisted }) {
					unlisted++
				}
			}
		}
		t.Logf("%s: %d cases, %d of them lose something", suite, cases, touching)
		if touching == 0 || unlisted == 0 {
			t.Errorf("%d cases lost something, and in %d packs were not listed", touching, unlisted)
		}
	}
}

// checkNamed checks that findings name an object that was damaged or deleted.
func checkNamed(t *testing.T, name, what string, findings []*Finding) {
	t.Helper()
	n, _ := seal.ParseName(name)
	named := slices.ContainsFunc(findings, func(f *Finding) bool { return f.Object == name && f.Err != nil })
	switch {
	case what != "deleted" || n.Kind == seal.KindDataPack:
		if !named {
			t.Errorf("%s, %s is not named by %d findings", name, what, len(findings))
		}
	case n.Kind == seal.KindForget:
		if len(findings) != 1 || findings[0].What != Hidden {
			t.Errorf("%s, %s: %d findings", name, what, len(findings))
		}
	}
}

// TestCheckFindsSwaps exchanges the contents of objects, two and two, and has
// storage show old ones under new names.
func TestCheckFindsSwaps(t *testing.T) {
	t.Parallel()
	for _, suite := range seal.Suites() {
		begin, m := checkable(t, suite)
		byDir := map[string][]string{}
		for _, name := range objects(t, begin, "") {
			dir, _, _ := strings.Cut(name, "/")
			byDir[dir] = append(byDir[dir], name)
		}
		contents := func(name string) []byte {
			b, err := begin.Get(t.Context(), name, 1<<30)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		for _, dir := range slices.Sorted(maps.Keys(byDir)) {
			for i, a := range byDir[dir] {
				for j, b := range byDir[dir][i+1:] {
					if (i+j)%underRace(1, 3) > 0 {
						continue
					}
					st := begin.Clone()
					st.Damage(a, func([]byte) []byte { return contents(b) })
					st.Damage(b, func([]byte) []byte { return contents(a) })
					out := check(t, st, readAll)
					if diff := cmp.Diff(restorable(t, st, m), touchedBy(t, st, m, out.Findings)); diff != "" {
						t.Errorf("%s and %s: %s", a, b, diff)
					}
					checkNamed(t, a, "swapped", out.Findings)
					checkNamed(t, b, "swapped", out.Findings)
				}
			}
		}
	}
}

// TestCheckSecondCopies: damage to one of two copies is found and touches nothing.
func TestCheckSecondCopies(t *testing.T) {
	m := randomHistory(rand.New(rand.NewPCG(6, 6)), 3, 30)
	st, first, second := twice(t, m)
	for _, packs := range [][]string{first, second} {
		damaged := st.Clone()
		for _, pack := range packs {
			damaged.Damage(pack, func(b []byte) []byte {
				for i := 128; i < len(b); i += 64 {
					b[i] ^= 4
				}
				return b
			})
		}
		out := check(t, damaged, readAll)
		if len(out.Findings) != len(packs) {
			t.Errorf("%d findings, %d packs", len(out.Findings), len(packs))
		}
		for _, f := range out.Findings {
			if f.What != Damaged || f.Lost > 0 || len(f.Touched) > 0 || !slices.Contains(packs, f.Object) {
				t.Errorf("%+v", f)
			}
		}
	}
}

// TestCheckFaults fails every call of a check: it fails, or it names what it could
// not read.
func TestCheckFaults(t *testing.T) {
	t.Parallel()
	begin, _ := checkable(t, seal.SuiteAES256GCM)
	cases := 0
	for _, f := range []storetest.Fault{
		{Mode: storetest.Before}, {Mode: storetest.Before, Forever: true}, {Mode: storetest.Short, Method: storetest.ReadAt},
	} {
		cases += storetest.StrideFaults(t, f, underRace(1, 3), func(*testing.T) store.Store { return begin }, func(t *testing.T, s *storetest.Faulty) {
			r, err := openStore(s)
			if err != nil {
				return
			}
			defer r.Close()
			out, err := r.Check(context.Background(), readAll)
			if err != nil {
				checkExplains(t, err, storetest.ErrInjected, io.ErrUnexpectedEOF)
				return
			}
			for _, f := range out.Findings {
				if f.Object != "" && f.What != Hidden && f.Err == nil {
					t.Errorf("%+v", f)
				}
			}
		})
	}
	t.Logf("%d faults", cases)
}

// TestTouchedMax bounds what findings name.
func TestTouchedMax(t *testing.T) {
	begin, _ := checkable(t, seal.SuiteAES256GCM)
	for _, name := range objects(t, begin, "packs/") {
		begin.Damage(name, func(b []byte) []byte {
			if b[9] == byte(seal.KindDataPack) {
				b = b[:100]
			}
			return b
		})
	}
	all, some := check(t, begin, readAll), check(t, begin, CheckOptions{ReadData: Subset{All: true}, TouchedMax: 5})
	count := func(c *Checked) (named int, more uint64) {
		for _, f := range c.Findings {
			for _, touched := range f.Touched {
				named += len(touched.Snapshots)
			}
			more += f.More
		}
		return named, more
	}
	allNamed, allMore := count(all)
	someNamed, someMore := count(some)
	if allMore != 0 || someNamed != 5 || someMore < uint64(allNamed-5) {
		t.Errorf("%d and %d more; bounded %d and %d more", allNamed, allMore, someNamed, someMore)
	}
}
