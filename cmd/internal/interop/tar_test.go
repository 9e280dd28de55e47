//go:build interop

package interop

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestTarRoundTrip has a tree go from the disk through a repository and an
// archive back to where it was, by each of the programs that restore archives:
// nothing of it is another afterwards, for bk-diff, and for who looks.
func TestTarRoundTrip(t *testing.T) {
	t.Setenv("BK_PASSPHRASE", "interop")
	t.Setenv("BK_CACHE_DIR", "none")
	restorers := map[string]func(archive string) *exec.Cmd{
		"bk": func(archive string) *exec.Cmd {
			return program(t, "bk-restore", "-r", "tar:"+archive, "latest", "--target", "/")
		},
		"GNU tar": func(archive string) *exec.Cmd {
			return exec.Command("tar", "-C", "/", "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "-xpf", archive)
		},
		"bsdtar": func(archive string) *exec.Cmd {
			return exec.Command("bsdtar", "-C", "/", "--acls", "--xattrs", "--fflags", "--numeric-owner", "-xpf", archive)
		},
	}
	for name, restorer := range restorers {
		t.Run(name, func(t *testing.T) {
			tr := newTree(t, "tree")
			tr.fill()
			if name == "bsdtar" {
				// libarchive 3.6.2 takes fractions of seconds before 1970 for others.
				tr.check(os.Remove(tr.path("old")))
			}
			before := manifest(t, tr.top)
			repo, archive := filepath.Join(t.TempDir(), "repo"), filepath.Join(t.TempDir(), "archive.tar")
			mustPipe(t, nil, program(t, "bk-init", "-r", repo))
			mustPipe(t, nil, program(t, "bk-backup", "-r", repo, tr.top))
			mustPipe(t, nil, program(t, "bk-export", "-r", repo, "latest", "--flat"), program(t, "bk-import", "--strict", "-r", "tar:"+archive))
			mustPipe(t, nil, program(t, "bk-diff", "-r", "tar:"+archive, "--with", repo))
			tr.check(os.RemoveAll(tr.top))
			mustPipe(t, nil, restorer(archive))
			after := manifest(t, tr.top)
			for path, words := range before {
				if after[path] != words {
					t.Errorf("%s was %s\nand is %s", path, words, after[path])
				}
			}
			if len(after) != len(before) {
				t.Errorf("there were %d objects, and are %d", len(before), len(after))
			}
			mustPipe(t, nil, program(t, "bk-backup", "-r", repo, "--read-all", tr.top))
			found := mustPipe(t, nil, program(t, "bk-diff", "-r", repo, "latest~1", "latest"))
			for line := range strings.Lines(string(found)) {
				if strings.Contains(line, tr.top) {
					t.Errorf("bk-diff finds %s", line)
				}
			}
		})
	}
}
