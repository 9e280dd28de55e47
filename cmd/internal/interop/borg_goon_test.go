//go:build interop

package interop

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestGoingOnAfterBorg imports borg's history of a real tree, and goes on with bk:
// what did not change is not read, and what changes shares its other chunks with
// what was imported.
func TestGoingOnAfterBorg(t *testing.T) {
	for _, c := range []struct {
		why, encryption string
		args            func(top string) (dir, arg string) // of borg
		flags           []string                           // of the first backup
	}{
		{"absolute", "repokey", func(top string) (string, string) { return "/", top }, nil},
		{"without encryption", "none", func(top string) (string, string) { return "/", top }, nil},
		// borg 1.2 does not write down where it ran.
		{"relative", "keyfile-blake2", func(top string) (string, string) {
			return filepath.Dir(filepath.Dir(top)), filepath.Join(filepath.Base(filepath.Dir(top)), filepath.Base(top))
		}, []string{"--parent", "latest"}},
		{"the working directory", "repokey-blake2", func(top string) (string, string) { return top, "." }, []string{"--parent", "latest"}},
	} {
		t.Run(c.why, func(t *testing.T) {
			r := newBorgRepo(t, c.encryption)
			r.tree.fill()
			r.tree.file("big", r.tree.random(12<<20))
			r.tree.check(os.Link(r.tree.path("big"), r.tree.path("big too")))
			// borg cannot hold times before 1970.
			r.tree.check(os.Chtimes(r.tree.path("old"), time.Time{}, time.Unix(1_000_000_000, 5)))
			dir, arg := c.args(r.tree.top)
			for _, name := range []string{"first", "second"} {
				cmd := exec.Command("borg", "create", r.dir+"::"+name, arg)
				cmd.Dir = dir
				mustPipe(t, nil, cmd)
			}

			bk := filepath.Join(t.TempDir(), "bk")
			mustPipe(t, nil, program(t, "bk-init", "-q", "-r", bk, "--chunker-from", "borg:"+r.dir))
			mustPipe(t, nil, program(t, "bk-export", "-q", "-r", "borg:"+r.dir, "--all"), program(t, "bk-import", "-q", "-r", bk))
			// Above the tree lie directories that borg does not have, and in it a socket.
			s := backupOf(t, bk, r.tree.top, append(c.flags, "--ignore-inode")...)
			if s.Read != 0 || s.BytesNew != 0 || s.Unchanged < 15 || s.New > 10 || s.Removed != 0 {
				t.Errorf("the first backup: %+v", s)
			}
			// Numbers of inodes are known since then.
			r.tree.overwrite("big", 6<<20, "changed")
			if s := backupOf(t, bk, r.tree.top); s.Read != 12<<20 || s.BytesNew == 0 || s.BytesNew > 8<<20 {
				t.Errorf("after a change in the middle: %+v", s)
			}
			out := filepath.Join(t.TempDir(), "out")
			mustPipe(t, nil, program(t, "bk-restore", "-q", "-r", bk, "--target", out, "latest"))
			compareExtracted(t, r.tree.top, filepath.Join(out, r.tree.top))
		})
	}
}
