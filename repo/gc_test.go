package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/store/mem"
	"github.com/bk-backup/bk/repo/store/storetest"
)

// clock is storage's clock, which a test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock(st *mem.Store) *clock {
	c := &clock{now: time.Now()}
	st.SetClock(c.read)
	return c
}

// read moves on a little, as clocks do.
func (c *clock) read() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(time.Millisecond)
	return c.now
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// collect opens the repository and collects.
func collect(st store.Store, opts CollectOptions) (Collected, error) {
	r, err := openStore(st)
	if err != nil {
		return Collected{}, err
	}
	defer r.Close()
	return r.Collect(context.Background(), opts)
}

func mustCollect(t testing.TB, st store.Store, opts CollectOptions) Collected {
	t.Helper()
	sum, err := collect(st, opts)
	if err != nil {
		t.Fatalf("collect: %v", err)
	}
	return sum
}

// forget forgets the snapshots of a history for which drop says so.
func forget(t testing.TB, st store.Store, drop func(number int) bool) {
	t.Helper()
	r := mustOpen(t, st)
	list, _, err := r.List(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var gone []*Snapshot
	for _, s := range list {
		if drop(number(s)) {
			gone = append(gone, s)
		}
	}
	if err := r.Forget(context.Background(), gone, "test"); err != nil {
		t.Fatal(err)
	}
}

// storedBytes is the size of all packs.
func storedBytes(t testing.TB, st store.Store) (sum int64) {
	t.Helper()
	err := st.List(context.Background(), "packs/", func(info store.Info) error {
		sum += info.Size
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// importOneByOne imports the snapshots of a history one by one, so that
// each has packs of its own.
func importOneByOne(t testing.TB, st store.Store, m model) {
	t.Helper()
	for i := range m {
		if _, err := tryImport(t, st, m[:i+1]); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCollect(t *testing.T) {
	t.Parallel()
	for seed := range underRace(uint64(5), 2) {
		m := randomHistory(rand.New(rand.NewPCG(seed, 20)), 6, 40)
		want := m.listings()
		st := initStore(t)
		clock := newClock(st)
		importOneByOne(t, st, m)
		clock.move(time.Hour)
		all := storedBytes(t, st)
		forget(t, st, func(n int) bool { return n%3 != 2 })

		opts := CollectOptions{Grace: 24 * time.Hour, MaxUnused: -1}
		dry := opts
		dry.DryRun = true
		before := objects(t, st, "")
		would := mustCollect(t, st, dry)
		if diff := cmp.Diff(before, objects(t, st, "")); diff != "" {
			t.Fatalf("a dry run changed something: %s", diff)
		}
		planned := mustCollect(t, st, opts)
		if planned.Condemned.Packs == 0 || planned.Deleted.Packs > 0 || planned.Condemned != would.Condemned || planned.Repacked != would.Repacked {
			t.Fatalf("seed %d: would %+v, did %+v", seed, would, planned)
		}
		checkWhole(t, st, want, nil)
		clock.move(23 * time.Hour)
		if early := mustCollect(t, st, opts); early.Deleted.Packs > 0 || early.Waiting != planned.Condemned || early.Condemned.Packs > 0 {
			t.Fatalf("seed %d, too early: %+v", seed, early)
		}
		clock.move(2 * time.Hour)
		done := mustCollect(t, st, opts)
		if done.Deleted != planned.Condemned || done.Condemned.Packs > 0 || done.Missing > 0 {
			t.Fatalf("seed %d: planned %+v, done %+v", seed, planned, done)
		}
		if list := checkWhole(t, st, want, nil); len(list) != 2 {
			t.Fatalf("%d snapshots", len(list))
		}
		if left := storedBytes(t, st); left >= all {
			t.Errorf("%d bytes of %d are left", left, all)
		}
		if again := mustCollect(t, st, opts); again.Condemned.Packs+again.Deleted.Packs > 0 {
			t.Fatalf("seed %d: nothing was left to do, and it did %+v", seed, again)
		}
		checkCompletes(t, st, m, nil)
	}
}

func TestCollectAtOnce(t *testing.T) {
	m := randomHistory(rand.New(rand.NewPCG(1, 21)), 6, 40)
	st := initStore(t)
	importOneByOne(t, st, m)
	forget(t, st, func(n int) bool { return n < 5 })
	sum := mustCollect(t, st, CollectOptions{MaxUnused: -1})
	if sum.Condemned.Packs == 0 || sum.Deleted != sum.Condemned {
		t.Fatalf("%+v", sum)
	}
	checkWhole(t, st, m.listings(), nil)
	if dry := mustCollect(t, st, CollectOptions{DryRun: true, MaxUnused: -1}); dry.Condemned.Packs > 0 {
		t.Fatalf("%+v", dry)
	}
}

// collectable is storage of which much can be collected.
func collectable(t testing.TB) (*mem.Store, model) {
	m := randomHistory(rand.New(rand.NewPCG(3, 22)), 4, 20)
	st := initStore(t)
	importOneByOne(t, st, m)
	forget(t, st, func(n int) bool { return n%2 == 0 })
	// What a writer left who was killed: a session, and a pack that nothing lists.
	c := storetest.NewCrash(st, 3, storetest.Lost)
	if _, err := tryImport(t, c, randomHistory(rand.New(rand.NewPCG(4, 22)), 1, 20)); err == nil {
		t.Fatal("no crash")
	}
	c.After()
	return st, m
}

// checkCollected checks that the listed snapshots are whole, collects to the
// end, and checks that nothing is left that could go.
func checkCollected(t *testing.T, st store.Store, m model) {
	t.Helper()
	if list := checkWhole(t, st, m.listings(), nil); len(list) != len(m)/2 {
		t.Fatalf("%d snapshots", len(list))
	}
	mustCollect(t, st, CollectOptions{MaxUnused: -1})
	mustCollect(t, st, CollectOptions{MaxUnused: -1})
	if sum := mustCollect(t, st, CollectOptions{MaxUnused: -1, DryRun: true}); sum.Condemned.Packs+sum.Waiting.Packs > 0 || sum.Missing > 0 {
		t.Fatalf("not all was collected: %+v", sum)
	}
	if n := len(objects(t, st, "sessions/")); n > 0 {
		t.Fatalf("%d sessions are open", n)
	}
	if n := len(objects(t, st, "condemned/")); n > 1 {
		t.Fatalf("%d plans are left", n)
	}
	checkWhole(t, st, m.listings(), nil)
}

// TestReaderBesideCollection reads with an index from before a collection that
// moved what is read.
func TestReaderBesideCollection(t *testing.T) {
	st, m := collectable(t)
	r := mustOpen(t, st)
	list, _, err := r.List(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if sum := mustCollect(t, st, CollectOptions{MaxUnused: -1}); sum.Repacked.Packs == 0 || sum.Deleted.Packs == 0 {
		t.Fatalf("nothing was moved: %+v", sum)
	}
	for _, s := range list {
		got, err := contentOf(t, r, s)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(m.listings()[number(s)], got); diff != "" {
			t.Fatal(diff[:min(len(diff), 1000)])
		}
	}
}

// TestCollectRefuses keeps everything if it is not known what is needed.
func TestCollectRefuses(t *testing.T) {
	begin, _ := collectable(t)
	for _, prefix := range []string{"snapshots/", "packs/"} {
		for _, name := range objects(t, begin, prefix) {
			st := begin.Clone()
			st.Damage(name, func(b []byte) []byte {
				for i := 200; i < len(b)-64; i++ {
					b[i] ^= 0x55
				}
				return b
			})
			before := objects(t, st, "packs/")
			if _, err := collect(st, CollectOptions{MaxUnused: -1}); err == nil {
				if prefix == "snapshots/" {
					t.Errorf("%s is damaged, and something was collected", name)
				}
				continue
			}
			after := map[string]bool{}
			for _, name := range objects(t, st, "packs/") {
				after[name] = true
			}
			for _, name := range before {
				if !after[name] {
					t.Fatalf("%s was deleted by a collection that failed", name)
				}
			}
		}
	}
}

// stepSink lets a test do something before the commit of each snapshot.
type stepSink struct {
	format.Sink
	before func(snapshot int)
	n      int
}

func (s *stepSink) Write(rec format.Record) error {
	if _, ok := rec.(*format.Commit); ok {
		s.before(s.n)
		s.n++
	}
	return s.Sink.Write(rec)
}

// TestWriterBesideCollection imports what was forgotten while a collection
// condemns and deletes it.
func TestWriterBesideCollection(t *testing.T) {
	m := randomHistory(rand.New(rand.NewPCG(5, 23)), 4, 30)
	for name, step := range map[string]func(t *testing.T, st *mem.Store, clock *clock, n int){
		"condemned": func(t *testing.T, st *mem.Store, clock *clock, n int) {
			mustCollect(t, st, CollectOptions{Grace: time.Hour, MaxUnused: -1})
		},
		"condemned, and long ago": func(t *testing.T, st *mem.Store, clock *clock, n int) {
			if n == 1 {
				mustCollect(t, st, CollectOptions{Grace: time.Hour, MaxUnused: -1})
				clock.move(10 * time.Minute)
			}
			if n == 2 { // a commit ago
				clock.move(55 * time.Minute)
				mustCollect(t, st, CollectOptions{Grace: time.Hour, MaxUnused: -1})
			}
		},
		"expired": func(t *testing.T, st *mem.Store, clock *clock, n int) {
			if n == 0 {
				clock.move(2 * time.Hour)
				if sum := mustCollect(t, st, CollectOptions{Grace: time.Hour, MaxUnused: -1}); sum.Fenced != 1 {
					t.Errorf("%d sessions were expired", sum.Fenced)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			st := initStore(t)
			clock := newClock(st)
			importOneByOne(t, st, m)
			clock.move(time.Hour)
			forget(t, st, func(n int) bool { return n != 2 })
			r := mustOpen(t, st)
			sink, err := r.Import(context.Background(), ImportOptions{})
			if err != nil {
				t.Fatal(err)
			}
			steps := &stepSink{Sink: sink, before: func(n int) { step(t, st, clock, n) }}
			if err := m.write(t, steps); err != nil {
				t.Fatal(err)
			}
			if err := sink.Close(); err != nil {
				t.Fatal(err)
			}
			if n := len(sink.Summary().Snapshots); n != 3 {
				t.Fatalf("%d snapshots were committed", n)
			}
			for range 3 {
				clock.move(2 * time.Hour)
				mustCollect(t, st, CollectOptions{Grace: time.Hour, MaxUnused: -1})
				checkWhole(t, st, m.listings(), sink.Summary().Snapshots)
			}
		})
	}
}

// TestWriterThatSlept is expired, and what it stored is deleted before it goes on.
func TestWriterThatSlept(t *testing.T) {
	m := randomHistory(rand.New(rand.NewPCG(6, 23)), 3, 30)
	st := initStore(t)
	clock := newClock(st)
	r := mustOpen(t, st)
	sink, err := r.Import(context.Background(), ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	steps := &stepSink{Sink: sink, before: func(n int) {
		if n != 1 {
			return
		}
		if err := sink.session.data.flush(); err != nil { // packs that no index lists
			t.Fatal(err)
		}
		for range 3 {
			clock.move(48 * time.Hour)
			mustCollect(t, st, CollectOptions{Grace: 24 * time.Hour, MaxUnused: -1})
		}
	}}
	err = m.write(t, steps)
	if !errors.Is(err, ErrCollected) {
		t.Fatalf("a snapshot whose content was deleted: %v", err)
	}
	sink.Close()
	// The index that it wrote lists packs that are not there: nobody may rely on it.
	checkCompletes(t, st, m, sink.Summary().Snapshots)
	clock.move(48 * time.Hour)
	mustCollect(t, st, CollectOptions{Grace: 24 * time.Hour, MaxUnused: -1})
	checkWhole(t, st, m.listings(), nil)
}

// jumpy is storage whose clock jumps at times, so that every grace is over at
// any moment.
type jumpy struct {
	store.Store
	clock *clock
	mu    sync.Mutex
	rng   *rand.Rand
}

func (j *jumpy) step() {
	j.mu.Lock()
	n, d := j.rng.IntN(40), time.Duration(j.rng.Int64N(int64(300*time.Microsecond)))
	j.mu.Unlock()
	if n == 0 {
		j.clock.move(40 * time.Minute)
	}
	time.Sleep(d)
}

func (j *jumpy) Create(ctx context.Context, name string, data ...[]byte) error {
	j.step()
	return j.Store.Create(ctx, name, data...)
}

func (j *jumpy) Delete(ctx context.Context, name string) error {
	j.step()
	return j.Store.Delete(ctx, name)
}

func (j *jumpy) List(ctx context.Context, prefix string, fn func(store.Info) error) error {
	j.step()
	return j.Store.List(ctx, prefix, fn)
}

func (j *jumpy) Get(ctx context.Context, name string, sizeMax int64) ([]byte, error) {
	j.step()
	return j.Store.Get(ctx, name, sizeMax)
}

// TestSchedules lets writers, a forgetter, readers and collectors work on one
// repository at once, many times over.
func TestSchedules(t *testing.T) {
	t.Parallel()
	seeds := underRace(uint64(12), 5)
	if testing.Short() {
		seeds = 5
	}
	var sum scheduleSum
	for seed := range seeds {
		runSchedule(t, seed, &sum)
	}
	t.Logf("%d schedules: %+v", seeds, sum.counts)
	if sum.counts["committed"] == 0 || sum.counts["deleted"] == 0 || sum.counts["forgotten"] == 0 {
		t.Error("the schedules do not do what they are for")
	}
}

type scheduleSum struct {
	mu     sync.Mutex
	counts map[string]int
}

func (s *scheduleSum) add(what string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.counts == nil {
		s.counts = map[string]int{}
	}
	s.counts[what] += n
}

// schedule is one repository with all who work on it.
type schedule struct {
	t       *testing.T
	st      *jumpy
	sum     *scheduleSum
	streams [][]byte
	want    map[format.ID]map[string]string // by the id in the stream

	mu        sync.Mutex
	committed map[format.ID]*Snapshot
	forgotten map[format.ID]bool
}

func runSchedule(t *testing.T, seed uint64, sum *scheduleSum) {
	st := initStore(t)
	clock := newClock(st)
	rng := rand.New(rand.NewPCG(seed, 24))
	s := &schedule{
		t: t, sum: sum, want: map[format.ID]map[string]string{},
		st:        &jumpy{Store: st, clock: clock, rng: rng},
		committed: map[format.ID]*Snapshot{}, forgotten: map[format.ID]bool{},
	}
	shared := randomHistory(rng, 2, 10)
	for i := range 2 {
		m := append(shared[:1+i:1+i], randomHistory(rng, 2, 10)...)
		source := newRepo(t, 1)
		importModel(t, source, m)
		list, _, _ := source.List(context.Background())
		for n, snap := range list {
			s.want[snap.ID] = m.listings()[n]
		}
		_, stream := transfer(t, source, newRepo(t, 2), format.ExportOptions{}, ImportOptions{})
		s.streams = append(s.streams, stream)
	}
	var wg sync.WaitGroup
	run := func(times int, work func(n int)) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for n := range times {
				if t.Failed() {
					return
				}
				work(n)
			}
		}()
	}
	run(3, func(int) { s.write(s.streams[0]) })
	run(3, func(int) { s.write(s.streams[1]) })
	run(4, s.forget)
	run(4, func(int) { s.collect() })
	run(4, func(int) { s.collect() })
	run(4, func(int) { s.read() })
	wg.Wait()
	for range 2 {
		s.check()
		clock.move(2 * time.Hour)
		s.collect()
	}
	s.check()
}

func (s *schedule) open() *Repository {
	r, err := openStore(s.st)
	if err != nil {
		s.t.Errorf("open: %v", err)
		return nil
	}
	return r
}

func (s *schedule) write(stream []byte) {
	r := s.open()
	if r == nil {
		return
	}
	defer r.Close()
	sink, err := r.Import(context.Background(), ImportOptions{})
	if err != nil {
		s.t.Errorf("begin to import: %v", err)
		return
	}
	err = format.Copy(context.Background(), sink, format.NewReader(bytes.NewReader(stream), format.ReaderOptions{}))
	sink.Close()
	s.mu.Lock()
	for _, snap := range sink.Summary().Snapshots {
		s.committed[snap.ID] = snap
	}
	s.mu.Unlock()
	s.sum.add("committed", len(sink.Summary().Snapshots))
	switch {
	case err == nil:
		s.sum.add("imports", 1)
	case errors.Is(err, ErrCollected), errors.Is(err, ErrFenced):
		s.sum.add("imports to be run again", 1)
	default:
		s.t.Errorf("import: %v", err)
	}
}

func (s *schedule) forget(n int) {
	time.Sleep(3 * time.Millisecond)
	r := s.open()
	if r == nil {
		return
	}
	defer r.Close()
	list, damage, err := r.List(context.Background())
	if err != nil || len(damage) > 0 {
		s.t.Errorf("list: %v, %v", damage, err)
		return
	}
	var gone []*Snapshot
	s.mu.Lock()
	for i, snap := range list {
		if i%2 == n%2 {
			gone = append(gone, snap)
			s.forgotten[snap.ID] = true
		}
	}
	s.mu.Unlock()
	if err := r.Forget(context.Background(), gone, "test"); err != nil {
		s.t.Errorf("forget: %v", err)
	}
	s.sum.add("forgotten", len(gone))
}

func (s *schedule) collect() {
	r := s.open()
	if r == nil {
		return
	}
	defer r.Close()
	sum, err := r.Collect(context.Background(), CollectOptions{Grace: 30 * time.Minute, MaxUnused: -1})
	s.sum.add("deleted", sum.Deleted.Packs)
	s.sum.add("spared", sum.Spared.Packs)
	s.sum.add("repacked", sum.Repacked.Packs)
	s.sum.add("fenced", sum.Fenced)
	if errors.Is(err, ErrMissing) || errors.Is(err, store.ErrNotFound) {
		// A snapshot was forgotten and what it needed collected by the other
		// collection, after this one had listed it.
		s.sum.add("collections to be run again", 1)
	} else if err != nil {
		s.t.Errorf("collect: %v", err)
	}
}

// content exports a snapshot and compares it.
func (s *schedule) content(r *Repository, snap *Snapshot) error {
	got, err := contentOf(s.t, r, snap)
	if err != nil {
		return err
	}
	if diff := cmp.Diff(s.want[snap.Imported], got); diff != "" {
		return fmt.Errorf("it differs: %s", diff[:min(len(diff), 500)])
	}
	return nil
}

func (s *schedule) read() {
	r := s.open()
	if r == nil {
		return
	}
	defer r.Close()
	list, _, err := r.List(context.Background())
	if err != nil {
		s.t.Errorf("list: %v", err)
		return
	}
	for _, snap := range list {
		err := s.content(r, snap)
		s.mu.Lock()
		gone := s.forgotten[snap.ID]
		s.mu.Unlock()
		if err != nil && !gone {
			s.t.Errorf("read snapshot %s: %v", snap.ID, err)
		}
		s.sum.add("read", 1)
	}
}

// check checks that what was committed and not forgotten is there.
func (s *schedule) check() {
	s.t.Helper()
	r := s.open()
	if r == nil {
		return
	}
	defer r.Close()
	list, damage, err := r.List(context.Background())
	if err != nil || len(damage) > 0 {
		s.t.Errorf("list: %v, %v", damage, err)
	}
	listed := map[format.ID]bool{}
	for _, snap := range list {
		listed[snap.ID] = true
		if err := s.content(r, snap); err != nil {
			s.t.Errorf("snapshot %s: %v", snap.ID, err)
		}
	}
	for id := range s.committed {
		if !listed[id] && !s.forgotten[id] {
			s.t.Errorf("snapshot %s was committed and is not there", id)
		}
	}
}

// TestWriterThatOpenedBefore begins to write with an index that it read before a
// collection deleted what the index lists.
func TestWriterThatOpenedBefore(t *testing.T) {
	m := randomHistory(rand.New(rand.NewPCG(7, 23)), 3, 30)
	st := initStore(t)
	importOneByOne(t, st, m)
	r := mustOpen(t, st)
	known, _, err := r.List(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	forget(t, st, func(int) bool { return true })
	if sum := mustCollect(t, st, CollectOptions{MaxUnused: -1}); sum.Deleted != sum.All {
		t.Fatalf("%+v", sum)
	}
	importModel(t, r, m)
	checkWhole(t, st, m.listings(), nil)
	// A listing that is taken over from a snapshot which is gone is not committed.
	if _, err := r.Retag(context.Background(), known, known, func([]string) []string { return []string{"x"} }); err != nil {
		t.Fatal(err)
	}
	forget(t, st, func(int) bool { return true })
	late := mustOpen(t, st)
	mustCollect(t, st, CollectOptions{MaxUnused: -1})
	if _, err := late.Retag(context.Background(), known, known, func([]string) []string { return []string{"y"} }); !errors.Is(err, ErrCollected) {
		t.Fatalf("a copy of what was collected: %v", err)
	}
	checkWhole(t, st, m.listings(), nil)
}

// TestFenceBehindForgotten expires a session whose only snapshot was forgotten:
// its next slot is not the first one.
func TestFenceBehindForgotten(t *testing.T) {
	m := randomHistory(rand.New(rand.NewPCG(8, 23)), 2, 30)
	st := initStore(t)
	clock := newClock(st)
	r := mustOpen(t, st)
	sink, err := r.Import(context.Background(), ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	session := sink.session.id
	steps := &stepSink{Sink: sink, before: func(n int) {
		if n == 1 {
			forget(t, st, func(int) bool { return true })
			clock.move(2 * time.Hour)
			if sum := mustCollect(t, st, CollectOptions{Grace: time.Hour}); sum.Fenced != 1 {
				t.Errorf("%d sessions were expired", sum.Fenced)
			}
		}
	}}
	if err := m.write(t, steps); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	if sink.session.id == session {
		t.Error("the session went on as if it had not been expired")
	}
	checkWhole(t, st, m.listings(), sink.Summary().Snapshots[1:])
}
