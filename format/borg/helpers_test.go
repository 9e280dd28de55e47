package borg

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/formattest"
	"github.com/bk-backup/bk/repo/store/mem"
)

// passphrases of the fixtures that have not the usual one.
var passphrases = map[string]string{"repokey-blake2-zstd": "borg pässphrase ☂", "repokey-obfuscate": ""}

// fixtureFiles are the files of the repositories in testdata, by their names.
func fixtureFiles(t testing.TB, name string) (repo map[string][]byte, keyFile []byte) {
	t.Helper()
	dir := "testdata"
	if more := os.Getenv("BORG_FIXTURES"); more != "" {
		dir = more
	}
	repo = make(map[string][]byte)
	for path, b := range formattest.Unpack(t, dir+"/borg-"+name+".tar.zst") {
		if path == "keyfile" {
			keyFile = b
		}
		if below, ok := strings.CutPrefix(path, "repo/"); ok {
			repo[below] = b
		}
	}
	return repo, keyFile
}

// memory puts files into a store.
func memory(t testing.TB, files map[string][]byte) *mem.Store {
	t.Helper()
	st := mem.New()
	for name, b := range files {
		if strings.ToLower(name) != name {
			continue // README
		}
		if err := st.Create(context.Background(), name, b); err != nil {
			t.Fatal(err)
		}
	}
	return st
}

// fixtureKeys has the keys of the fixtures that were opened, since deriving them
// takes as long as all else together.
var fixtureKeys sync.Map

// openFixture opens a fixture as it lies in st.
func openFixture(t testing.TB, name string, st *mem.Store, keyFile []byte, opts Options) (*Repository, error) {
	t.Helper()
	opts.Passphrase = func(context.Context) (string, error) {
		if p, ok := passphrases[name]; ok {
			return p, nil
		}
		return "borg set-a passphrase", nil
	}
	opts.KeyFile = func(context.Context, string) ([]byte, error) { return keyFile, nil }
	if ks, ok := fixtureKeys.Load(name); ok {
		opts.keys = ks.(*keys)
	}
	r, err := Open(context.Background(), st, opts)
	if err == nil {
		fixtureKeys.Store(name, r.keys)
	}
	return r, err
}

func mustOpenFixture(t testing.TB, name string, opts Options) *Repository {
	t.Helper()
	files, keyFile := fixtureFiles(t, name)
	r, err := openFixture(t, name, memory(t, files), keyFile, opts)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func id(t testing.TB, text string) format.ID {
	t.Helper()
	id, err := format.ParseID(text)
	if err != nil {
		t.Fatal(err)
	}
	return id
}
