package disk

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestDirsFollowNoLinks has a directory that was swapped for a link, before it
// was opened and while it was closed in between: a user must not be able to lead
// a scan by root to the files of others.
func TestDirsFollowNoLinks(t *testing.T) {
	tree := newTestTree(t)
	tree.file("secret/x", "of others")
	tree.dir("mine")
	s := newDirs(1)
	defer s.close()
	top := newAncestor(tree.root)
	mine := newDir(top, newCname("mine"))
	if _, err := s.acquire(mine); err != nil {
		t.Fatal(err)
	}
	s.release(mine)
	// With a bound of one, this closes it.
	if _, err := s.acquire(newDir(top, newCname("secret"))); err != nil {
		t.Fatal(err)
	}
	if mine.fd >= 0 {
		t.Fatal("the directory is still open")
	}
	tree.made(unix.Rmdir(tree.path("mine")))
	tree.symlink("mine", "secret")
	for name, d := range map[string]*dir{"opened again": mine, "opened first": newDir(top, newCname("mine"))} {
		if fd, err := s.acquire(d); !isVanished(err) {
			t.Errorf("%s: descriptor %d, %v", name, fd, err)
		}
	}
	// The user's own way to a root may have links.
	if _, err := s.acquire(newAncestor(tree.path("mine"))); err != nil {
		t.Error(err)
	}
}
