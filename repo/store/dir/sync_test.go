package dir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/repo/store"
)

// TestOrderOfDurability checks what is made durable by Create, and what is
// visible at each of these moments.
func TestOrderOfDurability(t *testing.T) {
	ctx := t.Context()
	s := create(t, Options{})
	var got []string
	s.syncs.file = func(f *os.File) error {
		info, err := f.Stat()
		if err != nil {
			return err
		}
		what := "file of 7 bytes"
		if info.Size() != 7 {
			what = "a file too early"
		}
		if info.IsDir() {
			what = "directory"
			for _, name := range []string{".", "packs", "packs/00"} {
				if at, err := s.root.Stat(name); err == nil && os.SameFile(at, info) {
					what += " " + name
				}
			}
		}
		if _, err := s.Stat(ctx, "packs/00/a"); err == nil {
			what += ", visible"
		}
		got = append(got, what)
		return f.Sync()
	}
	if err := s.Create(ctx, "packs/00/a", []byte("content")); err != nil {
		t.Fatal(err)
	}
	if err := s.Create(ctx, "packs/00/a", []byte("content")); !errors.Is(err, store.ErrExists) {
		t.Fatal(err)
	}
	if err := s.Delete(ctx, "packs/00/a"); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"directory .", "directory packs", "file of 7 bytes", "directory packs/00, visible",
		"directory packs/00, visible", // somebody else's object may not be durable yet
		"directory packs/00",          // so that it does not come back
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestOthersDirectories has directories that another process made and that may
// not be durable.
func TestOthersDirectories(t *testing.T) {
	s := create(t, Options{})
	write(t, filepath.Join(s.path, "packs/00/x"), "not synced")
	synced := 0
	s.syncs.file = func(*os.File) error { synced++; return nil }
	for _, want := range []int{3, 1} { // the whole path at first
		synced = 0
		if err := s.Create(t.Context(), "packs/00/x", nil); !errors.Is(err, store.ErrExists) || synced != want {
			t.Errorf("%d directories were synced, want %d; %v", synced, want, err)
		}
	}
}

func TestSyncFails(t *testing.T) {
	ctx := t.Context()
	broken := errors.New("broken")
	s := create(t, Options{})
	if err := s.Create(ctx, "known", nil); err != nil {
		t.Fatal(err)
	}
	for _, directories := range []bool{false, true} {
		s.syncs.file = func(f *os.File) error {
			if info, err := f.Stat(); err != nil || info.IsDir() == directories {
				return broken
			}
			return nil
		}
		name := fmt.Sprintf("new-%t", directories)
		if err := s.Create(ctx, name, []byte("content")); !errors.Is(err, broken) {
			t.Errorf("Create, directories=%t: %v", directories, err)
		}
		if names := tree(t, filepath.Join(s.path, "tmp")); len(names) != 0 {
			t.Errorf("a failed Create left something behind: %q", names)
		}
	}
	if names := tree(t, s.path); !slices.Equal(names, []string{"known", "new-true", "tmp"}) {
		t.Errorf("an object whose data is not durable got its name: %q", names)
	}
	if err := s.Delete(ctx, "known"); !errors.Is(err, broken) {
		t.Errorf("Delete: %v", err)
	}
}

// TestSyncsShare has callers come while a round is under way.
func TestSyncsShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := make(chan string)
		proceed := make(chan error)
		s := newSyncs(func(f *os.File) error {
			begun <- filepath.Base(f.Name())
			return <-proceed
		})
		var wg sync.WaitGroup
		results := make([]error, 5)
		call := func(i int, directory string) {
			f, err := os.Create(filepath.Join(t.TempDir(), directory))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
			wg.Go(func() { results[i] = s.sync(directory, f) })
			synctest.Wait()
		}
		next := func(want string) {
			if name := <-begun; name != want {
				t.Errorf("%s is synced, want %s", name, want)
			}
		}
		call(0, "a")
		next("a")
		// These changes may be too late for the round that has begun.
		call(1, "a")
		call(2, "a")
		// Another directory does not wait.
		call(3, "b")
		next("b")
		proceed <- nil
		proceed <- nil
		next("a") // for 1 and 2
		call(4, "a")
		proceed <- nil
		next("a")
		broken := errors.New("broken")
		proceed <- broken
		wg.Wait()
		for i, err := range results {
			if want := i == 4; errors.Is(err, broken) != want {
				t.Errorf("call %d: %v", i, err)
			}
		}
	})
}
