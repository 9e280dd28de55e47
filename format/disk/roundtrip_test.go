//go:build linux

package disk

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/bk-backup/bk/format"
)

// TestRoundTrip scans trees made at random and restores them, straight or by way
// of bytes. What is restored has to be what was scanned.
func TestRoundTrip(t *testing.T) {
	for seed := range uint64(12) {
		rng := rand.New(rand.NewPCG(seed, 3))
		from, to := filepath.Join(tempDir(t), "from"), filepath.Join(tempDir(t), "to")
		growTree(t, rng, from, 3)
		opts := ScanOptions{Roots: []string{from}, ChunkerFor: testChunkerFor, Compress: seed%2 == 0, Dedup: seed%3 != 0, Snapshot: format.Snapshot{ID: testID("a")}}
		scan, err := Scan(context.Background(), opts)
		if err != nil {
			t.Fatal(err)
		}
		defer scan.Close()
		sink, err := NewRestore(context.Background(), to, RestoreOptions{Prefix: strings.TrimPrefix(from, "/"), Verify: seed%4 == 1})
		if err != nil {
			t.Fatal(err)
		}
		if err := format.Copy(context.Background(), sink, scan); err != nil {
			t.Fatal(err)
		}
		if err := sink.Close(); err != nil {
			t.Fatal(err)
		}
		if s := sink.Summary(); len(s.Losses)+len(s.Source) > 0 {
			t.Errorf("losses %v, %v", s.Losses, s.Source)
		}
		if diff := cmp.Diff(tree(t, from), tree(t, to)); diff != "" {
			t.Fatalf("seed %d: %s", seed, diff)
		}
		if diff := cmp.Diff(describe(t, from), describe(t, to)); diff != "" {
			t.Error(diff)
		}
	}
}

// growTree fills a directory with anything.
func growTree(t *testing.T, rng *rand.Rand, dir string, depth int) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var files []string
	for i := range rng.IntN(10) {
		p := filepath.Join(dir, fmt.Sprintf("%d%s", i, []string{"\n", "\x80", " ", ".", "-", "~", "\xff", "ä"}[rng.IntN(8)]))
		var err error
		switch kind := rng.IntN(8); {
		case kind == 0 && depth > 0:
			growTree(t, rng, p, depth-1)
			continue
		case kind == 1:
			err = os.Symlink(strings.Repeat("x/", 1+rng.IntN(30)), p)
		case kind == 2:
			err = unix.Mknod(p, unix.S_IFIFO|0o600, 0)
		case kind == 3 && len(files) > 0:
			err = os.Link(files[rng.IntN(len(files))], p)
		case kind == 4 && depth > 0:
			growTree(t, rng, p, 0)
			continue
		default:
			growFile(t, rng, p)
			files = append(files, p)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range files {
		if err := os.Chmod(p, []os.FileMode{0o644, 0o400, 0o755, 0o600 | os.ModeSetuid}[rng.IntN(4)]); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, []os.FileMode{0o755, 0o500, 0o700 | os.ModeSticky}[rng.IntN(3)]); err != nil {
		t.Fatal(err)
	}
	when := time.Unix(rng.Int64N(1<<31), rng.Int64N(1e9))
	if err := os.Chtimes(dir, when, when); err != nil {
		t.Fatal(err)
	}
}

// growFile makes a file of data and holes.
func growFile(t *testing.T, rng *rand.Rand, p string) {
	f, err := os.Create(p)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size := int64(0)
	for range rng.IntN(4) {
		if rng.IntN(3) == 0 {
			size += rng.Int64N(200_000)
			continue
		}
		data := []byte(strings.Repeat(fmt.Sprint(rng.IntN(3)), rng.IntN(100_000)))
		if _, err := f.WriteAt(data, size); err != nil {
			t.Fatal(err)
		}
		size += int64(len(data))
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if rng.IntN(3) == 0 {
		if err := unix.Fsetxattr(int(f.Fd()), "user.test", []byte(p), 0); err != nil {
			t.Fatal(err)
		}
	}
	when := time.Unix(rng.Int64N(1<<31)-1<<30, rng.Int64N(1e9))
	if err := os.Chtimes(p, when, when); err != nil {
		t.Fatal(err)
	}
}
