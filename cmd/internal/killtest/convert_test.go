package killtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bk-backup/bk/repo/seal"
)

// conversion is a way from one repository to another.
type conversion struct {
	name   string
	filter []string // arguments of bk-filter; nil: it is not there
	export []string // more arguments
	imp    []string
	sync   []string // arguments of bk-sync, instead of a pipe
}

var conversions = []conversion{
	{name: "as it is"},
	{name: "through a filter", filter: []string{"--drop", "d1"}},
	{name: "cut anew", export: []string{"--copy"}, imp: []string{"--chunker", "gear:16KiB"}},
	{name: "in one process", sync: []string{"--drop", "d2", "--chunker", "fixed:20000"}},
}

// commands returns the programs of a run into a place.
func (c *conversion) commands(t *testing.T, from, to *place) []*exec.Cmd {
	t.Helper()
	if c.sync != nil {
		cmd := from.command("bk-sync", append(c.sync, "--to", to.repo)...)
		return []*exec.Cmd{cmd}
	}
	have := filepath.Join(t.TempDir(), "have")
	if err := os.WriteFile(have, to.must("bk-import", "--list-imported"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmds := []*exec.Cmd{from.command("bk-export", append(c.export, "--all", "--have", have)...)}
	if c.filter != nil {
		cmd := exec.Command(filepath.Join(bin, "bk-filter"), c.filter...)
		cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
		cmds = append(cmds, cmd)
	}
	return append(cmds, to.command("bk-import", c.imp...))
}

// finish runs a conversion that nobody kills.
func (c *conversion) finish(t *testing.T, from, to *place) {
	t.Helper()
	if !runKilled(t, rand.New(rand.NewPCG(0, 0)), time.Hour, c.commands(t, from, to)...) {
		t.Fatalf("%s: the last run did not complete", c.name)
	}
}

// checkEqual compares two repositories with bk-diff.
func checkEqual(t *testing.T, name string, a, b *place) {
	t.Helper()
	cmd := a.command("bk-diff", "--with", b.repo)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out.String())
	}
}

