package hardlinks

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/formattest"
)

// rotation makes a history as cp -al and an editor would.
type rotation struct {
	testing.TB
	rng  *rand.Rand
	root string
	n    int
}

func (r *rotation) dir() string { return filepath.Join(r.root, fmt.Sprintf("2024-03-%02d", r.n)) }

func (r *rotation) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// next makes the next snapshot of the last one: all but directories is linked.
func (r *rotation) next() {
	old := r.dir()
	r.n++
	if r.n == 1 {
		r.must(os.Mkdir(r.dir(), 0o755))
		return
	}
	r.must(filepath.WalkDir(old, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := r.dir() + strings.TrimPrefix(path, old)
		if d.IsDir() {
			info, err := d.Info()
			if err != nil {
				return err
			}
			return os.Mkdir(to, info.Mode().Perm())
		}
		return unix.Linkat(unix.AT_FDCWD, path, unix.AT_FDCWD, to, 0)
	}))
}

// edit changes something in the newest snapshot.
func (r *rotation) edit() {
	path := filepath.Join(r.dir(), fmt.Sprintf("d%d", r.rng.IntN(3)), fmt.Sprintf("f%d", r.rng.IntN(6)))
	other := filepath.Join(r.dir(), fmt.Sprintf("d%d", r.rng.IntN(3)), fmt.Sprintf("f%d", r.rng.IntN(6)))
	r.must(os.MkdirAll(filepath.Dir(path), 0o755))
	r.must(os.MkdirAll(filepath.Dir(other), 0o755))
	info, err := os.Lstat(path)
	there := err == nil
	switch kind := r.rng.IntN(9); {
	case kind == 0 && there:
		r.must(os.RemoveAll(path))
	case kind == 1 && there && !info.IsDir() && other != path:
		r.must(os.RemoveAll(other))
		r.must(os.Rename(path, other))
	case kind == 2 && there && !info.IsDir() && other != path:
		r.must(os.RemoveAll(other))
		r.must(unix.Linkat(unix.AT_FDCWD, path, unix.AT_FDCWD, other, 0))
	case kind == 3 && there && info.Mode().IsRegular():
		r.must(os.Chmod(path, []fs.FileMode{0o600, 0o644, 0o755}[r.rng.IntN(3)])) // in all snapshots
	case kind == 4:
		r.must(os.RemoveAll(path))
		r.must(os.Symlink(strconv.Itoa(r.rng.IntN(5)), path))
	case kind == 5:
		r.must(os.RemoveAll(path))
		r.must(os.MkdirAll(path+"/below", 0o755))
	default:
		r.must(os.RemoveAll(path))
		size := []int{0, 10, 300_000, 2 << 20}[r.rng.IntN(4)]
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(r.rng.IntN(7) * r.rng.IntN(40))
		}
		f, err := os.Create(path)
		r.must(err)
		_, err = f.WriteAt(data, int64(r.rng.IntN(2)*(1<<20)))
		r.must(err)
		r.must(f.Close())
		when := time.Unix(1_700_000_000+r.rng.Int64N(3), 0)
		r.must(os.Chtimes(path, when, when))
	}
}

// disk describes a snapshot as the kernel does, in a manifest's terms.
func (r *rotation) disk(dir string) map[string]formattest.Fields {
	out := map[string]formattest.Fields{}
	groups := map[uint64][]string{}
	r.must(filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		f := formattest.Fields{"mode": fmt.Sprintf("%04o", st.Mode&0o7777), "uid": fmt.Sprint(st.Uid), "gid": fmt.Sprint(st.Gid),
			"mtime": strconv.FormatInt(info.ModTime().UnixNano(), 10)}
		switch {
		case info.IsDir():
			f["type"] = "dir"
		case info.Mode().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			sum := sha256.Sum256(data)
			f["type"], f["size"], f["sha256"] = "file", strconv.Itoa(len(data)), hex.EncodeToString(sum[:])
		default:
			f["type"] = "symlink"
			if f["link"], err = os.Readlink(path); err != nil {
				return err
			}
		}
		name := strings.TrimPrefix(strings.TrimPrefix(path, dir), "/")
		if !info.IsDir() {
			groups[st.Ino] = append(groups[st.Ino], name)
		}
		if name == "" {
			name = "."
		}
		out[name] = f
		return nil
	}))
	for _, g := range groups {
		sort.Strings(g)
		for _, name := range g {
			if len(g) > 1 {
				out[name]["hl"] = g[0]
			}
		}
	}
	return out
}

