//go:build interop

package interop

import (
	"bytes"
	"encoding/json"
	"fmt"

	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// borgTarget is a repository that bk-import makes for the real borg.
type borgTarget struct {
	*borgRepo
	work   string   // where borg runs
	states []string // copies of the tree, oldest first
	bk     string   // where they are snapshots
}

func newBorgTarget(t *testing.T) *borgTarget {
	t.Helper()
	r := &borgTarget{borgRepo: newBorgRepo(t, "none"), work: t.TempDir(), bk: filepath.Join(t.TempDir(), "bk")}
	r.dir = filepath.Join(t.TempDir(), "target")
	mustPipe(t, nil, program(t, "bk-init", "-q", "-r", r.bk))
	return r
}

// state makes a snapshot of the tree and keeps a copy of it.
func (r *borgTarget) state() {
	r.t.Helper()
	backup(r.t, r.bk, r.tree.top)
	copied := filepath.Join(r.t.TempDir(), fmt.Sprint("state", len(r.states)))
	r.tree.check(exec.Command("cp", "-a", r.tree.top, copied).Run())
	r.states = append(r.states, copied)
}

// convert runs programs of which the last imports; holes are the only loss.
func (r *borgTarget) convert(cmds ...*exec.Cmd) string {
	r.t.Helper()
	res := pipe(r.t, nil, cmds...)
	for i, code := range res.codes {
		if code != 0 && (i < len(cmds)-1 || code != 3) {
			r.t.Fatalf("%s ended with %d: %s", cmds[i], code, res.stderr[i])
		}
	}
	said := res.stderr[len(cmds)-1]
	if strings.Count(said, "lost: ") != strings.Count(said, "lost: sparse: ") {
		r.t.Errorf("more than holes was lost: %s", said)
	}
	return said
}

func (r *borgTarget) export(args ...string) *exec.Cmd {
	r.t.Helper()
	return program(r.t, "bk-export", append([]string{"-q", "-r", r.bk}, args...)...)
}

func (r *borgTarget) imports(args ...string) *exec.Cmd {
	r.t.Helper()
	return program(r.t, "bk-import", append([]string{"-r", "borg:" + r.dir}, args...)...)
}

// have writes down what the target holds.
func (r *borgTarget) have() string {
	r.t.Helper()
	file := filepath.Join(r.t.TempDir(), "have")
	r.tree.check(os.WriteFile(file, mustPipe(r.t, nil, r.imports("--list-imported")), 0o600))
	return file
}

func (r *borgTarget) archives() []string {
	r.t.Helper()
	return strings.Fields(string(mustPipe(r.t, nil, exec.Command("borg", "list", "--short", r.dir))))
}

// check has the real borg check everything, and compares what it extracts of the
// newest archives with the states of the tree.
func (r *borgTarget) check() {
	r.t.Helper()
	r.borg("check", "--verify-data", r.dir)
	list := r.archives()
	if len(list) != len(r.states) {
		r.t.Fatalf("archives %q for %d states", list, len(r.states))
	}
	for i, name := range list {
		compareExtracted(r.t, r.states[i], r.extractBelow(name))
	}
}

// extractBelow extracts an archive of absolute paths.
func (r *borgTarget) extractBelow(name string) string {
	r.t.Helper()
	out := r.t.TempDir()
	cmd := exec.Command("borg", "extract", r.dir+"::"+name)
	cmd.Dir = out
	if text, err := cmd.CombinedOutput(); err != nil {
		r.t.Fatalf("borg extract: %v\n%s", err, text)
	}
	return filepath.Join(out, r.tree.top)
}

// create has the real borg back the tree up and returns how many bytes it added.
func (r *borgTarget) create(name string) int {
	r.t.Helper()
	out := mustPipe(r.t, nil, exec.Command("borg", "create", "--json", "-C", "zstd,3", r.dir+"::"+name, r.tree.top))
	var said struct {
		Archive struct {
			Stats struct {
				Added int `json:"deduplicated_size"`
			}
		}
	}
	r.tree.check(json.Unmarshal(out, &said))
	return said.Archive.Stats.Added
}

// asBorg is a copy of a state as borg create records it: times before 1970 are
// moved there.
func (r *borgTarget) asBorg(state string) string {
	r.t.Helper()
	copied := filepath.Join(r.t.TempDir(), "as borg")
	r.tree.check(exec.Command("cp", "-a", state, copied).Run())
	r.tree.check(os.Chtimes(filepath.Join(copied, "old"), time.Time{}, time.Unix(0, 0)))
	top, err := os.Stat(state)
	r.tree.check(err)
	r.tree.check(os.Chtimes(copied, time.Time{}, top.ModTime()))
	return copied
}

// TestBorgModes makes a repository of every mode of encryption.
func TestBorgModes(t *testing.T) {
	modes := []string{"repokey-blake2", "keyfile-blake2", "repokey", "keyfile", "authenticated-blake2", "authenticated", "none"}
	for i, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			r := newBorgTarget(t)
			r.tree.fill()
			r.state()
			compression := []string{"keep", "lz4", "none", "zstd,1"}[i%4]
			r.convert(r.export("--all"), r.imports("-o", "encryption="+mode, "-o", "compression="+compression))
			r.check()
			r.convert(r.export("--all"), r.imports("-o", "encryption="+mode))
			res := pipe(t, nil, r.export("--all"), r.imports("-o", "encryption="+modes[(i+1)%len(modes)]))
			if res.codes[1] != 2 || !strings.Contains(res.stderr[1], "there is a repository already") {
				t.Errorf("another mode for a repository that has one: %d, %s", res.codes[1], res.stderr[1])
			}
		})
	}
}

