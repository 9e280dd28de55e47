// Package historytest makes backups of a file tree that changes, for tests of
// programs that move histories between repositories. Start at New. Only tests
// import it.
package historytest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/chunker"
	"github.com/bk-backup/bk/format/disk"
	"github.com/bk-backup/bk/repo"
	"github.com/bk-backup/bk/repo/keyring"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/store/mem"
)

// Repository makes an empty repository in memory.
func Repository(t testing.TB, chunkerSpec string) *repo.Repository {
	t.Helper()
	return RepositoryIn(t, mem.New(), chunkerSpec)
}

// RepositoryIn makes an empty repository in a store.
func RepositoryIn(t testing.TB, st store.Store, chunkerSpec string) *repo.Repository {
	t.Helper()
	r, err := repo.Init(context.Background(), st, keyring.InitOptions{
		Suite: seal.SuiteAES256GCM, Passphrase: "p", Argon2: keyring.Argon2{MemoryKiB: 64, Passes: 1, Threads: 1},
		Chunker: chunkerSpec, Compression: "default",
	}, repo.Options{Workers: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// Reopen opens a repository that RepositoryIn made once more.
func Reopen(t testing.TB, st store.Store) *repo.Repository {
	t.Helper()
	secrets := keyring.Secrets{Passphrase: func(context.Context) (string, error) { return "p", nil }}
	r, err := repo.Open(context.Background(), st, secrets, repo.Options{Workers: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// Tree is a file tree that changes.
type Tree struct {
	Dir   string
	Host  string
	rng   *rand.Rand
	files []string // relative
	at    int64    // seconds, of the next backup
}

// New makes a small tree: texts, files that do not compress, files that are
// larger than a chunk, one with holes, copies, hard links, symbolic links.
func New(t testing.TB, seed uint64) *Tree {
	t.Helper()
	tr := &Tree{Dir: t.TempDir(), Host: "host", rng: rand.New(rand.NewPCG(seed, 77)), at: 1_000_000}
	for i := range 12 {
		tr.Write(t, fmt.Sprintf("d%d/e%d/f%d.txt", i%3, i%5, i), []byte(strings.Repeat(fmt.Sprint("line ", i, "\n"), tr.rng.IntN(200))))
	}
	for i := range 4 {
		tr.Write(t, fmt.Sprintf("large/%d.bin", i), tr.Random(200_000+tr.rng.IntN(300_000)))
	}
	tr.Write(t, "pictures/cat.jpg", tr.Random(50_000))
	tr.Write(t, "empty", nil)
	sparse := filepath.Join(tr.Dir, "sparse")
	if err := os.WriteFile(sparse, tr.Random(70_000), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(sparse, 3<<20); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(sparse, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(tr.Random(90_000), 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(tr.Dir, "large/0.bin"), filepath.Join(tr.Dir, "large/zlink.bin")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("elsewhere", filepath.Join(tr.Dir, "link")); err != nil {
		t.Fatal(err)
	}
	return tr
}

// Random returns bytes that do not compress.
func (tr *Tree) Random(size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(tr.rng.Uint32())
	}
	return b
}

// Write makes or replaces a file.
func (tr *Tree) Write(t testing.TB, name string, content []byte) {
	t.Helper()
	path := filepath.Join(tr.Dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(tr.files, name) {
		tr.files = append(tr.files, name)
	}
}

// Change does some of what people do to files between two backups.
func (tr *Tree) Change(t testing.TB) {
	t.Helper()
	for range 1 + tr.rng.IntN(5) {
		name := tr.files[tr.rng.IntN(len(tr.files))]
		path := filepath.Join(tr.Dir, name)
		old, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		at := tr.rng.IntN(len(old) + 1)
		switch tr.rng.IntN(7) {
		case 0: // insert
			tr.Write(t, name, slices.Concat(old[:at], tr.Random(tr.rng.IntN(3000)), old[at:]))
		case 1: // overwrite
			patch := tr.Random(tr.rng.IntN(3000))
			copy(old[at:], patch)
			tr.Write(t, name, old)
		case 2: // cut out
			tr.Write(t, name, slices.Concat(old[:at], old[min(len(old), at+tr.rng.IntN(5000)):]))
		case 3: // append
			tr.Write(t, name, append(old, tr.Random(tr.rng.IntN(9000))...))
		case 4: // copy, changed at the end
			tr.Write(t, fmt.Sprintf("copies/%d", tr.rng.IntN(20)), append(old, "copy"...))
		case 5: // metadata
			if err := os.Chmod(path, 0o600|os.FileMode(tr.rng.IntN(64))); err != nil {
				t.Fatal(err)
			}
		default:
			if len(tr.files) < 8 {
				continue
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			tr.files = slices.DeleteFunc(tr.files, func(f string) bool { return f == name })
		}
	}
}

// Splitters returns what cuts with the secrets of a repository.
func Splitters(t testing.TB, r *repo.Repository, spec string) func(string, uint64) (func() chunker.Splitter, string) {
	t.Helper()
	parsed, err := chunker.ParseSpec(spec)
	if err != nil {
		t.Fatal(err)
	}
	factory, err := r.Splitters(parsed)
	if err != nil {
		t.Fatal(err)
	}
	return func(string, uint64) (func() chunker.Splitter, string) { return factory.Splitter, parsed.String() }
}

// Backup makes a snapshot of the tree as it is now, without a predecessor.
func (tr *Tree) Backup(t testing.TB, r *repo.Repository, spec string) *repo.Snapshot {
	t.Helper()
	ctx := context.Background()
	tr.at += 86400
	scanner, err := disk.Scan(ctx, disk.ScanOptions{
		Roots: []string{tr.Dir}, ChunkerFor: Splitters(t, r, spec), Dedup: true,
		Snapshot: format.Snapshot{Time: &format.Time{Sec: tr.at}, Host: tr.Host, Tags: []string{"daily"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer scanner.Close()
	sink, err := r.Import(ctx, repo.ImportOptions{Backup: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := format.Copy(ctx, sink, scanner, &belowOnly{strings.Trim(tr.Dir, "/")}); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	return sink.Summary().Snapshots[0]
}

// belowOnly leaves out the directories above the tree, which others change.
type belowOnly struct{ root string }

// Process implements format.Stage.
func (b *belowOnly) Process(rec format.Record, emit func(format.Record) error) error {
	if e, ok := rec.(*format.Entry); ok && format.IsBelow(b.root, e.Path) {
		return nil
	}
	return emit(rec)
}

// History backs the tree up, changes it, and so on.
func (tr *Tree) History(t testing.TB, r *repo.Repository, spec string, snapshots int) {
	t.Helper()
	for range snapshots {
		tr.Backup(t, r, spec)
		tr.Change(t)
	}
}

// At sets the time of the next backup, in seconds since 1970.
func (tr *Tree) At(sec int64) { tr.at = sec - 86400 }
