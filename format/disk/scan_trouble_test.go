package disk

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/bk-backup/bk/format"
)

// lossesOf returns the losses by kind with their paths below the root.
func lossesOf(got *scanned, root string) map[string][]string {
	losses := map[string][]string{}
	for _, l := range got.commit.Losses {
		for _, p := range l.Paths {
			losses[l.Kind] = append(losses[l.Kind], strings.TrimPrefix("/"+p, root+"/"))
		}
		if int(l.Count) < len(l.Paths) {
			losses["count"] = nil
		}
	}
	return losses
}

func TestScanVanishing(t *testing.T) {
	tree := newTestTree(t)
	for _, name := range []string{"a/gone", "a/stays", "b/now-link", "c/now-dir", "d/x", "hl/first", "z"} {
		tree.file(name, "content of "+name)
	}
	tree.link("hl/second", "hl/first")
	tree.symlink("e/link", "target")
	base := scan(t, nil, ScanOptions{Roots: []string{tree.root}}).model
	for p, f := range base {
		if strings.HasPrefix("/"+p, tree.root+"/") {
			f.Ctime.Sec-- // so that all is looked at again
		}
	}
	base[tree.root[1:]+"/b/now-link/below"] = &listed{Entry: format.Entry{Path: tree.root[1:] + "/b/now-link/below", Type: format.TypeFifo}}
	o := ScanOptions{Roots: []string{tree.root}, Workers: 1, afterWalk: func(path string) {
		p := "/" + path
		switch strings.TrimPrefix(p, tree.root+"/") {
		case "a/gone", "e/link", "hl/first":
			tree.made(os.Remove(p))
		case "b/now-link":
			tree.made(os.Remove(p))
			tree.made(os.Symlink("../z", p))
		case "c/now-dir":
			tree.made(os.Remove(p))
			tree.made(os.Mkdir(p, 0o755))
		case "d/x":
			tree.made(os.RemoveAll(filepath.Dir(p)))
		}
	}}
	got := scan(t, base, o)
	want := map[string][]string{LossVanished: {"a/gone", "b/now-link", "c/now-dir", "d/x", "e/link", "hl/first"}}
	if d := cmp.Diff(want, lossesOf(got, tree.root)); d != "" {
		t.Errorf("losses (-want +got):\n%s", d)
	}
	if len(got.errors) != 6 {
		t.Errorf("reported: %q", got.errors)
	}
	for name, content := range map[string]string{"a/stays": "content of a/stays", "z": "content of z", "hl/second": "content of hl/first"} {
		if f := got.model[tree.root[1:]+"/"+name]; f == nil || f.Content != content {
			t.Errorf("%s came as %+v", name, f)
		}
	}
	for _, name := range want[LossVanished] {
		if got.model[tree.root[1:]+"/"+name] != nil {
			t.Errorf("%s is still in the listing", name)
		}
	}
}

func TestScanChanging(t *testing.T) {
	tree := newTestTree(t)
	tree.file("before", "old")
	large := tree.file("large", random(1, 20<<20))
	tree.file("shrinks", random(2, 20<<20))
	o := ScanOptions{Roots: []string{tree.root}, afterWalk: func(path string) {
		if strings.HasSuffix(path, "/before") {
			// Between the walk and the reading nothing is lost yet.
			tree.file("before", "new and longer")
		}
	}}
	// The stream of a large file stops when its window is full; it is changed then.
	o.ChunkerFor, o.Snapshot.ID = testChunkerFor, format.ID{1}
	s, err := Scan(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	got := &scanned{model: model{}}
	r := newReceiver(t, got)
	for !r.ended {
		rec, err := s.Next()
		if err != nil {
			t.Fatal(err)
		}
		r.take(rec)
		if rec.Kind() == format.KindData && strings.HasSuffix(r.file.Path, "/large") && len(r.file.Chunks) == 1 {
			f, err := os.OpenFile(large, os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.WriteString("more")
			tree.made(err)
			f.Close()
		}
		if rec.Kind() == format.KindData && strings.HasSuffix(r.file.Path, "/shrinks") && len(r.file.Chunks) == 1 {
			tree.made(os.Truncate(tree.path("shrinks"), 1000))
		}
	}
	if d := cmp.Diff(map[string][]string{LossChanged: {"large", "shrinks"}}, lossesOf(got, tree.root)); d != "" {
		t.Errorf("losses (-want +got):\n%s", d)
	}
	if f := got.model[tree.root[1:]+"/before"]; f.Content != "new and longer" || f.Size != uint64(len(f.Content)) {
		t.Errorf("what changed before it was read came as %+v", f)
	}
	if f := got.model[large[1:]]; f.Content != random(1, 20<<20) {
		t.Errorf("what grew came with %d bytes", len(f.Content))
	}
	if f := got.model[tree.root[1:]+"/shrinks"]; f.Size != 20<<20 || f.EOF.Size >= f.Size || f.EOF.Size < 1000 {
		t.Errorf("what shrank came with %d bytes, %+v", len(f.Content), f.EOF)
	}
}

// TestScanUnreadableContent reads a file that fails for everybody.
func TestScanUnreadableContent(t *testing.T) {
	got := scan(t, nil, ScanOptions{Roots: []string{"/proc/self/mem"}})
	var mem *listed
	for p, f := range got.model {
		if strings.HasSuffix(p, "/mem") {
			mem = f
		}
	}
	if mem == nil || !strings.Contains(mem.EOF.Error, "read at byte 0: input/output error") {
		t.Fatalf("it came as %+v", mem)
	}
	if len(got.commit.Losses) != 1 || got.commit.Losses[0].Kind != LossUnreadable || len(got.errors) != 1 {
		t.Errorf("losses %v, %q", got.commit.Losses, got.errors)
	}
}

// TestScanForbidden is run by a user who may not read all. As root it begins a
// process of another user for that.
func TestScanForbidden(t *testing.T) {
	const variable = "BK_TEST_FORBIDDEN_ROOT"
	if root := os.Getenv(variable); root != "" {
		scanForbidden(t, root)
		return
	}
	tree := newTestTree(t)
	tree.file("file", "content")
	tree.file("secret", "content")
	tree.file("locked/x", "content")
	tree.file("passable/x", "content")
	tree.xattr(tree.path("secret"), "user.hidden", "value")
	t.Cleanup(func() { os.Chmod(tree.path("locked"), 0o755) })
	tree.made(os.Chmod(tree.path("secret"), 0))
	tree.made(os.Chmod(tree.path("locked"), 0))
	tree.made(os.Chmod(tree.path("passable"), 0o711))
	if os.Geteuid() != 0 {
		scanForbidden(t, tree.root)
		return
	}
	// Temporary directories of a test are open to all but for the first.
	for dir := tree.root; dir != os.TempDir() && len(dir) > 1; dir = filepath.Dir(dir) {
		tree.made(os.Chmod(dir, 0o755))
	}
	program := filepath.Join(filepath.Dir(tree.root), "program")
	binary, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	tree.made(os.WriteFile(program, binary, 0o755))
	cmd := exec.Command(program, "-test.run=^TestScanForbidden$", "-test.v")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), variable+"="+tree.root, "GOCOVERDIR=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65533, Gid: 65533}}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestScanForbidden") {
		t.Errorf("as another user: %v\n%s", err, out)
	}
}

