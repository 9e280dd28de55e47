package restic

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/bk-backup/bk/format/formattest"
	"github.com/bk-backup/bk/repo/store/mem"
)

const fixturePassphrase = "restic set-a passphrase"

var fixtures = []string{"v1", "v2", "v2-new", "v1-upgraded", "v2-pruned"}

// fixtureStore returns a repository of testdata in memory.
func fixtureStore(t testing.TB, name string) *mem.Store {
	t.Helper()
	st := mem.New()
	for name, b := range formattest.Unpack(t, "testdata/restic-"+name+".tar.zst") {
		if err := st.Create(context.Background(), strings.TrimPrefix(name, "repo/"), b); err != nil {
			t.Fatal(err)
		}
	}
	return st
}

// fixtureKeys has the keys of the fixtures that were opened, since deriving them
// takes as long as all else together.
var fixtureKeys sync.Map

// openFixture opens a fixture as it lies in st.
func openFixture(t testing.TB, name string, st *mem.Store) *Repository {
	t.Helper()
	ks, ok := fixtureKeys.Load(name)
	if !ok {
		r, err := Open(context.Background(), st, passphrase(fixturePassphrase))
		if err != nil {
			t.Fatal(err)
		}
		fixtureKeys.Store(name, r.keys)
		return r
	}
	r := newRepository(st, Options{})
	r.keys = ks.(*keys)
	b, err := st.Get(context.Background(), "config", configSizeMax)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.openConfig(b); err != nil {
		t.Fatal(err)
	}
	return r
}

func passphrase(text string) Options {
	return Options{Passphrase: func(context.Context) (string, error) { return text, nil }}
}
