//go:build interop

package interop

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// borgRepo is a repository that the real borg keeps of a tree.
type borgRepo struct {
	t    *testing.T
	dir  string
	tree *tree

	atRest []string // its files, after it was read and before it was written again
}

func newBorgRepo(t *testing.T, encryption string) *borgRepo {
	t.Helper()
	if _, err := exec.LookPath("borg"); err != nil {
		t.Fatal("borg is not installed; make interop installs it")
	}
	for name, value := range map[string]string{
		"BORG_PASSPHRASE": "of borg", "BK_PASSPHRASE": "of bk", "BORG_BASE_DIR": t.TempDir(),
		"BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes", "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
	} {
		t.Setenv(name, value)
	}
	r := &borgRepo{t: t, dir: filepath.Join(t.TempDir(), "borg"), tree: newTree(t, "tree")}
	r.borg("init", "-e", encryption, r.dir)
	return r
}

// borg runs the real program in the directory that holds the tree.
func (r *borgRepo) borg(args ...string) {
	r.t.Helper()
	cmd := exec.Command("borg", args...)
	cmd.Dir = filepath.Dir(r.tree.top)
	if out, err := cmd.CombinedOutput(); err != nil {
		r.t.Fatalf("borg %s: %v\n%s", args, err, out)
	}
}

// extract returns what the real program makes of an archive.
func (r *borgRepo) extract(archive string) string {
	r.t.Helper()
	out := r.t.TempDir()
	cmd := exec.Command("borg", "extract", r.dir+"::"+archive)
	cmd.Dir = out
	if text, err := cmd.CombinedOutput(); err != nil {
		r.t.Fatalf("borg extract: %v\n%s", err, text)
	}
	return filepath.Join(out, "tree")
}

// compareExtracted compares trees, but for holes, which borg fills.
func compareExtracted(t *testing.T, want, got string) {
	t.Helper()
	expected, found := manifest(t, want), manifest(t, got)
	for _, list := range []map[string]string{expected, found} {
		for path, words := range list {
			list[path] = sparse.ReplaceAllString(words, "")
		}
	}
	if d := cmp.Diff(expected, found); d != "" {
		t.Errorf("%s (-) and %s (+) differ:\n%s", want, got, d)
	}
	// Once more by somebody else.
	if out, err := exec.Command("rsync", "-aHnic", "--delete", want+"/", got+"/").CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("rsync: %v\n%s", err, out)
	}
}

// TestBorgToBk converts a history with churn and compares what bk restores with
// what borg extracts.
func TestBorgToBk(t *testing.T) {
	for _, c := range []struct{ encryption, first, second string }{
		{"repokey", "lz4", "zlib,6"},
		{"keyfile", "zlib,1", "lz4"},
		{"keyfile-blake2", "zstd,3", "lzma,0"},
		{"authenticated-blake2", "auto,lzma,0", "obfuscate,3,zstd,1"},
		{"none", "zstd,1", "none"},
	} {
		t.Run(c.encryption, func(t *testing.T) {
			r := newBorgRepo(t, c.encryption)
			r.tree.fill()
			src := filepath.Join(runtime.GOROOT(), "src")
			for _, dir := range []string{"net", "unicode"} {
				r.tree.check(exec.Command("cp", "-a", filepath.Join(src, dir), r.tree.path(dir)).Run())
			}
			r.borg("create", "-C", c.first, r.dir+"::one", "tree")
			r.borg("create", "-C", c.second, r.dir+"::doomed", "tree/net")
			r.tree.change()
			r.tree.file("net/dial.go", "changed\n")
			r.tree.check(os.Rename(r.tree.path("net/http"), r.tree.path("net/web")))
			r.tree.check(os.Remove(r.tree.path("one"))) // the master of hard links
			r.borg("create", "-C", c.second, "--comment", "a comment", r.dir+"::two", "tree")
			r.borg("delete", r.dir+"::doomed")
			r.borg("compact", "--threshold", "0", r.dir)

			extracted := []string{r.extract("one"), r.extract("two")}
			before := treeFiles(t, r.dir)
			bk := filepath.Join(t.TempDir(), "bk")
			mustPipe(t, nil, program(t, "bk-init", "-q", "-r", bk))
			mustPipe(t, nil, program(t, "bk-export", "-q", "-r", "borg:"+r.dir, "--all"), program(t, "bk-import", "-q", "-r", bk))
			for i, want := range extracted {
				out := filepath.Join(t.TempDir(), "out")
				mustPipe(t, nil, program(t, "bk-restore", "-q", "-r", bk, "--target", out, fmt.Sprintf("latest~%d:tree", 1-i)))
				compareExtracted(t, want, out)
			}
			// Without bk's repository between.
			out := filepath.Join(t.TempDir(), "direct")
			mustPipe(t, nil, program(t, "bk-restore", "-q", "-r", "borg:"+r.dir, "--target", out, "latest:tree"))
			compareExtracted(t, extracted[1], out)
			r.withoutIndex()
			r.goesOn(bk)
			if !slices.Equal(before, r.atRest) {
				t.Error("the source was changed")
			}
		})
	}
}

