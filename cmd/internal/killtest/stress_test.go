package killtest

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/repo"
	"github.com/bk-backup/bk/repo/keyring"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store/dir"
)

// stressDefault is how long TestStress takes without BK_STRESS_SECONDS.
const stressDefault = 15 * time.Second

// TestStress lets programs of all kinds work on one repository at once, kills
// some of them at random, and checks that what was reported as done restores
// exactly and that nothing but what was forgotten is missing. BK_STRESS_SECONDS
// says for how long, BK_STRESS_SEED with what begins the choice of everything
// but what the system's scheduler chooses; the seed of a run is logged.
func TestStress(t *testing.T) {
	duration := stressDefault
	if n, err := strconv.Atoi(os.Getenv("BK_STRESS_SECONDS")); err == nil {
		duration = time.Duration(n) * time.Second
	} else if testing.Short() {
		duration /= 5
	}
	seed, err := strconv.ParseUint(os.Getenv("BK_STRESS_SEED"), 10, 64)
	if err != nil {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("BK_STRESS_SEED=%d", seed)
	s := newStress(t, seed)
	s.run(duration)
	s.checkEnd()
	for _, what := range slices.Sorted(maps.Keys(s.counts)) {
		t.Logf("%6d %s", s.counts[what], what)
	}
}

// stress is a repository and all that is known of what must be in it. What a
// snapshot holds goes by its first tag, which is its own.
type stress struct {
	*place
	seed  uint64
	until time.Time

	mu       sync.Mutex
	counts   map[string]int
	versions map[string]map[string]string // trees by tag
	done     map[string]time.Time         // when the last run began that reported the tag as done
	forgot   map[string]time.Time         // when somebody was last forgetting a snapshot of the tag
	gone     map[string]bool              // ids that somebody set about forgetting or replacing
}

func newStress(t *testing.T, seed uint64) *stress {
	return &stress{
		place: cheapPlace(t), seed: seed, counts: map[string]int{}, versions: map[string]map[string]string{},
		done: map[string]time.Time{}, forgot: map[string]time.Time{}, gone: map[string]bool{},
	}
}

// cheapPlace makes a repository whose passphrase takes no time: what counts is
// how often programs run.
func cheapPlace(t *testing.T) *place {
	t.Helper()
	return cheapPlaceIn(t, t.TempDir(), seal.SuiteAES256GCM)
}

// cheapPlaceIn is cheapPlace in a directory, with a cipher.
func cheapPlaceIn(t *testing.T, top string, suite seal.Suite) *place {
	t.Helper()
	p := &place{t, filepath.Join(top, "repo"), filepath.Join(t.TempDir(), "cache")}
	st, err := dir.Create(p.repo, dir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := repo.Init(t.Context(), st, keyring.InitOptions{
		Suite: suite, Passphrase: "p", Argon2: keyring.Argon2{MemoryKiB: 64, Passes: 1, Threads: 1}, Chunker: "gear:64KiB", Compression: "default",
	}, repo.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	return p
}

func (s *stress) count(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[what]++
}

// run lets all work until the time is over.
func (s *stress) run(duration time.Duration) {
	s.until = time.Now().Add(duration)
	var wg sync.WaitGroup
	for i, work := range []func(w *worker, n int){
		(*worker).backup, (*worker).backup, (*worker).backup, (*worker).convert, (*worker).restore, (*worker).restore,
		(*worker).forget, (*worker).retag, (*worker).collect, (*worker).collect, (*worker).check, (*worker).rotate, (*worker).export,
	} {
		wg.Go(func() {
			w := &worker{stress: s, number: i, rng: rand.New(rand.NewPCG(s.seed, uint64(i))), dir: s.t.TempDir(), took: map[string]time.Duration{}}
			for n := 0; time.Now().Before(s.until) && !s.t.Failed(); n++ {
				work(w, n)
			}
		})
	}
	wg.Wait()
}

// worker runs programs of one kind, one after another.
type worker struct {
	*stress
	number int
	rng    *rand.Rand
	dir    string
	took   map[string]time.Duration // the last run of each program that nobody killed
	from   *place                   // what is converted
}

// outcome is how a program ended.
type outcome int

const (
	done outcome = iota
	killed
	failed
	wrong // in a way that it must not
)

// rerun is what programs say that have to be run again because of a collection,
// or because what they read was forgotten or moved meanwhile.
var rerun = []string{
	"garbage collection deleted what this snapshot relied on", "garbage collection expired this session",
	"the keys were changed by another process",
}

// program is try, where what it must not say fails the test.
func (w *worker) program(may []string, cmds ...*exec.Cmd) (out []byte, how outcome) {
	out, how, text := w.try(may, cmds...)
	if how == wrong {
		w.t.Errorf("%q: %s%s", cmds[len(cmds)-1].Args, out[:min(len(out), 4000)], text)
		how = failed
	}
	return out, how
}

// try runs one program or a pipe of them, and kills one of them in one of three
// runs.
func (w *worker) try(may []string, cmds ...*exec.Cmd) (out []byte, how outcome, text string) {
	var stdout bytes.Buffer
	messages := make([]bytes.Buffer, len(cmds))
	files, err := connect(cmds)
	for i, cmd := range cmds {
		cmd.Stderr = &messages[i]
	}
	cmds[len(cmds)-1].Stdout = &stdout
	name := filepath.Base(cmds[len(cmds)-1].Path)
	begun := time.Now()
	stop := w.killOne(name, cmds)
	for _, cmd := range cmds {
		if err == nil {
			err = cmd.Start()
		}
	}
	for _, f := range files {
		f.Close()
	}
	if err != nil {
		w.t.Errorf("%s: %v", name, err)
		return nil, failed, ""
	}
	go stop.wait()
	ok := true
	for _, cmd := range cmds {
		ok = cmd.Wait() == nil && ok
	}
	stop.cancel()
	w.count("runs of " + name)
	for i := range messages {
		text += messages[i].String()
	}
	switch {
	case strings.Contains(text, "panic") || strings.Contains(text, "DATA RACE"):
		w.t.Errorf("%s: %s", name, text)
	case ok:
		w.took[name] = time.Since(begun)
		return stdout.Bytes(), done, text
	case stop.killed():
		w.count("runs of " + name + " that were killed")
		return nil, killed, text
	case slices.ContainsFunc(append(may, rerun...), func(why string) bool { return strings.Contains(text, why) }):
		w.count("runs of " + name + " to be run again")
		return nil, failed, text
	}
	return stdout.Bytes(), wrong, text
}

// killer kills a program after some time, or does not.
type killer struct {
	ctx    context.Context
	cancel context.CancelFunc
	after  time.Duration
	victim *exec.Cmd
	mu     sync.Mutex
	did    bool
}

func (w *worker) killOne(name string, cmds []*exec.Cmd) *killer {
	k := &killer{victim: cmds[w.rng.IntN(len(cmds))]}
	k.ctx, k.cancel = context.WithCancel(context.Background())
	took := max(w.took[name], 50*time.Millisecond)
	k.after = time.Duration(w.rng.Int64N(int64(took + took/4)))
	if w.rng.IntN(3) > 0 || name == "bk-snapshots" {
		k.after = time.Hour
	}
	return k
}

func (k *killer) wait() {
	select {
	case <-time.After(k.after):
		k.mu.Lock()
		defer k.mu.Unlock()
		k.did = k.victim.Process.Kill() == nil
	case <-k.ctx.Done():
	}
}

func (k *killer) killed() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.did
}

// expect says what snapshots of a tag hold.
func (s *stress) expect(tag string, tree map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.versions[tag] = tree
}

// reported notes that a run which began at a time said that it is done.
func (s *stress) reported(begun time.Time, tags ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, tag := range tags {
		s.done[tag] = begun
	}
}

// backup backs up a tree that changes.
func (w *worker) backup(n int) {
	source := filepath.Join(w.dir, "source")
	tag := fmt.Sprintf("w%d-%d", w.number, n)
	change(w.t, w.rng, source, n)
	w.expect(tag, read(w.t, source))
	for tries := 0; tries < 5; tries++ {
		begun := time.Now()
		_, how := w.program(nil, w.command("bk-backup", "--host", fmt.Sprint("h", w.number), "--tag", tag, source))
		if how == done {
			w.reported(begun, tag)
			w.count("snapshots reported as done")
		}
		if how != failed || time.Now().After(w.until) {
			return
		}
	}
}

// convert imports a repository over and over, which grows.
func (w *worker) convert(n int) {
	source := filepath.Join(w.dir, "source")
	if w.from == nil {
		w.from = cheapPlace(w.t)
	}
	if n%4 == 0 {
		tag := fmt.Sprintf("w%d-%d", w.number, n)
		change(w.t, w.rng, source, n)
		w.expect(tag, read(w.t, source))
		w.from.must("bk-backup", "--tag", tag, source)
	}
	var tags []string
	for _, snap := range w.from.snapshots() {
		tags = append(tags, snap.Tags[0])
	}
	begun := time.Now()
	if _, how := w.program(nil, w.from.command("bk-export", "--all"), w.command("bk-import")); how == done {
		w.reported(begun, tags...)
	}
}

// list returns the snapshots.
func (w *worker) list() []snapshot {
	out, _ := w.program(nil, w.command("bk-snapshots", "--json"))
	return parseSnapshots(out)
}

// choose returns one of the snapshots.
func (w *worker) choose() (snapshot, bool) {
	list := w.list()
	if len(list) == 0 {
		time.Sleep(50 * time.Millisecond)
		return snapshot{}, false
	}
	return list[w.rng.IntN(len(list))], true
}

// restore restores a snapshot and compares it.
func (w *worker) restore(n int) {
	s, ok := w.choose()
	if !ok {
		return
	}
	target := filepath.Join(w.dir, fmt.Sprint("out", n))
	defer os.RemoveAll(target)
	_, how := w.program([]string{""}, w.command("bk-restore", s.ID, "--target", target))
	w.mu.Lock()
	want, gone := w.versions[s.Tags[0]], w.gone[s.ID]
	w.mu.Unlock()
	switch {
	case how == failed && !gone:
		w.t.Errorf("snapshot %s of %q cannot be restored", s.ID, s.Tags)
	case how == done:
		if diff := cmp.Diff(want, read(w.t, target)); diff != "" {
			w.t.Errorf("snapshot %s of %q: %s", s.ID, s.Tags, diff[:min(len(diff), 1000)])
		}
		w.count("snapshots restored and compared")
	}
}

// export reads everything that there is.
func (w *worker) export(int) {
	cmd := w.command("bk-export", "--all", "--plain")
	begun := len(w.goneIDs())
	_, how := w.program([]string{""}, cmd)
	if how == failed && len(w.goneIDs()) == begun && begun == 0 {
		w.t.Error("not all can be exported, and nothing was forgotten")
	}
}

func (s *stress) goneIDs() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.gone))
}

