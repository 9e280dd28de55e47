package repo

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format"
)

// typeHistory makes listings whose few paths change their types.
func typeHistory(rng *rand.Rand, n int) (m model) {
	paths := []string{"a", "a/b", "a/b/c", "a/c", "b", "b/a", "b/b", "b/b/a", "c/a/b", "c/b"}
	for range n {
		listing := map[string]file{}
		for _, path := range paths {
			above := slices.ContainsFunc(paths, func(up string) bool {
				f, ok := listing[up]
				return ok && format.IsBelow(path, up) && f.entry.Type != format.TypeDir
			})
			if above || rng.IntN(4) == 0 {
				continue
			}
			typ := []format.Type{format.TypeFile, format.TypeDir, format.TypeDir, format.TypeSymlink}[rng.IntN(4)]
			f := file{entry: modelEntry(path, typ)}
			if typ == format.TypeFile {
				f.chunks = []string{fmt.Sprint("content ", rng.IntN(3))}
			}
			listing[path] = f
		}
		m = append(m, listing)
	}
	return m
}

// TestTypeChangesAndPatterns drops by patterns that look at the type, of paths
// whose type changes: a difference leaves what a whole listing does.
func TestTypeChangesAndPatterns(t *testing.T) {
	t.Parallel()
	// Each drops a name, as a directory only, as anything else only, or both, and all
	// that is below but for one name.
	type rule struct{ name, again string }
	drops := map[string]func(rule) func(string, bool) (bool, bool){}
	for name, of := range map[string]func(isDir bool) bool{
		"directories": func(isDir bool) bool { return isDir }, "others": func(isDir bool) bool { return !isDir }, "all": func(bool) bool { return true },
	} {
		drops[name] = func(r rule) func(string, bool) (bool, bool) {
			return func(path string, isDir bool) (bool, bool) {
				parts := strings.Split(path, "/")
				for i, part := range parts {
					last := i == len(parts)-1
					if part == r.name && (last && of(isDir) || !last && of(true)) {
						if last || parts[len(parts)-1] != r.again {
							return true, r.again == ""
						}
					}
				}
				return false, false
			}
		}
	}
	for seed := range uint64(10) {
		m := typeHistory(rand.New(rand.NewPCG(seed, 41)), 6)
		r := newRepo(t, 1)
		importModel(t, r, m)
		list, _, err := r.List(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		for _, kind := range slices.Sorted(maps.Keys(drops)) {
			for _, rule := range []rule{{"a", ""}, {"b", ""}, {"b", "a"}, {"a", "b"}} {
				drop := drops[kind](rule)
				want := expand(t, r, format.ExportOptions{Full: true, Drop: drop})
				for i, whole := range expand(t, r, format.ExportOptions{Full: true}) {
					maps.DeleteFunc(whole, func(path, _ string) bool {
						gone, _ := drop(path, m[i][path].entry.Type == format.TypeDir)
						return gone
					})
					if diff := cmp.Diff(whole, want[i]); diff != "" {
						t.Fatalf("seed %d, %s %v, snapshot %d, as a whole: %s", seed, kind, rule, i, diff)
					}
				}
				if diff := cmp.Diff(want, expand(t, r, format.ExportOptions{Drop: drop})); diff != "" {
					t.Fatalf("seed %d, %s %v: whole (-), differences (+): %s", seed, kind, rule, diff)
				}
				opts := format.ExportOptions{Drop: drop, Base: list[0].ID}
				for _, s := range list[1:] {
					opts.Snapshots = append(opts.Snapshots, s.ID)
				}
				if diff := cmp.Diff(want[1:], expandOn(t, r, opts, want[0])); diff != "" {
					t.Fatalf("seed %d, %s %v, with a base: %s", seed, kind, rule, diff)
				}
			}
		}
	}
}
