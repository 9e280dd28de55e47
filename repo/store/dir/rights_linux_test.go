package dir

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bk-backup/bk/repo/store"
)

// apart runs a function in a thread of its own, so that what it does to the
// thread's rights or mounts ends with it.
func apart(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends here
		f()
	}()
	<-done
}

// TestWithoutPermission writes to a directory of somebody else. As root it
// gives up root's rights to do so.
func TestWithoutPermission(t *testing.T) {
	s := create(t, Options{})
	if err := s.Create(t.Context(), "a/b", []byte("content")); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"a", "tmp", "."} {
		if err := os.Chmod(filepath.Join(s.path, path), 0o555); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(s.path, "a/b"), 0o444); err != nil {
		t.Fatal(err)
	}
	apart(func() {
		if os.Geteuid() == 0 {
			if _, err := unix.SetfsuidRetUid(65534); err != nil {
				t.Error(err)
				return
			}
		}
		_, nowErr := s.Now(t.Context())
		_, cleanErr := s.Clean(t.Context(), 0)
		for call, err := range map[string]error{
			"Create": s.Create(t.Context(), "a/c", nil),
			"Delete": s.Delete(t.Context(), "a/b"),
			"Now":    nowErr,
			"Clean":  cleanErr,
		} {
			if !errors.Is(err, store.ErrReadOnly) || !errors.Is(err, os.ErrPermission) {
				t.Errorf("%s without permission: %v", call, err)
			}
		}
		n := 0
		err := s.List(t.Context(), "", func(info store.Info) error {
			n++
			_, err := s.Get(t.Context(), info.Name, 10)
			return errors.Join(err, s.ReadAt(t.Context(), info.Name, make([]byte, 7), 0))
		})
		if err != nil || n != 1 {
			t.Errorf("reading a directory that cannot be written: %d objects, %v", n, err)
		}
	})
	for _, path := range []string{".", "tmp", "a"} { // or they cannot be removed
		if err := os.Chmod(filepath.Join(s.path, path), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSmallFileSystem fills a file system and makes it read-only. It needs the
// right to mount one, which neither an ordinary user nor every container has.
func TestSmallFileSystem(t *testing.T) {
	path := t.TempDir()
	apart(func() {
		err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, "")
		}
		if err == nil {
			err = unix.Mount("tmpfs", path, "tmpfs", 0, "size=1m")
		}
		if err != nil {
			t.Skipf("no file system can be mounted here: %v", err)
		}
		defer unix.Unmount(path, 0)
		testSmallFileSystem(t, path)
	})
}

func TestErrorKinds(t *testing.T) {
	s := create(t, Options{})
	for _, test := range []struct {
		op     string
		number unix.Errno
		kind   error
	}{
		{"create", unix.ENOSPC, store.ErrFull},
		{"create", unix.EDQUOT, store.ErrFull},
		{"create", unix.EROFS, store.ErrReadOnly},
		{"delete", unix.EPERM, store.ErrReadOnly},
		{"read clock of", unix.EACCES, store.ErrReadOnly},
		{"read", unix.EACCES, nil},
		{"read", unix.EIO, nil},
		{"create", unix.EIO, nil},
		{"create", unix.ENOENT, nil},
		{"create", unix.ENOTDIR, nil},
		{"read", unix.ENOENT, store.ErrNotFound},
		{"stat", unix.ENOTDIR, store.ErrNotFound},
		{"read", unix.ESTALE, store.ErrTemporary},
		{"create", unix.EMFILE, store.ErrTemporary},
	} {
		err := s.fail(test.op, "a", &os.PathError{Op: "openat", Path: "tmp/x", Err: test.number})
		var typed *store.Error
		if !errors.As(err, &typed) || typed.Kind != test.kind {
			t.Errorf("%s, %v: %#v, want %v", test.op, test.number, err, test.kind)
		}
		if strings.Contains(err.Error(), "tmp/x") || strings.HasSuffix(err.Error(), "no such file or directory") {
			t.Errorf("%v: the message does not help", err)
		}
	}
}

func testSmallFileSystem(t *testing.T, path string) {
	ctx := t.Context()
	s, err := Create(path, Options{})
	if err != nil {
		t.Error(err)
		return
	}
	defer s.Close()
	if err := s.Create(ctx, "small", []byte("content")); err != nil {
		t.Error(err)
	}
	if err := s.Create(ctx, "large", make([]byte, 2<<20)); !errors.Is(err, store.ErrFull) || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("Create of more than there is room for: %v", err)
	}
	if names := tree(t, path); len(names) != 2 {
		t.Errorf("a failed Create left something behind: %q", names)
	}
	if err := s.Create(ctx, "fits", make([]byte, 900<<10)); err != nil {
		t.Errorf("Create of what fits, after one that did not: %v", err)
	}
	if err := unix.Mount("", path, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Error(err)
		return
	}
	readOnly, err := Open(path, Options{})
	if err != nil {
		t.Error(err)
		return
	}
	defer readOnly.Close()
	if data, err := readOnly.Get(ctx, "small", 10); err != nil || string(data) != "content" {
		t.Errorf("Get: %q, %v", data, err)
	}
	_, nowErr := readOnly.Now(ctx)
	for call, err := range map[string]error{
		"Create":        readOnly.Create(ctx, "new", nil),
		"Create deeper": readOnly.Create(ctx, "new/new", nil),
		"Delete":        readOnly.Delete(ctx, "small"),
		"Now":           nowErr,
	} {
		if !errors.Is(err, store.ErrReadOnly) {
			t.Errorf("%s on a read-only file system: %v", call, err)
		}
	}
}