// forget removes some snapshots.
func (w *worker) forget(int) {
	time.Sleep(time.Duration(w.rng.IntN(300)) * time.Millisecond)
	list := w.list()
	if len(list) < 5 {
		return
	}
	var args []string
	w.mu.Lock()
	for _, i := range w.rng.Perm(len(list))[:1+w.rng.IntN(len(list)/2)] {
		args = append(args, list[i].ID)
		w.gone[list[i].ID] = true
	}
	w.mu.Unlock()
	w.program([]string{"no id begins so"}, w.command("bk-forget", args...))
	// An import that began meanwhile may have found them there still.
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range list {
		if slices.Contains(args, s.ID) {
			w.forgot[s.Tags[0]] = time.Now()
		}
	}
}

// retag replaces a snapshot by a copy with one tag more.
func (w *worker) retag(n int) {
	time.Sleep(time.Duration(w.rng.IntN(300)) * time.Millisecond)
	s, ok := w.choose()
	if !ok {
		return
	}
	w.mu.Lock()
	w.gone[s.ID] = true
	w.mu.Unlock()
	w.program([]string{"no id begins so"}, w.command("bk-tag", "--add", fmt.Sprint("t", n), s.ID))
}

// collect collects garbage, with or without a grace.
func (w *worker) collect(int) {
	time.Sleep(time.Duration(w.rng.IntN(300)) * time.Millisecond)
	args := []string{"--grace", []string{"0", "0", "1s", "3s"}[w.rng.IntN(4)]}
	if w.rng.IntN(2) == 0 {
		args = append(args, "--max-unused", "0")
	}
	if w.rng.IntN(2) == 0 {
		args = append(args, "--reseal", "--max-bytes", "300KiB")
	}
	// What a snapshot needs may be forgotten and collected by another one.
	w.program([]string{"no index lists it", "not found"}, w.command("bk-gc", args...))
}

