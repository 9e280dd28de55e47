package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/pack"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/store/mem"
	"github.com/bk-backup/bk/repo/store/storetest"
)

func tryRepair(st store.Store, opts RepairOptions) (*Repaired, error) {
	r, err := openStore(st)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	opts.Check.ReadData.All = true
	return r.Repair(context.Background(), opts)
}

func mustRepair(t testing.TB, st store.Store, opts RepairOptions) *Repaired {
	t.Helper()
	out, err := tryRepair(st, opts)
	if err != nil {
		t.Fatalf("repair: %v", err)
	}
	return out
}

// restored exports a snapshot with all that is lost of it: the paths that came,
// with their content, and the losses that its commit names.
func restored(t testing.TB, r *Repository, s *Snapshot, opts format.ExportOptions) (map[string]string, []format.Loss) {
	t.Helper()
	opts.Snapshots = []format.ID{s.ID}
	src, err := r.Export(context.Background(), opts)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	var stream bytes.Buffer
	var losses []format.Loss
	if err := format.Copy(context.Background(), format.NewWriter(&stream, format.WriterOptions{}), src, lossesOf{&losses}); err != nil {
		t.Fatalf("export snapshot %d: %v", number(s), err)
	}
	return expandStream(t, &stream, nil)[0], losses
}

type lossesOf struct{ losses *[]format.Loss }

func (l lossesOf) Process(rec format.Record, emit func(format.Record) error) error {
	if c, ok := rec.(*format.Commit); ok {
		*l.losses = c.Clone().Losses
	}
	return emit(rec)
}

// checkRepaired checks that all that was not lost comes back as it was, that what
// was lost is named, and that no snapshot is gone.
func checkRepaired(t testing.TB, st store.Store, m model, lost lossSet, snapshots int) {
	t.Helper()
	r := mustOpen(t, st)
	want := m.listings()
	list, _, err := r.List(context.Background())
	if err != nil || len(list) != snapshots {
		t.Fatalf("%d snapshots, not %d: %v", len(list), snapshots, err)
	}
	for _, s := range list {
		got, losses := restored(t, r, s, format.ExportOptions{Full: true})
		damaged := 0
		for path, was := range want[number(s)] {
			is, there := got[path]
			delete(got, path)
			switch {
			case !lost[fmt.Sprint(number(s), " ", path)]:
				if is != was {
					t.Errorf("snapshot %d: %s did not come back as it was", number(s), path)
				}
			case !there:
				damaged++
			default:
				damaged++
				_, content, _ := strings.Cut(is, "\x00")
				_, before, _ := strings.Cut(was, "\x00")
				if len(content) != len(before) || content == before {
					t.Errorf("snapshot %d: %s has %d bytes of %d", number(s), path, len(content), len(before))
				}
			}
		}
		if len(got) > 0 {
			t.Errorf("snapshot %d: %d entries that were never there", number(s), len(got))
		}
		named := slices.ContainsFunc(losses, func(l format.Loss) bool { return l.Kind == format.LossDamaged && len(l.Paths) > 0 })
		if named != (damaged > 0) {
			t.Errorf("snapshot %d: %d entries are damaged, and the losses are %v", number(s), damaged, losses)
		}
	}
	findings := check(t, st, readAll).Findings
	for _, f := range findings {
		if name, _ := seal.ParseName(f.Object); name.Kind == seal.KindDataPack || name.Kind == seal.KindIndex || name.Kind == seal.KindPlan {
			t.Errorf("after the repair: %s %s: %v", f.What, f.Object, f.Err)
		}
	}
	if diff := cmp.Diff(lost, touchedBy(t, st, m, findings)); diff != "" {
		t.Errorf("what is known to be lost: %s", diff)
	}
}

