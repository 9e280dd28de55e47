//go:build interop

package interop

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// generations makes snapshots of a tree with a real tool, changes the tree
// between them, and keeps its states.
type generations struct {
	*tree
	set    string
	states []string
}

func newGenerations(t *testing.T, tool string) *generations {
	t.Helper()
	if _, err := exec.LookPath(tool); err != nil {
		t.Fatalf("%s is not installed; make interop installs it", tool)
	}
	t.Setenv("BK_PASSPHRASE", "of bk")
	t.Setenv("BK_CACHE_DIR", "none")
	return &generations{tree: newTree(t, "tree"), set: t.TempDir()}
}

func (g *generations) run(name string, args ...string) {
	g.t.Helper()
	mustPipe(g.t, nil, exec.Command(name, args...))
}

// age gives what is new an older time: rsync takes times for equal within a
// second, and would leave the copies' own.
func (g *generations) age(to time.Time) {
	g.t.Helper()
	g.check(filepath.WalkDir(g.top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil || time.Since(info.ModTime()) > time.Hour {
			return err
		}
		ts := unix.NsecToTimespec(to.UnixNano())
		return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
	}))
}

// make calls snapshot three times, with the number of the state.
func (g *generations) make(snapshot func(n int)) {
	g.t.Helper()
	g.fill()
	for n := range 3 {
		switch n {
		case 1:
			g.change()
		case 2:
			g.file("last", "of the third")
			g.check(os.Link(g.path("last"), g.path("last too")))
		}
		g.age(time.Date(2023, 1, n+1, 0, 0, 0, 123456789, time.UTC))
		state := filepath.Join(g.t.TempDir(), "state")
		g.run("cp", "-a", g.top, state)
		g.states = append(g.states, state)
		snapshot(n)
	}
}

// restored converts the set into a repository of bk and returns what it restores
// of each snapshot, oldest first.
func (g *generations) restored(below string, flags ...string) []string {
	g.t.Helper()
	repo := filepath.Join(g.t.TempDir(), "repo")
	mustPipe(g.t, nil, program(g.t, "bk-init", "-r", repo))
	mustPipe(g.t, nil, program(g.t, "bk-sync", append([]string{"-r", "hardlinks:" + g.set, "--to", repo}, flags...)...))
	var out []string
	for n := range g.states {
		to := filepath.Join(g.t.TempDir(), "restored")
		snapshot := fmt.Sprintf("latest~%d:%s", len(g.states)-1-n, below)
		mustPipe(g.t, nil, program(g.t, "bk-restore", "-r", repo, snapshot, "--target", to))
		out = append(out, to)
		direct := filepath.Join(g.t.TempDir(), "direct")
		mustPipe(g.t, nil, program(g.t, "bk-restore", append([]string{"-r", "hardlinks:" + g.set, snapshot, "--target", direct}, flags...)...))
		compare(g.t, to, direct, nil)
	}
	mustPipe(g.t, nil, program(g.t, "bk-diff", append([]string{"-r", "hardlinks:" + g.set, "--with", repo}, flags...)...))
	return out
}

// asRsync has the real rsync compare a directory of the set with what came of it.
func (g *generations) asRsync(dir, restored string) {
	g.t.Helper()
	out := mustPipe(g.t, nil, exec.Command("rsync", "-nciaHAX", "--delete", "--numeric-ids", dir+"/", restored+"/"))
	if len(out) > 0 {
		g.t.Errorf("rsync would change of %s:\n%s", restored, out)
	}
	compare(g.t, dir, restored, nil)
}

func TestRsyncLinkDest(t *testing.T) {
	g := newGenerations(t, "rsync")
	var dirs []string
	g.make(func(n int) {
		dirs = append(dirs, filepath.Join(g.set, fmt.Sprintf("2024-01-%02d-0200", n+1)))
		args := []string{"-aHAXS", "--numeric-ids"}
		if n > 0 {
			args = append(args, "--link-dest="+dirs[n-1])
		}
		g.run("rsync", append(args, g.top+"/", dirs[n]+"/")...)
		g.run("ln", "-sfn", filepath.Base(dirs[n]), filepath.Join(g.set, "latest"))
	})
	g.check(os.Mkdir(filepath.Join(g.set, "2024-01-04-0200.partial"), 0o755))
	for n, restored := range g.restored("") {
		g.asRsync(dirs[n], restored)
		compare(t, g.states[n], restored, nil)
	}
}

// TestRsyncTimeBackup has the names and markers of that script, and the trees
// placed where they came from.
func TestRsyncTimeBackup(t *testing.T) {
	g := newGenerations(t, "rsync")
	g.check(os.WriteFile(filepath.Join(g.set, "backup.marker"), nil, 0o644))
	last := ""
	g.make(func(n int) {
		name := fmt.Sprintf("2024-01-%02d-020000", n+1)
		args := []string{"-aHAXS", "--numeric-ids"}
		if last != "" {
			args = append(args, "--link-dest="+last)
		}
		last = filepath.Join(g.set, name)
		g.run("rsync", append(args, g.top+"/", last+"/")...)
		g.run("ln", "-sfn", name, filepath.Join(g.set, "latest"))
	})
	g.run("cp", "-al", last, filepath.Join(g.set, "2024-01-04-020000"))
	g.check(os.WriteFile(filepath.Join(g.set, "backup.inprogress"), []byte("1"), 0o644))
	for n, restored := range g.restored("home/u", "-o", "at=/home/u", "-o", "host=h") {
		compare(t, g.states[n], restored, nil)
	}
}

