//go:build interop

package interop

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

var ciphers = []string{"aes-256-gcm", "xchacha20-poly1305"}

// repository makes an empty repository and returns its directory.
func repository(t *testing.T, cipher string, flags ...string) string {
	t.Helper()
	t.Setenv("BK_PASSPHRASE", "interop äöü")
	dir := filepath.Join(t.TempDir(), "repo")
	mustPipe(t, nil, program(t, "bk-init", append([]string{"-r", dir, "--cipher", cipher}, flags...)...))
	return dir
}

func backup(t *testing.T, repo string, args ...string) {
	t.Helper()
	mustPipe(t, nil, program(t, "bk-backup", append([]string{"-r", repo, "--quiet"}, args...)...))
}

// fillMore adds what only repositories make a difference of: long lists of
// chunks, long bodies, nodes on two levels, and holes that list chunks between.
func (tr *tree) fillMore() {
	tr.t.Helper()
	tr.dir("many")
	for i := range 700 {
		tr.file(fmt.Sprintf("many/%03d %s", i, strings.Repeat("x", i%40)), fmt.Sprint(i))
	}
	tr.file("large", tr.random(9_000_000))
	f, err := os.OpenFile(tr.path("hole at the end"), os.O_CREATE|os.O_RDWR, 0o600)
	tr.check(err)
	for i := range int64(20) {
		_, err = f.WriteAt([]byte(tr.random(5000)), i<<20)
		tr.check(err)
	}
	tr.check(f.Truncate(64 << 20))
	tr.check(f.Close())
	tr.file("long attribute", "")
	if err := unix.Lsetxattr(tr.path("long attribute"), "user.long", bytes.Repeat([]byte("long"), 700), 0); err != unix.ENOTSUP {
		tr.check(err)
	}
	deep := "deep"
	for range 12 {
		tr.dir(deep)
		deep += "/" + strings.Repeat("d", 120)
	}
	tr.file(deep, "below a path of 1400 bytes")
}

// TestRepositoryInPython restores by spec/examples/repository.py and by bk-restore.
func TestRepositoryInPython(t *testing.T) {
	first, second := twoTrees(t)
	second.fillMore()
	for _, cipher := range ciphers {
		t.Run(cipher, func(t *testing.T) {
			repo := repository(t, cipher, "--chunker", "gear:8KiB", "--chunker-rule", "-")
			backup(t, repo, "--tag", "one", first.top)
			backup(t, repo, second.top)
			backup(t, repo, first.top, second.top)
			for _, snapshot := range snapshotsByPython(t, repo) {
				py, bk := target(t), target(t)
				mustPipe(t, nil, example("repository.py", repo, "restore", snapshot.id, py))
				mustPipe(t, nil, program(t, "bk-restore", "-r", repo, snapshot.id, "--target", bk))
				compareBelow(t, bk, py)
				for _, root := range snapshot.roots {
					compare(t, root, filepath.Join(py, root), nil)
				}
			}
			if n := len(snapshotsByPython(t, repo)); n != 3 {
				t.Errorf("%d snapshots", n)
			}
		})
	}
}

// TestRepositoryOfGo does the same with many ordinary files.
func TestRepositoryOfGo(t *testing.T) {
	source := filepath.Join(runtime.GOROOT(), "src", "net")
	for _, cipher := range ciphers {
		repo := repository(t, cipher)
		backup(t, repo, source)
		py, bk := target(t), target(t)
		mustPipe(t, nil, example("repository.py", repo, "restore", "latest", py))
		mustPipe(t, nil, program(t, "bk-restore", "-r", repo, "latest", "--target", bk))
		compareBelow(t, bk, py)
		compare(t, source, filepath.Join(py, source), nil)
		paths := strings.Count(string(mustPipe(t, nil, example("repository.py", repo, "ls", "latest"))), "\n")
		if n := len(manifest(t, py)); paths != n-1 { // "." has no entry
			t.Errorf("ls names %d paths of %d", paths, n-1)
		}
	}
}

// compareBelow compares what lies in two targets, but not the targets, which have
// no entry in the snapshot.
func compareBelow(t *testing.T, want, got string) {
	t.Helper()
	for _, dir := range []string{want, got} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(dir, time.Time{}, time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
	}
	compare(t, want, got, nil)
}