// check looks for damage, of which there is none, or repairs what there is not. A
// bk-forget that was killed leaves snapshots that were forgotten and are there.
func (w *worker) check(int) {
	time.Sleep(time.Duration(w.rng.IntN(300)) * time.Millisecond)
	args := []string{"bk-check", "--read-data"}
	if w.rng.IntN(2) == 0 {
		args = []string{"bk-repair"}
	}
	may := []string{"again and again meanwhile", "cannot be repaired"}
	for n := range 20 {
		may = append(may, fmt.Sprintf(": %d returned\n", n+1)) // and nothing else
	}
	out, how, text := w.try(may, w.command(args[0], args[1:]...))
	if how == wrong {
		// What is damaged stays so; what others moved meanwhile is whole.
		w.t.Logf("%q found: %s%s", args, out[:min(len(out), 4000)], text)
		w.count("findings of " + args[0] + " that had to be seen again")
		w.program(may, w.command("bk-check", "--read-data"))
	}
}

// checkWhole checks that nothing is damaged or marked as such.
func (s *stress) checkWhole() {
	s.t.Helper()
	out, _ := s.command("bk-check", "--read-data", "--json").Output()
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		if line != "" && !strings.Contains(line, `"finding":"returned"`) {
			s.t.Errorf("bk-check: %s", line)
		}
	}
}

