//go:build interop

package interop

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// backupSummary is what bk-backup says of itself.
type backupSummary struct {
	New       uint64 `json:"entries_new"`
	Unchanged uint64 `json:"entries_unchanged"`
	Removed   uint64 `json:"entries_removed"`
	Read      uint64 `json:"bytes_read"`
	BytesNew  uint64 `json:"bytes_new"`
}

// backupOf backs a tree up and says how that was.
func backupOf(t *testing.T, bk, top string, flags ...string) (s backupSummary) {
	t.Helper()
	out := pipe(t, nil, program(t, "bk-backup", append([]string{"-q", "--json", "-r", bk, top}, flags...)...))
	lines := strings.Split(strings.TrimSpace(out.stderr[0]), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &s); err != nil || out.codes[0] != 0 {
		t.Fatalf("ended with %d, %v: %s", out.codes[0], err, out.stderr[0])
	}
	return s
}

// overwrite changes a part of a file.
func (tr *tree) overwrite(name string, offset int64, with string) {
	tr.t.Helper()
	f, err := os.OpenFile(tr.path(name), os.O_RDWR, 0)
	tr.check(err)
	_, err = f.WriteAt([]byte(with), offset)
	tr.check(err)
	tr.check(f.Close())
}

// TestGoingOnAfterRestic imports restic's history of a real tree, and goes on
// with bk: what did not change is not read, whichever way restic was told where
// the tree is, and what changes shares its other chunks with what was imported.
func TestGoingOnAfterRestic(t *testing.T) {
	for _, c := range []struct {
		why  string
		args func(top string) (dir, arg string) // of restic
	}{
		{"absolute", func(top string) (string, string) { return "/", top }},
		{"relative", func(top string) (string, string) { return filepath.Dir(top), filepath.Base(top) }},
		{"the working directory", func(top string) (string, string) { return top, "." }},
	} {
		t.Run(c.why, func(t *testing.T) {
			r := newResticRepo(t)
			r.tree.fill()
			r.tree.file("big", r.tree.random(12<<20))
			r.tree.check(os.Link(r.tree.path("big"), r.tree.path("big too")))
			dir, arg := c.args(r.tree.top)
			cmd := exec.Command("restic", "--quiet", "--no-cache", "-r", r.dir, "backup", arg)
			cmd.Dir = dir
			mustPipe(t, nil, cmd)

			bk := filepath.Join(t.TempDir(), "bk")
			mustPipe(t, nil, program(t, "bk-init", "-q", "-r", bk, "--chunker-from", "restic:"+r.dir))
			mustPipe(t, nil, program(t, "bk-export", "-q", "-r", "restic:"+r.dir, "--all"), program(t, "bk-import", "-q", "-r", bk))
			// Above the tree lie directories that restic has only if it was given
			// the whole path.
			if s := backupOf(t, bk, r.tree.top); s.Read != 0 || s.BytesNew != 0 || s.Unchanged < 15 || s.New > 10 || s.Removed != 0 {
				t.Errorf("the first backup: %+v", s)
			}
			r.tree.overwrite("big", 6<<20, "changed")
			if s := backupOf(t, bk, r.tree.top); s.Read != 12<<20 || s.BytesNew == 0 || s.BytesNew > 8<<20 {
				t.Errorf("after a change in the middle: %+v", s)
			}
			out := filepath.Join(t.TempDir(), "out")
			mustPipe(t, nil, program(t, "bk-restore", "-q", "-r", bk, "--target", out, "latest"))
			compareRestored(t, r.tree.top, filepath.Join(out, r.tree.top))
		})
	}
}
