package index

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bk-backup/bk/repo/pack"
)

// failFiles makes files in the named directory, empty for temporary files, fail
// from the given one on: when they are made, or when they are written to.
func failFiles(t *testing.T, dir string, from int, made bool) {
	real := makeFile
	t.Cleanup(func() { makeFile = real })
	count := 0
	makeFile = func(in, pattern string) (*os.File, error) {
		if in != dir {
			return real(in, pattern)
		}
		if count++; count <= from {
			return real(in, pattern)
		}
		if made {
			return nil, &os.PathError{Op: "open", Path: filepath.Join(in, pattern), Err: syscall.EROFS}
		}
		f, err := real(in, pattern)
		if err != nil {
			return nil, err
		}
		full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
		if err != nil {
			t.Skip(err)
		}
		defer full.Close()
		return f, unix.Dup3(int(full.Fd()), int(f.Fd()), unix.O_CLOEXEC)
	}
}

// fill stores packs, one index object each, and refreshes now and then.
func fill(t *testing.T, c *Cache, st storage, first, count int) (packs []pack.Listed, err error) {
	t.Helper()
	for n := range count {
		l := makePack(first+n*100, 50)
		if n%3 == 2 { // another program's
			st.add(l)
			err = c.Refresh(t.Context(), st.names(), st.fetch)
		} else {
			c.Stored(l.Info, l.Entries)
			err = c.Flush(func(listed []pack.Listed) ([32]byte, error) { return st.add(listed...), nil })
		}
		if err != nil {
			return packs, err
		}
		packs = append(packs, l)
		for _, l := range packs {
			check(t, c, l)
		}
	}
	return packs, nil
}

// TestFullCache lets the cache's directory become no use at every moment: that is
// said once, and all is found.
func TestFullCache(t *testing.T) {
	for from := range 15 { // as many as there are files
		for _, made := range []bool{true, false} {
			for _, temp := range []bool{true, false} {
				t.Run(fmt.Sprintf("from=%d,made=%v,temp=%v", from, made, temp), func(t *testing.T) {
					dir, st := t.TempDir(), storage{}
					failFiles(t, dir, from, made)
					want := shelfTemp
					if !temp {
						failFiles(t, "", 0, made)
						want = shelfMemory
					}
					var said []error
					c := Open(dir, func(err error) { said = append(said, err) })
					packs, err := fill(t, c, st, 0, 14)
					if err != nil {
						t.Fatal(err)
					}
					if len(said) != 1 || !errors.Is(said[0], ErrNoCache) || !strings.Contains(said[0].Error(), dir) {
						t.Errorf("it was said: %v", said)
					}
					lies := false
					for _, r := range c.runs {
						lies = lies || r.shelf == want
					}
					if !lies || len(c.runs) > 2*runsMax+1 {
						t.Errorf("%d runs, of which none is where it should be", len(c.runs))
					}
					c.Close()
					if parts, _ := filepath.Glob(filepath.Join(dir, ".run-*")); len(parts) > 0 {
						t.Errorf("left: %v", parts)
					}
					again := Open(dir, nil)
					defer again.Close()
					if err := again.Refresh(t.Context(), st.names(), st.fetch); err != nil {
						t.Fatal(err)
					}
					for _, l := range packs {
						check(t, again, l)
					}
				})
			}
		}
	}
}

// TestMergedElsewhereStaysKept: runs that are merged where nothing is kept are
// still there for the next program.
func TestMergedElsewhereStaysKept(t *testing.T) {
	dir, st := t.TempDir(), storage{}
	c := Open(dir, nil)
	if _, err := fill(t, c, st, 0, runsMax); err != nil {
		t.Fatal(err)
	}
	failFiles(t, dir, 0, true)
	l := makePack(1000, 50)
	st.add(l)
	for range 2 { // the second merges
		if err := c.Refresh(t.Context(), st.names(), st.fetch); err != nil {
			t.Fatal(err)
		}
	}
	if len(c.runs) > runsMax {
		t.Errorf("%d runs", len(c.runs))
	}
	c.Close()
	fetched := 0
	again := Open(dir, nil)
	defer again.Close()
	err := again.Refresh(t.Context(), st.names(), func(ctx context.Context, name [32]byte) ([]byte, error) {
		fetched++
		return st.fetch(ctx, name)
	})
	if err != nil || fetched != 1 {
		t.Errorf("%d index objects are fetched again: %v", fetched, err)
	}
}

// TestNoRoomAnywhere: what is new has to lie somewhere, and nothing has to be merged.
func TestNoRoomAnywhere(t *testing.T) {
	defer func(old int64) { memoryMax = old }(memoryMax)
	dir, st := t.TempDir(), storage{}
	failFiles(t, dir, 0, false)
	failFiles(t, "", 0, false)
	memoryMax = 10 * 8192 // nine runs, and no room to merge some
	c := Open(dir, nil)
	defer c.Close()
	packs, err := fill(t, c, st, 0, 30)
	if !errors.Is(err, ErrNoCache) || !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "memory") {
		t.Errorf("after %d runs: %v", len(packs), err)
	}
	if len(packs) <= runsMax || c.inMemory() > memoryMax {
		t.Errorf("%d runs, %d bytes", len(packs), c.inMemory())
	}
	for _, l := range packs {
		check(t, c, l)
	}
}

