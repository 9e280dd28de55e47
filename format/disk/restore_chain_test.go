//go:build linux

package disk

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format"
)

func TestRestoreChain(t *testing.T) {
	s := newScript(format.FeatureCopy).
		snapshot("1", "").
		dir("d", 0o500).file("d/a", []run{chunk("aaaa"), once("AAAA")}).file("d/b", text("bbbb")).
		dir("e", 0o755).dir("e/f", 0o755).file("e/f/g", text("gggg")).
		file("h", text("hhhh")).symlink("s", "h").
		commit().
		snapshot("2", "1").
		// d itself is not sent again: its time and mode have to stay.
		file("d/a", []run{copied(4, 4, ""), copied(0, 4, "d/b"), chunk("new")}).
		file("d/b", []run{copied(2, 2, "d/a")}).
		remove("e").
		file("h/x", text("x"), mode(0o600)).
		commit().end()
	// An entry below what is a file in the parent is an error.
	if _, err := restore(t, tempDir(t), RestoreOptions{}, s); format.ClassOf(err) != format.ClassTree {
		t.Errorf("an entry below a file: %v", err)
	}
	s.recs = slices.Delete(s.recs, len(s.recs)-5, len(s.recs))
	s.dir("h", 0o755).file("h/x", text("x"), mode(0o600)).
		commit().
		snapshot("3", "2").
		// Chunks of versions that are gone are served all the same.
		file("d/a", []run{ref("aaaa"), ref("bbbb"), ref("gggg")}).
		remove("h/x").remove("never there").
		file("s", []run{ref("hhhh")}).
		commit().end()
	for name, opts := range map[string]RestoreOptions{"plain": {}, "spilled": {MemoryChunks: 1}, "always": {Overwrite: OverwriteAlways}} {
		t.Run(name, func(t *testing.T) {
			dir := tempDir(t)
			write(t, filepath.Join(dir, "e/mine"), "not of any snapshot")
			mustRestore(t, dir, opts, s)
			want := map[string]string{
				"d": "dir 0500", "d/a": `file 0644 "aaaabbbbgggg"`, "d/b": `file 0644 "aa"`,
				"h": "dir 0755", "s": `file 0644 "hhhh"`,
			}
			got := tree(t, dir)
			delete(got, "e")
			delete(got, "e/mine")
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if read(t, filepath.Join(dir, "e/mine")) != "not of any snapshot" {
				t.Error("removing e removed what no snapshot had")
			}
		})
	}
}

