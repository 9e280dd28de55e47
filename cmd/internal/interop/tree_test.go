//go:build interop

package interop

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// tree makes files below a directory.
type tree struct {
	t   *testing.T
	top string
	rnd *rand.Rand
}

func newTree(t *testing.T, name string) *tree {
	t.Helper()
	top := filepath.Join(t.TempDir(), name)
	tr := &tree{t: t, top: top, rnd: rand.New(rand.NewPCG(1, 2))}
	tr.check(os.Mkdir(top, 0o755))
	return tr
}

func (tr *tree) check(err error) {
	tr.t.Helper()
	if err != nil {
		tr.t.Fatal(err)
	}
}

func (tr *tree) path(name string) string { return filepath.Join(tr.top, name) }

func (tr *tree) dir(name string) { tr.t.Helper(); tr.check(os.Mkdir(tr.path(name), 0o750)) }

func (tr *tree) file(name, content string) {
	tr.t.Helper()
	tr.check(os.WriteFile(tr.path(name), []byte(content), 0o640))
}

// random returns content that neither compresses nor repeats.
func (tr *tree) random(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(tr.rnd.Uint32())
	}
	return string(b)
}

// fill makes one of everything that an ordinary file system holds.
func (tr *tree) fill() {
	tr.t.Helper()
	tr.dir("docs")
	tr.file("docs/readme", strings.Repeat("plain text\n", 1000))
	tr.file("docs/empty", "")
	tr.file("docs!", "sorts behind what is in docs")
	tr.dir("empty dir")
	big := tr.random(2_500_000)
	tr.file("cat.jpg", big)
	tr.file("docs/the same", big)
	tr.dir("docs/deep")
	tr.file("docs/deep/part", big[:1<<20])
	tr.file("raw-\xff\xfe\n-name", "a name that is not UTF-8")
	tr.check(os.Symlink("/nowhere/\xff", tr.path("link")))
	tr.check(os.Symlink("docs", tr.path("link to dir")))
	tr.check(unix.Mkfifo(tr.path("fifo"), 0o600))
	tr.file("one", "linked")
	tr.check(os.Link(tr.path("one"), tr.path("docs/two")))
	tr.check(os.Link(tr.path("one"), tr.path("three")))
	tr.file("setuid", "#!")
	tr.check(os.Chmod(tr.path("setuid"), 0o755|os.ModeSetuid))
	tr.file("sparse", "begin")
	f, err := os.OpenFile(tr.path("sparse"), os.O_RDWR, 0)
	tr.check(err)
	_, err = f.WriteAt([]byte("end"), 8<<20)
	tr.check(err)
	tr.check(f.Truncate(12 << 20))
	tr.check(f.Close())
	tr.file("attributes", "x")
	for name, value := range map[string]string{"user.comment": "hi", "user.empty": "", "user.bytes": "\x00\xff"} {
		if err := unix.Lsetxattr(tr.path("attributes"), name, []byte(value), 0); !errors.Is(err, unix.ENOTSUP) {
			tr.check(err)
		}
	}
	tr.file("old", "before 1970")
	tr.check(os.Chtimes(tr.path("old"), time.Time{}, time.Unix(-86400*365, 123456789)))
	tr.check(os.Chtimes(tr.path("docs/deep"), time.Time{}, time.Unix(1_500_000_000, 1)))
}

// change makes what the next snapshot has.
func (tr *tree) change() {
	tr.t.Helper()
	tr.check(os.Remove(tr.path("docs!")))
	tr.check(os.RemoveAll(tr.path("docs/deep")))
	tr.file("docs/deep", "now a file")
	tr.check(os.Remove(tr.path("link")))
	tr.dir("link")
	tr.file("link/inside", "below what was a link")
	tr.check(os.Chmod(tr.path("docs/the same"), 0o600))
	tr.file("new.cat.jpg", tr.random(10_000))
	tr.check(os.Remove(tr.path("three")))
}

// manifest describes everything below top by path, in words that can be compared.
func manifest(t *testing.T, top string) map[string]string {
	t.Helper()
	list := map[string]string{}
	links := map[uint64]string{}
	err := filepath.WalkDir(top, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top, path)
		if err != nil {
			return err
		}
		list[rel], err = describe(path, rel, links)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func describe(path, rel string, links map[uint64]string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return "", err
	}
	words := []string{fmt.Sprintf("mode %o owner %d:%d mtime %d.%09d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		content, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		words = append(words, fmt.Sprintf("size %d sha256 %x sparse %t", st.Size, sha256.Sum256(content), st.Blocks*512 < st.Size))
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		words = append(words, fmt.Sprintf("target %q", target))
	case unix.S_IFCHR, unix.S_IFBLK:
		words = append(words, fmt.Sprintf("device %d", st.Rdev))
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if first, ok := links[st.Ino]; ok {
			words = append(words, "link to "+first)
		} else {
			links[st.Ino] = rel
		}
	}
	names := make([]byte, 4096)
	n, err := unix.Llistxattr(path, names)
	if err != nil {
		n = 0
	}
	attributes := strings.Split(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00")
	slices.Sort(attributes)
	for _, name := range attributes {
		value := make([]byte, 4096)
		if n, err := unix.Lgetxattr(path, name, value); err == nil {
			words = append(words, fmt.Sprintf("%s=%x", name, value[:n]))
		}
	}
	return strings.Join(words, " "), nil
}

// compare reports how the trees below two directories differ, but for what drop
// takes out of the first.
func compare(t *testing.T, want, got string, drop func(path string) bool) {
	t.Helper()
	expected, found := manifest(t, want), manifest(t, got)
	for path := range expected {
		if drop != nil && drop(path) {
			delete(expected, path)
		}
	}
	if d := cmp.Diff(expected, found); d != "" {
		t.Errorf("%s (-) and %s (+) differ:\n%s", want, got, d)
	}
}

// cats matches what the pattern *cat.jpg matches.
func cats(path string) bool { return strings.HasSuffix(path, "cat.jpg") }

// equalStreams reports where two streams differ, if they do.
func equalStreams(t *testing.T, what string, a, b []byte) {
	t.Helper()
	if bytes.Equal(a, b) {
		return
	}
	at := 0
	for at < len(a) && at < len(b) && a[at] == b[at] {
		at++
	}
	t.Errorf("%s: the streams have %d and %d bytes and differ at %d", what, len(a), len(b), at)
}
