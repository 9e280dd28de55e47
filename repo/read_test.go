package repo

import (
	"errors"
	"testing"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/pack"
	"github.com/bk-backup/bk/repo/seal"
)

// TestIndexesThatDisagree reads chunks of which two indexes give places in one
// pack that overlap, as only a member of the group could have made them.
func TestIndexesThatDisagree(t *testing.T) {
	r := newRepo(t, 1)
	ids := []format.ID{{1}, {2}}
	info := pack.Info{Name: [32]byte{3}, Kind: seal.KindDataPack, Suite: 1, Epoch: 1, Size: 1 << 20}
	r.index.Stored(info, []pack.Entry{{Label: r.label.LabelOf(seal.ChunkData, ids[0]), RawSize: 100_000, StoredSize: 100_016, Offset: 128}})
	r.index.Stored(info, []pack.Entry{{Label: r.label.LabelOf(seal.ChunkData, ids[1]), RawSize: 10, StoredSize: 26, Offset: 200}})
	name := info.ObjectName()
	if err := r.store.Create(t.Context(), name, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	failed := 0
	err := r.ReadChunks(t.Context(), []format.ChunkRef{{ID: ids[0], Size: 100_000}, {ID: ids[1], Size: 10}}, func(_ int, _ []byte, err error) error {
		if errors.Is(err, seal.ErrDamaged) {
			failed++
		}
		return nil
	})
	if err != nil || failed != 2 {
		t.Errorf("%d chunks are damaged, %v", failed, err)
	}
}