func TestRestoreChainOfWholeListings(t *testing.T) {
	s := newScript().
		snapshot("1", "").
		dir("a", 0o755).file("a/x", text("x1")).file("a/y", text("y")).dir("b", 0o755).file("b/z", text("z")).file("c", text("c")).
		commit().
		snapshot("2", "").
		dir("a", 0o700).file("a/x", text("x2+")).file("a/y", []run{ref("y")}).file("d", []run{ref("z"), ref("x1")}).
		commit().
		snapshot("3", "").
		dir("a", 0o700).file("a/y", []run{ref("c")}, mtime(9, 9)).file("e", []run{ref("y"), ref("x1")}).
		commit().end()
	dir := tempDir(t)
	write(t, filepath.Join(dir, "b/mine"), "mine")
	mustRestore(t, dir, RestoreOptions{}, s)
	want := map[string]string{
		"a": "dir 0700", "a/y": `file 0644 "c" at 9.000000009`, "b": "dir 0755", "e": `file 0644 "yx1"`,
	}
	got := tree(t, dir)
	delete(got, "b/mine")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestRestoreParents(t *testing.T) {
	for name, s := range map[string]*script{
		"a base that is not there": newScript(format.FeatureBase).snapshot("2", "1").commit().end(),
		"not the one before":       newScript().snapshot("1", "").commit().snapshot("2", "1").commit().snapshot("3", "1").commit().end(),
	} {
		if _, err := restore(t, tempDir(t), RestoreOptions{}, s); format.ClassOf(err) != format.ClassParent {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRestoreOntoBase(t *testing.T) {
	dir := tempDir(t)
	mustRestore(t, dir, RestoreOptions{}, newScript().snapshot("1", "").
		dir("d", 0o755).file("d/a", text("aaaa")).file("d/b", text("bbbb")).dir("e", 0o755).file("e/f", text("f")).commit().end())
	mustRestore(t, dir, RestoreOptions{Base: testID("1")}, newScript(format.FeatureBase, format.FeatureCopy).snapshot("2", "1").
		file("d/a", []run{copied(0, 2, "d/b"), copied(2, 2, "")}).
		file("d/b", []run{copied(0, 3, "d/a")}).
		remove("e").remove("g/h").
		commit().end())
	_, err := restore(t, dir, RestoreOptions{Base: testID("2"), Delete: true}, newScript(format.FeatureBase).snapshot("3", "2"))
	if err == nil {
		t.Error("delete was allowed where the whole listing is not known")
	}
	want := map[string]string{"d": "dir 0755", "d/a": `file 0644 "bbaa"`, "d/b": `file 0644 "aaa"`}
	if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
		t.Error(diff)
	}
}

func TestRestoreCopyThatCannotBe(t *testing.T) {
	begin := func() *script {
		return newScript(format.FeatureCopy).snapshot("1", "").dir("d", 0o755).file("f", text("ffff")).symlink("s", "f").commit().snapshot("2", "1")
	}
	for name, c := range map[string]struct {
		s     *script
		class format.Class
	}{
		"of nothing":             {begin().file("a", []run{copied(0, 4, "")}), format.ClassReference},
		"of a directory":         {begin().file("a", []run{copied(0, 4, "d")}), format.ClassReference},
		"of this snapshot":       {begin().file("a", text("a")).file("b", []run{copied(0, 1, "a")}), format.ClassReference},
		"of a symbolic link":     {begin().file("a", []run{copied(0, 1, "s")}), format.ClassReference},
		"beyond the end":         {begin().file("a", []run{copied(2, 4, "f")}), format.ClassReference},
		"from beyond the end":    {begin().file("a", []run{copied(5, 1, "f")}), format.ClassReference},
		"beyond what was before": {begin().file("f", []run{copied(0, 5, "")}), format.ClassReference},
		"beyond what it is now":  {begin().file("f", text("f")).file("g", []run{copied(0, 4, "f")}), ""},
		"beyond what is gone":    {begin().remove("f").file("g", []run{copied(4, 1, "f")}), format.ClassReference},
		"of what it was before":  {begin().file("f", []run{copied(1, 3, "")}).file("g", []run{copied(0, 4, "f")}), ""},
		"of what came between": {newScript(format.FeatureCopy).snapshot("1", "").commit().snapshot("2", "1", unsorted).
			file("a", text("a")).file("a", text("aa")).file("b", []run{copied(0, 1, "a")}), format.ClassReference},
		"of what was before that": {newScript(format.FeatureCopy).snapshot("1", "").file("a", text("aaa")).commit().snapshot("2", "1", unsorted).
			file("a", text("a")).file("a", text("aa")).file("b", []run{copied(0, 3, "a")}), ""},
		"out of the target":      {begin().file("a", []run{copied(0, 4, "../f")}), format.ClassReference},
		"of the whole, as it is": {begin().file("a", []run{copied(0, 4, "f")}), ""},
	} {
		c.s.commit().end()
		for _, opts := range []RestoreOptions{{}, {MemoryChunks: 1}, {DryRun: true}} {
			sum, err := restore(t, tempDir(t), opts, c.s)
			if format.ClassOf(err) != c.class || (err != nil) != (c.class != "") || lossKinds(sum) != "" {
				t.Errorf("%s: %v, losses %q", name, err, lossKinds(sum))
			}
		}
	}
}

// TestRestoreCopyOfWhatIsShorter has a target that somebody else changes: that is
// a loss, and no fault of the stream's.
func TestRestoreCopyOfWhatIsShorter(t *testing.T) {
	dir := tempDir(t)
	mustRestore(t, dir, RestoreOptions{}, newScript().snapshot("1", "").file("f", text("ffff")).commit().end())
	if err := os.Truncate(filepath.Join(dir, "f"), 1); err != nil {
		t.Fatal(err)
	}
	sum, err := restore(t, dir, RestoreOptions{Base: testID("1")}, newScript(format.FeatureBase, format.FeatureCopy).
		snapshot("2", "1").file("a", []run{copied(0, 4, "f")}).commit().end())
	if err != nil || lossKinds(sum) != "damaged:1" {
		t.Errorf("%v, losses %q", err, lossKinds(sum))
	}
}

func TestRestoreUnsorted(t *testing.T) {
	s := newScript().snapshot("a", "", unsorted).
		file("z/deep/f", text("first")).
		file("a", text("a")).
		dir("z/deep", 0o500).
		file("z/deep/f", []run{ref("first"), chunk("second")}).
		dir("z", 0o711, mtime(7, 7)).
		file("z/deep/g", text("g")).
		file("b", text("file")).
		dir("b", 0o755).file("b/c", []run{ref("file")}).
		dir("e", 0o755).file("e/x", text("x")).
		symlink("e", "a").
		commit().end()
	for _, overwrite := range []Overwrite{OverwriteIfChanged, OverwriteNever} {
		dir := tempDir(t)
		mustRestore(t, dir, RestoreOptions{Overwrite: overwrite}, s)
		want := map[string]string{
			"a": `file 0644 "a"`, "b": "dir 0755", "b/c": `file 0644 "file"`, "e": "link 0777 -> a",
			"z": "dir 0711 at 7.000000007", "z/deep": "dir 0500", "z/deep/f": `file 0644 "firstsecond"`, "z/deep/g": `file 0644 "g"`,
		}
		if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
			t.Errorf("%s: %s", overwrite, diff)
		}
	}
}

// TestRestoreRandomChains applies random differences, and compares with a model
// that keeps everything in memory.
func TestRestoreRandomChains(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 7))
		m := newModel(rng)
		s := newScript(format.FeatureCopy)
		last := ""
		for i := range 1 + rng.IntN(5) {
			name := fmt.Sprint(i)
			parent := last
			if rng.IntN(4) == 0 {
				parent = ""
			}
			m.snapshot(s, name, parent)
			last = name
		}
		s.end()
		dir := tempDir(t)
		opts := RestoreOptions{Workers: 1 + rng.IntN(3)}
		if rng.IntN(2) == 0 {
			opts.MemoryChunks = 1 + rng.IntN(5)
		}
		if rng.IntN(3) == 0 {
			opts.Verify = true
		}
		mustRestore(t, dir, opts, s)
		want := make(map[string]string)
		for p, content := range m.now {
			if content == nil {
				want[p] = "dir 0755"
			} else {
				want[p] = fmt.Sprintf("file 0644 %q at %d.000000000", *content, m.times[p])
			}
		}
		got := tree(t, dir)
		for p := range m.now {
			for above := format.ParentPath(p); above != ""; above = format.ParentPath(above) {
				if _, ok := m.now[above]; !ok && strings.HasPrefix(got[above], "dir ") {
					want[above] = got[above] // implied: nothing is known of it
				}
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("seed %d: %s", seed, diff)
		}
	}
}