type pythonSnapshot struct {
	id    string
	roots []string
}

func snapshotsByPython(t *testing.T, repo string) (list []pythonSnapshot) {
	t.Helper()
	for line := range strings.Lines(string(mustPipe(t, nil, example("repository.py", repo, "snapshots")))) {
		words := strings.Fields(line)
		s := pythonSnapshot{id: words[0]}
		for _, word := range words[5:] { // behind the host
			if word = strings.Trim(word, "'"); strings.Contains(word, "/") {
				s.roots = append(s.roots, "/"+word)
			}
		}
		list = append(list, s)
	}
	return list
}

// TestRepositoryImportedInPython reads what bk-import wrote of a stream that a
// foreign program made.
func TestRepositoryImportedInPython(t *testing.T) {
	first, second := twoTrees(t)
	for _, cipher := range ciphers {
		repo := repository(t, cipher)
		t.Setenv("BK_IMPORT_PASSPHRASE", os.Getenv("BK_PASSPHRASE"))
		mustPipe(t, nil, example("producer.py", first.top, second.top), program(t, "bk-import", "-r", repo, "--quiet"))
		for i, want := range []*tree{first, second} {
			out := target(t)
			mustPipe(t, nil, example("repository.py", repo, "restore", snapshotsByPython(t, repo)[i].id, out))
			compare(t, want.top, out, nil)
		}
	}
}

// TestDamagedRepositoryInPython flips a bit of every object in turn: the reader
// may need the object or not, but it never restores anything else than what was
// backed up.
func TestDamagedRepositoryInPython(t *testing.T) {
	tr := newTree(t, "tree")
	tr.file("a", tr.random(10_000))
	tr.file("b", "text")
	repo := repository(t, ciphers[0])
	backup(t, repo, tr.top)
	want := manifest(t, tr.top)
	names := strings.Fields(string(mustPipe(t, nil, exec.Command("find", repo, "-type", "f", "-printf", "%P\n"))))
	if len(names) < 7 { // config, credential, client, two packs or more, index, snapshot
		t.Errorf("%d objects: %q", len(names), names)
	}
	for _, name := range names {
		path := filepath.Join(repo, name)
		whole, err := os.ReadFile(path)
		tr.check(err)
		for _, at := range []int{9, 70, 140, len(whole) - 1} {
			damaged := bytes.Clone(whole)
			damaged[at] ^= 4
			tr.check(os.Remove(path))
			tr.check(os.WriteFile(path, damaged, 0o644))
			out := target(t)
			res := pipe(t, nil, example("repository.py", repo, "restore", "latest", out))
			inPack := strings.HasPrefix(name, "packs/") && at != 140 // only chunks are read, whose keys the index knows
			switch {
			case res.codes[0] == 0 && !inPack:
				t.Errorf("a flipped bit in byte %d of %s went unnoticed", at, name)
			case res.codes[0] == 0:
				if d := cmp.Diff(want, manifest(t, filepath.Join(out, tr.top))); d != "" {
					t.Errorf("with byte %d of %s: %s", at, name, d)
				}
			case res.stderr[0] == "" || strings.Contains(res.stderr[0], "Traceback"):
				t.Errorf("byte %d of %s: %s", at, name, res.stderr[0])
			}
		}
		tr.check(os.WriteFile(path, whole, 0o644))
	}
	for _, c := range []struct {
		passphrase, dir string
		code            int
	}{{"wrong", repo, 12}, {"interop äöü", t.TempDir(), 10}} {
		t.Setenv("BK_PASSPHRASE", c.passphrase)
		if res := pipe(t, nil, example("repository.py", c.dir, "snapshots")); res.codes[0] != c.code {
			t.Errorf("exit code %d, want %d: %s", res.codes[0], c.code, res.stderr[0])
		}
	}
}

// TestRepositoryVectorsInPython opens the vectors of spec/vectors/repo.
func TestRepositoryVectorsInPython(t *testing.T) {
	mustPipe(t, nil, example("repo_vectors.py"))
}