// TestHistoryToBorg converts a history bit by bit, and has borg go on with it.
func TestHistoryToBorg(t *testing.T) {
	for _, chunker := range []string{"buzhash", "keep"} {
		t.Run(chunker, func(t *testing.T) {
			r := newBorgTarget(t)
			r.tree.fill()
			r.tree.file("large", r.tree.random(20_000_000))
			r.tree.check(exec.Command("cp", "-a", filepath.Join(runtime.GOROOT(), "src", "net"), r.tree.path("net")).Run())
			r.state()
			r.tree.change()
			r.tree.check(os.Link(r.tree.path("one"), r.tree.path("four")))
			content, err := os.ReadFile(r.tree.path("large"))
			r.tree.check(err)
			r.tree.file("large", string(content[:9_000_000])+"inserted"+string(content[9_000_000:]))
			r.state()
			r.tree.check(os.RemoveAll(r.tree.path("net")))
			r.tree.check(os.Chmod(r.tree.path("large"), 0o600))
			r.tree.check(os.Link(r.tree.path("four"), r.tree.path("five")))
			r.state()

			r.convert(r.export("latest~2"), r.imports("--chunker", chunker))
			r.convert(r.export("latest~1", "--have", r.have()), r.imports("--chunker", chunker))
			r.convert(r.export("--all", "--have", r.have()), r.imports("--chunker", chunker))
			r.check()
			if said := r.convert(r.export("--all"), r.imports("--chunker", chunker)); !strings.Contains(said, "wrote 0 snapshots, 3 held already") {
				t.Errorf("all of it again: %s", said)
			}
			if said := r.convert(r.export("--all", "--have", r.have()), r.imports("--chunker", chunker)); !strings.Contains(said, "wrote 0 snapshots") {
				t.Errorf("what is new: %s", said)
			}

			// borg finds what it would have cut itself.
			added, most := r.create("again"), 64<<10
			if chunker == "keep" {
				most = 64 << 20
			}
			if added > most {
				t.Errorf("borg create added %d bytes to content that was there", added)
			}
			r.states = append(r.states, r.asBorg(r.states[2]))
			r.tree.file("later", "one more\n")
			r.state()
			r.convert(r.export("latest", "--have", r.have()), r.imports("--chunker", chunker))
			r.borg("delete", r.dir+"::"+r.archives()[0])
			r.borg("compact", "--threshold", "0", r.dir)
			r.states = r.states[1:]
			r.check()
		})
	}
}

// TestAppendToBorg imports into a repository that borg itself has made and used,
// with lock and without, and with what an interrupted backup leaves.
func TestAppendToBorg(t *testing.T) {
	for _, mode := range []string{"repokey", "keyfile-blake2"} {
		t.Run(mode, func(t *testing.T) {
			r := newBorgTarget(t)
			r.borg("init", "-e", mode, r.dir)
			r.tree.fill()
			r.create("by-borg")
			r.create("doomed")
			r.borg("delete", r.dir+"::doomed")
			r.state()
			r.state()
			r.borg("compact", r.dir)
			r.convert(r.export("latest"), r.imports())
			r.states[0] = r.asBorg(r.states[0])
			r.check()

			// borg's own counters go on where ours end, and the other way round.
			r.tree.file("new", r.tree.random(100_000))
			r.create("by-borg-again")
			r.states = append(r.states, r.asBorg(r.tree.top))
			r.tree.file("new", r.tree.random(100_000))
			r.state()
			r.convert(r.export("latest"), r.imports())

			r.state()
			stream := mustPipe(t, nil, r.export("latest"))
			file := filepath.Join(t.TempDir(), "stream")
			r.tree.check(os.WriteFile(file, stream, 0o600))
			cmd := exec.Command("borg", "with-lock", r.dir, "sh", "-c", `exec "$0" -r "$1" < "$2"`, r.imports().Path, "borg:"+r.dir, file)
			if out, err := cmd.CombinedOutput(); err == nil || !bytes.Contains(out, []byte("it is locked")) {
				t.Errorf("a locked repository: %v\n%s", err, out)
			}
			r.states = r.states[:len(r.states)-1]

			// What was not committed goes, as with borg.
			data := filepath.Join(r.dir, "data", "0")
			list, err := os.ReadDir(data)
			r.tree.check(err)
			most := 0
			for _, f := range list {
				var n int
				fmt.Sscan(f.Name(), &n)
				most = max(most, n)
			}
			r.tree.check(os.WriteFile(filepath.Join(data, fmt.Sprint(most+1)), []byte("BORG_SEG and what was not finished"), 0o600))
			r.state()
			r.convert(r.export("latest"), r.imports())
			r.check()
		})
	}
}

