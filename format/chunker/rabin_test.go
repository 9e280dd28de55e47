package chunker_test

import (
	"bytes"
	"errors"
	"io"
	"math/bits"
	"testing"

	"github.com/google/go-cmp/cmp"
	restic "github.com/restic/chunker"

	"github.com/bk-backup/bk/format/chunker"
)

// resticCuts is the oracle: the lengths that restic/chunker finds.
func resticCuts(t testing.TB, data []byte, spec chunker.Spec, polynomial uint64) []int {
	t.Helper()
	oracle := restic.NewWithBoundaries(bytes.NewReader(data), restic.Pol(polynomial), uint(spec.Min), uint(spec.Max))
	oracle.SetAverageBits(bits.TrailingZeros(uint(spec.Avg)))
	var cuts []int
	buf := make([]byte, 0, spec.Max)
	for {
		chunk, err := oracle.Next(buf)
		if errors.Is(err, io.EOF) {
			return cuts
		}
		if err != nil {
			t.Fatal(err)
		}
		cuts = append(cuts, int(chunk.Length))
	}
}

func compareWithRestic(t testing.TB, text string, polynomial uint64, data []byte) {
	t.Helper()
	spec, err := chunker.ParseSpec(text)
	if err != nil {
		t.Fatal(err)
	}
	factory, err := chunker.New(spec, chunker.Keyed{Polynomial: polynomial})
	if err != nil {
		t.Fatal(err)
	}
	want := resticCuts(t, data, spec, polynomial)
	if diff := cmp.Diff(want, cutWhole(t, factory.Splitter(), data)); diff != "" {
		t.Errorf("%s, %d bytes, polynomial %x: restic (-), ours (+):\n%s", text, len(data), polynomial, diff)
	}
}

func TestRabinCutsAsRestic(t *testing.T) {
	derived, err := restic.DerivePolynomial(bytes.NewReader(randomBytes(8, 1<<16)))
	if err != nil {
		t.Fatal(err)
	}
	for _, polynomial := range []uint64{testPolynomial, uint64(derived)} {
		for _, text := range []string{"rabin", "rabin:64,64,65", "rabin:64,128KiB,8MiB", "rabin:1KiB,4KiB,20KiB", "rabin:100,32KiB,100000", "rabin:3000,16KiB,1MiB"} {
			compareWithRestic(t, text, polynomial, mixedBytes(7, 4<<20))
		}
		for _, length := range []int{0, 1, 63, 64, 65, 127, 128, 512<<10 - 1, 512 << 10, 512<<10 + 1} {
			compareWithRestic(t, "rabin", polynomial, randomBytes(9, length))
			compareWithRestic(t, "rabin:64,64,128", polynomial, randomBytes(9, length%4096))
		}
		compareWithRestic(t, "rabin", polynomial, make([]byte, 3<<20))
		compareWithRestic(t, "rabin", polynomial, bytes.Repeat([]byte{1}, 10<<20))
	}
}

func FuzzRabin(f *testing.F) {
	f.Add([]byte("seed"), uint64(1), uint32(100_000), uint8(6), uint16(100), uint16(1000))
	f.Add([]byte{0}, uint64(2), uint32(1<<20), uint8(16), uint16(64), uint16(65535))
	f.Fuzz(func(t *testing.T, head []byte, seed uint64, length uint32, averageBits uint8, least, span uint16) {
		data := append(head, mixedBytes(seed, int(length%(1<<20)))...)
		spec := chunker.Spec{Method: chunker.Rabin, Min: 64 + int(least), Avg: 1 << (6 + averageBits%12), Max: 64 + int(least) + 1 + int(span)}
		compareWithRestic(t, spec.String(), testPolynomial, data)
	})
}
