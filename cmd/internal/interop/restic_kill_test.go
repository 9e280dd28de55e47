//go:build interop

package interop

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestKilledImportToRestic kills an import again and again until it has completed:
// each time restic takes what is there, reads all of it, and restores what was
// committed.
func TestKilledImportToRestic(t *testing.T) {
	if _, err := exec.LookPath("restic"); err != nil {
		t.Fatal("restic is not installed; make interop installs it")
	}
	t.Setenv("RESTIC_PASSWORD", "of restic")
	t.Setenv("BK_PASSPHRASE", "of bk")
	tr := newTree(t, "tree")
	tr.fill()
	bk := filepath.Join(t.TempDir(), "bk")
	mustPipe(t, nil, program(t, "bk-init", "-q", "-r", bk))
	var states []string
	for range 3 {
		tr.file("large", tr.random(30_000_000))
		mustPipe(t, nil, program(t, "bk-backup", "-q", "-r", bk, tr.top))
		state := filepath.Join(t.TempDir(), "state")
		tr.check(exec.Command("cp", "-a", tr.top, state).Run())
		states = append(states, state)
	}
	stream := mustPipe(t, nil, program(t, "bk-export", "-q", "-r", bk, "--all"))
	for _, cut := range []string{"keep", "rabin"} {
		t.Run(cut, func(t *testing.T) {
			w := &written{t, filepath.Join(t.TempDir(), "restic")}
			imports := func() *exec.Cmd {
				return program(t, "bk-import", "-q", "-r", "restic:"+w.dir, "--chunker", cut)
			}
			check := func() (snapshots int) {
				t.Helper()
				w.restic("unlock") // who was killed leaves his lock
				w.check()
				ids := w.snapshots()
				for i, id := range ids {
					out := filepath.Join(t.TempDir(), "out")
					w.restic("restore", id, "--target", out)
					compareRestored(t, states[i], filepath.Join(out, tr.top))
				}
				return len(ids)
			}
			// So much of the stream comes, and is worked on for a while.
			for _, eighths := range []int{1, 3, 6} {
				cmd := imports()
				in, err := cmd.StdinPipe()
				tr.check(err)
				tr.check(cmd.Start())
				_, err = in.Write(stream[:len(stream)*eighths/8])
				tr.check(err)
				time.Sleep(300 * time.Millisecond)
				tr.check(cmd.Process.Kill())
				if err := cmd.Wait(); err == nil {
					t.Error("it ended before it was killed")
				}
				if _, err := os.Stat(filepath.Join(w.dir, "config")); err != nil {
					continue
				}
				if got := check(); got > eighths*len(states)/8 {
					t.Errorf("%d eighths of the stream gave %d snapshots", eighths, got)
				}
			}
			cmd := imports()
			cmd.Stdin = bytes.NewReader(stream)
			if out, err := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 3 && err != nil {
				t.Fatalf("the same again: %v\n%s", err, out)
			}
			if got := check(); got != len(states) {
				t.Errorf("%d snapshots in the end", got)
			}
		})
	}
}
