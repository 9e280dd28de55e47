package tree

import (
	"bytes"
	"context"
	"math/rand"
	"os"
	"testing"

	"github.com/bk-backup/bk/format"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

func sortInto(tb testing.TB, m *memory, root format.ID, edits []edit, opts SorterOptions) (format.ID, error) {
	tb.Helper()
	ctx := context.Background()
	s := NewSorter(ctx, m, opts)
	defer s.Close()
	for _, e := range edits {
		var err error
		if e.file == nil {
			err = s.Remove(e.path)
		} else {
			err = s.Put(e.file.entry(), contentWith(tb, m, e.file.Pieces), e.file.eof())
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
	u, err := NewUpdater(ctx, m, testKey, root)
	if err != nil {
		tb.Fatal(err)
	}
	smallCuts(u)
	if err := s.Apply(u); err != nil {
		u.Abort()
		return format.ID{}, err
	}
	root, _, err = u.Finish()
	return root, err
}

func TestSorterAppliesEditsInTheirOrder(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		m := newMemory()
		files := drawListing(rt, 30)
		root, _ := build(t, m, files, true)
		var edits []edit
		for range rapid.IntRange(0, 20).Draw(rt, "edits") {
			path := drawPath(rt, pathsOf(files))
			if rapid.IntRange(0, 2).Draw(rt, "remove") == 0 {
				edits = append(edits, edit{path, nil})
				continue
			}
			f := drawFile(rt, path)
			edits = append(edits, edit{path, &f})
		}
		want := applyEdits(files, edits)
		opts := SorterOptions{Dir: dir, MemoryMax: rapid.SampledFrom([]int{0, 1, 900}).Draw(rt, "memory")}
		got, err := sortInto(t, m, root, edits, opts)
		if len(dropInvalid(want)) != len(want) {
			if format.ClassOf(err) != format.ClassTree {
				rt.Fatalf("the error is %v, want one of the class tree", err)
			}
			return
		}
		if err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(want, readAll(t, m, got, ReaderOptions{}), cmpopts.EquateEmpty()); diff != "" {
			rt.Fatal(diff)
		}
	})
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%d temporary files are left, error %v", len(left), err)
	}
}

func TestSorterSpoolsManyEditsSealed(t *testing.T) {
	ctx := context.Background()
	m := newMemory()
	files := synthetic(20000, 40)
	want, _ := build(t, m, files, false)
	s := NewSorter(ctx, m, SorterOptions{Dir: t.TempDir(), MemoryMax: 256 << 10})
	defer s.Close()
	for _, i := range rand.New(rand.NewSource(1)).Perm(len(files)) {
		f := &files[i]
		if err := s.Put(f.entry(), contentWith(t, m, f.Pieces), nil); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.runs) < 10 || len(s.edits) > 3000 {
		t.Errorf("%d runs, %d edits in memory", len(s.runs), len(s.edits))
	}
	stored := make([]byte, s.spool.blocks*spoolBlockSize)
	if _, err := s.spool.file.ReadAt(stored, 0); err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"source-file", "somebody", "mtime"} {
		if bytes.Contains(stored, []byte(word)) {
			t.Errorf("the temporary file shows %q", word)
		}
	}
	u := NewBuilder(ctx, m, testKey)
	if err := s.Apply(u); err != nil {
		t.Fatal(err)
	}
	got, _, err := u.Finish()
	if err != nil || got != want {
		t.Errorf("the root is %s, want %s, error %v", got.Short(), want.Short(), err)
	}
}

func TestSorterNoticesADamagedFile(t *testing.T) {
	ctx := context.Background()
	m := newMemory()
	s := NewSorter(ctx, m, SorterOptions{Dir: t.TempDir(), MemoryMax: 1})
	defer s.Close()
	for _, f := range synthetic(5, 10) {
		if err := s.Put(f.entry(), Content{}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.spool.file.WriteAt([]byte{1, 2, 3}, spoolBlockSize+100); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(NewBuilder(ctx, m, testKey)); err == nil {
		t.Error("no error")
	}
}
