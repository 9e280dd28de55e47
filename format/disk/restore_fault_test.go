//go:build linux

package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/bk-backup/bk/format"
)

func TestRestoreDiskFull(t *testing.T) {
	needRoot(t)
	dir := tempDir(t)
	if err := unix.Mount("bk-test", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skip("no file system can be mounted here: ", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	for name, content := range map[string][]run{
		"a large file":      {chunk(strings.Repeat("x", 700<<10)), chunk(strings.Repeat("y", 700<<10))},
		"chunks kept aside": {chunk(strings.Repeat("x", 300<<10))},
	} {
		s := newScript().snapshot("a", "").dir("d", 0o755)
		for i := range 5 {
			s.file(fmt.Sprintf("d/%d", i), content)
		}
		target := filepath.Join(dir, "target")
		sum, err := restore(t, target, RestoreOptions{}, s.commit().end())
		var stopped *TargetError
		if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), target+"/d/") || !errors.As(err, &stopped) {
			t.Errorf("%s: %v", name, err)
		} else if fix := stopped.FixText(); !strings.Contains(fix, "make room on the file system of "+target+" ") {
			t.Errorf("%s: to fix: %s", name, fix)
		}
		if len(sum.Losses) > 0 {
			t.Errorf("%s: what the full disk stopped is a loss, too: %+v", name, sum.Losses)
		}
		if err := os.RemoveAll(target); err != nil {
			t.Fatal(err)
		}
	}
	// What else could not be written is named all the same.
	var problems []string
	s := newScript().snapshot("a", "").file(strings.Repeat("n", 256), text("x"))
	for i := range 5 {
		s.file(fmt.Sprintf("x%d", i), []run{chunk(strings.Repeat(fmt.Sprint(i), 300<<10))})
	}
	sum, err := restore(t, filepath.Join(dir, "target"), RestoreOptions{
		OnProblem: func(p Problem) { problems = append(problems, fmt.Sprintf("%s %.3s", p.Kind, p.Path)) },
	}, s.commit().end())
	if want := []string{"unwritable nnn"}; !errors.Is(err, unix.ENOSPC) || !slices.Equal(problems, want) || len(sum.Losses) != 1 || sum.Losses[0].Count != 1 {
		t.Errorf("%v; %v, %+v", err, problems, sum.Losses)
	}
	for what, make := range map[string]func() error{
		"a target": func() error {
			_, err := NewRestore(context.Background(), filepath.Join(dir, "new"), RestoreOptions{})
			return err
		},
		"a rehearsal": func() error {
			_, err := Rehearse(context.Background(), filepath.Join(dir, "new"), nil, RestoreOptions{})
			return err
		},
	} {
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
		var stopped *TargetError
		if err := make(); !errors.As(err, &stopped) || stopped.Target != filepath.Join(dir, "new") || !strings.Contains(stopped.FixText(), "writable") {
			t.Errorf("%s on what is read-only: %v", what, err)
		}
	}
}

// TestRestoreResume cuts a stream off after every record, and then restores all
// of it: whatever the first run left, the second one ends right.
func TestRestoreResume(t *testing.T) {
	s := newScript().snapshot("a", "").
		dir("d", 0o555).file("d/1", text("one"), hardlink("g")).file("d/2", []run{ref("one")}, hardlink("g")).
		file("d/3", []run{chunk("33"), hole(4), chunk("3")}).symlink("d/4", "3").object("d/5", format.TypeFifo, 0o600).
		dir("e", 0o700).file("e/1", []run{ref("33"), once("x")}).
		commit().end()
	whole := tempDir(t)
	mustRestore(t, whole, RestoreOptions{}, s)
	want := tree(t, whole)
	for n := range s.recs {
		dir := tempDir(t)
		if _, err := restore(t, dir, RestoreOptions{}, &script{recs: s.recs[:n]}); err != nil {
			t.Fatal(err)
		}
		mustRestore(t, dir, RestoreOptions{}, s)
		if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
			t.Errorf("cut off after %d records: %s", n, diff)
		}
	}
}