func TestRsyncFakeSuper(t *testing.T) {
	g := newGenerations(t, "rsync")
	// A shell for rsync that stays here, so that only one side pretends.
	shell := filepath.Join(t.TempDir(), "shell")
	g.check(os.WriteFile(shell, []byte("#!/bin/sh\nshift\nexec sh -c \"$*\"\n"), 0o755))
	last := ""
	g.make(func(n int) {
		args := []string{"-aHAXS", "--numeric-ids", "-M--fake-super", "-e", shell}
		if last != "" {
			args = append(args, "--link-dest="+last)
		}
		last = filepath.Join(g.set, fmt.Sprintf("2024-01-%02d", n+1))
		g.run("rsync", append(args, g.top+"/", "here:"+last+"/")...)
	})
	for n, restored := range g.restored("") {
		compare(t, g.states[n], restored, nil)
	}
}

func TestCpRotation(t *testing.T) {
	g := newGenerations(t, "rsync")
	dir := func(n int) string { return filepath.Join(g.set, fmt.Sprint("backup.", n)) }
	g.make(func(n int) {
		for i := n; i > 0; i-- {
			g.check(os.Rename(dir(i-1), dir(i)))
		}
		if n > 0 {
			g.run("cp", "-al", dir(1), dir(0))
		}
		g.run("rsync", "-aHAXS", "--numeric-ids", "--delete", g.top+"/", dir(0)+"/")
		g.run("touch", "-d", fmt.Sprintf("2024-01-%02d", n+1), dir(0))
	})
	for n, restored := range g.restored("") {
		g.asRsync(dir(2-n), restored)
	}
}

func TestRsnapshot(t *testing.T) {
	for _, linkDest := range []string{"0", "1"} {
		t.Run("link_dest "+linkDest, func(t *testing.T) {
			g := newGenerations(t, "rsnapshot")
			config := filepath.Join(t.TempDir(), "rsnapshot.conf")
			g.check(os.WriteFile(config, []byte(strings.Join([]string{
				"config_version\t1.2", "snapshot_root\t" + g.set + "/", "cmd_cp\t/bin/cp", "cmd_rm\t/bin/rm", "cmd_rsync\t/usr/bin/rsync",
				"lockfile\t" + filepath.Join(t.TempDir(), "pid"), "link_dest\t" + linkDest, "retain\tdaily\t3", "retain\tweekly\t2",
				"rsync_long_args\t--delete --numeric-ids --relative --delete-excluded -HAX --sparse", "rsync_short_args\t-a",
				"backup\t" + g.top + "/\tlocalhost/", "",
			}, "\n")), 0o600))
			g.make(func(n int) {
				g.run("rsnapshot", "-c", config, "daily")
				// Its clock is that of the machine, and the runs follow each other fast.
				g.run("touch", "-d", fmt.Sprintf("2024-01-%02d", n+1), filepath.Join(g.set, "daily.0"))
			})
			for n, restored := range g.restored(g.top) {
				g.asRsync(filepath.Join(g.set, fmt.Sprint("daily.", 2-n), "localhost", g.top), restored)
			}
		})
	}
}

// TestGoOnAfterTrees imports a history and backs the original up: its newest
// snapshot is what that is compared with, and no content is new.
func TestGoOnAfterTrees(t *testing.T) {
	g := newGenerations(t, "rsync")
	last := ""
	g.make(func(n int) {
		args := []string{"-aHAXS", "--numeric-ids"}
		if last != "" {
			args = append(args, "--link-dest="+last)
		}
		last = filepath.Join(g.set, fmt.Sprintf("2024-01-%02d", n+1))
		g.run("rsync", append(args, g.top+"/", last+"/")...)
	})
	repo := filepath.Join(t.TempDir(), "repo")
	mustPipe(t, nil, program(t, "bk-init", "-r", repo))
	mustPipe(t, nil, program(t, "bk-sync", "-r", "hardlinks:"+g.set, "-o", "at="+g.top, "-o", "host=h", "--to", repo))
	var sum struct {
		New    uint64 `json:"bytes_new"`
		Read   uint64 `json:"bytes_read"`
		Bytes  uint64 `json:"bytes"`
		Parent string `json:"parent"`
	}
	// Only files with several names are read again, and only the first backup has
	// to be told what copies do not know.
	for _, flags := range [][]string{{"--ignore-inode", "--ignore-ctime"}, nil} {
		out := pipe(t, nil, program(t, "bk-backup", append([]string{"-r", repo, "--host", "h", "--json", g.top}, flags...)...))
		g.check(json.Unmarshal([]byte(out.stderr[0]), &sum))
		if out.codes[0] != 0 || sum.New > 0 || sum.Read > 100 || sum.Bytes < 1<<20 || sum.Parent == "" {
			t.Errorf("a backup of what was imported, with %q: %s%s", flags, out.stdout, out.stderr[0])
		}
	}
}
