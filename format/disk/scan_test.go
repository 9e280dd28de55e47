package disk

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/bk-backup/bk/format"
)

func TestScanEverything(t *testing.T) {
	tree := newTestTree(t)
	tree.tricky()
	o := ScanOptions{Roots: []string{tree.root}, Dedup: true}
	got := scan(t, nil, o)
	checkAgainstDisk(t, got.model, tree.root)
	if len(got.errors) > 0 || len(got.commit.Losses) > 0 {
		t.Errorf("troubles: %v, losses: %v", got.errors, got.commit.Losses)
	}
	again := scan(t, nil, o)
	// The directories above the root may change under our hands.
	above := strings.Count(tree.root, "/") - 1
	if d := cmp.Diff(got.records[above:], again.records[above:]); d != "" {
		t.Errorf("two scans of the same tree differ:\n%s", d)
	}
	file := func(name string) *listed {
		t.Helper()
		f := got.model[strings.TrimPrefix(tree.path(name), "/")]
		if f == nil {
			t.Fatalf("%s is not in the listing", name)
		}
		return f
	}
	// The rest was checked against the disk; these are what that could not tell.
	for name, flags := range map[string][]string{"x/nodump": {"nodump"}, "x/immutable": {"immutable"}, "x/noatime-dir": {"noatime"}, "x/user": nil} {
		if f := file(name); !slices.Equal(f.Flags, flags) && supportsFlags(tree) {
			t.Errorf("%s has the flags %q, not %q", name, f.Flags, flags)
		}
	}
	if os.Geteuid() == 0 {
		if f := file("plain.txt"); f.User != "root" || f.Group != "root" {
			t.Errorf("plain.txt belongs to %q and %q", f.User, f.Group)
		}
		if f := file("own/no-name"); f.User != "" || f.UID != 12345 {
			t.Errorf("own/no-name belongs to %q, %d", f.User, f.UID)
		}
	}
	if f := file("plain.txt"); f.Chunker != "gear:16KiB" {
		t.Errorf("plain.txt was cut by %q", f.Chunker)
	}
	if roots := []string{strings.TrimPrefix(tree.root, "/")}; !slices.Equal(got.model.clone().roots(t, o), roots) {
		t.Errorf("the roots are not %q", roots)
	}
}