// TestRepair damages every object in many ways, under every cipher: all that can
// be read comes back as it was, the rest is named, and a repository that was
// repaired can be written to, collected and repaired again.
func TestRepair(t *testing.T) {
	t.Parallel()
	for _, suite := range seal.Suites() {
		begin, m := checkable(t, suite)
		cases, touching := 0, 0
		for n, name := range objects(t, begin, "") {
			kind, _ := seal.ParseName(name)
			i := 0
			for what, change := range harms(t, begin, name) {
				// Several harms for what a repair works on, one for the rest.
				if i++; i > 1 && kind.Kind != seal.KindDataPack && kind.Kind != seal.KindIndex && kind.Kind != seal.KindPlan || suite == seal.SuiteAES256GCM && (n+i)%underRace(2, 7) > 0 || suite != seal.SuiteAES256GCM && (n+i)%underRace(6, 17) > 0 {
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
					continue
				}
				list, _, _ := r.List(t.Context())
				r.Close()
				cases++
				lost := restorable(t, st, m)
				before := objects(t, st, "")
				would := mustRepair(t, st, RepairOptions{DryRun: true})
				if diff := cmp.Diff(before, objects(t, st, "")); diff != "" {
					t.Fatalf("a dry run changed something: %s", diff)
				}
				did := mustRepair(t, st, RepairOptions{})
				if would.Marked != did.Marked || would.Moved != did.Moved || would.Indexes != did.Indexes || would.Plans != did.Plans {
					t.Errorf("%s, %s: would %+v, did %+v", name, what, would, did)
				}
				checkRepaired(t, st, m, lost, len(list))
				if len(lost) > 0 && touching < 12 {
					touching++
					afterRepair(t, st, m, lost, len(list))
				}
				if t.Failed() {
					t.Fatalf("%s, %s", name, what)
				}
			}
		}
		t.Logf("%s: %d cases", suite, cases)
	}
}

// afterRepair uses a repository of which a part is lost.
func afterRepair(t *testing.T, st *mem.Store, m model, lost lossSet, snapshots int) {
	t.Helper()
	if out := mustRepair(t, st, RepairOptions{}); out.Marked+out.Kept+out.Restored > 0 || out.Moved.Packs > 0 {
		t.Errorf("the second repair: %+v", out)
	}
	if _, err := collect(st, CollectOptions{MaxUnused: -1}); err != nil {
		t.Errorf("collect what was repaired: %v", err)
	}
	checkRepaired(t, st, m, lost, snapshots)
	// What comes again heals what lost it.
	healed := st.Clone()
	if _, err := tryImport(t, healed, m); err != nil {
		t.Fatalf("import after the repair: %v", err)
	}
	if again := restorable(t, healed, m); len(again) > 0 {
		t.Errorf("%d entries are lost still though all came again: %v", len(again), again)
	}
	if findings := check(t, healed, readAll).Findings; slices.ContainsFunc(findings, func(f *Finding) bool { return f.Lost > 0 }) {
		t.Errorf("still lost: %+v", findings[0])
	}
}

// TestRepairFrom takes what is lost from other places.
func TestRepairFrom(t *testing.T) {
	begin, m := checkable(t, seal.SuiteAES256GCM)
	copied := mustOpen(t, begin.Clone())
	// Another repository, with other keys, that holds the same content.
	other := newRepo(t, seal.SuiteXChaCha20Poly1305)
	importModel(t, other, m)
	for name, c := range map[string]struct {
		from []ChunkSource
		all  bool // what is lost can be had
	}{
		"a copy":              {[]ChunkSource{copied}, true},
		"another repository":  {[]ChunkSource{other}, false},
		"a liar, then a copy": {[]ChunkSource{liar{}, copied}, true},
	} {
		t.Run(name, func(t *testing.T) {
			st := begin.Clone()
			for _, pack := range objects(t, st, "packs/") {
				st.Damage(pack, func(b []byte) []byte {
					if !c.all && b[9] == byte(seal.KindMetaPack) {
						return b
					}
					return b[:150]
				})
			}
			lost := restorable(t, st, m)
			if len(lost) < 20 {
				t.Fatalf("only %d entries are lost", len(lost))
			}
			out := mustRepair(t, st, RepairOptions{From: c.from})
			if out.Restored == 0 || out.Marked > 0 {
				t.Errorf("%+v", out)
			}
			checkRepaired(t, st, m, lossSet{}, 3)
		})
	}
}

type liar struct{}

func (liar) Chunks(_ context.Context, lost []LostChunk, fn func(int, []byte) error) error {
	for i := range lost {
		if err := fn(i, []byte("something else")); err != nil {
			return err
		}
	}
	return nil
}

