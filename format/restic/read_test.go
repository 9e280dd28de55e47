package restic

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/bk-backup/bk/format"
)

// TestReadChunks reads chunks by their ids, those that are damaged, missing or of
// another size among them.
func TestReadChunks(t *testing.T) {
	b := newBuilder(t)
	var refs []format.ChunkRef
	var plains [][]byte
	add := func(n int) {
		for range n {
			plain := random(1000 + len(plains))
			b.blob(dataBlob, plain)
			refs = append(refs, format.ChunkRef{ID: format.SumID(plain), Size: uint32(len(plain))})
			plains = append(plains, plain)
		}
		b.flush(dataBlob)
	}
	b.packBlobs = 100
	add(5)
	before := names(t, b.st, "data/")
	add(5)
	refs = append(refs, format.ChunkRef{ID: format.ID{1}, Size: 5}, format.ChunkRef{ID: refs[7].ID, Size: 3})
	r := b.open()
	r.store = damaged(t, b.st, before[0], func(p []byte) []byte { p[20] ^= 1; return p })
	got := map[int]string{}
	err := r.ReadChunks(context.Background(), refs, func(n int, plain []byte, err error) error {
		if _, twice := got[n]; twice {
			t.Errorf("chunk %d comes twice", n)
		}
		switch {
		case err != nil:
			got[n] = "cannot be read"
		case n < len(plains) && slices.Equal(plain, plains[n]):
			got[n] = "right"
		default:
			got[n] = "wrong"
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for n := range refs {
		want := "right"
		if n == 0 || n >= len(plains) {
			want = "cannot be read"
		}
		if got[n] != want {
			t.Errorf("chunk %d: %q, not %q", n, got[n], want)
		}
	}
	stop := errors.New("stop")
	for _, n := range []int{0, 3, 8, 10} {
		err := r.ReadChunks(context.Background(), refs, func(number int, _ []byte, _ error) error {
			if number == n {
				return fmt.Errorf("at %d: %w", n, stop)
			}
			return nil
		})
		if !errors.Is(err, stop) {
			t.Errorf("stopped at %d: %v", n, err)
		}
	}
}
