package tree

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bk-backup/bk/format"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// edit is a Put, or a Remove if file is nil.
type edit struct {
	path string
	file *testFile
}

// applyEdits is the naive update of a listing.
func applyEdits(files []testFile, edits []edit) []testFile {
	files = slices.Clone(files)
	for _, e := range edits {
		files = slices.DeleteFunc(files, func(f testFile) bool {
			below := format.IsBelow(f.Path, e.path) && (e.file == nil || e.file.Type != format.TypeDir)
			return f.Path == e.path || below
		})
		if e.file != nil {
			files = append(files, *e.file)
		}
	}
	sortFiles(files)
	return files
}

func sortFiles(files []testFile) {
	slices.SortFunc(files, func(a, b testFile) int { return format.ComparePaths(a.Path, b.Path) })
}

// drawPath draws paths that often have common directories.
func drawPath(t *rapid.T, dirs []string) string {
	if len(dirs) > 0 && rapid.IntRange(0, 5).Draw(t, "inKnown") > 0 {
		d := rapid.SampledFrom(dirs).Draw(t, "dir")
		name := rapid.StringMatching(`[a-c.+\-]{1,2}`).Draw(t, "name")
		if name == "." || name == ".." {
			name = "..."
		}
		if d == "" {
			return name
		}
		return d + "/" + name
	}
	return rapid.StringMatching(`[a-d]{1,2}(/[a-d]{1,2}){0,3}`).Draw(t, "path")
}

func drawFile(t *rapid.T, path string) testFile {
	f := testFile{Path: path, Type: rapid.SampledFrom([]format.Type{format.TypeFile, format.TypeFile, format.TypeDir, format.TypeDir, format.TypeSymlink}).Draw(t, "type"),
		Sec: int64(rapid.IntRange(0, 3).Draw(t, "sec"))}
	if f.Type == format.TypeFile {
		for i := range rapid.IntRange(0, 3).Draw(t, "pieces") {
			f.Pieces = append(f.Pieces, Piece{ID: testID(i), Size: uint64(i + 1)})
		}
		if rapid.IntRange(0, 20).Draw(t, "eof") == 0 {
			f.EOF = "input/output error"
		}
	}
	return f
}

// drawListing draws a valid listing, in order.
func drawListing(t *rapid.T, sizeMax int) []testFile {
	dirs := []string{""}
	var files []testFile
	for range rapid.IntRange(0, sizeMax).Draw(t, "entries") {
		path := drawPath(t, dirs)
		f := drawFile(t, path)
		if f.Type == format.TypeDir {
			dirs = append(dirs, path)
		}
		files = applyEdits(files, []edit{{path, &f}})
		files = dropInvalid(files)
	}
	return files
}

// dropInvalid drops entries below what is not a directory.
func dropInvalid(files []testFile) []testFile {
	var kept []testFile
	for _, f := range files {
		if n := len(kept); n > 0 && kept[n-1].Type != format.TypeDir && format.IsBelow(f.Path, kept[n-1].Path) {
			continue
		}
		kept = append(kept, f)
	}
	return kept
}

// drawEdits draws edits in path order that keep the listing valid.
func drawEdits(t *rapid.T, files []testFile, countMax int) []edit {
	var dirs, paths []string
	for _, f := range files {
		paths = append(paths, f.Path)
		if f.Type == format.TypeDir {
			dirs = append(dirs, f.Path)
		}
	}
	var edits []edit
	for range rapid.IntRange(0, countMax).Draw(t, "edits") {
		var path string
		if len(paths) > 0 && rapid.Bool().Draw(t, "old") {
			path = rapid.SampledFrom(paths).Draw(t, "oldPath")
		} else {
			path = drawPath(t, dirs)
		}
		switch rapid.IntRange(0, 2).Draw(t, "edit") {
		case 0:
			edits = append(edits, edit{path, nil})
		case 1:
			f := drawFile(t, path)
			edits = append(edits, edit{path, &f})
		case 2:
			f := drawFile(t, path)
			edits = append(edits, edit{path, nil}, edit{path, &f})
		}
	}
	slices.SortStableFunc(edits, func(a, b edit) int { return format.ComparePaths(a.path, b.path) })
	// At each path at most a Remove and then a Put, and no Put that is refused.
	var clean []edit
	now := files
	for _, e := range edits {
		if n := len(clean); n > 0 && clean[n-1].path == e.path && (clean[n-1].file != nil || e.file == nil) {
			continue
		}
		next := applyEdits(now, []edit{e})
		if len(dropInvalid(next)) != len(next) {
			continue
		}
		now = next
		clean = append(clean, e)
	}
	return clean
}

func update(tb testing.TB, m *memory, root format.ID, edits []edit, small bool) (format.ID, Stats, error) {
	tb.Helper()
	ctx := context.Background()
	u, err := NewUpdater(ctx, m, testKey, root)
	if err != nil {
		return format.ID{}, Stats{}, err
	}
	if small {
		smallCuts(u)
	}
	for _, e := range edits {
		if e.file == nil {
			err = u.Remove(e.path)
		} else {
			err = putFile(tb, ctx, u, e.file)
		}
		if err != nil {
			return format.ID{}, Stats{}, err
		}
	}
	return u.Finish()
}