// chainModel is a listing in memory; directories have no content.
type chainModel struct {
	rng   *rand.Rand
	now   map[string]*string
	times map[string]int64
	sent  []string
	clock int64
}

func newModel(rng *rand.Rand) *chainModel {
	return &chainModel{rng: rng, now: make(map[string]*string), times: make(map[string]int64), clock: 1e9}
}

// snapshot changes the model at random, and writes the difference.
func (m *chainModel) snapshot(s *script, name, parent string) {
	before := maps.Clone(m.now)
	changed := make(map[string]bool)
	for range 1 + m.rng.IntN(8) {
		p := m.path()
		m.drop(p)
		changed[p] = true
		if m.rng.IntN(4) == 0 {
			continue
		}
		for dir := format.ParentPath(p); dir != ""; dir = format.ParentPath(dir) {
			// Where nothing is, the directory may as well be implied.
			if c, ok := m.now[dir]; ok && c != nil || !ok && m.rng.IntN(2) == 0 {
				m.now[dir] = nil
				changed[dir] = true
			}
		}
		if m.rng.IntN(4) == 0 {
			m.now[p] = nil
		} else {
			m.now[p] = new(string)
		}
	}
	s.snapshot(name, parent)
	paths := slices.Collect(maps.Keys(m.now))
	if parent != "" {
		for p := range before {
			if _, ok := m.now[p]; !ok {
				paths = append(paths, p)
			}
		}
	}
	slices.SortFunc(paths, format.ComparePaths)
	for _, p := range paths {
		content, ok := m.now[p]
		switch {
		case !ok:
			s.remove(p)
		case parent != "" && !changed[p]:
		case content == nil:
			s.dir(p, 0o755)
		case parent == "" && !changed[p] && m.rng.IntN(2) == 0:
			// Unchanged, so with its time, and in chunks that were sent.
			s.file(p, m.asSent(*content), mtime(m.times[p], 0))
		default:
			m.file(s, p, parent != "", before)
		}
	}
	s.commit()
}