// storedBytes is what the packs of content take.
func (p *place) storedBytes() (n int64) {
	p.t.Helper()
	err := filepath.Walk(filepath.Join(p.repo, "packs"), func(_ string, fi os.FileInfo, err error) error {
		if err == nil && fi.Mode().IsRegular() {
			n += fi.Size()
		}
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return n
}

// counted is what bk-import --json says at its end.
type counted struct {
	Chunks uint64 `json:"chunks"`
	New    uint64 `json:"chunks_new"`
}

// count finds the summary among the messages of a program.
func count(messages []byte) (sum counted, ok bool) {
	for line := range bytes.Lines(messages) {
		var event struct {
			Event string `json:"event"`
			counted
		}
		if json.Unmarshal(line, &event) == nil && event.Event == "summary" {
			return event.counted, true
		}
	}
	return sum, false
}

// TestKillEach kills each of bk-export, bk-filter and bk-import in turn, runs the
// same again, and compares with a run that nobody interrupted: by bk-diff, by
// restoring, and by what was sent and stored. Only a program that the signal ended
// counts as killed.
func TestKillEach(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, uint64(time.Now().UnixNano())))
	from := cheapPlace(t)
	target := func() *place { return cheapPlaceIn(t, t.TempDir(), seal.SuiteXChaCha20Poly1305) }
	source := filepath.Join(t.TempDir(), "source")
	versions := map[string]map[string]string{}
	const snapshots = 3
	for n := range snapshots {
		change(t, rng, source, n)
		tag := fmt.Sprint("v", n)
		from.must("bk-backup", "--tag", tag, source)
		versions[tag] = read(t, source)
		for name := range versions[tag] {
			if strings.HasSuffix(name, "d1") {
				delete(versions[tag], name)
			}
		}
	}
	c := conversion{name: "each", filter: []string{"--drop", "d1"}, imp: []string{"--json"}}
	// run runs the pipe and kills a victim at any moment of its life; counts says
	// that bk-import ended and said what it did.
	run := func(to *place, victim int, lives time.Duration) (sum counted, end ending, counts bool) {
		var messages bytes.Buffer
		end = runKilling(t, c.commands(t, from, to), victim, time.Duration(rng.Int64N(int64(lives))), &messages)
		sum, counts = count(messages.Bytes())
		return sum, end, counts
	}
	whole := target()
	all, first, _ := run(whole, -1, time.Hour)
	if !first.done || all.New == 0 {
		t.Fatal("the run that nobody interrupts failed")
	}
	lived := first.lived
	want := max(1, kills(t, killsDefault)/4)
	if os.Getenv("BK_KILLS") != "" {
		want = kills(t, killsDefault)
	}
	var killed, survived [3]int
	for n := 0; slices.Min(killed[:]) < want; n++ {
		victim := slices.Index(killed[:], slices.Min(killed[:]))
		if n > 60*want {
			t.Fatalf("%d runs, and only %v were killed", n, killed)
		}
		to := target()
		first, end, counts := run(to, victim, lived[victim])
		if end.killed {
			killed[victim]++
		} else {
			survived[victim]++
			if end.done {
				lived = end.lived
			}
		}
		second, end, _ := run(to, -1, time.Hour)
		if !end.done {
			t.Fatalf("victim %d: the second run failed", victim)
		}
		if counts && (first.Chunks+second.Chunks != all.Chunks || first.New+second.New != all.New) {
			t.Errorf("victim %d: %+v, then %+v, without interruption %+v", victim, first, second, all)
		}
		if second.Chunks > all.Chunks || second.New > all.New {
			t.Errorf("victim %d: then %+v, without interruption %+v", victim, second, all)
		}
		checkEqual(t, fmt.Sprint("victim ", victim), whole, to)
		if to.checkAll(versions) != snapshots {
			t.Fatalf("victim %d: some snapshots are missing", victim)
		}
		if n%10 == 0 {
			for _, s := range to.snapshots() {
				to.checkRestores(s.ID, versions[s.Tags[0]])
			}
		}
		os.RemoveAll(filepath.Dir(to.repo))
		if n%30 == 29 {
			t.Logf("so far killed %v, ended before %v", killed, survived)
		}
	}
	t.Logf("killed %v, ended before %v of bk-export, bk-filter, bk-import", killed, survived)
}

// TestKillConversion kills any of the programs of an incremental conversion, of
// each kind in turn, goes on with new snapshots, and compares the outcome with a
// conversion that nobody interrupted.
func TestKillConversion(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, uint64(time.Now().UnixNano())))
	from := newPlace(t, "aes-256-gcm")
	source := filepath.Join(t.TempDir(), "source")
	targets := make([]*place, len(conversions))
	for i := range conversions {
		targets[i] = newPlace(t, "xchacha20-poly1305")
	}
	took := time.Second
	killed, survived := 0, 0
	for n := 0; n < kills(t, killsDefault); n++ {
		if n%4 == 0 {
			change(t, rng, source, n)
			from.must("bk-backup", "--tag", fmt.Sprint("v", n), source)
		}
		i := n % len(conversions)
		begun := time.Now()
		if runKilled(t, rng, took, conversions[i].commands(t, from, targets[i])...) {
			survived++
			took = time.Since(begun)
		} else {
			killed++
		}
	}
	for i := range conversions {
		c := &conversions[i]
		c.finish(t, from, targets[i])
		whole := newPlace(t, "xchacha20-poly1305")
		c.finish(t, from, whole)
		checkEqual(t, c.name, whole, targets[i])
		// Packs of a killed run are listed and used by the next one. More of them,
		// each padded, and chunks that were under way are all that may be more.
		if a, b := whole.storedBytes(), targets[i].storedBytes(); b > a+a/2+(1<<20) {
			t.Errorf("%s: %d bytes of packs, %d without interruptions", c.name, b, a)
		}
	}
	t.Logf("%d killed, %d ended before", killed, survived)
}
