package killtest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestKillForeign kills imports into repositories of other systems, from their
// making on, by a pipe and by bk-sync in turn. What a repository shows afterwards
// is whole, and running the same again completes it.
func TestKillForeign(t *testing.T) {
	t.Setenv("BORG_BASE_DIR", t.TempDir())
	const snapshots = 3
	from := newPlace(t, "aes-256-gcm")
	source := filepath.Join(t.TempDir(), "source")
	versions := map[string]map[string]string{}
	rng := rand.New(rand.NewPCG(5, uint64(time.Now().UnixNano())))
	for n := range snapshots {
		change(t, rng, source, n)
		tag := fmt.Sprint("v", n)
		versions[tag] = read(t, source)
		from.must("bk-backup", "--tag", tag, source)
	}
	for _, c := range []struct {
		system string
		cut    string // --chunker
	}{{"restic", "keep"}, {"restic", "rabin"}, {"borg", "buzhash"}, {"borg", "keep"}} {
		t.Run(c.system+" "+c.cut, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(6, uint64(time.Now().UnixNano())))
			var to *place
			again := func() {
				to = &place{t, c.system + ":" + filepath.Join(t.TempDir(), "repo"), filepath.Join(t.TempDir(), "cache")}
			}
			programs := func(n int) []*exec.Cmd {
				if n%2 == 0 {
					cmd := from.command("bk-sync", "--to", to.repo, "--chunker", c.cut)
					return []*exec.Cmd{cmd}
				}
				return []*exec.Cmd{from.command("bk-export", "--all"), to.command("bk-import", "--chunker", c.cut)}
			}
			complete := func(n int) {
				t.Helper()
				if !runKilled(t, rng, time.Hour, programs(n)...) {
					t.Fatal("the run that nobody kills did not complete")
				}
				if got := to.checkAll(versions); got != snapshots {
					t.Fatalf("%d snapshots in the end", got)
				}
				checkEqual(t, c.system, from, to)
			}
			again()
			begun := time.Now()
			complete(0)
			took := time.Since(begun)
			killed, survived, partly := 0, 0, 0
			again()
			for n := 0; killed < kills(t, killsDefault/4) && n < 2*kills(t, killsDefault/4); n++ {
				if runKilled(t, rng, took, programs(n)...) {
					survived++
				} else {
					killed++
				}
				if _, err := os.Stat(filepath.Join(to.repo[len(c.system)+1:], "config")); err != nil {
					continue // it was not made yet
				}
				if got := to.checkAll(versions); got > 0 && got < snapshots {
					partly++
				}
				if n%3 == 2 {
					complete(n)
					again()
				}
			}
			complete(killed)
			t.Logf("%d killed, %d ended before; %d times some of the snapshots were there", killed, survived, partly)
		})
	}
}