func TestUpdateEqualsBuild(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := newMemory()
		files := drawListing(rt, 60)
		root, _ := build(t, m, files, true)
		for range rapid.IntRange(1, 3).Draw(rt, "updates") {
			edits := drawEdits(rt, files, 12)
			got, stats, err := update(t, m, root, edits, true)
			if err != nil {
				rt.Fatal(err)
			}
			files = applyEdits(files, edits)
			want, wantStats := build(t, m, files, true)
			if got != want {
				rt.Fatalf("after %d edits the root is %s, from nothing it is %s", len(edits), got.Short(), want.Short())
			}
			if stats.Entries != wantStats.Entries || stats.Bytes != wantStats.Bytes || int(stats.Entries) != len(files) {
				rt.Fatalf("totals are %+v, want %+v", stats, wantStats)
			}
			if diff := cmp.Diff(files, readAll(t, m, got, ReaderOptions{}), cmpopts.EquateEmpty()); diff != "" {
				rt.Fatal(diff)
			}
			root = got
		}
	})
}

func TestUpdateOfLargeListing(t *testing.T) {
	files := synthetic(6000, 40)
	m := newMemory()
	root, _ := build(t, m, files, false)
	rapid.Check(t, func(rt *rapid.T) {
		var edits []edit
		for range rapid.IntRange(1, 6).Draw(rt, "edits") {
			i := rapid.IntRange(0, len(files)-1).Draw(rt, "entry")
			n := rapid.SampledFrom([]int{1, 1, 1, 50, 1500}).Draw(rt, "run")
			kind := rapid.IntRange(0, 2).Draw(rt, "kind")
			for _, f := range files[i:min(i+n, len(files))] {
				switch kind {
				case 0:
					f.Sec++
				case 1:
					f.Path += "x"
				case 2:
					edits = append(edits, edit{f.Path, nil})
					continue
				}
				edits = append(edits, edit{f.Path, &f})
			}
		}
		slices.SortStableFunc(edits, func(a, b edit) int { return format.ComparePaths(a.path, b.path) })
		edits = slices.CompactFunc(edits, func(a, b edit) bool { return a.path == b.path })
		got, _, err := update(t, m, root, edits, false)
		if err != nil {
			rt.Skip("an edit below what is no directory")
		}
		want, _ := build(t, m, applyInOrder(files, edits), false)
		if got != want {
			rt.Fatalf("after %d edits the roots differ", len(edits))
		}
	})
}

// applyInOrder is applyEdits in linear time.
func applyInOrder(files []testFile, edits []edit) []testFile {
	var out []testFile
	gone := ""
	none := true
	i := 0
	keep := func(f testFile) {
		if none || f.Path != gone && !format.IsBelow(f.Path, gone) {
			out = append(out, f)
		}
	}
	for _, e := range edits {
		for i < len(files) && format.ComparePaths(files[i].Path, e.path) < 0 {
			keep(files[i])
			i++
		}
		if i < len(files) && files[i].Path == e.path {
			i++
		}
		if e.file != nil {
			out = append(out, *e.file)
		}
		if e.file == nil || e.file.Type != format.TypeDir {
			if none || !format.IsBelow(e.path, gone) {
				gone, none = e.path, false
			}
		}
	}
	for ; i < len(files); i++ {
		keep(files[i])
	}
	return out
}

func TestUpdateTouchesOnlyWhatChanges(t *testing.T) {
	files := synthetic(50000, 40)
	m := newMemory()
	root, built := build(t, m, files, false)
	changed := files[25000]
	changed.Sec++
	for _, c := range []struct {
		name         string
		edits        []edit
		loads, saves int
	}{
		{"a changed time", []edit{{changed.Path, &changed}}, 4, 3},
		{"nothing changed", []edit{{files[777].Path, &files[777]}}, 4, 0},
		{"nothing there", []edit{{"nowhere/x", nil}}, 4, 0},
		{"a seventh of it gone", []edit{{"home/user3", nil}}, 12, 6},
		{"everything gone", []edit{{"", nil}}, 6, 1},
	} {
		m.reset()
		_, stats, err := update(t, m, root, c.edits, false)
		if err != nil {
			t.Fatal(err)
		}
		if len(m.loads) > c.loads || len(m.saves) > c.saves {
			t.Errorf("%s: %d loads and %d new nodes of %d, want at most %d and %d (%+v)", c.name, len(m.loads), len(m.saves), built.NodesSaved, c.loads, c.saves, stats)
		}
	}
}

// Removing a run of entries at either end leaves trees of every height, with a
// single child at the end of a level or not.
func TestRemovingEitherEnd(t *testing.T) {
	var files []testFile
	for i := range 90 {
		files = append(files, testFile{Path: fmt.Sprintf("d/file%02d", i), Type: format.TypeFile})
	}
	m := newMemory()
	root, _ := build(t, m, files, true)
	for n := range len(files) {
		var front, back []edit
		for i, f := range files {
			if i < n {
				front = append(front, edit{f.Path, nil})
			} else {
				back = append(back, edit{f.Path, nil})
			}
		}
		for _, c := range []struct {
			edits []edit
			left  []testFile
		}{{front, files[n:]}, {back, files[:n]}} {
			got, _, err := update(t, m, root, c.edits, true)
			if err != nil {
				t.Fatal(err)
			}
			if want, _ := build(t, m, c.left, true); got != want {
				t.Fatalf("with %d of %d entries left the root differs", len(c.left), len(files))
			}
		}
	}
}