func scanForbidden(t *testing.T, root string) {
	got := scan(t, nil, ScanOptions{Roots: []string{root}})
	want := map[string][]string{LossUnreadable: {"locked", "secret"}}
	if os.Geteuid() == 65533 {
		want[LossUnreadable] = []string{"locked", "passable", "secret"}
	}
	if d := cmp.Diff(want, lossesOf(got, root)); d != "" {
		t.Errorf("losses (-want +got):\n%s", d)
	}
	if f := got.model[root[1:]+"/file"]; f == nil || f.Content != "content" {
		t.Errorf("file came as %+v", f)
	}
	if f := got.model[root[1:]+"/locked"]; f == nil || f.Mode != 0 {
		t.Errorf("locked came as %+v", f)
	}
	if got.model[root[1:]+"/secret"] != nil {
		t.Error("what cannot be opened is in the listing")
	}
	// A root below a directory that may be passed, not listed.
	got = scan(t, nil, ScanOptions{Roots: []string{root + "/passable/x"}})
	if f := got.model[root[1:]+"/passable/x"]; f == nil || f.Content != "content" || len(got.errors) > 0 {
		t.Errorf("below a directory that may only be passed: %+v, %q", f, got.errors)
	}
}

func TestScanLossesAreBounded(t *testing.T) {
	tree := newTestTree(t)
	const files = 3 * format.LossPathsMax
	for i := range files {
		tree.file(fmt.Sprintf("%03d", i), "x")
	}
	got := scan(t, nil, ScanOptions{Roots: []string{tree.root}, afterWalk: func(path string) { tree.made(os.Remove("/" + path)) }})
	losses := lossesOf(got, tree.root)[LossVanished]
	if got.commit.Losses[0].Count != files || len(losses) != format.LossPathsMax || len(got.errors) != files || !slices.IsSorted(losses) {
		t.Errorf("losses %+v, %d reported", got.commit.Losses, len(got.errors))
	}
}

// TestScanSettles writes to a file right after it was read, without its size or
// mtime giving that away.
func TestScanSettles(t *testing.T) {
	tree := newTestTree(t)
	path := tree.path("file")
	for i := range 20 {
		tree.file("file", fmt.Sprintf("%04d", 2*i))
		tree.mtime(path, 1e9, 0)
		first := scan(t, nil, ScanOptions{Roots: []string{path}})
		tree.file("file", fmt.Sprintf("%04d", 2*i+1))
		tree.mtime(path, 1e9, 0)
		second := scan(t, first.model, ScanOptions{Roots: []string{path}})
		if f := second.model[path[1:]]; f.Content != fmt.Sprintf("%04d", 2*i+1) {
			t.Fatalf("round %d: the change was not seen", i)
		}
	}
}

// TestSettle has files that were written to just now, long ago, and, by a clock
// that goes ahead, tomorrow.
func TestSettle(t *testing.T) {
	now := time.Now()
	r := newReader(&Scanner{ctx: t.Context(), options: ScanOptions{Now: func() time.Time { return now }}})
	for before, want := range map[time.Duration]bool{
		0: true, time.Millisecond: true, tickMax - 1: true, tickMax: false, time.Hour: false, -time.Hour: false,
	} {
		begin := time.Now()
		if got := r.settle(format.TimeOf(now.Add(-before))); got != want || got && time.Since(begin) < tickMax-before {
			t.Errorf("written to %v ago: %v after %v", before, got, time.Since(begin))
		}
	}
}

func TestTroubleNamesWhatWasAttempted(t *testing.T) {
	got := troubleOf("open", "home/u/x", unix.EACCES)
	if got.loss != LossUnreadable || got.err.Error() != "open /home/u/x: permission denied" {
		t.Errorf("%+v", got)
	}
}