// hurt is storage on which something of each kind is damaged, and what is lost.
func hurt(t testing.TB) (*mem.Store, model, lossSet) {
	t.Helper()
	m := randomHistory(rand.New(rand.NewPCG(9, 29)), 3, 7)
	st := initStore(t)
	importOneByOne(t, st, m)
	cut := false
	for _, name := range objects(t, st, "packs/") {
		st.Damage(name, func(b []byte) []byte {
			switch {
			case b[9] != byte(seal.KindDataPack):
			case !cut:
				cut, b = true, b[:len(b)/2]
			default:
				b[140] ^= 1
			}
			return b
		})
	}
	lost := restorable(t, st, m)
	if len(lost) == 0 {
		t.Fatal("nothing is lost")
	}
	// An index that lists nothing of what was cut off.
	for _, name := range objects(t, st, "index/") {
		with := st.Clone()
		with.Damage(name, func(b []byte) []byte { return b[:100] })
		if cmp.Equal(lost, restorable(t, with, m)) && slices.ContainsFunc(check(t, with, readAll).Findings, func(f *Finding) bool { return f.What == Unlisted }) {
			return with, m, lost
		}
	}
	t.Fatal("no index can be damaged besides")
	return nil, nil, nil
}

// TestRepairRemovesOnlyWhenAsked: a pack that neither an index nor its own
// directory tells of stays unless it is to go.
func TestRepairRemovesOnlyWhenAsked(t *testing.T) {
	st, m := checkable(t, seal.SuiteAES256GCM)
	for _, name := range objects(t, st, "index/") {
		st.Damage(name, func(b []byte) []byte { return b[:100] })
	}
	packs := objects(t, st, "packs/")
	st.Damage(packs[0], func(b []byte) []byte { return b[:len(b)/2] })
	lost := restorable(t, st, m)
	if out := mustRepair(t, st, RepairOptions{}); out.Removed > 0 || !slices.Contains(objects(t, st, "packs/"), packs[0]) {
		t.Errorf("%+v", out)
	}
	if would := mustRepair(t, st, RepairOptions{RemoveUnreadable: true, DryRun: true}); would.Removed != 1 {
		t.Errorf("%+v", would)
	}
	if out := mustRepair(t, st, RepairOptions{RemoveUnreadable: true}); out.Removed != 1 {
		t.Errorf("%+v", out)
	}
	checkRepaired(t, st, m, lost, 3)
}