func TestNodesEndOnceTheyAreLarge(t *testing.T) {
	ctx := context.Background()
	m := newMemory()
	u := NewBuilder(ctx, m, testKey)
	e := &format.Entry{Type: format.TypeDir, Xattrs: []format.Xattr{{Name: "user.x", Value: strings.Repeat("x", 1900)}}}
	for i := range 400 {
		e.Path = fmt.Sprintf("%03d%s", i, strings.Repeat("/d", 14000))
		if err := u.Put(e, Content{}, nil); err != nil {
			t.Fatal(err)
		}
	}
	root, stats, err := u.Finish()
	if err != nil {
		t.Fatal(err)
	}
	for id, b := range m.chunks {
		if len(b) > itemsSizeCut+40<<10 {
			t.Errorf("node %s has %d bytes", id.Short(), len(b))
		}
	}
	if stats.NodesSaved < 20 {
		t.Errorf("%d nodes", stats.NodesSaved)
	}
	if n := len(readAll(t, m, root, ReaderOptions{})); n != 400 {
		t.Errorf("%d entries were read", n)
	}
}

func TestUpdateRefuses(t *testing.T) {
	dir := func(p string) edit { return edit{p, &testFile{Path: p, Type: format.TypeDir}} }
	file := func(p string) edit { return edit{p, &testFile{Path: p, Type: format.TypeFile}} }
	gone := func(p string) edit { return edit{p, nil} }
	old := []testFile{{Path: "a", Type: format.TypeFile}, {Path: "d", Type: format.TypeDir}, {Path: "d/f", Type: format.TypeFile}, {Path: "d/x/y", Type: format.TypeFile}}
	for _, c := range []struct {
		name  string
		edits []edit
		want  format.Class
	}{
		{"below an old file", []edit{file("a/b")}, format.ClassTree},
		{"far below an old file", []edit{file("d/f/b/c")}, format.ClassTree},
		{"below a new file", []edit{file("b"), file("b/c")}, format.ClassTree},
		{"below a directory that became a file", []edit{file("d"), file("d/f")}, format.ClassTree},
		{"below a file that became a directory", []edit{dir("a"), file("a/b")}, ""},
		{"below a removed file", []edit{gone("a"), file("a/b")}, ""},
		{"below an implied directory", []edit{file("d/x/z")}, ""},
		{"removed and put", []edit{gone("d"), file("d")}, ""},
		{"put twice", []edit{file("b"), file("b")}, format.ClassOrder},
		{"put and removed", []edit{file("b"), gone("b")}, format.ClassOrder},
		{"out of order", []edit{file("b-c"), file("b/c")}, format.ClassOrder},
		{"a bad path", []edit{gone("b//c")}, format.ClassPath},
	} {
		m := newMemory()
		root, _ := build(t, m, old, false)
		_, _, err := update(t, m, root, c.edits, false)
		if got := format.ClassOf(err); got != c.want || (err == nil) != (c.want == "") {
			t.Errorf("%s: error %v of class %q, want %q", c.name, err, got, c.want)
		}
	}
}

func TestMillionsInOneDirectory(t *testing.T) {
	m := newMemory()
	ctx := context.Background()
	u := NewBuilder(ctx, m, testKey)
	e := format.Entry{Type: format.TypeFile, Has: format.HasMode}
	for i := range 200000 {
		e.Path = fmt.Sprintf("mail/%09d.eml", i)
		if err := u.Put(&e, Content{}, nil); err != nil {
			t.Fatal(err)
		}
	}
	root, stats, err := u.Finish()
	if err != nil || stats.Entries != 200000 {
		t.Fatal(stats, err)
	}
	m.reset()
	e.Path = "mail/000100000x.eml"
	u, err = NewUpdater(ctx, m, testKey, root)
	if err == nil {
		err = u.Put(&e, Content{}, nil)
	}
	if err == nil {
		root, _, err = u.Finish()
	}
	if err != nil || len(m.saves) > 4 || len(m.loads) > 6 {
		t.Fatalf("one new file among many: %d loads, %d saves, error %v", len(m.loads), len(m.saves), err)
	}
	it, err := Get(ctx, Listing{m, root}, e.Path)
	if err != nil || it == nil {
		t.Fatal(it, err)
	}
	m.reset()
	u, err = NewUpdater(ctx, m, testKey, root)
	if err == nil {
		err = u.Remove("mail")
	}
	if err == nil {
		_, stats, err = u.Finish()
	}
	if err != nil || stats.Entries != 0 || len(m.loads) > 8 {
		t.Fatalf("removing all: %d loads, %+v, error %v", len(m.loads), stats, err)
	}
}
