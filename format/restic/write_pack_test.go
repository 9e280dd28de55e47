package restic

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/bk-backup/bk/format"
)

// TestPackContent appends blobs of any sizes and reads them back across parts.
func TestPackContent(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	var p packContent
	var all []byte
	for range 60 {
		b := make([]byte, rng.IntN(3*packPartSize/2))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		p.append(b)
		all = append(all, b...)
	}
	if got := slices.Concat(p.parts...); p.size != len(all) || !bytes.Equal(got, all) {
		t.Errorf("%d bytes in parts of %d", len(got), len(all))
	}
	if p.id() != format.SumID(all) {
		t.Error("another id")
	}
	for range 300 {
		offset := rng.IntN(len(all))
		b := make([]byte, rng.IntN(min(3*packPartSize, len(all)-offset+1)))
		if p.readAt(b, offset); !bytes.Equal(b, all[offset:offset+len(b)]) {
			t.Fatalf("other bytes at %d", offset)
		}
	}
	p.free()
}