// TestOthersToBorg converts from restic and from borg itself, and back.
func TestOthersToBorg(t *testing.T) {
	t.Run("restic", func(t *testing.T) {
		from := newResticRepo(t)
		from.tree.fill()
		from.backup()
		from.tree.change()
		from.backup()
		r := newBorgTarget(t)
		r.states, r.tree.top = from.states, "/tree"
		r.convert(program(t, "bk-export", "-q", "-r", "restic:"+from.dir, "--all"), r.imports())
		r.borg("check", "--verify-data", r.dir)
		for i, name := range r.archives() {
			compareRestored(t, r.states[i], r.extractBelow(name))
		}
	})
	t.Run("borg", func(t *testing.T) {
		from := newBorgRepo(t, "repokey")
		from.tree.fill()
		from.borg("create", "--comment", "the first", from.dir+"::first", "tree")
		from.tree.change()
		from.borg("create", from.dir+"::second", "tree")
		want := []string{from.extract("first"), from.extract("second")}
		r := newBorgTarget(t)
		t.Setenv("BORG_PASSPHRASE", "of borg")
		from.borg("key", "change-passphrase", from.dir) // asks nothing with the same one in the environment
		r.convert(program(t, "bk-export", "-q", "-r", "borg:"+from.dir, "--all"), r.imports("-o", "encryption=repokey-blake2"))
		r.borg("check", "--verify-data", r.dir)
		if got := strings.Join(r.archives(), " "); got != "first second" {
			t.Errorf("archives %s", got)
		}
		for i, name := range []string{"first", "second"} {
			compareExtracted(t, want[i], r.extract(name))
		}
		if said := string(mustPipe(t, nil, exec.Command("borg", "info", r.dir+"::first"))); !strings.Contains(said, "the first") {
			t.Errorf("borg info: %s", said)
		}
		// Back again: nothing has become different.
		back := filepath.Join(t.TempDir(), "back")
		r.convert(program(t, "bk-export", "-q", "-r", "borg:"+r.dir, "--all"), program(t, "bk-import", "-q", "-r", "borg:"+back))
		out := mustPipe(t, nil, program(t, "bk-diff", "-q", "-r", "borg:"+from.dir, "--with", "borg:"+back))
		if len(out) > 0 {
			t.Errorf("there and back again: %s", out)
		}
	})
}

// TestKilledImportToBorg kills an import in its midst: borg takes what was there
// before, and the same again completes it.
func TestKilledImportToBorg(t *testing.T) {
	r := newBorgTarget(t)
	r.tree.fill()
	r.state()
	r.tree.file("large", r.tree.random(30_000_000))
	r.state()
	stream := mustPipe(t, nil, r.export("--all"))
	for _, kill := range []bool{true, false} {
		cmd := r.imports()
		in, err := cmd.StdinPipe()
		r.tree.check(err)
		var said bytes.Buffer
		cmd.Stderr = &said
		r.tree.check(cmd.Start())
		_, err = in.Write(stream[:len(stream)*3/4])
		r.tree.check(err)
		if kill {
			time.Sleep(300 * time.Millisecond)
			r.tree.check(cmd.Process.Kill())
		} else {
			r.tree.check(in.Close())
		}
		if err := cmd.Wait(); err == nil {
			t.Error("a stream that was cut off was taken")
		}
		if !kill && cmd.ProcessState.ExitCode() != 4 {
			t.Errorf("a stream that was cut off ended with %d: %s", cmd.ProcessState.ExitCode(), said.String())
		}
		r.borg("check", "--verify-data", r.dir)
		if n := len(r.archives()); n != 1 {
			t.Errorf("%d archives", n)
		}
		if list, err := filepath.Glob(filepath.Join(r.dir, "lock*")); err != nil || len(list) > 0 {
			t.Errorf("left behind: %q %v", list, err)
		}
	}
	mustImport := r.imports()
	mustImport.Stdin = bytes.NewReader(stream)
	out, err := mustImport.CombinedOutput()
	if code := mustImport.ProcessState.ExitCode(); code != 3 {
		t.Fatalf("again: %v\n%s", err, out)
	}
	r.check()
}

// TestRecreatedInBorg has borg change what was imported: it is not taken for a
// parent any more, and not imported again.
func TestRecreatedInBorg(t *testing.T) {
	r := newBorgTarget(t)
	r.tree.fill()
	r.state()
	r.convert(r.export("latest"), r.imports())
	r.borg("recreate", "--exclude", "*.jpg", r.dir)
	have, err := os.ReadFile(r.have())
	r.tree.check(err)
	if !strings.Contains(string(have), " -") {
		t.Errorf("the list of what is held does not say that it was changed: %s", have)
	}
	if said := r.convert(r.export("--all"), r.imports()); !strings.Contains(said, "1 held already") {
		t.Errorf("it came again: %s", said)
	}
	r.borg("check", "--verify-data", r.dir)
}
