package disk

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// testTree builds files below a directory. What the kernel does not let us make,
// since we are not root or the file system has no such thing, is left out.
type testTree struct {
	testing.TB
	root string
}

func newTestTree(t testing.TB) *testTree {
	t.Helper()
	tree := &testTree{t, filepath.Join(t.TempDir(), "tree")}
	if err := os.Mkdir(tree.root, 0o755); err != nil {
		t.Fatal(err)
	}
	return tree
}

func (t *testTree) path(name string) string { return t.root + "/" + name }

// made reports whether a call succeeded, and fails the test for any error but
// that we are not allowed to, or that the file system cannot.
func (t *testTree) made(err error) bool {
	t.Helper()
	for _, allowed := range []error{unix.EPERM, unix.EACCES, unix.EOPNOTSUPP, unix.ENOTTY, unix.EINVAL} {
		if errors.Is(err, allowed) {
			return false
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return true
}

func (t *testTree) dir(name string) string {
	t.Helper()
	t.made(os.MkdirAll(t.path(name), 0o755))
	return t.path(name)
}

func (t *testTree) file(name, content string) string {
	t.Helper()
	t.dir(filepath.Dir(name))
	t.made(os.WriteFile(t.path(name), []byte(content), 0o644))
	return t.path(name)
}

func (t *testTree) link(name, to string) {
	t.Helper()
	t.dir(filepath.Dir(name))
	t.made(unix.Linkat(unix.AT_FDCWD, t.path(to), unix.AT_FDCWD, t.path(name), 0))
}

func (t *testTree) symlink(name, target string) string {
	t.Helper()
	t.dir(filepath.Dir(name))
	t.made(os.Symlink(target, t.path(name)))
	return t.path(name)
}

func (t *testTree) node(name string, mode uint32, dev uint64) string {
	t.Helper()
	t.dir(filepath.Dir(name))
	t.made(unix.Mknod(t.path(name), mode, int(dev)))
	return t.path(name)
}

func (t *testTree) xattr(path, name, value string) {
	t.Helper()
	t.made(unix.Lsetxattr(path, name, []byte(value), 0))
}

func (t *testTree) mtime(path string, sec, nsec int64) {
	t.Helper()
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: sec, Nsec: nsec}}
	t.made(unix.UtimesNanoAt(unix.AT_FDCWD, path, times, unix.AT_SYMLINK_NOFOLLOW))
}

// flag sets a flag of FS_IOC_SETFLAGS and takes it away when the test ends.
func (t *testTree) flag(path string, bit uint32) {
	t.Helper()
	set := func(bits uint32) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(bits))
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	before, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if t.made(err) && t.made(set(before|bit)) {
		t.Cleanup(func() { t.made(set(before)) })
	}
}

// sparse makes a file of the given size with data at some offsets.
func (t *testTree) sparse(name string, size int64, data map[int64]string) string {
	t.Helper()
	path := t.file(name, "")
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	t.made(f.Truncate(size))
	for at, content := range data {
		_, err := f.WriteAt([]byte(content), at)
		t.made(err)
	}
	t.made(f.Sync())
	return path
}

// random returns bytes that depend on the seed alone.
func random(seed uint64, size int) string {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, 0, size+8)
	for len(b) < size {
		b = binary.LittleEndian.AppendUint64(b, r.Uint64())
	}
	return string(b[:size])
}

// acl returns an access control list in the kernel's form: tag, permissions, id.
func acl(entries ...[3]uint32) string {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint16(b, uint16(e[0]))
		b = binary.LittleEndian.AppendUint16(b, uint16(e[1]))
		b = binary.LittleEndian.AppendUint32(b, e[2])
	}
	return string(b)
}

// capability is security.capability with cap_net_raw, permitted and effective.
var capability = "\x01\x00\x00\x02\x00\x20\x00\x00" + strings.Repeat("\x00", 12)

