package disk

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/bk-backup/bk/format"
)

// editor changes a tree at random. Names are few, so that types change places.
type editor struct {
	*testTree
	rt *rapid.T
}

func (e *editor) name() string {
	names := []string{"a", "a.b", "a-b", "b", "\xff"}
	parts := rapid.SliceOfN(rapid.SampledFrom(names), 1, 3).Draw(e.rt, "path")
	return e.path(strings.Join(parts, "/"))
}

// existing returns the path of a file that there is, or the root.
func (e *editor) existing() string {
	var paths []string
	filepath.WalkDir(e.root, func(path string, _ os.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	})
	return rapid.SampledFrom(paths).Draw(e.rt, "existing")
}

// place makes room for a file.
func (e *editor) place() string {
	path := e.name()
	for dir := filepath.Dir(path); dir != e.root; dir = filepath.Dir(dir) {
		if st, err := os.Lstat(dir); err == nil && !st.IsDir() {
			e.made(os.Remove(dir))
		}
	}
	e.made(os.MkdirAll(filepath.Dir(path), 0o755))
	e.made(os.RemoveAll(path))
	return path
}

func (e *editor) content() string {
	size := rapid.SampledFrom([]int{0, 1, 100, 5000, 100_000, 1<<20 + 1}).Draw(e.rt, "size")
	return random(uint64(rapid.IntRange(0, 2).Draw(e.rt, "seed")), size)
}

func (e *editor) edits() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"write": func(*rapid.T) { e.made(os.WriteFile(e.place(), []byte(e.content()), 0o644)) },
		"mkdir": func(*rapid.T) { e.made(os.Mkdir(e.place(), 0o755)) },
		"symlink": func(*rapid.T) {
			e.made(os.Symlink(rapid.SampledFrom([]string{"a", "../b"}).Draw(e.rt, "target"), e.place()))
		},
		"fifo": func(*rapid.T) { e.made(unix.Mkfifo(e.place(), 0o600)) },
		"link": func(*rapid.T) {
			from, to := e.existing(), e.name()
			st, err := os.Lstat(from)
			if err != nil || st.IsDir() || strings.HasPrefix(from, to+"/") || from == to {
				return
			}
			if parent, err := os.Lstat(filepath.Dir(to)); err == nil && parent.IsDir() && os.RemoveAll(to) == nil {
				e.made(os.Link(from, to))
			}
		},
		"sparse": func(*rapid.T) {
			path := e.place()
			e.sparse(strings.TrimPrefix(path, e.root+"/"), 300_000, map[int64]string{100_000: "data"})
		},
		"remove": func(*rapid.T) {
			if path := e.existing(); path != e.root {
				e.made(os.RemoveAll(path))
			}
		},
		"rename": func(*rapid.T) {
			from, to := e.existing(), e.name()
			if from == e.root || format.IsBelow(to, from) || format.IsBelow(from, to) || from == to {
				return
			}
			if parent, err := os.Lstat(filepath.Dir(to)); err == nil && parent.IsDir() && os.RemoveAll(to) == nil {
				e.made(os.Rename(from, to))
			}
		},
		"chmod": func(*rapid.T) {
			path := e.existing()
			if st, err := os.Lstat(path); err == nil && st.Mode()&os.ModeSymlink == 0 {
				e.made(os.Chmod(path, rapid.SampledFrom([]os.FileMode{0o755, 0o700}).Draw(e.rt, "mode")))
			}
		},
		"touch": func(*rapid.T) { e.mtime(e.existing(), int64(rapid.IntRange(-2, 2).Draw(e.rt, "time")), 7) },
		"xattr": func(*rapid.T) {
			value := rapid.SampledFrom([]string{"", "1", "2"}).Draw(e.rt, "value")
			e.xattr(e.existing(), "user.x", value)
		},
		"overwrite": func(*rapid.T) {
			// Same size, same mtime.
			path := e.existing()
			var st unix.Stat_t
			if unix.Lstat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size == 0 {
				return
			}
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if !e.made(err) {
				return
			}
			defer f.Close()
			_, err = f.WriteAt([]byte{byte(rapid.IntRange(0, 255).Draw(e.rt, "byte"))}, st.Size-1)
			e.made(err)
			e.mtime(path, st.Mtim.Sec, st.Mtim.Nsec)
		},
	}
}

// below returns the part of a listing that lies below a directory. What lies
// above may change under our hands.
func (m model) below(dir string) model {
	part := model{}
	for p, f := range m {
		if format.IsBelow("/"+p, dir) || dir == "/" {
			part[p] = f
		}
	}
	return part
}

// TestScanDifferences checks that the differences between scans, applied one
// after another, are what a fresh scan gives, and that this is what is on disk.
func TestScanDifferences(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		tree := &testTree{t, filepath.Join(t.TempDir(), "tree")}
		tree.made(os.Mkdir(tree.root, 0o755))
		defer os.RemoveAll(filepath.Dir(tree.root))
		e := &editor{tree, rt}
		edits := e.edits()
		names := make([]string, 0, len(edits))
		for name := range edits {
			names = append(names, name)
		}
		slices.Sort(names)
		var last model
		for range rapid.IntRange(2, 4).Draw(rt, "snapshots") {
			for range rapid.IntRange(0, 8).Draw(rt, "edits") {
				edits[rapid.SampledFrom(names).Draw(rt, "edit")](rt)
			}
			o := ScanOptions{
				Roots:       []string{tree.root},
				IgnoreInode: rapid.Bool().Draw(rt, "ignore inode"),
				Dedup:       rapid.Bool().Draw(rt, "dedup"),
				Workers:     rapid.IntRange(1, 3).Draw(rt, "workers"),
			}
			if rapid.IntRange(0, 4).Draw(rt, "other root") == 0 {
				o.Roots = []string{rapid.SampledFrom([]string{e.existing(), filepath.Dir(tree.root)}).Draw(rt, "root")}
			}
			fresh := scan(t, nil, o)
			if last != nil {
				if o.IgnoreInode && rapid.Bool().Draw(rt, "without inodes") {
					last = last.forget(format.HasInode)
				}
				last = scan(t, last, o).model
				diffModels(t, fresh.model.below(filepath.Dir(tree.root)), last.below(filepath.Dir(tree.root)))
			} else {
				last = fresh.model
			}
			if o.Roots[0] == tree.root {
				checkAgainstDisk(t, fresh.model, tree.root)
			}
			if t.Failed() {
				rt.FailNow()
			}
		}
	})
}