// TestMislisted: an index that says something else than the packs is found, and
// what the packs say counts.
func TestMislisted(t *testing.T) {
	st, m := checkable(t, seal.SuiteAES256GCM)
	r := mustOpen(t, st)
	all := make(map[[32]byte]pack.Listed)
	for _, name := range objects(t, st, "index/") {
		body, err := r.getObject(t.Context(), name, seal.KindIndex)
		if err != nil {
			t.Fatal(err)
		}
		err = pack.ParseIndex(body, func(info pack.Info, entries []pack.Entry) error {
			all[info.Name] = pack.Listed{Info: info, Entries: slices.Clone(entries)}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := st.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	var listed []pack.Listed
	wrong := map[string]bool{}
	for _, l := range all {
		if len(l.Entries) > 1 && len(wrong) < 2 {
			l.Entries[0].Label, l.Entries[1].Label = l.Entries[1].Label, l.Entries[0].Label
			wrong[l.Info.ObjectName()] = true
		}
		listed = append(listed, l)
	}
	if _, err := r.createIndex(t.Context(), nil, listed); err != nil {
		t.Fatal(err)
	}
	out := check(t, st, readAll)
	for _, f := range out.Findings {
		if f.What != Mislisted || !wrong[f.Object] {
			t.Errorf("%s %s: %v", f.What, f.Object, f.Err)
		}
	}
	if len(out.Findings) != 2 {
		t.Errorf("%d findings", len(out.Findings))
	}
	if diff := cmp.Diff(restorable(t, st, m), touchedBy(t, st, m, out.Findings)); diff != "" {
		t.Error(diff)
	}
	if out := mustRepair(t, st, RepairOptions{}); out.Listed != 2 || out.Marked > 0 || out.Moved.Packs > 0 {
		t.Errorf("%+v", out)
	}
	checkRepaired(t, st, m, lossSet{}, 3)
}

// TestRepairCrashes stops a repair at every change that it makes: nothing is lost
// that was not, and the next repair completes it.
func TestRepairCrashes(t *testing.T) {
	t.Parallel()
	begin, m, lost := hurt(t)
	cases := storetest.EachCrash(t,
		func(*testing.T) store.Store { return begin.Clone() },
		func(t *testing.T, s *storetest.Crash) {
			_, err := tryRepair(s, RepairOptions{})
			if s.Crashed() == (err == nil) {
				t.Errorf("crashed: %t, error: %v", s.Crashed(), err)
			}
		},
		func(t *testing.T, s store.Store, _ int) {
			if diff := cmp.Diff(lost, restorable(t, s, m)); diff != "" {
				t.Errorf("after the crash: %s", diff)
			}
			mustRepair(t, s, RepairOptions{})
			checkRepaired(t, s, m, lost, 3)
		})
	t.Logf("%d crashes", cases)
}

// TestRepairFaults fails every call of a repair: nothing is lost that was not.
func TestRepairFaults(t *testing.T) {
	t.Parallel()
	begin, m, lost := hurt(t)
	cases := 0
	for _, f := range []storetest.Fault{
		{Mode: storetest.Before}, {Mode: storetest.After, Forever: true},
	} {
		cases += storetest.StrideFaults(t, f, underRace(1, 5), func(*testing.T) store.Store { return begin.Clone() }, func(t *testing.T, s *storetest.Faulty) {
			_, err := tryRepair(s, RepairOptions{})
			if err != nil {
				checkExplains(t, err, storetest.ErrInjected, io.ErrUnexpectedEOF, store.ErrExists)
			}
			if diff := cmp.Diff(lost, restorable(t, s.Store, m)); diff != "" {
				t.Errorf("after the fault: %s", diff)
			}
			if err != nil {
				mustRepair(t, s.Store, RepairOptions{})
				checkRepaired(t, s.Store, m, lost, 3)
			}
		})
	}
	t.Logf("%d faults", cases)
}

// TestRepairWaitsForStorage: trouble that may pass is no damage.
func TestRepairWaitsForStorage(t *testing.T) {
	st, _ := checkable(t, seal.SuiteAES256GCM)
	before := objects(t, st, "")
	bad := objects(t, st, "packs/")[0]
	broken := unreadableAt{st, bad}
	if _, err := tryRepair(broken, RepairOptions{}); !errors.Is(err, errBadSector) {
		t.Errorf("%v", err)
	}
	if diff := cmp.Diff(before, objects(t, st, "")); diff != "" {
		t.Errorf("something was changed: %s", diff)
	}
	out, err := tryRepair(broken, RepairOptions{UnreadableIsLost: true})
	if err != nil || out.Moved.Packs != 1 {
		t.Errorf("%+v, %v", out, err)
	}
	if slices.Contains(objects(t, st, "packs/"), bad) {
		t.Error("the pack is still there")
	}
}

var errBadSector = errors.New("input/output error")

// unreadableAt is storage that cannot hand out one object.
type unreadableAt struct {
	store.Store
	name string
}

func (u unreadableAt) ReadAt(ctx context.Context, name string, p []byte, off int64) error {
	if name == u.name {
		return &store.Error{Op: "read", Name: name, Store: u.String(), Err: errBadSector}
	}
	return u.Store.ReadAt(ctx, name, p, off)
}

// TestExportOfDamaged: differences, copies and whole exports go around what is
// known to be lost, and who imports them holds the rest.
func TestExportOfDamaged(t *testing.T) {
	t.Parallel()
	m := randomHistory(rand.New(rand.NewPCG(9, 19)), 4, 25)
	for _, kind := range []seal.Kind{seal.KindDataPack, seal.KindMetaPack} {
		st := initStore(t)
		importOneByOne(t, st, m)
		damaged := 0
		for _, name := range objects(t, st, "packs/") {
			st.Damage(name, func(b []byte) []byte {
				if b[9] == byte(kind) && damaged < 2 {
					damaged++
					b[140] ^= 1
				}
				return b
			})
		}
		lost := restorable(t, st, m)
		mustRepair(t, st, RepairOptions{})
		from := mustOpen(t, st)
		list := relist(t, from)
		for name, opts := range map[string]format.ExportOptions{
			"all": {}, "full": {Full: true}, "flat": {Flat: true}, "copies": {Copy: true}, "plain": {Plain: true},
		} {
			into := newRepo(t, seal.SuiteAES256GCM)
			transfer(t, from, into, opts, ImportOptions{})
			for i, s := range relist(t, into) {
				got, _ := restored(t, into, s, format.ExportOptions{Full: true})
				for path, was := range m.listings()[i] {
					if !lost[fmt.Sprint(i, " ", path)] && got[path] != was {
						t.Errorf("%s: snapshot %d: %s did not come over", name, i, path)
					}
				}
			}
		}
		for _, s := range list {
			damaged := false
			for what := range lost {
				damaged = damaged || strings.HasPrefix(what, fmt.Sprint(number(s), " "))
			}
			if has, err := from.HasLost(t.Context(), s); err != nil || has != damaged {
				t.Errorf("snapshot %d: damaged %t, HasLost %t, %v", number(s), damaged, has, err)
			}
		}
	}
}
