//go:build linux

package disk

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/bk-backup/bk/format"
)

func scratchFile(t testing.TB) func() (*os.File, error) {
	dir := t.TempDir()
	return func() (*os.File, error) { return os.CreateTemp(dir, "") }
}

// TestTable compares a table that spills all the time with a map.
func TestTable(t *testing.T) {
	create := scratchFile(t)
	rapid.Check(t, func(t *rapid.T) {
		table := newTable(rapid.IntRange(1, 300).Draw(t, "max"), create)
		defer table.close()
		model := make(map[tableKey]tableValue)
		heads := rapid.IntRange(1, 2000).Draw(t, "heads")
		key := func() tableKey {
			// Few heads, so that pages begin with equal ones.
			n := rapid.IntRange(0, 2000).Draw(t, "key")
			id := format.SumID(fmt.Appendf(nil, "%d", n))
			binary.BigEndian.PutUint64(id[:8], uint64(n%heads)<<40)
			return chunkKey(id)
		}
		for range rapid.IntRange(0, 600).Draw(t, "steps") {
			k := key()
			switch rapid.IntRange(0, 9).Draw(t, "op") {
			case 0, 1:
				delete(model, k)
				if err := table.remove(k); err != nil {
					t.Fatal(err)
				}
			case 2:
				got, ok, err := table.get(k)
				if want, known := model[k]; err != nil || ok != known || ok && got != want {
					t.Fatalf("got %v %v %v, want %v %v", got, ok, err, want, known)
				}
			default:
				v := tableValue{uint64(len(model)), uint64(k[15])}
				model[k] = v
				if err := table.put(k, v); err != nil {
					t.Fatal(err)
				}
			}
		}
		for k, want := range model {
			if got, ok, err := table.get(k); !ok || got != want || err != nil {
				t.Fatalf("key %x: got %v %v %v, want %v", k, got, ok, err, want)
			}
		}
	})
}

func TestPathLog(t *testing.T) {
	log := pathLog{create: scratchFile(t)}
	defer log.close()
	var numbers []uint64
	path := func(i int) string { return strings.Repeat(fmt.Sprint(i), 1+i%300) }
	const count = 10000 // several times what stays in memory
	for i := range count {
		n, err := log.append(path(i))
		if err != nil {
			t.Fatal(err)
		}
		numbers = append(numbers, n)
	}
	if log.stored == 0 {
		t.Fatal("nothing was spilled")
	}
	n := log.size()
	for i := count - 1; i >= 0; i-- {
		if got, err := log.path(numbers[i]); err != nil || got != path(i) {
			t.Fatalf("path %d: %q, %v", i, got, err)
		}
		prev, got, err := log.before(n)
		if err != nil || prev != numbers[i] || got != path(i) {
			t.Fatalf("before path %d: %d %q, %v", i, prev, got, err)
		}
		n = prev
	}
	if n != 0 {
		t.Errorf("the first path has the number %d", n)
	}
}

func TestClearerKeepsWhatItIsTold(t *testing.T) {
	dir := tempDir(t)
	for _, p := range []string{"top/a/b/c", "top/a/keep/x", "top/d"} {
		write(t, filepath.Join(dir, p), "x")
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	var removed []string
	c := clearer{visit: keepX, removed: func(p string) { removed = append(removed, p) }}
	left, err := c.remove(int(root.Fd()), "top", "top")
	if !left || err != nil {
		t.Errorf("left %v, %v", left, err)
	}
	if got := tree(t, dir); len(got) != 4 || len(removed) != 3 {
		t.Errorf("left %v, removed %v", got, removed)
	}
}

func keepX(_ int, name, _ string, _ *unix.Stat_t) (keep, gone bool, err error) {
	return name == "x", false, nil
}