// TestRotations reads histories made at random: what comes is what the kernel
// says of each directory, in any kind of stream.
func TestRotations(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := &rotation{TB: t, rng: rand.New(rand.NewPCG(seed, 5)), root: t.TempDir()}
			for range 4 {
				r.next()
				for range 1 + r.rng.IntN(12) {
					r.edit()
				}
			}
			system := open(t, r.root, Options{Compress: seed%2 == 0})
			list := mustExport(t, system, format.ExportOptions{})
			for i, s := range list {
				want := r.disk(filepath.Join(r.root, fmt.Sprintf("2024-03-%02d", i+1)))
				if d := formattest.Differences(want, formattest.Describe(s.Listing, ""), "data"); len(d) > 0 {
					t.Fatalf("snapshot %d: %q", i, d)
				}
				checkGroups(t, s.Listing)
				groups := s.Listing.Groups()
				for path, o := range s.Listing {
					names := max(1, len(groups[o.Entry.Hardlink]))
					if o.Entry.Type != format.TypeDir && o.Entry.Links != uint64(names) {
						t.Errorf("snapshot %d: %s has %d links, not %d", i, path, o.Entry.Links, names)
					}
				}
			}
			checkBase(t, system, list)
		})
	}
}

// TestInodesAreReadOnce has every file moved to another name in each snapshot,
// and one that is greater than what is read of known content at a time.
func TestInodesAreReadOnce(t *testing.T) {
	r := &rotation{TB: t, rng: rand.New(rand.NewPCG(1, 1)), root: t.TempDir()}
	r.next()
	data := make([]byte, 40<<20)
	for i := range data {
		data[i] = byte(r.rng.Uint32())
	}
	r.must(os.WriteFile(r.dir()+"/large0", data, 0o644))
	for i := range 20 {
		r.must(os.WriteFile(fmt.Sprintf("%s/file%d-0", r.dir(), i), []byte(fmt.Sprint("content ", i)), 0o644))
	}
	for n := range 3 {
		r.next()
		for i := range 20 {
			r.must(os.Rename(fmt.Sprintf("%s/file%d-%d", r.dir(), i, n), fmt.Sprintf("%s/file%d-%d", r.dir(), i, n+1)))
		}
		r.must(os.Rename(fmt.Sprintf("%s/large%d", r.dir(), n), fmt.Sprintf("%s/large%d", r.dir(), n+1)))
	}
	system := open(t, r.root, Options{})
	before := bytesRead(t)
	list := mustExport(t, system, format.ExportOptions{})
	if n := bytesRead(t) - before; n > len(data)*3/2 {
		t.Errorf("%d bytes were read for %d", n, len(data))
	}
	for i, s := range list {
		if len(s.Listing) != 22 || i > 0 && (s.Data > 0 || len(s.Changes) < 42) {
			t.Errorf("snapshot %d: %d entries, %d chunks, changes %v", i, len(s.Listing), s.Data, s.Changes)
		}
	}
	if o := list[3].Listing["large3"]; o == nil || o.Sum() != sha256.Sum256(data) {
		t.Error("the large file is another in the last snapshot")
	}
}

// bytesRead returns how much this process has read so far.
func bytesRead(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if _, err := fmt.Sscanf(string(text), "rchar: %d", &n); err != nil {
		t.Fatal(err)
	}
	return n
}
