package repo

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/internal/vectors"
	"github.com/bk-backup/bk/repo/keyring"
	"github.com/bk-backup/bk/repo/pack"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store/mem"
)

// TestOtherClients holds that what a client with a group of its own keeps in the
// same repository is in nobody's way.
func TestOtherClients(t *testing.T) {
	ctx := context.Background()
	st := mem.New()
	r, err := Init(ctx, st, keyring.InitOptions{Passphrase: "p", Argon2: cheap}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	m := randomHistory(rand.New(rand.NewPCG(1, 9)), 2, 20)
	importModel(t, r, m)

	other := vectorRepo(t, "another client", seal.SuiteXChaCha20Poly1305)
	repository := r.keys.Repository()
	create := func(name seal.Name, body []byte) {
		t.Helper()
		h, key := other.header(name.Kind)
		h.Repository = repository
		stored, err := seal.SealObject(key, h, body, vectors.Rand(name.String()))
		if err != nil {
			t.Fatal(err)
		}
		if name.Kind == seal.KindIndex {
			name.Sum = format.SumID(stored)
		}
		if err := st.Create(ctx, name.String(), stored); err != nil {
			t.Fatal(err)
		}
	}
	theirs := pack.Listed{Info: pack.Info{Kind: seal.KindDataPack, Suite: 1, Epoch: 1, Size: 1 << 16}, Entries: []pack.Entry{{RawSize: 1, StoredSize: 17}}}
	create(seal.Name{Kind: seal.KindIndex}, pack.AppendIndex(nil, nil, []pack.Listed{theirs}))
	snapshot := seal.Name{Kind: seal.KindSnapshot, Client: other.keys.Client()}
	create(snapshot, other.keys.SignSnapshot([]byte("theirs")))

	again, err := Open(ctx, st, keyring.Secrets{Passphrase: func(context.Context) (string, error) { return "p", nil }}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if again.ChunksListed() != r.ChunksListed() {
		t.Errorf("%d chunks are listed, not %d", again.ChunksListed(), r.ChunksListed())
	}
	list, damage, err := again.List(ctx)
	if err != nil || len(list) != 2 || len(damage) != 0 {
		t.Errorf("%d snapshots, damage %v, %v", len(list), damage, err)
	}
	if diff := cmp.Diff(m.listings(), expand(t, again, format.ExportOptions{})); diff != "" {
		t.Error(diff)
	}

	// A damaged object is damaged, whatever its header says.
	name := list[0].objectName()
	stored, err := st.Get(ctx, name, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Delete(ctx, name); err != nil {
		t.Fatal(err)
	}
	stored[50] ^= 1 // the group
	if err := st.Create(ctx, name, stored); err != nil {
		t.Fatal(err)
	}
	if _, damage, err = again.List(ctx); err != nil || len(damage) != 1 || !errors.Is(damage[0].Err, seal.ErrDamaged) {
		t.Errorf("damage %v, %v", damage, err)
	}
}
