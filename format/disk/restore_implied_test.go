//go:build linux

package disk

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format"
)

// TestRestoreEmptied has directories that begin empty: a remove, and then the
// entry of the same path.
func TestRestoreEmptied(t *testing.T) {
	begin := func() *script {
		return newScript(format.FeatureCopy).snapshot("1", "").
			dir("d", 0o755).file("d/a", text("aaaa")).dir("d/e", 0o755).file("d/e/f", text("ffff")).file("k", text("k")).
			commit().snapshot("2", "1")
	}
	for name, c := range map[string]struct {
		s    *script
		want map[string]string
	}{
		"a directory": {
			begin().remove("d").dir("d", 0o700).file("d/b", []run{ref("aaaa"), copied(1, 2, "d/e/f")}).dir("d/e", 0o711),
			map[string]string{"d": "dir 0700", "d/b": `file 0644 "aaaaff"`, "d/e": "dir 0711", "k": `file 0644 "k"`},
		},
		"one below another": {
			begin().remove("d/e").dir("d/e", 0o755).file("d/e/x", text("x")).remove("k").dir("k", 0o755),
			map[string]string{"d": "dir 0755", "d/a": `file 0644 "aaaa"`, "d/e": "dir 0755", "d/e/x": `file 0644 "x"`, "k": "dir 0755"},
		},
		"everything": {
			begin().remove("").dir("", 0o755).file("x", []run{copied(0, 4, "d/a")}),
			map[string]string{"x": `file 0644 "aaaa"`},
		},
	} {
		c.s.commit().end()
		for _, opts := range []RestoreOptions{{}, {MemoryChunks: 1}, {DryRun: true}} {
			dir := tempDir(t)
			mustRestore(t, dir, opts, c.s)
			if diff := cmp.Diff(c.want, tree(t, dir)); diff != "" && !opts.DryRun {
				t.Errorf("%s: %s", name, diff)
			}
		}
	}
	for name, s := range map[string]*script{
		"twice":               begin().remove("d").dir("d", 0o755).dir("d", 0o755),
		"a file":              begin().remove("k").file("k", nil),
		"two removes":         begin().remove("d").remove("d"),
		"something between":   begin().remove("d").file("e", nil).dir("d", 0o755),
		"the entry, then not": begin().dir("d", 0o755).remove("d"),
	} {
		if _, err := restore(t, tempDir(t), RestoreOptions{}, s); format.ClassOf(err) != format.ClassOrder {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRestoreImplied has directories without an entry, which go with the last
// thing below them.
func TestRestoreImplied(t *testing.T) {
	begin := func(options ...func(*format.Snapshot)) *script {
		return newScript().snapshot("1", "").
			dir("d", 0o755).file("d/a/b/f", text("f")).file("d/a/b/g", text("g")).file("i/f", text("f")).file("k", text("k")).
			commit().snapshot("2", "1", options...)
	}
	const implied = "implied"
	for name, c := range map[string]struct {
		s    *script
		want map[string]string
	}{
		"the last": {
			begin().remove("d/a/b/f").remove("d/a/b/g").remove("i/f"),
			map[string]string{"d": "dir 0755", "k": `file 0644 "k"`},
		},
		"not the last": {
			begin().remove("d/a/b/f").remove("i/f"),
			map[string]string{"d": "dir 0755", "d/a": implied, "d/a/b": implied, "d/a/b/g": `file 0644 "g"`, "k": `file 0644 "k"`},
		},
		"others come": {
			begin().file("d/a/b/e", text("e")).remove("d/a/b/f").remove("d/a/b/g").remove("i/f").file("i/g", text("g")),
			map[string]string{"d": "dir 0755", "d/a": implied, "d/a/b": implied, "d/a/b/e": `file 0644 "e"`, "i": implied, "i/g": `file 0644 "g"`, "k": `file 0644 "k"`},
		},
		"an entry comes": {
			begin().dir("d/a", 0o700).remove("d/a/b").dir("i", 0o711).remove("i/f").remove("k"),
			map[string]string{"d": "dir 0755", "d/a": "dir 0700", "i": "dir 0711"},
		},
		"it is there again": {
			begin().remove("d").remove("i/f").remove("k").commit().
				snapshot("3", "2").file("d/x", text("x")).file("i", text("i")).commit().
				snapshot("4", "3").remove("d/x"),
			map[string]string{"i": `file 0644 "i"`},
		},
		"an entry in another listing": {
			begin().commit().snapshot("3", "").file("d/x", text("x")).file("k/y", text("y")).commit().
				snapshot("4", "3").remove("d/x"),
			map[string]string{"k": implied, "k/y": `file 0644 "y"`},
		},
		"unsorted": {
			begin(unsorted).file("u/f", text("f")).remove("i/f").file("u/v/w", nil).remove("u/f").remove("u/v/w").file("i/f", text("new")).
				remove("d/a/b/g").remove("k").remove("d/a/b/f").file("d/a", text("a")).file("k", text("k2")),
			map[string]string{"d": "dir 0755", "d/a": `file 0644 "a"`, "i": implied, "i/f": `file 0644 "new"`, "k": `file 0644 "k2"`},
		},
		"unsorted, an entry after it": {
			begin(unsorted).remove("i/f").dir("i", 0o755).remove("d").remove("k"),
			map[string]string{"i": "dir 0755"},
		},
	} {
		c.s.commit().end()
		for _, opts := range []RestoreOptions{{}, {MemoryChunks: 1}, {DryRun: true}} {
			dir := tempDir(t)
			mustRestore(t, dir, opts, c.s)
			got := tree(t, dir)
			for p := range got {
				if c.want[p] == implied && strings.HasPrefix(got[p], "dir 0700") {
					got[p] = implied
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" && !opts.DryRun {
				t.Errorf("%s: %s", name, diff)
			}
		}
	}

	// What lies there besides stays, and so does what the target held before, of
	// which nobody knows whether it had an entry.
	dir := tempDir(t)
	write(t, filepath.Join(dir, "i/mine"), "mine")
	mustRestore(t, dir, RestoreOptions{}, begin().remove("d").remove("i/f").commit().end())
	mustRestore(t, dir, RestoreOptions{}, newScript().snapshot("1", "").dir("e", 0o755).file("e/f", text("f")).commit().end())
	mustRestore(t, dir, RestoreOptions{Base: testID("1")}, newScript(format.FeatureBase).snapshot("2", "1").remove("e/f").commit().end())
	for p, want := range map[string]bool{"i/mine": true, "e": true, "e/f": false, "d": false, "k": true} {
		if _, err := os.Lstat(filepath.Join(dir, p)); (err == nil) != want {
			t.Errorf("%s: %v", p, err)
		}
	}
}