// roots returns what a scan with these options says that its roots are.
func (m model) roots(t *testing.T, o ScanOptions) []string {
	o.ChunkerFor = testChunkerFor
	s, err := Scan(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for {
		rec, err := s.Next()
		if err != nil {
			t.Fatal(err)
		}
		if snapshot, ok := rec.(*format.Snapshot); ok {
			if !slices.Equal(snapshot.Roots, s.Roots()) {
				t.Errorf("roots %q and %q", snapshot.Roots, s.Roots())
			}
			return snapshot.Roots
		}
	}
}

// supportsFlags reports whether the tree's file system takes flags from us.
func supportsFlags(t *testTree) bool {
	f, err := os.Open(t.path("x/nodump"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	bits, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	return err == nil && bits&0x40 != 0 && os.Geteuid() == 0
}

// TestMeasure compares what Measure says with what a scan counts in the end.
func TestMeasure(t *testing.T) {
	tree := newTestTree(t)
	tree.tricky()
	o := ScanOptions{Roots: []string{tree.root, tree.path("x/user")}, ExcludeIfPresent: []string{"fifo1"}}
	estimate, err := Measure(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	o.ChunkerFor, o.Snapshot.Estimate = testChunkerFor, &estimate
	for _, base := range []model{nil, scan(t, nil, o).model} {
		var last format.Progress
		o.OnProgress = func(p format.Progress) {
			if p.Bytes < last.Bytes || p.Entries < last.Entries {
				t.Errorf("%+v comes after %+v", p, last)
			}
			last = p
		}
		got := scan(t, base, o)
		if last.Entries != estimate.Entries || last.Bytes != estimate.Bytes || last.BytesTotal != last.Bytes || last.EntriesTotal != last.Entries {
			t.Errorf("measured %+v, in the end it was %+v", estimate, last)
		}
		if got.stats.Entries != estimate.Entries {
			t.Errorf("measured %+v, counted %+v", estimate, got.stats)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Measure(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled measurement ended with %v", err)
	}
	if _, err := Measure(t.Context(), ScanOptions{Roots: []string{tree.path("none")}}); !errors.Is(err, unix.ENOENT) {
		t.Errorf("of no root: %v", err)
	}
}

func TestScanHardLinks(t *testing.T) {
	tree := newTestTree(t)
	outside := newTestTree(t)
	large := random(1, 3<<20)
	tree.file("b/large", large)
	tree.link("a/large", "b/large")
	tree.link("c", "b/large")
	tree.file("lone", "content")
	if err := os.Link(tree.path("lone"), outside.path("x")); err != nil {
		t.Fatal(err)
	}
	tree.file("single", "content")
	got := scan(t, nil, ScanOptions{Roots: []string{tree.root}})
	checkAgainstDisk(t, got.model, tree.root)
	rel := strings.TrimPrefix(tree.root, "/") + "/"
	sum := sha256.Sum256([]byte(rel + "a/large"))
	for _, name := range []string{"a/large", "b/large", "c"} {
		if f := got.model[rel+name]; f.Hardlink != string(sum[:]) || f.Content != large {
			t.Errorf("%s: group %x, %d bytes", name, f.Hardlink, len(f.Content))
		}
	}
	sum = sha256.Sum256([]byte(rel + "lone"))
	if f := got.model[rel+"lone"]; f.Hardlink != string(sum[:]) {
		t.Errorf("lone: group %x", f.Hardlink)
	}
	if got.stats.BytesRead != uint64(len(large)+2*len("content")) {
		t.Errorf("%d bytes were read", got.stats.BytesRead)
	}
	once := map[format.ID]bool{}
	for _, id := range got.model[rel+"c"].Chunks {
		once[id] = true
	}
	if want := len(once) + 2; got.data != want {
		t.Errorf("%d data records, not %d", got.data, want)
	}
}

// TestScanTakesOverGroupNames scans on a listing in which groups of hard links have
// names of another program's, as an imported one has.
func TestScanTakesOverGroupNames(t *testing.T) {
	tree := newTestTree(t)
	tree.file("a", "content")
	tree.link("b", "a")
	tree.file("c", "other content")
	tree.link("d", "c")
	first := scan(t, nil, ScanOptions{Roots: []string{tree.root}})
	rel := strings.TrimPrefix(tree.root, "/") + "/"
	foreign := func(names ...string) model {
		m := first.model.clone()
		for i, name := range []string{"a", "b", "c", "d"} {
			f := *m[rel+name]
			f.Hardlink = names[i]
			m[rel+name] = &f
		}
		return m
	}
	for _, c := range []struct {
		why   string
		names []string
		read  int
	}{
		{"other names", []string{"x", "x", "y", "y"}, 0},
		{"the name of the other group", []string{first.model[rel+"c"].Hardlink, first.model[rel+"c"].Hardlink, first.model[rel+"a"].Hardlink, first.model[rel+"a"].Hardlink}, 0},
		{"one group that is two", []string{"x", "x", "x", "x"}, 2 * len("other content")},
		{"a name for one of two", []string{"x", "", "y", "y"}, len("content")},
	} {
		got := scan(t, foreign(c.names...), ScanOptions{Roots: []string{tree.root}})
		if got.stats.BytesRead > uint64(c.read) {
			t.Errorf("%s: %d bytes were read, not %d", c.why, got.stats.BytesRead, c.read)
		}
		group := func(name string) string { return got.model[rel+name].Hardlink }
		if group("a") == "" || group("a") != group("b") || group("c") == "" || group("c") != group("d") || group("a") == group("c") {
			t.Errorf("%s: the groups are %x, %x, %x, %x", c.why, group("a"), group("b"), group("c"), group("d"))
		}
	}
}

func TestScanHoles(t *testing.T) {
	tree := newTestTree(t)
	block := random(1, 4096)
	tree.sparse("middle", 1<<20, map[int64]string{512 << 10: block})
	tree.sparse("hole", 1<<20, nil)
	tree.file("zeros", strings.Repeat("\x00", 1<<20))
	got := scan(t, nil, ScanOptions{Roots: []string{tree.root}})
	checkAgainstDisk(t, got.model, tree.root)
	rel := strings.TrimPrefix(tree.root, "/") + "/"
	for name, want := range map[string]listed{
		"middle": {
			Entry: format.Entry{Extents: []format.Extent{{Offset: 512 << 10, Size: 4096}}},
			Holes: []format.Extent{{Offset: 0, Size: 512 << 10}, {Offset: 516 << 10, Size: 508 << 10}},
		},
		"hole":  {Holes: []format.Extent{{Offset: 0, Size: 1 << 20}}},
		"zeros": {},
	} {
		f := got.model[rel+name]
		if !slices.Equal(f.Extents, want.Extents) || !slices.Equal(f.Holes, want.Holes) {
			t.Errorf("%s: extents %v, holes %v", name, f.Extents, f.Holes)
		}
	}
}

func TestScanUnchanged(t *testing.T) {
	tree := newTestTree(t)
	tree.tricky()
	o := ScanOptions{Roots: []string{tree.root}}
	first := scan(t, nil, o)
	// Directories above the root may change under our hands.
	above := func(paths []string) bool {
		return slices.ContainsFunc(paths, func(p string) bool { return format.IsBelow("/"+p, tree.root) || "/"+p == tree.root })
	}
	o.afterWalk = func(path string) { t.Errorf("%s was looked at closely", path) }
	second := scan(t, first.model, o)
	if above(second.entries) || above(second.removes) || second.data > 0 || second.stats.Unchanged < second.stats.Entries-5 {
		t.Errorf("a second scan sent %q, %q and counted %+v", second.entries, second.removes, second.stats)
	}
	if !slices.Equal(second.header.Features, []format.Feature{format.FeatureBase}) {
		t.Errorf("features %q", second.header.Features)
	}
	o.afterWalk = nil

	// Same size and mtime: only ctime tells.
	plain := tree.path("plain.txt")
	var st unix.Stat_t
	if err := unix.Stat(plain, &st); err != nil {
		t.Fatal(err)
	}
	tree.file("plain.txt", "Hello, this is version TWO.\n")
	tree.mtime(plain, st.Mtim.Sec, st.Mtim.Nsec)
	third := scan(t, first.model, o)
	if third.data != 1 || !slices.Contains(third.entries, plain[1:]) {
		t.Errorf("a change of the same size and mtime gave %q", third.entries)
	}
	checkAgainstDisk(t, third.model, tree.root)
	o.IgnoreCtime = true
	if fourth := scan(t, first.model, o); fourth.data != 0 || above(fourth.entries) {
		t.Errorf("with IgnoreCtime a change of ctime gave %q", fourth.entries)
	}

	// A changed attribute is seen in spite of IgnoreCtime.
	if unix.Setxattr(plain, "user.new", []byte("n"), 0) == nil {
		if fifth := scan(t, third.model, o); !slices.Contains(fifth.entries, plain[1:]) {
			t.Errorf("a changed attribute gave %q", fifth.entries)
		}
	}
	o.IgnoreCtime = false

	// Another inode with everything else equal cannot have the same ctime, so the
	// listing is changed instead.
	for _, f := range third.model {
		f.Inode++
	}
	if sixth := scan(t, third.model, o); sixth.data < 10 {
		t.Errorf("other inodes gave %q", sixth.entries)
	}
	o.IgnoreInode = true
	if seventh := scan(t, first.model, o); seventh.data > 1 {
		t.Errorf("with IgnoreInode other inodes gave %q", seventh.entries)
	}
}

// TestScanFlagsChange changes what neither times nor sizes tell.
func TestScanFlagsChange(t *testing.T) {
	tree := newTestTree(t)
	path := tree.file("x/nodump", "x")
	o := ScanOptions{Roots: []string{path}, IgnoreCtime: true}
	first := scan(t, nil, o)
	tree.flag(path, 0x40)
	if !supportsFlags(tree) {
		t.Skip("the file system has no flags for us; CI runs as root on one that has")
	}
	second := scan(t, first.model, o)
	if f := second.model[path[1:]]; !slices.Contains(second.entries, path[1:]) || !slices.Equal(f.Flags, []string{"nodump"}) {
		t.Errorf("a changed flag gave %q, %+v", second.entries, f)
	}
}

// TestScanOtherRoots has a previous snapshot of "/" with its own entry, which can
// only be taken away with all that is below.
func TestScanOtherRoots(t *testing.T) {
	tree := newTestTree(t)
	tree.file("x", "content")
	o := ScanOptions{Roots: []string{tree.root}}
	base := scan(t, nil, o).model
	base[""] = &listed{Entry: format.Entry{Type: format.TypeDir}}
	base["aaa"] = &listed{Entry: format.Entry{Path: "aaa", Type: format.TypeFifo}}
	base["zzz"] = &listed{Entry: format.Entry{Path: "zzz", Type: format.TypeFifo}}
	got := scan(t, base, o)
	if !slices.Equal(got.removes, []string{""}) || got.model["zzz"] != nil || got.data != 1 {
		t.Errorf("removed %q, sent %q", got.removes, got.entries)
	}
	checkAgainstDisk(t, got.model, tree.root)
}

// TestLinksAreForgotten has the merge keep no group whose names it has all seen.
func TestLinksAreForgotten(t *testing.T) {
	m := &merge{Scanner: &Scanner{}, links: make(map[linkKey]*linkGroup)}
	n := &node{path: "a", status: status{nlink: 2, ino: 7, size: 1 << 30}}
	first, _, err := m.linkOf(n, nil)
	if err != nil {
		t.Fatal(err)
	}
	m.keepContent(first, &item{}, &n.status)
	if len(m.links) != 1 || m.linksWeight == 0 {
		t.Errorf("%d groups of weight %d after the first name", len(m.links), m.linksWeight)
	}
	n.path = "b"
	if second, _, err := m.linkOf(n, nil); err != nil || second != first || len(m.links) != 0 || m.linksWeight != 0 {
		t.Errorf("%d groups of weight %d after the last name", len(m.links), m.linksWeight)
	}
	// What is too much to remember is read again.
	huge := &status{nlink: 3, size: 1 << 50}
	var it item
	m.keepContent(&linkGroup{left: 2}, &it, huge)
	if it.content != nil || m.linksWeight != 0 {
		t.Errorf("a list of chunks of weight %d is kept", m.linksWeight)
	}
}

func TestScanSelection(t *testing.T) {
	tree := newTestTree(t)
	for _, name := range []string{
		"cache/CACHEDIR.TAG", "cache/x", "cache/d/y", "no-cache/CACHEDIR.TAG", "no-cache/x",
		"skip/.nobackup", "skip/x", "if/marker", "if/x", "not-if/marker", "not-if/x",
		"d/drop.o", "d/keep.c", "gone/below", "kept/below",
	} {
		tree.file(name, "Some text")
	}
	tree.file("cache/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n# comment\n")
	tree.file("if/marker", "header and more")
	got := scan(t, nil, ScanOptions{
		Roots:            []string{tree.root + "/./d/../"},
		ExcludeCaches:    true,
		ExcludeIfPresent: []string{".nobackup", "marker:header"},
		Drop: func(path string, isDir bool) (bool, bool) {
			name := path[strings.LastIndexByte(path, '/')+1:]
			if isDir != (name != "drop.o" && !strings.Contains(name, ".") && name != "x" && name != "y" && name != "marker" && name != "below" && !strings.Contains(name, "TAG")) {
				t.Errorf("%s: isDir is %v", path, isDir)
			}
			return name == "drop.o" || name == "gone" || name == "kept", name == "gone"
		},
	})
	rel := strings.TrimPrefix(tree.root, "/")
	var paths []string
	for _, p := range got.model.paths() {
		if format.IsBelow(p, rel) {
			paths = append(paths, p[len(rel)+1:])
		}
	}
	want := []string{
		"cache", "cache/CACHEDIR.TAG", "d", "d/keep.c", "if", "if/marker", "kept", "kept/below",
		"no-cache", "no-cache/CACHEDIR.TAG", "no-cache/x", "not-if", "not-if/marker", "not-if/x", "skip", "skip/.nobackup",
	}
	if d := cmp.Diff(want, paths); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestScanOneFileSystem(t *testing.T) {
	var proc, top unix.Stat_t
	if unix.Stat("/proc/self", &proc) != nil || unix.Stat("/", &top) != nil || proc.Dev == top.Dev {
		t.Fatal("/proc is not mounted")
	}
	o := ScanOptions{
		Roots:         []string{"/"},
		OneFileSystem: true,
		Drop: func(path string, isDir bool) (bool, bool) {
			keep := path == "proc" || strings.HasPrefix(path, "proc/sys") && !strings.HasPrefix(path, "proc/sysvipc") && strings.Count(path, "/") < 3
			return !keep, true
		},
	}
	got := scan(t, nil, o)
	if d := cmp.Diff([]string{"", "proc"}, got.model.paths()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	// A root beyond the mount point is entered, and nothing else there.
	o.Roots = []string{"/", "/proc/sys/kernel/ostype"}
	got = scan(t, nil, o)
	if d := cmp.Diff([]string{"", "proc", "proc/sys", "proc/sys/kernel"}, got.model.paths()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	o.Drop = func(path string, isDir bool) (bool, bool) { return !strings.HasPrefix(path, "proc"), true }
	got = scan(t, nil, o)
	if d := cmp.Diff([]string{"", "proc", "proc/sys", "proc/sys/kernel", "proc/sys/kernel/ostype"}, got.model.paths()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if f := got.model["proc/sys/kernel/ostype"]; f.Content != "Linux\n" || f.Size != 0 || f.EOF.Size != 6 {
		t.Errorf("a file without a size came as %+v", f)
	}
}

func TestScanRoots(t *testing.T) {
	tree := newTestTree(t)
	tree.file("real/a/file", "1")
	tree.file("real/b/other", "2")
	tree.symlink("way", "real")
	rel := strings.TrimPrefix(tree.root, "/")
	below := func(o ScanOptions) []string {
		t.Helper()
		got := scan(t, nil, o)
		var paths []string
		for _, p := range got.model.paths() {
			if got.model[p].Type != format.TypeDir || format.IsBelow(p, rel) {
				paths = append(paths, strings.TrimPrefix(p, rel+"/"))
			}
		}
		for p := rel; p != ""; p = format.ParentPath(p) {
			if got.model[p] == nil || got.model[p].Type != format.TypeDir {
				t.Errorf("%q is missing", p)
			}
		}
		if got.model[""] != nil {
			t.Errorf("the root is an entry")
		}
		return paths
	}
	for _, c := range []struct{ roots, want []string }{
		{[]string{"real/a"}, []string{"real", "real/a", "real/a/file"}},
		{[]string{"real/a/file", "real/b"}, []string{"real", "real/a", "real/a/file", "real/b", "real/b/other"}},
		{[]string{"real/a", "real", "real/a/file"}, []string{"real", "real/a", "real/a/file", "real/b", "real/b/other"}},
		{[]string{"way"}, []string{"way"}},
		{[]string{"way/a"}, []string{"way", "way/a", "way/a/file"}},
	} {
		var roots []string
		for _, r := range c.roots {
			roots = append(roots, tree.path(r))
		}
		if d := cmp.Diff(c.want, below(ScanOptions{Roots: roots})); d != "" {
			t.Errorf("%q (-want +got):\n%s", c.roots, d)
		}
	}
	t.Chdir(tree.path("real"))
	if d := cmp.Diff([]string{"real", "real/b", "real/b/other"}, below(ScanOptions{Roots: []string{"b"}})); d != "" {
		t.Errorf("a relative root (-want +got):\n%s", d)
	}
}

func TestScanRefuses(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		o    ScanOptions
		want string
	}{
		"nothing":        {ScanOptions{}, "either roots"},
		"both":           {ScanOptions{Roots: []string{dir}, Stdin: strings.NewReader(""), StdinName: "x"}, "either roots"},
		"two sources":    {ScanOptions{Roots: []string{dir}, Dir: dir}, "either roots"},
		"no survey":      {ScanOptions{Dir: dir, Inodes: new(Inodes)}, "come together"},
		"flat refs":      {ScanOptions{Dir: dir, Flat: true, Dedup: true}, "no refs"},
		"outside":        {ScanOptions{Dir: dir, At: "a/../b"}, "place the directory"},
		"missing":        {ScanOptions{Roots: []string{dir + "/none", dir + "/neither"}}, "/none\": look at the root"},
		"empty":          {ScanOptions{Roots: []string{""}}, "not a path"},
		"no name":        {ScanOptions{Stdin: strings.NewReader("")}, "needs a name"},
		"parent without": {ScanOptions{Roots: []string{dir}, Snapshot: format.Snapshot{Parent: format.ID{1}}}, "parent's id"},
	} {
		c.o.ChunkerFor = testChunkerFor
		s, err := Scan(t.Context(), c.o)
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Scan(t.Context(), ScanOptions{Roots: []string{dir}}); err == nil {
		t.Error("no chunker was refused")
	}
}

func TestScanStdin(t *testing.T) {
	content := random(1, 5<<20)
	o := ScanOptions{Stdin: strings.NewReader(content), StdinName: "/dumps/../dump.sql", Now: func() time.Time { return time.Unix(1234, 5) }}
	base := model{
		"dump.sql/x": {Entry: format.Entry{Path: "dump.sql/x", Type: format.TypeFifo}},
		"old":        {Entry: format.Entry{Path: "old", Type: format.TypeDir}},
		"old/x":      {Entry: format.Entry{Path: "old/x", Type: format.TypeFifo}},
	}
	got := scan(t, base, o)
	if d := cmp.Diff([]string{"dump.sql"}, got.model.paths()); d != "" {
		t.Fatal(d)
	}
	f := got.model["dump.sql"]
	if f.Content != content || f.Mtime != (format.Time{Sec: 1234, Nsec: 5}) || f.Mode != 0o600 || f.Has&format.HasSize != 0 {
		t.Errorf("standard input came as %d bytes, %+v", len(f.Content), f.Entry)
	}
	o.Stdin = io.MultiReader(strings.NewReader(content), failingReader{})
	got, err := tryScan(t, nil, o)
	if !errors.Is(err, errBroken) || got.commit.Entries > 0 {
		t.Errorf("a failing standard input ended with %v", err)
	}
}

var errBroken = errors.New("broken")

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errBroken }

func TestScanCompressAndDedup(t *testing.T) {
	tree := newTestTree(t)
	text := strings.Repeat("the same words again and again ", 3000)
	tree.file("a", text)
	tree.file("b", text)
	tree.file("c", random(1, 3<<20))
	tree.file("d", random(1, 3<<20)+"end")
	plain := scan(t, nil, ScanOptions{Roots: []string{tree.root}})
	got := scan(t, nil, ScanOptions{Roots: []string{tree.root}, Compress: true, Dedup: true})
	diffModels(t, plain.model.below(tree.root), got.model.below(tree.root))
	checkAgainstDisk(t, got.model, tree.root)
	if !slices.Equal(got.header.Features, []format.Feature{format.FeatureZstd}) {
		t.Errorf("features %q", got.header.Features)
	}
	distinct := map[format.ID]bool{}
	for _, f := range got.model {
		for _, id := range f.Chunks {
			distinct[id] = true
		}
	}
	if got.data != len(distinct) || plain.data <= got.data {
		t.Errorf("%d chunks were sent as %d, and as %d without Dedup", len(distinct), got.data, plain.data)
	}
}

func TestSentSet(t *testing.T) {
	s := newSentSet()
	id := func(i int) format.ID { return format.ID{byte(i), byte(i >> 8), byte(i >> 16)} }
	for i := range 3 * sentIDsMax {
		s.add(id(i))
		if i%1000 == 0 && !s.has(id(0)) {
			t.Fatalf("what is used was forgotten after %d", i)
		}
	}
	if n := len(s.new) + len(s.old); n > 2*sentIDsMax {
		t.Errorf("%d ids are kept", n)
	}
	if s.has(id(1)) || !s.has(id(3*sentIDsMax-1)) || s.has(id(3*sentIDsMax)) {
		t.Error("the wrong ids are kept")
	}
}

// TestScanDeep has paths longer than any call takes, and more directories on the
// way than may be open.
func TestScanDeep(t *testing.T) {
	tree := newTestTree(t)
	fd, err := unix.Open(tree.root, unix.O_PATH, 0)
	if err != nil {
		t.Fatal(err)
	}
	const depth = 130
	name := strings.Repeat("n", 200)
	for range depth {
		if err := unix.Mkdirat(fd, name, 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(fd, name, unix.O_PATH, 0)
		if err != nil {
			t.Fatal(err)
		}
		file, err := unix.Openat(next, "file", unix.O_CREAT|unix.O_WRONLY, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Write(file, []byte("content")); err != nil {
			t.Fatal(err)
		}
		unix.Close(file)
		unix.Close(fd)
		fd = next
	}
	unix.Close(fd)
	for _, openDirs := range []int{1, 16, 1000} {
		before, most := openFiles(t), atomic.Int64{}
		got := scan(t, nil, ScanOptions{Roots: []string{tree.root}, openDirs: openDirs, Workers: 1, afterWalk: func(string) {
			most.Store(max(most.Load(), int64(openFiles(t))))
		}})
		// The walk and the merge each need two directories at a time beyond the idle
		// ones, the reader one and a file.
		if n := int(most.Load()) - before; n > openDirs+6 {
			t.Errorf("with %d directories open, %d are", openDirs, n)
		}
		path := tree.root[1:] + strings.Repeat("/"+name, depth) + "/file"
		if f := got.model[path]; f == nil || f.Content != "content" || len(got.errors) > 0 {
			t.Errorf("with %d directories open: %v, %q", openDirs, f, got.errors)
		}
		if got.stats.Files != depth {
			t.Errorf("with %d directories open there are %d files", openDirs, got.stats.Files)
		}
	}
}

func openFiles(t testing.TB) int {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Error(err)
	}
	return len(fds)
}

func TestScanPathTooLong(t *testing.T) {
	tree := newTestTree(t)
	tree.file("x", "after")
	fd, err := unix.Open(tree.dir("d"), unix.O_PATH, 0)
	if err != nil {
		t.Fatal(err)
	}
	name := strings.Repeat("n", 250)
	for range format.PathSizeMax/250 + 1 {
		if err := unix.Mkdirat(fd, name, 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(fd, name, unix.O_PATH, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		fd = next
	}
	unix.Close(fd)
	got := scan(t, nil, ScanOptions{Roots: []string{tree.root}})
	if len(got.errors) != 1 || len(got.commit.Losses) != 1 || got.commit.Losses[0].Kind != LossLimit {
		t.Errorf("losses %v", got.commit.Losses)
	}
	if got.model[tree.root[1:]+"/x"] == nil {
		t.Error("what comes after is missing")
	}
}

func TestScanStops(t *testing.T) {
	tree := newTestTree(t)
	tree.tricky()
	before := runtime.NumGoroutine()
	for _, n := range []int{0, 1, 2, 5, 50, 200, 500} {
		ctx, cancel := context.WithCancelCause(context.Background())
		s, err := Scan(ctx, ScanOptions{Roots: []string{tree.root}, ChunkerFor: testChunkerFor})
		if err != nil {
			t.Fatal(err)
		}
		for range n {
			if _, err := s.Next(); err != nil {
				t.Fatal(err)
			}
		}
		if n%2 == 0 {
			cancel(errBroken)
			for {
				if _, err = s.Next(); err != nil {
					break
				}
			}
			if !errors.Is(err, errBroken) {
				t.Errorf("after %d records a cancelled scan ended with %v", n, err)
			}
			if _, again := s.Next(); again != err {
				t.Errorf("the error is not sticky: %v", again)
			}
		}
		s.Close()
		cancel(nil)
	}
	for range 100 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d goroutines were left", runtime.NumGoroutine()-before)
}
