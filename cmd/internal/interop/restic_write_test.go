//go:build interop

package interop

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// written is a restic repository that bk wrote.
type written struct {
	t   *testing.T
	dir string
}

// restic runs the real program, and returns what it writes.
func (w *written) restic(args ...string) []byte {
	w.t.Helper()
	return mustPipe(w.t, nil, exec.Command("restic", append([]string{"--quiet", "--no-cache", "-r", w.dir}, args...)...))
}

// check has restic read all of it.
func (w *written) check() {
	w.t.Helper()
	if out := pipe(w.t, nil, exec.Command("restic", "--no-cache", "-r", w.dir, "check", "--read-data")); out.codes[0] != 0 || !strings.Contains(string(out.stdout), "no errors were found") {
		w.t.Fatalf("restic check ended with %d: %s%s", out.codes[0], out.stdout, out.stderr[0])
	}
}

// snapshots are their ids, oldest first.
func (w *written) snapshots() (ids []string) {
	w.t.Helper()
	var list []struct{ ID string }
	if err := json.Unmarshal(w.restic("snapshots", "--json"), &list); err != nil {
		w.t.Fatal(err)
	}
	for _, s := range list {
		ids = append(ids, s.ID)
	}
	return ids
}

// summary is what restic says of a backup.
type summary struct {
	FilesNew       int `json:"files_new"`
	FilesChanged   int `json:"files_changed"`
	FilesUnchanged int `json:"files_unmodified"`
	DataBlobs      int `json:"data_blobs"`
}

// backup makes a snapshot with restic.
func (w *written) backup(dir string) (s summary) {
	w.t.Helper()
	lines := strings.Split(strings.TrimSpace(string(w.restic("backup", "--json", dir))), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &s); err != nil {
		w.t.Fatal(err)
	}
	return s
}

// imported has bk write into it what the source repository holds and it does not.
func (w *written) imported(bk string, flags ...string) result {
	w.t.Helper()
	have := filepath.Join(w.t.TempDir(), "have")
	export := []string{"-q", "-r", bk, "--all"}
	if _, err := os.Stat(w.dir); err == nil {
		if err := os.WriteFile(have, mustPipe(w.t, nil, program(w.t, "bk-import", "--list-imported", "-r", "restic:"+w.dir)), 0o600); err != nil {
			w.t.Fatal(err)
		}
		export = append(export, "--have", have)
	}
	return pipe(w.t, nil, program(w.t, "bk-export", export...), program(w.t, "bk-import", append([]string{"-q", "-r", "restic:" + w.dir}, flags...)...))
}

