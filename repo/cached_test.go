package repo

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/keyring"
	"github.com/bk-backup/bk/repo/store"
)

// openLogged opens a repository with a cache, and returns what it logs.
func openLogged(t *testing.T, st store.Store, cache string) (*Repository, *bytes.Buffer) {
	t.Helper()
	said := new(bytes.Buffer)
	secrets := keyring.Secrets{Passphrase: func(context.Context) (string, error) { return "p", nil }}
	r, err := Open(t.Context(), st, secrets, Options{CacheDir: cache, Log: slog.New(slog.NewTextHandler(said, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r, said
}

// spoil puts a file where the cache was.
func spoil(t *testing.T, cache string) {
	t.Helper()
	if err := errors.Join(os.RemoveAll(cache), os.WriteFile(cache, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
}

// TestCacheGoesAway: whoever writes and collects while the cache becomes no use
// says so once, and what it makes is whole.
func TestCacheGoesAway(t *testing.T) {
	m := randomHistory(rand.New(rand.NewPCG(3, 40)), 4, 10)
	for at := range 4 {
		st, cache := initStore(t), filepath.Join(t.TempDir(), "cache")
		if at == 0 {
			spoil(t, cache)
		}
		r, said := openLogged(t, st, cache)
		for i := range m {
			if i == at {
				spoil(t, cache)
			}
			importModel(t, r, m[:i+1])
			relist(t, r)
		}
		if _, err := r.Collect(t.Context(), CollectOptions{}); err != nil {
			t.Fatal(err)
		}
		// The index, and what was seen, if there was anything to miss.
		if index, seen := strings.Count(said.String(), "is not cached"), strings.Count(said.String(), "is not remembered"); index != 1 || seen > 1 || !strings.Contains(said.String(), cache) {
			t.Errorf("spoiled before %d: %s", at, said)
		}
		if out := check(t, st, CheckOptions{}); len(out.Findings) > 0 || out.Snapshots != len(m) {
			t.Errorf("%d snapshots, %+v", out.Snapshots, out.Findings)
		}
	}
}

// TestDamagedCacheCollects: a collection and a reader that meet a damaged run of
// the index need no second attempt.
func TestDamagedCacheCollects(t *testing.T) {
	m := randomHistory(rand.New(rand.NewPCG(3, 41)), 4, 10)
	here, st := newMachine(t), initStore(t)
	here.backup(st, m)
	for _, collect := range []bool{false, true} {
		r, said := openLogged(t, st, here.cache)
		runs, err := filepath.Glob(filepath.Join(here.cache, "*", "*", "run-*"))
		if err != nil || len(runs) == 0 {
			t.Fatal(runs, err)
		}
		for _, path := range runs {
			if err := os.Truncate(path, 4096); err != nil {
				t.Fatal(err)
			}
		}
		if collect {
			if _, err := r.Collect(t.Context(), CollectOptions{}); err != nil {
				t.Error(err)
			}
		} else {
			if diff := cmp.Diff(m.listings(), expand(t, r, format.ExportOptions{})); diff != "" {
				t.Error(diff)
			}
		}
		if said.Len() > 0 {
			t.Errorf("collect %v: %s", collect, said)
		}
		here.list(st) // has whole runs again
	}
	if out := check(t, st, CheckOptions{}); len(out.Findings) > 0 {
		t.Errorf("%+v", out.Findings)
	}
}
