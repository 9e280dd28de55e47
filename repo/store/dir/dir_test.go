package dir

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/store/storetest"
)

func TestOpenCreatesNothing(t *testing.T) {
	root := t.TempDir()
	_, err := Open(filepath.Join(root, "absent"), Options{})
	if !errors.Is(err, store.ErrNotFound) || !strings.Contains(err.Error(), "there is no such directory") {
		t.Errorf("Open of what is absent: %v", err)
	}
	if err := os.WriteFile(filepath.Join(root, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(root, "file"), Options{}); err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("Open of a file: %v", err)
	}
	s, err := Open(root, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Get(t.Context(), "file", 10); err != nil {
		t.Error(err)
	}
	if names := tree(t, root); !slices.Equal(names, []string{"file"}) {
		t.Errorf("reading created something: %q", names)
	}
}

func TestCreate(t *testing.T) {
	root := t.TempDir()
	fresh := filepath.Join(root, "fresh")
	mounted := filepath.Join(root, "mounted")
	if err := os.MkdirAll(filepath.Join(mounted, "lost+found"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{fresh, fresh, mounted} { // an empty one is as good as none
		s, err := Create(path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
	if _, err := Create(filepath.Join(root, "absent", "fresh"), Options{}); err == nil || !strings.Contains(err.Error(), "above it") {
		t.Errorf("Create below what is absent: %v", err)
	}
	if _, err := Create(root, Options{}); !errors.Is(err, store.ErrExists) {
		t.Errorf("Create of what is not empty: %v", err)
	}
	if diff := cmp.Diff([]string{"fresh", "mounted", "mounted/lost+found"}, tree(t, root)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestScheme(t *testing.T) {
	root := filepath.Join(t.TempDir(), "a b")
	schemes := store.Schemes{"file": Scheme(Options{})}
	if _, err := store.Open(t.Context(), root, schemes); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Open before Create: %v", err)
	}
	s, err := store.Create(t.Context(), "file://"+strings.ReplaceAll(root, " ", "%20"), schemes)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.String() != root {
		t.Errorf("the store is called %q, want %q", s, root)
	}
	again, err := store.Open(t.Context(), root, schemes)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

func TestPermissions(t *testing.T) {
	for _, test := range []struct{ root, directory, file fs.FileMode }{
		{0o700, 0o700, 0o400},
		{0o750, 0o750, 0o440},
		{0o755, 0o755, 0o444},
	} {
		s := create(t, Options{})
		if err := os.Chmod(s.path, test.root); err != nil {
			t.Fatal(err)
		}
		s, err := Open(s.path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.Create(t.Context(), "a/b", nil); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]fs.FileMode{"a": test.directory, "tmp": test.directory, "a/b": test.file} {
			info, err := os.Stat(filepath.Join(s.path, name))
			if err != nil || info.Mode().Perm() != want {
				t.Errorf("root %o: %s is %v, %v; want %o", test.root, name, info.Mode(), err, want)
			}
		}
	}
}

// TestForeign reads a directory as another program may have left it.
func TestForeign(t *testing.T) {
	ctx := t.Context()
	outside := t.TempDir()
	s := create(t, Options{})
	write(t, filepath.Join(outside, "secret"), "secret")
	write(t, filepath.Join(s.path, "README"), "upper case")
	write(t, filepath.Join(s.path, "data/a b\xff\n"), "any bytes")
	write(t, filepath.Join(s.path, "lost+found/x"), "")
	write(t, filepath.Join(s.path, "tmp/x"), "")
	write(t, filepath.Join(s.path, "real/x"), "linked")
	for name, target := range map[string]string{"link": "real", "data/file": "../README", "nowhere": "absent", "real/loop": "absent/loop"} {
		if err := os.Symlink(target, filepath.Join(s.path, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(s.path, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"README": "upper case", "data/a b\xff\n": "any bytes", "data/file": "upper case", "link/x": "linked", "real/x": "linked"}
	got := map[string]string{}
	err := s.List(ctx, "", func(info store.Info) error {
		data, err := s.Get(ctx, info.Name, info.Size)
		got[info.Name] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, name := range []string{"pipe", "data", "nowhere", "tmp/x", "lost+found/x"} {
		if _, err := s.Get(ctx, name, 10); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Get(%s): %v", name, err)
		}
		if _, err := s.Stat(ctx, name); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Stat(%s): %v", name, err)
		}
		if err := s.Delete(ctx, name); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Delete(%s): %v", name, err)
		}
	}
}

func TestNothingOutside(t *testing.T) {
	ctx := t.Context()
	outside := t.TempDir()
	write(t, filepath.Join(outside, "secret"), "secret")
	before := tree(t, outside)
	s := create(t, Options{})
	for name, target := range map[string]string{"out": outside, "file": filepath.Join(outside, "secret"), "up": "../" + filepath.Base(outside)} {
		if err := os.Symlink(target, filepath.Join(s.path, name)); err != nil {
			t.Fatal(err)
		}
	}
	_, getErr := s.Get(ctx, "out/secret", 10)
	_, linkErr := s.Get(ctx, "file", 10)
	_, statErr := s.Stat(ctx, "out/secret")
	for call, err := range map[string]error{
		"Get":            getErr,
		"Get of a link":  linkErr,
		"Stat":           statErr,
		"ReadAt":         s.ReadAt(ctx, "out/secret", make([]byte, 1), 0),
		"Create":         s.Create(ctx, "out/new", nil),
		"Create upwards": s.Create(ctx, "up/new", nil),
		"Create below":   s.Create(ctx, "out/new/new", nil),
		"Delete":         s.Delete(ctx, "out/secret"),
		"List":           s.List(ctx, "out/", func(store.Info) error { return nil }),
		"List of all":    s.List(ctx, "", func(store.Info) error { return nil }),
	} {
		if err == nil || !strings.Contains(err.Error(), "a symbolic link leads out of the directory") {
			t.Errorf("%s through a link that leads outside: %v", call, err)
		}
	}
	if diff := cmp.Diff(before, tree(t, outside)); diff != "" {
		t.Errorf("something changed outside (-want +got):\n%s", diff)
	}
}

func TestLinkLoop(t *testing.T) {
	s := create(t, Options{})
	if err := os.Symlink(".", filepath.Join(s.path, "self")); err != nil {
		t.Fatal(err)
	}
	err := s.List(t.Context(), "", func(store.Info) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf("List of a directory that contains itself: %v", err)
	}
}

func TestDirectoryRemovedMeanwhile(t *testing.T) {
	s := create(t, Options{})
	for _, name := range []string{"a/b/c", "a/b/d"} {
		if err := s.Create(t.Context(), name, nil); err != nil {
			t.Fatal(err)
		}
		for _, directory := range []string{"a", "tmp"} {
			if err := os.RemoveAll(filepath.Join(s.path, directory)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestClean(t *testing.T) {
	ctx := t.Context()
	s := create(t, Options{})
	if err := s.Create(ctx, "a", nil); err != nil {
		t.Fatal(err)
	}
	now, err := s.Now(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for name, age := range map[string]time.Duration{"old": store.LeftoverAge + time.Hour, "young": store.LeftoverAge - time.Hour, "future": -time.Hour} {
		path := filepath.Join(s.path, "tmp", name)
		write(t, path, "part")
		if err := os.Chtimes(path, now, now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := s.Clean(ctx, store.LeftoverAge); n != 1 || err != nil {
		t.Errorf("Clean: %d, %v; want 1", n, err)
	}
	if diff := cmp.Diff([]string{"a", "tmp", "tmp/future", "tmp/young"}, tree(t, s.path)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestClock checks that Now and Created are times of one clock: a second or a
// tick between the two would let garbage collection misjudge an object's age.
func TestClock(t *testing.T) {
	ctx := t.Context()
	s := create(t, Options{})
	for i := range 50 {
		before, err := s.Now(ctx)
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprint(i)
		if err := s.Create(ctx, name, nil); err != nil {
			t.Fatal(err)
		}
		info, err := s.Stat(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		after, err := s.Now(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if info.Created.Before(before) || info.Created.After(after) {
			t.Fatalf("created at %v, though it was between %v and %v", info.Created, before, after)
		}
	}
}

func TestClose(t *testing.T) {
	ctx := t.Context()
	s := create(t, Options{OpenFilesMax: 4})
	for i := range 8 {
		if err := s.Create(ctx, fmt.Sprint(i), []byte("content")); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := s.ReadAt(ctx, fmt.Sprint(i), make([]byte, 7), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := s.files.recent.Len(); n != 4 {
		t.Errorf("%d files are kept open, want 4", n)
	}
	kept := s.files.recent.Front().Value.(*file)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := kept.Close(); !errors.Is(err, fs.ErrClosed) {
		t.Error("Close left a file open")
	}
	_, getErr := s.Get(ctx, "0", 10)
	for call, err := range map[string]error{
		"Get": getErr, "ReadAt": s.ReadAt(ctx, "0", make([]byte, 1), 0), "Create": s.Create(ctx, "new", nil), "Delete": s.Delete(ctx, "0"),
		"List": s.List(ctx, "", func(store.Info) error { return nil }),
	} {
		if !errors.Is(err, fs.ErrClosed) {
			t.Errorf("%s after Close: %v", call, err)
		}
	}
}

// TestFilesUnderDeletion has readers whose files are dropped under them.
func TestFilesUnderDeletion(t *testing.T) {
	ctx := t.Context()
	s := create(t, Options{OpenFilesMax: 2})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			p := make([]byte, 8)
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				err := s.ReadAt(ctx, fmt.Sprint(i%4), p, 0)
				if err != nil && !errors.Is(err, store.ErrNotFound) || err == nil && !bytes.Equal(p, bytes.Repeat(p[:1], 8)) {
					t.Errorf("read %q, %v", p, err)
					return
				}
			}
		})
	}
	for i := range 50 {
		name := fmt.Sprint(i % 4)
		if err := s.Create(ctx, name, bytes.Repeat([]byte{byte(i)}, 8)); err != nil {
			t.Error(err)
		}
		p := make([]byte, 1)
		if err := s.ReadAt(ctx, name, p, 0); err != nil || p[0] != byte(i) {
			t.Errorf("%s: read %d after %d was created, %v", name, p[0], i, err)
		}
		if err := s.Delete(ctx, name); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
}

// TestCrash has a program crash at each change, and torn files in tmp/.
func TestCrash(t *testing.T) {
	data := bytes.Repeat([]byte("whole"), 1000)
	crashes := storetest.EachCrash(t,
		func(t *testing.T) store.Store { return create(t, Options{}) },
		func(t *testing.T, c *storetest.Crash) {
			c.Leave = func(name string, part []byte) {
				write(t, filepath.Join(c.String(), "tmp", filepath.Base(name)), string(part))
			}
			for i := range 4 {
				if c.Create(t.Context(), fmt.Sprintf("packs/0%d/x", i), data) != nil {
					return
				}
			}
		},
		func(t *testing.T, s store.Store, changes int) {
			seen := 0
			err := s.List(t.Context(), "", func(info store.Info) error {
				seen++
				got, err := s.Get(t.Context(), info.Name, info.Size)
				if !bytes.Equal(got, data) {
					t.Errorf("%s has %d bytes after the crash", info.Name, len(got))
				}
				return err
			})
			if err != nil || seen < changes-1 {
				t.Errorf("%d objects are left of %d, %v", seen, changes, err)
			}
			if err := s.Create(t.Context(), "packs/0x/x", data); err != nil {
				t.Errorf("after the crash: %v", err)
			}
		})
	if crashes != 12 {
		t.Errorf("%d crashes, want 12", crashes)
	}
}

// TestKill kills a process that creates objects. What it said was created must
// be there, and whatever is there must be whole.
func TestKill(t *testing.T) {
	if path := os.Getenv("DIR_TEST_KILL"); path != "" {
		createForEver(t, path)
		return
	}
	leftovers := 0
	for try := range 12 {
		s := create(t, Options{})
		cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
		cmd.Env = append(os.Environ(), "DIR_TEST_KILL="+s.path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		created := 0
		for lines := bufio.NewScanner(out); lines.Scan(); created++ {
			if created == try*3 {
				time.Sleep(time.Duration(try) * 300 * time.Microsecond)
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := s.Stat(t.Context(), lines.Text()); err != nil {
				t.Errorf("was created: %v", err)
			}
		}
		if err := cmd.Wait(); err == nil || created <= try*3 {
			t.Fatalf("the process ended by itself after %d objects: %v", created, err)
		}
		seen := 0
		if err := s.List(t.Context(), "", func(info store.Info) error {
			seen++
			data, err := s.Get(t.Context(), info.Name, 1<<20)
			if err == nil && (len(data) != 200_000 || !bytes.Equal(data, bytes.Repeat(data[:1], len(data)))) {
				t.Errorf("%s is not whole", info.Name)
			}
			return err
		}); err != nil {
			t.Error(err)
		}
		if seen < created {
			t.Errorf("%d objects are left of %d", seen, created)
		}
		n, err := s.Clean(t.Context(), -time.Hour)
		if err != nil {
			t.Error(err)
		}
		leftovers += n
	}
	t.Logf("%d leftovers", leftovers)
}

// createForEver creates objects with four writers and says so.
func createForEver(t *testing.T, path string) {
	s, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for worker := range 4 {
		go func() {
			for i := 0; ; i++ {
				name := fmt.Sprintf("packs/%02x/%d-%d", i%8, worker, i)
				if err := s.Create(t.Context(), name, bytes.Repeat([]byte{byte(i)}, 200_000)); err != nil {
					os.Exit(3)
				}
				os.Stdout.WriteString(name + "\n")
			}
		}()
	}
	select {}
}

func write(t *testing.T, path, data string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

// tree returns the paths of everything below a directory.
func tree(t *testing.T, root string) []string {
	t.Helper()
	var paths []string
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if rel, _ := filepath.Rel(root, path); rel != "." {
			paths = append(paths, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// TestRepeatedLink has a network file system repeat a request to link after
// its answer was lost: the link that is there already is one's own.
func TestRepeatedLink(t *testing.T) {
	s := create(t, Options{})
	s.linksOnly = true
	temporary, err := s.writeTemporary([][]byte{[]byte("content")})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.root.Link(temporary, "a"); err != nil {
		t.Fatal(err)
	}
	if err := s.publish(temporary, s.top, "a"); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"a", "tmp"}, tree(t, s.path)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