// TestBkToRestic writes a history that bk made into repositories of restic, and
// has restic check, restore and compare it, and go on with it.
func TestBkToRestic(t *testing.T) {
	if _, err := exec.LookPath("restic"); err != nil {
		t.Fatal("restic is not installed; make interop installs it")
	}
	t.Setenv("RESTIC_PASSWORD", "of restic")
	t.Setenv("BK_PASSPHRASE", "of bk")
	tr := newTree(t, "tree")
	tr.fill()
	tr.check(os.WriteFile(tr.path("big"), []byte(tr.random(9<<20)), 0o600))
	bk := filepath.Join(t.TempDir(), "bk")
	mustPipe(t, nil, program(t, "bk-init", "-q", "-r", bk))
	var states []string
	backup := func() {
		t.Helper()
		mustPipe(t, nil, program(t, "bk-backup", "-q", "-r", bk, tr.top))
		state := filepath.Join(t.TempDir(), fmt.Sprint("state", len(states)))
		tr.check(exec.Command("cp", "-a", tr.top, state).Run())
		states = append(states, state)
	}
	backup()
	tr.change()
	f, err := os.OpenFile(tr.path("big"), os.O_RDWR, 0)
	tr.check(err)
	_, err = f.WriteAt([]byte("changed in the middle"), 4<<20)
	tr.check(err)
	tr.check(f.Close())
	backup()

	for _, flags := range [][]string{{"--chunker", "rabin"}, {"--chunker", "keep", "-o", "version=1"}} {
		w := &written{t, filepath.Join(t.TempDir(), "restic")}
		// The tree has a sparse file, of which restic does not know where its holes are.
		if out := w.imported(bk, flags...); out.codes[0] != 0 || out.codes[1] != 3 || !strings.Contains(out.stderr[1], "sparse") {
			t.Fatalf("%v: ended with %v: %s", flags, out.codes, out.stderr)
		}
		w.check()
		ids := w.snapshots()
		if len(ids) != len(states) {
			t.Fatalf("%d snapshots instead of %d", len(ids), len(states))
		}
		for i, id := range ids {
			out := filepath.Join(t.TempDir(), "out")
			w.restic("restore", "--target", out, id)
			compareRestored(t, states[i], filepath.Join(out, tr.top))
		}
		if out := string(mustPipe(t, nil, exec.Command("restic", "--no-cache", "-r", w.dir, "diff", ids[0], ids[1]))); !strings.Contains(out, "M    "+tr.path("big")+"\n") || strings.Contains(out, "attributes") {
			t.Errorf("%v: restic diff says:\n%s", flags, out)
		}
		out := mustPipe(t, nil, program(t, "bk-import", "--list-imported", "-r", "restic:"+w.dir))
		if strings.Count(string(out), "\n") != len(states) || strings.Contains(string(out), "-") {
			t.Errorf("what was imported: %s", out)
		}

		// restic goes on: it reads nothing that did not change, and finds again
		// what it cuts itself.
		w.goOn(t, tr, flags[1] == "rabin")
		w.check()

		// A snapshot that restic has written again is held, but no parent.
		w.restic("tag", "--add", "mine", ids[1])
		out = mustPipe(t, nil, program(t, "bk-import", "--list-imported", "-r", "restic:"+w.dir))
		if strings.Count(string(out), " -") != 1 {
			t.Errorf("after a tag: %s", out)
		}
		tr.file("later", fmt.Sprint(flags))
		backup()
		if out := w.imported(bk); out.codes[0] != 0 || out.codes[1] != 0 && out.codes[1] != 3 {
			t.Fatalf("the third: ended with %v: %s", out.codes, out.stderr)
		}
		w.check()
		restored := filepath.Join(t.TempDir(), "out")
		w.restic("restore", "--target", restored, "latest")
		compareRestored(t, states[len(states)-1], filepath.Join(restored, tr.top))
		tr.check(os.Remove(tr.path("later")))
	}
}

// goOn makes backups with restic.
func (w *written) goOn(t *testing.T, tr *tree, cutAlike bool) {
	t.Helper()
	if s := w.backup(tr.top); s.FilesNew != 0 || s.FilesChanged != 0 || s.FilesUnchanged == 0 || s.DataBlobs != 0 {
		t.Errorf("a backup on top: %+v", s)
	}
	if !cutAlike {
		return
	}
	tr.check(exec.Command("touch", tr.path("big"), tr.path("cat.jpg"), tr.path("sparse")).Run())
	if s := w.backup(tr.top); s.FilesChanged != 3 || s.DataBlobs != 0 {
		t.Errorf("a backup that has to read: %+v", s)
	}
}

// TestResticToRestic converts by way of bk, and expects nothing to be different.
func TestResticToRestic(t *testing.T) {
	r := newResticRepo(t)
	r.tree.fill()
	r.backup()
	r.tree.change()
	r.backup()
	bk := filepath.Join(t.TempDir(), "bk")
	mustPipe(t, nil, program(t, "bk-init", "-q", "-r", bk))
	mustPipe(t, nil, program(t, "bk-export", "-q", "-r", "restic:"+r.dir, "--all"), program(t, "bk-import", "-q", "-r", bk))
	w := &written{t, filepath.Join(t.TempDir(), "again")}
	if out := w.imported(bk, "--chunker", "rabin", "-o", "chunker-from=restic:"+r.dir); out.codes[1] != 0 {
		t.Fatalf("ended with %v: %s", out.codes, out.stderr)
	}
	w.check()
	mustPipe(t, nil, program(t, "bk-diff", "-q", "-r", "restic:"+r.dir, "--with", "restic:"+w.dir))
	for i, id := range w.snapshots() {
		out := filepath.Join(t.TempDir(), "out")
		w.restic("restore", "--target", out, id)
		compareRestored(t, r.states[i], filepath.Join(out, "tree"))
	}
}
