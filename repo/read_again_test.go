package repo

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store/mem"
)

// twice is storage with two packs of everything: what two writers store who do
// not see each other. It returns the packs of either.
func twice(t *testing.T, m model) (st *mem.Store, first, second []string) {
	t.Helper()
	empty := initStore(t)
	st = empty.Clone()
	if _, err := tryImport(t, st, m); err != nil {
		t.Fatal(err)
	}
	first = objects(t, st, "packs/")
	other := empty.Clone()
	if _, err := tryImport(t, other, m); err != nil {
		t.Fatal(err)
	}
	second = objects(t, other, "packs/")
	for _, name := range append(objects(t, other, "index/"), second...) {
		stored, err := other.Get(context.Background(), name, seal.ObjectSizeMax)
		if err == nil {
			err = st.Create(context.Background(), name, stored)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return st, first, second
}

// TestSecondCopyIsRead damages one of two copies of everything, each in turn and
// in several ways: all of it can be read.
func TestSecondCopyIsRead(t *testing.T) {
	m := randomHistory(rand.New(rand.NewPCG(6, 6)), 3, 30)
	want := m.listings()
	st, first, second := twice(t, m)
	for name, change := range map[string]func([]byte) []byte{
		"a bit of each chunk": func(b []byte) []byte {
			for i := 128; i < len(b); i += 64 {
				b[i] ^= 4
			}
			return b
		},
		"cut off": func(b []byte) []byte { return b[:200] },
		"zeros":   func(b []byte) []byte { clear(b); return b },
		"deleted": nil,
	} {
		for _, packs := range [][]string{first, second} {
			damaged := st.Clone()
			for _, pack := range packs {
				if change == nil {
					if err := damaged.Delete(t.Context(), pack); err != nil {
						t.Fatal(err)
					}
				} else {
					damaged.Damage(pack, change)
				}
			}
			if list := checkWhole(t, damaged, want, nil); len(list) != len(m) {
				t.Errorf("%s: %d snapshots", name, len(list))
			}
			// A file by itself is read in another way.
			r := mustOpen(t, damaged)
			for _, s := range relist(t, r) {
				for path, f := range m[number(s)] {
					if f.entry.Type != format.TypeFile {
						continue
					}
					var content bytes.Buffer
					file, err := r.File(t.Context(), s, path)
					if err == nil {
						err = file.Copy(t.Context(), &content)
					}
					if err != nil || !bytes.Equal(content.Bytes(), plainOf(f)) {
						t.Fatalf("%s: %s: %d bytes, %v", name, path, content.Len(), err)
					}
				}
			}
		}
	}
}
