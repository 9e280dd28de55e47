package disk

import (
	"os"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bk-backup/bk/format"
)

func TestFlagNames(t *testing.T) {
	if !slices.IsSortedFunc(fileFlags, func(a, b fileFlag) int {
		if a.name < b.name && a.bit&b.bit == 0 {
			return -1
		}
		return 1
	}) {
		t.Error("the flags are not sorted by name, or two are one")
	}
	for _, f := range fileFlags {
		if names := flagNames(f.bit); !slices.Equal(names, []string{f.name}) {
			t.Errorf("%s gives %q", f.name, names)
		}
	}
	// The bit between them says that the file has extents, which is no flag here.
	names := flagNames(0x10 | 0x80000 | 0x40)
	if !slices.Equal(names, []string{"immutable", "nodump"}) {
		t.Errorf("flags %q", names)
	}
	bits, unknown := flagBits(append(names, "hidden"))
	if bits != 0x50 || !slices.Equal(unknown, []string{"hidden"}) {
		t.Errorf("bits %x, unknown %q", bits, unknown)
	}
	if names := flagsOf(&status{attributes: unix.STATX_ATTR_APPEND | unix.STATX_ATTR_MOUNT_ROOT}); !slices.Equal(names, []string{"append"}) {
		t.Errorf("statx gives %q", names)
	}
}

// TestXattrs reads attributes in each way that kernels old and new allow.
func TestXattrs(t *testing.T) {
	tree := newTestTree(t)
	file := tree.file("file", "x")
	for _, name := range []string{"user.b", "user.a", "user.empty"} {
		tree.xattr(file, name, name[5:6])
	}
	tree.xattr(tree.symlink("link", "file"), "trusted.t", "on the link")
	tree.file("bare", "x")
	dirfd, err := unix.Open(tree.root, unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dirfd)
	for _, name := range []string{"file", "link", "bare"} {
		want := xattrsByPath(t, tree.path(name))
		for _, withoutAt := range []bool{false, true} {
			p := newProber()
			p.withoutAt = withoutAt
			got, err := p.xattrsAt(dirfd, newCname(name))
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%s (%v): %v, %v, not %v", name, withoutAt, got, err, want)
			}
		}
	}
	fd, err := unix.Open(file, unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if got, err := newProber().xattrsFD(fd); err != nil || !slices.Equal(got, xattrsByPath(t, file)) {
		t.Errorf("of a descriptor: %v, %v", got, err)
	}
	if _, err := newProber().xattrsAt(dirfd, newCname("none")); !isVanished(err) {
		t.Errorf("of no file: %v", err)
	}
}

func TestXattrsBeyondTheLimit(t *testing.T) {
	p := newProber()
	n := 0
	for i := range format.XattrsMax + 2 {
		n += copy(p.names[n:], "u."+string(rune('a'+i%26))+"\x00")
	}
	got, err := p.values(n, func(unsafe.Pointer) (uintptr, error) { return 1, nil })
	if len(got) != format.XattrsMax || err == nil {
		t.Errorf("%d attributes, %v", len(got), err)
	}
	// Large values.
	got, err = p.values(n, func(unsafe.Pointer) (uintptr, error) { return xattrValueSizeMax, nil })
	if len(got) == 0 || len(got)*xattrValueSizeMax > xattrsSizeMax || err == nil {
		t.Errorf("%d large attributes, %v", len(got), err)
	}
}

func TestOwnerCache(t *testing.T) {
	memo := ownerMemo{cache: &ownerCache{}}
	for range 2 {
		if name := memo.user(0); name != "root" {
			t.Errorf("user 0 is %q", name)
		}
		if name := memo.user(4294967294); name != "" {
			t.Errorf("user 4294967294 is %q", name)
		}
		if name := memo.group(0); name != "root" && name != "wheel" {
			t.Errorf("group 0 is %q", name)
		}
	}
}

func TestStatusBeforeItsTime(t *testing.T) {
	tree := newTestTree(t)
	path := tree.file("x", "content")
	tree.mtime(path, -1, 500_000_000)
	fd, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	var st status
	if err := newProber().statFD(int(fd.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if st.mtime != (format.Time{Sec: -1, Nsec: 500_000_000}) || st.size != 7 || !st.isFile() {
		t.Errorf("%+v", st)
	}
}