// rotate begins to use new keys now and then.
func (w *worker) rotate(int) {
	for begun := time.Now(); time.Since(begun) < 5*time.Second && time.Now().Before(w.until); {
		time.Sleep(100 * time.Millisecond)
	}
	w.program(nil, w.command("bk-key", "rotate"))
}

// checkEnd checks what is there when all have stopped, before and after
// everything that can be collected and sealed again is.
func (s *stress) checkEnd() {
	s.t.Helper()
	for range 2 {
		s.count("snapshots in the end")
		s.counts["snapshots in the end"] = s.checkAll(s.versions)
		listed := map[string]bool{}
		for _, snap := range s.snapshots() {
			listed[snap.Tags[0]] = true
		}
		for tag, begun := range s.done {
			if !listed[tag] && s.forgot[tag].Before(begun) {
				s.t.Errorf("snapshot %s was reported as done, nobody forgot it, and it is not there", tag)
			}
		}
		s.checkWhole()
		if s.t.Failed() {
			return
		}
		s.must("bk-gc", "--grace", "0", "--reseal", "--max-unused", "0")
		s.must("bk-gc", "--grace", "0", "--reseal", "--max-unused", "0")
	}
	left, err := filepath.Glob(filepath.Join(s.repo, "sessions", "*", "*"))
	if err != nil || len(left) > 0 {
		s.t.Errorf("sessions are left: %q, %v", left, err)
	}
}