// withoutIndex compares what is exported with what is without borg's index.
func (r *borgRepo) withoutIndex() {
	t := r.t
	t.Helper()
	bare := filepath.Join(t.TempDir(), "bare")
	r.tree.check(exec.Command("cp", "-a", r.dir, bare).Run())
	indexes, err := filepath.Glob(filepath.Join(bare, "index.*"))
	r.tree.check(err)
	if len(indexes) != 1 {
		t.Fatalf("there are the indexes %q", indexes)
	}
	r.tree.check(os.Remove(indexes[0]))
	export := func(dir string) []byte {
		return mustPipe(t, nil, program(t, "bk-export", "-q", "-r", "borg:"+dir, "--all"))
	}
	if !bytes.Equal(export(r.dir), export(bare)) {
		t.Error("without its index the repository is another")
	}
}

// goesOn sends what came later as a difference.
func (r *borgRepo) goesOn(bk string) {
	t := r.t
	t.Helper()
	have := filepath.Join(t.TempDir(), "have")
	list := func() {
		r.tree.check(os.WriteFile(have, mustPipe(t, nil, program(t, "bk-import", "--list-imported", "-r", bk)), 0o600))
	}
	list()
	nothing := mustPipe(t, nil, program(t, "bk-export", "-q", "-r", "borg:"+r.dir, "--all", "--have", have))
	if n := len(snapshots(nothing)); n != 0 {
		t.Errorf("%d snapshots are sent that are there", n)
	}
	r.atRest = treeFiles(t, r.dir)
	r.tree.file("net/later.go", "new\n")
	r.borg("create", r.dir+"::three", "tree")
	list()
	stream := mustPipe(t, nil, program(t, "bk-export", "-q", "-r", "borg:"+r.dir, "--all", "--have", have))
	if len(stream) > 10_000 {
		t.Errorf("a difference of one file is %d bytes", len(stream))
	}
	mustPipe(t, bytes.NewReader(stream), program(t, "bk-import", "-q", "-r", bk))
	out := filepath.Join(t.TempDir(), "out")
	mustPipe(t, nil, program(t, "bk-restore", "-q", "-r", bk, "--target", out, "latest:tree"))
	compareExtracted(t, r.extract("three"), out)
}

// TestBorgErrors looks at the exit codes and messages.
func TestBorgErrors(t *testing.T) {
	r := newBorgRepo(t, "keyfile")
	r.tree.file("a", strings.Repeat("x", 100))
	r.borg("create", "-C", "none", r.dir+"::a", "tree")
	for _, c := range []struct {
		place, set string
		code       int
		words      string
	}{
		{r.dir, "BORG_PASSPHRASE=wrong", 12, "passphrase does not fit"},
		{r.dir, "BORG_KEYS_DIR=" + t.TempDir(), 12, "no key file"},
		{filepath.Dir(r.dir), "X=", 10, "no borg repository"},
		{filepath.Join(r.dir, "nowhere"), "X=", 10, "nowhere"},
		{r.dir + "::nothing", "X=", 1, "no snapshots"},
	} {
		cmd := program(t, "bk-ls", "-r", "borg:"+c.place, "latest")
		cmd.Env = append(cmd.Env, c.set)
		if res := pipe(t, nil, cmd); res.codes[0] != c.code || !strings.Contains(res.stderr[0], c.words) {
			t.Errorf("%s, %s: ended with %d: %s", c.place, c.set, res.codes[0], res.stderr[0])
		}
	}
	segments, err := filepath.Glob(filepath.Join(r.dir, "data", "0", "*"))
	r.tree.check(err)
	stream := mustPipe(t, nil, program(t, "bk-export", "-q", "-r", "borg:"+r.dir+"::a", "--all"))
	for _, name := range segments {
		b, err := os.ReadFile(name)
		r.tree.check(err)
		b[len(b)/2] ^= 1
		r.tree.check(os.WriteFile(name, b, 0o600))
		res := pipe(t, nil, program(t, "bk-export", "-q", "-r", "borg:"+r.dir, "--all"))
		if res.codes[0] == 0 && !bytes.Equal(res.stdout, stream) || res.codes[0] != 0 && !strings.Contains(res.stderr[0], "data/0/") {
			t.Errorf("%s damaged: ended with %d: %s", name, res.codes[0], res.stderr[0])
		}
		b[len(b)/2] ^= 1
		r.tree.check(os.WriteFile(name, b, 0o600))
	}
}