// TestDamageIsReplaced damages runs that are open, in ways that checksums show and
// in ways in which their pages or bytes cannot be read any more.
func TestDamageIsReplaced(t *testing.T) {
	defer func(old int) { largeMin = old }(largeMin)
	for _, large := range []bool{false, true} {
		for name, damage := range map[string]func(path string, size int64) error{
			"other records": func(path string, size int64) error {
				f, err := os.OpenFile(path, os.O_WRONLY, 0)
				if err != nil {
					return err
				}
				defer f.Close()
				_, err = f.WriteAt(make([]byte, size/2), size/4)
				return err
			},
			"half of it": func(path string, size int64) error { return os.Truncate(path, size/2) },
			"nothing":    func(path string, _ int64) error { return os.Truncate(path, 0) },
		} {
			t.Run(fmt.Sprintf("%s,large=%v", name, large), func(t *testing.T) {
				if largeMin = 8 << 20; large {
					largeMin = 0
				}
				ruin := func() (*Cache, storage, []pack.Listed) {
					dir, st := t.TempDir(), storage{}
					a, b := makePack(0, 5000), makePack(10000, 5000)
					for _, l := range []pack.Listed{a, b} {
						st.add(l)
						first := Open(dir, nil)
						if err := first.Refresh(t.Context(), st.names(), st.fetch); err != nil {
							t.Fatal(err)
						}
						first.Close()
					}
					c := Open(dir, func(err error) { t.Error(err) })
					t.Cleanup(func() { c.Close() })
					if err := c.Refresh(t.Context(), st.names(), st.fetch); err != nil || len(c.runs) != 2 {
						t.Fatal(len(c.runs), err)
					}
					for _, r := range c.runs {
						if err := damage(r.path, int64(len(r.file))); err != nil {
							t.Fatal(err)
						}
					}
					return c, st, []pack.Listed{a, b}
				}
				c, _, packs := ruin()
				for _, l := range packs {
					check(t, c, l)
				}
				c, _, packs = ruin()
				for _, e := range packs[1].Entries {
					if fresh, err := c.Claim(e.Label); fresh || err != nil {
						t.Fatalf("claim of a stored chunk: %v, %v", fresh, err)
					}
					if places, err := c.Places(e.Label); len(places) != 1 || err != nil {
						t.Fatalf("places of a chunk: %v, %v", places, err)
					}
				}
				c, _, packs = ruin()
				if err := c.Verify(t.Context()); err != nil {
					t.Fatal(err)
				}
				m := c.NewMarks(func(pack.Info) int32 { return 0 })
				for _, l := range packs {
					for _, e := range l.Entries {
						if fresh, found, err := m.Mark(e.Label); !fresh || !found || err != nil {
							t.Fatalf("mark: fresh %v, found %v, %v", fresh, found, err)
						}
					}
				}
				// Enough small runs that the damaged ones have to be merged.
				c, st, packs := ruin()
				more, err := fill(t, c, st, 20000, 2*runsMax)
				if err != nil {
					t.Fatal(err)
				}
				for _, l := range append(packs, more...) {
					for _, e := range l.Entries {
						if _, found, err := c.Find(e.Label); !found || err != nil {
							t.Fatal(found, err)
						}
					}
				}
			})
		}
	}
}

// TestMarksOfDamage: marks name records by their places, so nothing is replaced
// beneath them.
func TestMarksOfDamage(t *testing.T) {
	dir, st := t.TempDir(), storage{}
	l := makePack(0, 5000)
	st.add(l)
	c := Open(dir, nil)
	defer c.Close()
	if err := c.Refresh(t.Context(), st.names(), st.fetch); err != nil {
		t.Fatal(err)
	}
	m := c.NewMarks(func(pack.Info) int32 { return 0 })
	if err := os.Truncate(c.runs[0].path, 0); err != nil {
		t.Fatal(err)
	}
	_, _, err := m.Mark(l.Entries[0].Label)
	_, _, findErr := c.Find(l.Entries[0].Label)
	if !errors.Is(err, ErrDamaged) || !errors.Is(findErr, ErrDamaged) {
		t.Errorf("%v, %v", err, findErr)
	}
	if files, _ := os.ReadDir(dir); len(files) > 0 {
		t.Error("a damaged run stays in the cache")
	}
}

// TestGarbageInCache: what is no run is no hindrance, and what killed programs left
// goes.
func TestGarbageInCache(t *testing.T) {
	dir, st := t.TempDir(), storage{}
	l := makePack(0, 60)
	st.add(l)
	old, fresh := filepath.Join(dir, ".run-old"), filepath.Join(dir, ".run-fresh")
	err := errors.Join(
		os.MkdirAll(filepath.Join(dir, "run-dir", "x"), 0o700), unix.Mkfifo(filepath.Join(dir, "run-fifo"), 0o600),
		os.WriteFile(filepath.Join(dir, "run-empty"), nil, 0o600), os.WriteFile(filepath.Join(dir, "run-text"), make([]byte, 5000), 0o600),
		os.WriteFile(old, nil, 0o600), os.WriteFile(fresh, nil, 0o600),
		os.Chtimes(old, time.Time{}, time.Now().Add(-2*partAge)),
	)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		c := Open(dir, func(err error) { t.Error(err) })
		if err := c.Refresh(t.Context(), st.names(), st.fetch); err != nil {
			t.Fatal(err)
		}
		check(t, c, l)
		c.Close()
	}
	if _, err := os.Stat(old); err == nil {
		t.Error("the part of a run that was being written long ago stays")
	}
	if _, err := os.Stat(fresh); err != nil {
		t.Error("the part of a run that is being written is removed")
	}
}
