package format

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"
)

// TestPlainReader reads chunks of all kinds and, damaged in any way, gets
// nothing else than the content or an error of the class ClassChunk.
func TestPlainReader(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{1, 100, plainWholeMax, plainWholeMax + 1, 3<<20 + 5} {
		plain := make([]byte, size)
		for i := range plain {
			plain[i] = "abcdefgh"[rnd.IntN(8)]
		}
		for _, level := range []Level{LevelNone, LevelDefault} {
			codec, payload, err := EncodePayload(nil, plain, level)
			if err != nil {
				t.Fatal(err)
			}
			d := &Data{ID: SumID(plain), Size: uint32(size), Codec: codec}
			read := func(d *Data, payload io.Reader) ([]byte, error) {
				r := NewPlainReader(d, payload)
				defer r.Close()
				return io.ReadAll(r)
			}
			for _, source := range []io.Reader{bytes.NewReader(payload), iotest.DataErrReader(bytes.NewReader(payload)), iotest.HalfReader(bytes.NewReader(payload))} {
				if got, err := read(d, source); err != nil || !bytes.Equal(got, plain) {
					t.Errorf("%d bytes, %s: %d bytes come back: %v", size, codec, len(got), err)
				}
			}
			bad := func(what string, d *Data, payload []byte) {
				got, err := read(d, bytes.NewReader(payload))
				if err == nil && d.Size == uint32(size) && bytes.Equal(got, plain) {
					return // a bit that decoders do not need
				}
				if ClassOf(err) != ClassChunk && ClassOf(err) != ClassLimit {
					t.Errorf("%d bytes, %s, %s: %v", size, codec, what, err)
				}
			}
			bad("cut", d, payload[:len(payload)-1])
			bad("nothing", d, nil)
			for range 20 {
				flipped := bytes.Clone(payload)
				flipped[rnd.IntN(len(flipped))] ^= 1 << rnd.IntN(8)
				bad("flipped", d, flipped)
			}
			if codec == CodecNone {
				bad("longer", d, append(bytes.Clone(payload), 0))
			}
			if size > 1 {
				bad("smaller", &Data{ID: d.ID, Size: d.Size - 1, Codec: codec}, payload)
			}
			bad("larger", &Data{ID: d.ID, Size: d.Size + 1, Codec: codec}, payload)

			broken := errors.New("the disk is gone")
			if _, err := read(d, io.MultiReader(bytes.NewReader(payload[:len(payload)/2]), iotest.ErrReader(broken))); !errors.Is(err, broken) || ClassOf(err) == ClassChunk {
				t.Errorf("%d bytes, %s: an error of the source gives %v", size, codec, err)
			}
		}
	}
}