func (m *chainModel) asSent(content string) []run {
	if content == "" {
		return nil
	}
	return []run{chunk(content)}
}

func (m *chainModel) drop(p string) {
	for q := range m.now {
		if q == p || format.IsBelow(q, p) {
			delete(m.now, q)
		}
	}
}

func (m *chainModel) path() string {
	parts := make([]string, 1+m.rng.IntN(3))
	for i := range parts {
		parts[i] = string(rune('a' + m.rng.IntN(3)))
	}
	return strings.Join(parts, "/")
}

// file writes a file of random runs.
func (m *chainModel) file(s *script, p string, parent bool, before map[string]*string) {
	var runs []run
	var content strings.Builder
	for range m.rng.IntN(4) {
		switch m.rng.IntN(4) {
		case 0:
			text := fmt.Sprintf("<%s %d>", p, m.rng.IntN(5))
			runs = append(runs, chunk(text))
			m.sent = append(m.sent, text)
			content.WriteString(text)
		case 1:
			if len(m.sent) == 0 {
				continue
			}
			text := m.sent[m.rng.IntN(len(m.sent))]
			runs = append(runs, ref(text))
			content.WriteString(text)
		case 2:
			runs = append(runs, hole(3))
			content.WriteString("\x00\x00\x00")
		case 3:
			if !parent {
				continue
			}
			from := m.somePath(before)
			if from == "" {
				continue
			}
			old := *before[from]
			at := m.rng.IntN(len(old))
			size := 1 + m.rng.IntN(len(old)-at)
			if from == p && m.rng.IntN(2) == 0 {
				runs = append(runs, copied(at, size, ""))
			} else {
				runs = append(runs, copied(at, size, from))
			}
			content.WriteString(old[at : at+size])
		}
	}
	text := content.String()
	m.clock++
	m.now[p], m.times[p] = &text, m.clock
	s.file(p, runs, mtime(m.clock, 0))
}

// somePath picks a file that is not empty.
func (m *chainModel) somePath(files map[string]*string) string {
	var paths []string
	for p, c := range files {
		if c != nil && *c != "" {
			paths = append(paths, p)
		}
	}
	if len(paths) == 0 {
		return ""
	}
	slices.Sort(paths)
	return paths[m.rng.IntN(len(paths))]
}

func TestRestoreLeavesNothingBehind(t *testing.T) {
	dir := tempDir(t)
	s := newScript().snapshot("1", "").file("a", text("a")).commit().
		snapshot("2", "1").file("a", text("b")).file("b", []run{ref("a")}) // cut off
	mustRestore(t, dir, RestoreOptions{}, s)
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if strings.HasPrefix(n.Name(), ".bk-restore") {
			t.Errorf("%s is left", n.Name())
		}
	}
}