// TestRestoreKilled ends a restore with SIGKILL at various moments. What looks
// like an entry by size and time must have its content.
func TestRestoreKilled(t *testing.T) {
	s := manyFiles()
	for i := range 8 {
		dir := tempDir(t)
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestRestoreKilledHelper$")
		cmd.Env = append(os.Environ(), "BK_TEST_TARGET="+dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for len(listNames(t, dir)) < 1+20*i {
			if cmd.ProcessState != nil {
				break
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		for _, name := range listNames(t, dir) {
			p := filepath.Join(dir, name)
			info, err := os.Stat(p)
			if err != nil {
				t.Fatal(err)
			}
			if format.TimeOf(info.ModTime()) == testTime && read(t, p) != strings.Repeat(name, 10000) {
				t.Errorf("%s looks right and is not", name)
			}
		}
		mustRestore(t, dir, RestoreOptions{}, s)
		for _, name := range listNames(t, dir) {
			if read(t, filepath.Join(dir, name)) != strings.Repeat(name, 10000) {
				t.Errorf("%s is wrong in the end", name)
			}
		}
	}
}

func manyFiles() *script {
	s := newScript().snapshot("a", "")
	for i := range 200 {
		name := fmt.Sprintf("%03d", i)
		s.file(name, text(strings.Repeat(name, 10000)))
	}
	return s.commit().end()
}

func listNames(t *testing.T, dir string) []string {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestRestoreKilledHelper is the process that TestRestoreKilled kills.
func TestRestoreKilledHelper(t *testing.T) {
	target := os.Getenv("BK_TEST_TARGET")
	if target == "" {
		t.Skip("it is run by TestRestoreKilled")
	}
	mustRestore(t, target, RestoreOptions{}, manyFiles())
}

// TestRestoreUnprivileged runs a part of the tests again as an ordinary user,
// and what concerns such a user alone.
func TestRestoreUnprivileged(t *testing.T) {
	if os.Geteuid() != 0 {
		unprivileged(t)
		return
	}
	dir, err := os.MkdirTemp("", "bk-user-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	const user = 12345
	if err := os.Chown(dir, user, user); err != nil {
		t.Fatal(err)
	}
	// By way of /proc, since the program lies where that user cannot go.
	cmd := exec.Command("/proc/self/exe", "-test.run=^Test(RoundTrip|Restore(Unprivileged|As|Refs|Hard|Chain|Unsorted|Random|Resume|Overwrite|Metadata|Keeps|Verify))")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user, NoSetGroups: true}}
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("as an ordinary user: %v\n%s", err, out)
	}
}

func unprivileged(t *testing.T) {
	dir := tempDir(t)
	write(t, filepath.Join(dir, "locked/x"), "x")
	if err := os.Chmod(filepath.Join(dir, "locked"), 0o500); err != nil {
		t.Fatal(err)
	}
	s := newScript().snapshot("a", "").
		object("char", format.TypeChar, 0o600, func(e *format.Entry) { e.Rdev.Major = 1 }).
		dir("d", 0o755, owned(1, 1)).
		file("d/foreign", text("x"), owned(1, 1), mode(0o4755)).
		file("d/trusted", text("x"), xattr("trusted.a", "b"), xattr("user.a", "b"), mode(0o400)).
		dir("hidden", 0).file("hidden/f", text("hidden"), mode(0)).
		file("locked/y", text("y")).
		file("see", []run{ref("hidden")}).
		symlink("t", "x", owned(1, 1)).
		commit().end()
	sum, err := restore(t, dir, RestoreOptions{}, s)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := lossKinds(sum), "device:1 mode:1 owner:3 xattr:1"; got != want {
		t.Errorf("losses %q, not %q: %v", got, want, sum.Losses)
	}
	if err := os.Chmod(filepath.Join(dir, "hidden"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "hidden/f"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := tree(t, dir)
	want := map[string]string{
		"d": "dir 0755", "d/foreign": `file 0755 "x"`, "d/trusted": `file 0400 "x" user.a=62`,
		"hidden/f": `file 0600 "hidden"`, "locked/y": `file 0644 "y"`, "see": `file 0644 "hidden"`, "t": "link 0777 -> x",
	}
	for _, p := range []string{"hidden", "locked", "locked/x"} {
		delete(got, p)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if info, err := os.Stat(filepath.Join(dir, "locked")); err != nil || info.Mode().Perm() != 0o500 {
		t.Errorf("a directory of the target that is only passed through: %v, %v", info.Mode(), err)
	}
}

// chunkStore is a content source in memory.
type chunkStore struct {
	mu     sync.Mutex
	chunks map[format.ID]string
	bad    map[format.ID]bool
	calls  int
	fail   error
}

func (c *chunkStore) put(text string) run {
	if c.chunks == nil {
		c.chunks = make(map[format.ID]string)
	}
	c.chunks[format.SumID([]byte(text))] = text
	return ref(text)
}

// ReadChunks delivers backwards, and from two goroutines.
func (c *chunkStore) ReadChunks(_ context.Context, refs []format.ChunkRef, fn func(int, []byte, error) error) error {
	c.mu.Lock()
	c.calls++
	c.mu.Unlock()
	if c.fail != nil {
		return c.fail
	}
	var wg sync.WaitGroup
	errs := make([]error, 2)
	for half := range 2 {
		wg.Go(func() {
			for i := len(refs) - 1; i >= 0; i-- {
				if i%2 != half || errs[half] != nil {
					continue
				}
				text, ok := c.chunks[refs[i].ID]
				if !ok || c.bad[refs[i].ID] {
					errs[half] = fn(i, nil, fmt.Errorf("chunk %s is gone", refs[i].ID.Short()))
					continue
				}
				errs[half] = fn(i, []byte(text), nil)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func contentScript(c *chunkStore) (*script, map[string]string) {
	s := newScript(format.FeatureHeld).snapshot("a", "")
	want := make(map[string]string)
	for i := range 300 {
		name := fmt.Sprintf("%03d", i)
		var runs []run
		var b bytes.Buffer
		for j := range i % 7 {
			text := strings.Repeat(fmt.Sprintf("%d.%d ", i/3, j), 100*j+1)
			runs = append(runs, c.put(text))
			b.WriteString(text)
			if i%5 == 0 {
				runs = append(runs, hole(7))
				b.WriteString("\x00\x00\x00\x00\x00\x00\x00")
			}
		}
		want[name] = b.String()
		option := func(*format.Entry) {}
		if i%10 == 3 || i%10 == 4 {
			option = hardlink(fmt.Sprint(i / 10))
		}
		s.file(name, runs, option)
	}
	big := strings.Repeat("big", 1<<20)
	var runs []run
	for range 7 { // 21 MiB: more than a load takes
		runs = append(runs, c.put(big))
	}
	s.file("big", runs)
	want["big"] = strings.Repeat(big, 7)
	return s.commit().end(), want
}

func TestRestoreFromContentSource(t *testing.T) {
	for name, opts := range map[string]RestoreOptions{"plain": {}, "one worker": {Workers: 1}, "verify": {Verify: true}} {
		t.Run(name, func(t *testing.T) {
			var c chunkStore
			s, want := contentScript(&c)
			opts.Content = &c
			dir := tempDir(t)
			mayLose := opts
			sum, err := restore(t, dir, mayLose, s)
			if err != nil || strings.Trim(lossKinds(sum), "hardlink:0123456789") != "" {
				t.Fatal(err, sum.Losses)
			}
			for p, text := range want {
				if read(t, filepath.Join(dir, p)) != text {
					t.Errorf("%s is wrong", p)
				}
			}
			calls := c.calls
			if _, err = restore(t, dir, mayLose, s); err != nil {
				t.Fatal(err)
			}
			if name != "verify" && c.calls > calls {
				t.Error("chunks were read for files that are there")
			}
		})
	}
}

func TestRestoreFromDamagedContentSource(t *testing.T) {
	var c chunkStore
	s := newScript(format.FeatureHeld).snapshot("a", "").
		file("a", []run{c.put("good"), c.put("bad"), c.put("end")}).
		file("b", []run{c.put("good")}).
		file("c", []run{c.put("bad")}).
		commit().end()
	c.bad = map[format.ID]bool{format.SumID([]byte("bad")): true}
	dir := tempDir(t)
	write(t, filepath.Join(dir, "c"), "an older version")
	var named []string
	sum, err := restore(t, dir, RestoreOptions{Content: &c, OnProblem: func(p Problem) { named = append(named, p.Path) }}, s)
	if err != nil || len(named) != 2 || read(t, filepath.Join(dir, "b")) != "good" {
		t.Errorf("%v, losses %v", err, sum.Losses)
	}
	if got := read(t, filepath.Join(dir, "a")); got != "good\x00\x00\x00end" {
		t.Errorf("a holds %q", got)
	}
	if describe(t, filepath.Join(dir, "a")) == `file 0644 "good\x00\x00\x00end"` {
		t.Error("a looks complete")
	}
	if got := read(t, filepath.Join(dir, "c")); got != "an older version" {
		t.Errorf("c holds %q", got)
	}
	c.fail = errors.New("the storage is gone")
	if _, err := restore(t, tempDir(t), RestoreOptions{Content: &c}, s); !errors.Is(err, c.fail) {
		t.Errorf("got %v", err)
	}
}
