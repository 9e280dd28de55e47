//go:build interop

package interop

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// resticRepo is a repository that the real restic keeps, and the states of the
// tree that were backed up into it.
type resticRepo struct {
	t      *testing.T
	dir    string
	work   string // where the tree lies
	tree   *tree
	states []string // copies of the tree, oldest first
}

func newResticRepo(t *testing.T) *resticRepo {
	t.Helper()
	if _, err := exec.LookPath("restic"); err != nil {
		t.Fatal("restic is not installed; make interop installs it")
	}
	t.Setenv("RESTIC_PASSWORD", "of restic")
	t.Setenv("BK_PASSPHRASE", "of bk")
	tr := newTree(t, "tree")
	r := &resticRepo{t: t, dir: filepath.Join(t.TempDir(), "restic"), work: filepath.Dir(tr.top), tree: tr}
	r.restic("init")
	return r
}

// restic runs the real program in the directory that holds the tree.
func (r *resticRepo) restic(args ...string) []byte {
	r.t.Helper()
	cmd := exec.Command("restic", append([]string{"--quiet", "--no-cache", "-r", r.dir}, args...)...)
	cmd.Dir = r.work
	return mustPipe(r.t, nil, cmd)
}

// backup makes a snapshot and keeps a copy of the tree as it was.
func (r *resticRepo) backup() {
	r.t.Helper()
	r.restic("backup", "tree")
	state := filepath.Join(r.t.TempDir(), fmt.Sprint("state", len(r.states)))
	r.tree.check(exec.Command("cp", "-a", r.tree.top, state).Run())
	r.states = append(r.states, state)
}

// sparse is what a manifest says of how files are stored, which restic does not.
var sparse = regexp.MustCompile(` sparse (true|false)`)

// compareRestored compares trees, but for what restic does not record, or 0.14
// gets wrong: holes, and targets of links that are not UTF-8.
func compareRestored(t *testing.T, want, got string) {
	t.Helper()
	expected, found := manifest(t, want), manifest(t, got)
	for _, list := range []map[string]string{expected, found} {
		for path, words := range list {
			list[path] = sparse.ReplaceAllString(words, "")
			if path == "link" && strings.Contains(words, "target") {
				delete(list, path)
			}
		}
	}
	if d := cmp.Diff(expected, found); d != "" {
		t.Errorf("%s (-) and %s (+) differ:\n%s", want, got, d)
	}
}

// treeFiles returns what lies below a directory, to see that nothing changed.
func treeFiles(t *testing.T, dir string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil {
			list = append(list, fmt.Sprint(path, info.Size(), info.ModTime()))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestResticToBk converts a history and compares what bk restores with the trees
// and with what restic restores; then it goes on with what came later.
func TestResticToBk(t *testing.T) {
	r := newResticRepo(t)
	r.tree.fill()
	src := filepath.Join(runtime.GOROOT(), "src")
	for _, dir := range []string{"net", "go", "unicode"} {
		r.tree.check(exec.Command("cp", "-a", filepath.Join(src, dir), r.tree.path(dir)).Run())
	}
	r.backup()
	r.tree.change()
	r.tree.file("net/dial.go", "changed\n")
	r.tree.check(os.Rename(r.tree.path("net/http"), r.tree.path("net/web")))
	r.backup()
	r.tree.check(os.RemoveAll(r.tree.path("go")))
	r.tree.check(os.Chmod(r.tree.path("unicode"), 0o700))
	r.backup()

	before := treeFiles(t, r.dir)
	bk := filepath.Join(t.TempDir(), "bk")
	mustPipe(t, nil, program(t, "bk-init", "-q", "-r", bk))
	convert := func(args ...string) {
		t.Helper()
		mustPipe(t, nil, program(t, "bk-export", append([]string{"-q", "-r", "restic:" + r.dir}, args...)...), program(t, "bk-import", "-q", "-r", bk))
	}
	convert("--all")
	check := func() {
		t.Helper()
		for i, state := range r.states {
			out := filepath.Join(t.TempDir(), "bk")
			mustPipe(t, nil, program(t, "bk-restore", "-q", "-r", bk, "--target", out, fmt.Sprintf("latest~%d:tree", len(r.states)-1-i)))
			compareRestored(t, state, out)
		}
	}
	check()
	if !slices.Equal(before, treeFiles(t, r.dir)) {
		t.Error("the source was changed")
	}
	restored := filepath.Join(t.TempDir(), "restic")
	r.restic("restore", "--target", restored, "latest")
	out := filepath.Join(t.TempDir(), "bk")
	mustPipe(t, nil, program(t, "bk-restore", "-q", "-r", bk, "--target", out, "latest"))
	compareRestored(t, filepath.Join(restored, "tree"), filepath.Join(out, "tree"))

	// Restored without bk's repository between.
	out = filepath.Join(t.TempDir(), "direct")
	mustPipe(t, nil, program(t, "bk-export", "-q", "-r", "restic:"+r.dir, "latest"), program(t, "bk-restore", "-q", "--stdin", "--target", out))
	compareRestored(t, r.states[2], filepath.Join(out, "tree"))

	// What came later is sent as a difference.
	r.tree.file("net/later.go", "new\n")
	r.backup()
	have := filepath.Join(t.TempDir(), "have")
	r.tree.check(os.WriteFile(have, mustPipe(t, nil, program(t, "bk-import", "--list-imported", "-r", bk)), 0o600))
	stream := mustPipe(t, nil, program(t, "bk-export", "-q", "-r", "restic:"+r.dir, "--all", "--have", have))
	if len(stream) > 10_000 {
		t.Errorf("a difference of one file is %d bytes", len(stream))
	}
	mustPipe(t, bytes.NewReader(stream), program(t, "bk-import", "-q", "-r", bk))
	check()
}

// TestResticErrors looks at the exit codes and messages.
func TestResticErrors(t *testing.T) {
	r := newResticRepo(t)
	r.tree.file("a", "x")
	r.backup()
	for _, c := range []struct {
		place, password string
		code            int
		words           string
	}{
		{r.dir, "wrong", 12, "passphrase fits no key"},
		{r.work, "of restic", 10, "no restic repository"},
		{filepath.Join(r.work, "nowhere"), "of restic", 10, "nowhere"},
	} {
		cmd := program(t, "bk-snapshots", "-r", "restic:"+c.place)
		cmd.Env = append(cmd.Env, "RESTIC_PASSWORD="+c.password)
		if res := pipe(t, nil, cmd); res.codes[0] != c.code || !strings.Contains(res.stderr[0], c.words) || !strings.Contains(res.stderr[0], "to fix: ") {
			t.Errorf("%s: ended with %d: %s", c.place, res.codes[0], res.stderr[0])
		}
	}
	data, err := filepath.Glob(filepath.Join(r.dir, "data", "*", "*"))
	r.tree.check(err)
	for _, pack := range data {
		r.tree.check(os.Chmod(pack, 0o600))
		r.tree.check(os.Truncate(pack, 10))
	}
	res := pipe(t, nil, program(t, "bk-export", "-q", "-r", "restic:"+r.dir, "--all"))
	if res.codes[0] != 1 || !strings.Contains(res.stderr[0], "tree blob") || !strings.Contains(res.stderr[0], "unexpected EOF") {
		t.Errorf("truncated packs: ended with %d: %s", res.codes[0], res.stderr[0])
	}
}