// tricky fills the tree with everything that a Linux file system holds.
func (t *testTree) tricky() {
	t.Helper()
	const none = 0xffffffff
	t.file("plain.txt", "Hello, this is version one.\n")
	t.file("empty-file", "")
	t.dir("empty-dir")
	for name, mode := range map[string]uint32{"setuid": 0o4755, "setgid": 0o2755, "all": 0o7777, "none": 0, "readonly": 0o444} {
		t.made(unix.Chmod(t.file("perm/"+name, name), mode))
	}
	t.made(unix.Chmod(t.dir("perm/sticky"), 0o1777))
	for name, owner := range map[string][2]int{"nobody": {65534, 65534}, "no-name": {12345, 54321}, "huge": {4294967294, 4294967293}} {
		t.made(os.Lchown(t.file("own/"+name, name), owner[0], owner[1]))
	}
	t.links()
	t.made(unix.Chmod(t.node("dev/fifo", unix.S_IFIFO|0o640, 0), 0o640))
	t.node("dev/socket", unix.S_IFSOCK|0o755, 0)
	t.node("dev/null", unix.S_IFCHR|0o666, unix.Mkdev(1, 3))
	t.node("dev/char-big", unix.S_IFCHR|0o600, unix.Mkdev(259, 1048575))
	t.node("dev/block", unix.S_IFBLK|0o660, unix.Mkdev(7, 200))
	t.sizes()
	t.names()
	t.times()
	t.file("x/user", "x")
	for name, value := range map[string]string{"comment": "plain", "empty": "", "binary": random(9, 200), "a=b": "=", "caf\u00e9": "é"} {
		t.xattr(t.path("x/user"), "user."+name, value)
	}
	t.xattr(t.dir("x/dir"), "user.on-dir", "d")
	t.xattr(t.file("x/trusted", "x"), "trusted.note", "root only\x00")
	t.xattr(t.symlink("x/link", "user"), "trusted.on-link", "l")
	t.xattr(t.node("x/fifo", unix.S_IFIFO|0o600, 0), "trusted.on-fifo", "f")
	t.xattr(t.file("x/capability", "x"), "security.capability", capability)
	t.xattr(t.file("x/large", "x"), "user.large", random(8, 3000))
	access := acl([3]uint32{1, 6, none}, [3]uint32{2, 7, 4242}, [3]uint32{4, 4, none}, [3]uint32{16, 7, none}, [3]uint32{32, 0, none})
	t.xattr(t.file("x/acl", "x"), "system.posix_acl_access", access)
	t.xattr(t.dir("x/acl-dir"), "system.posix_acl_default", access)
	t.flag(t.file("x/nodump", "x"), 0x40)
	t.flag(t.dir("x/noatime-dir"), 0x80)
	t.flag(t.file("x/immutable", "x"), 0x10)
}

func (t *testTree) links() {
	t.file("hl/a", random(1, 30000))
	t.link("hl/b", "hl/a")
	t.link("docs/to-a", "hl/a")
	t.symlink("hl/sym1", "a")
	t.link("hl/sym2", "hl/sym1")
	t.node("hl/fifo1", unix.S_IFIFO|0o600, 0)
	t.link("hl/fifo2", "hl/fifo1")
	t.file("hl/empty1", "")
	t.link("hl/empty2", "hl/empty1")
	t.symlink("links/dangling", "/nonexistent/target")
	t.symlink("links/loop", "loop")
	t.symlink("links/raw", "bytes-\xff\xfe\x80\ntarget")
	t.symlink("links/long", strings.Repeat("x/", 511)+"y")
}

func (t *testTree) sizes() {
	t.sparse("size/middle", 2<<20+104<<10+1, map[int64]string{2 << 20: random(2, 4096)})
	t.sparse("size/head", 68<<10, map[int64]string{0: random(3, 4096)})
	t.sparse("size/hole", 1<<20+123, nil)
	t.sparse("size/many", 40<<20, map[int64]string{0: "a", 1 << 20: random(4, 3<<20), 10 << 20: random(5, 100), 40<<20 - 1: "z"})
	t.file("size/zeros", strings.Repeat("\x00", 3<<20))
	for name, size := range map[string]int{"1": 1, "4095": 4095, "4096": 4096, "4097": 4097, "1MiB": 1 << 20, "1MiB+1": 1<<20 + 1, "5MiB": 5 << 20} {
		t.file("size/"+name, random(7, size))
	}
	for _, name := range []string{"one", "two", "three"} {
		t.file("dup/"+name, random(6, 30000))
	}
}

func (t *testTree) names() {
	for _, name := range []string{
		"caf\u00e9", "cafe\u0301", "bad-\xff\xfe", "surrogate-\xed\xa0\x80", "new\nline", "tab\t", "ctrl-\x01\x1b\x7f", "quote\"\\",
		" leading", "trailing ", "-rf", "...", ".hidden", "star*?[x]", strings.Repeat("L", 255), "\u6f22\u6f22",
	} {
		t.file("names/"+name, name)
	}
	t.file("names/dir-\x80\xbf/inside", "below a name that is not UTF-8\n")
	for _, name := range []string{"a", "a.b", "a-b", "ab/x", "a!/x", "b/c", "b.c/d", "b!", "\xff"} {
		t.file("sort/"+name, name)
	}
	t.file("deep/"+strings.Repeat(strings.Repeat("d", 60)+"/", 12)+"bottom", "b")
	for i := range 2*batchNames + 5 {
		t.file("many/"+string(rune(65+i%7))+strings.Repeat("n", i%40)+time.Duration(i).String(), "m")
	}
}

func (t *testTree) times() {
	for name, at := range map[string][2]int64{
		"epoch": {0, 0}, "one-ns": {0, 1}, "minus-half": {-1, 500_000_000}, "y1901": {-2_147_483_648, 0},
		"y2038": {2_147_483_648, 1}, "y2200": {7_258_118_400, 123_456_789}, "almost": {1_234_567_890, 999_999_999},
	} {
		t.mtime(t.file("time/"+name, name), at[0], at[1])
	}
	t.mtime(t.dir("time/dir-1960"), -315_619_200, 1)
	t.mtime(t.symlink("time/link-1965", "x"), -157_766_400, 3)
}
