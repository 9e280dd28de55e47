package chunker_test

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format/chunker"
)

// gearReference cuts by the words of spec/chunker.md, hashing each window anew.
func gearReference(t testing.TB, spec chunker.Spec, data []byte) []int {
	t.Helper()
	stream, err := hkdf.Key(sha256.New, testKeyed.Secret[:], nil, "bk chunker gear 1", 2048)
	if err != nil {
		t.Fatal(err)
	}
	window := func(end int) (hash uint64) {
		for age := range 64 {
			value := binary.LittleEndian.Uint64(stream[8*int(data[end-1-age]):])/2 + 1
			hash += value << age
		}
		return hash
	}
	span := spec.Avg - spec.Min
	turn := spec.Min + span*830/1024
	var cuts []int
	for begin := 0; begin < len(data); {
		length := min(spec.Max, len(data)-begin)
		for n := spec.Min; n < length; n++ {
			threshold := math.MaxUint64 / uint64(2*span)
			if n >= turn {
				threshold = math.MaxUint64 / uint64(span) * 2
			}
			if window(begin+n) < threshold {
				length = n
			}
		}
		cuts = append(cuts, length)
		begin += length
	}
	return cuts
}

func TestGearAsSpecified(t *testing.T) {
	for _, text := range []string{"gear:256", "gear:64,128,129", "gear:1KiB", "gear:5000", "gear:16KiB", "gear:64KiB", "gear:64,64KiB,200KiB"} {
		spec := newFactory(t, text).Spec()
		for _, data := range [][]byte{mixedBytes(11, 300_000), randomBytes(12, 63), randomBytes(12, spec.Min), randomBytes(12, spec.Min+1), nil} {
			got := cutWhole(t, newFactory(t, text).Splitter(), data)
			if diff := cmp.Diff(gearReference(t, spec, data), got); diff != "" {
				t.Errorf("%s, %d bytes: reference (-), ours (+):\n%s", text, len(data), diff)
			}
		}
	}
}

func TestGearLengths(t *testing.T) {
	for _, c := range []struct {
		text      string
		length    int
		deviation float64 // of the lengths, as a share of the mean
	}{
		{"gear:1KiB", 8 << 20, 0.5},
		{"gear:3000,10000,40000", 16 << 20, 0.5},
		{"gear:16KiB", 32 << 20, 0.5},
		{"gear:64KiB", 64 << 20, 0.5},
	} {
		spec := newFactory(t, c.text).Spec()
		cuts := cutWhole(t, newFactory(t, c.text).Splitter(), randomBytes(13, c.length))
		cuts = cuts[:len(cuts)-1]
		var sum, squares float64
		for _, n := range cuts {
			sum += float64(n)
			squares += float64(n) * float64(n)
		}
		mean := sum / float64(len(cuts))
		deviation := math.Sqrt(squares/float64(len(cuts))-mean*mean) / mean
		t.Logf("%s: %d chunks, mean %.4f of the average, deviation %.3f, from %d to %d", c.text, len(cuts), mean/float64(spec.Avg), deviation, slices.Min(cuts), slices.Max(cuts))
		// The mean of n chunks itself deviates by deviation/sqrt(n).
		if tolerance := 0.005 + 4*deviation/math.Sqrt(float64(len(cuts))); math.Abs(mean/float64(spec.Avg)-1) > tolerance {
			t.Errorf("%s: the mean is %.0f bytes, over %.1f%% off", c.text, mean, 100*tolerance)
		}
		if deviation > c.deviation {
			t.Errorf("%s: the lengths deviate by %.2f of the mean", c.text, deviation)
		}
		// The chance of that is 2/3 exp(-8.3) for each chunk.
		forced := 0
		for _, n := range cuts {
			if n == spec.Max {
				forced++
			}
		}
		if forced > 1+len(cuts)/1000 {
			t.Errorf("%s: %d of %d chunks have the maximum on random data", c.text, forced, len(cuts))
		}
	}
}

// TestShift inserts random bytes and counts the chunks that are new.
func TestShift(t *testing.T) {
	for _, text := range []string{"gear:4KiB", "gear:16KiB", "rabin:4KiB,16KiB,128KiB"} {
		factory := newFactory(t, text)
		spec := factory.Spec()
		data := randomBytes(14, 100*spec.Avg)
		old := map[[32]byte]bool{}
		count := eachChunk(t, factory, data, func(chunk []byte) { old[sha256.Sum256(chunk)] = true })
		for _, inserted := range []int{1, spec.Avg / 3, spec.Avg} {
			worst, total := 0, 0
			const trials = 30
			for trial := range trials {
				at := (trial*len(data) + len(data)/2) / trials
				shifted := slices.Concat(data[:at], randomBytes(uint64(trial), inserted), data[at:])
				fresh := 0
				eachChunk(t, factory, shifted, func(chunk []byte) {
					if !old[sha256.Sum256(chunk)] {
						fresh++
					}
				})
				worst, total = max(worst, fresh), total+fresh
			}
			t.Logf("%s, %d bytes more: of %d chunks %.2f are new in the mean, %d at worst", text, inserted, count, float64(total)/trials, worst)
			if mean := float64(total) / trials; mean > 3.5 || worst > 10 {
				t.Errorf("%s, %d bytes more: %.2f new chunks in the mean, %d at worst", text, inserted, mean, worst)
			}
		}
	}
}

func eachChunk(t *testing.T, factory *chunker.Factory, data []byte, use func([]byte)) int {
	cuts := cutWhole(t, factory.Splitter(), data)
	for _, n := range cuts {
		use(data[:n])
		data = data[n:]
	}
	return len(cuts)
}

// TestRuns: a run of any one byte has no cut but at the maximum (gear), under
// any secret and with the easiest threshold there is.
func TestRuns(t *testing.T) {
	spec, err := chunker.ParseSpec("gear:64,128,1000")
	if err != nil {
		t.Fatal(err)
	}
	for secret := range byte(8) {
		keyed := testKeyed
		keyed.Secret[0] = secret
		factory, err := chunker.New(spec, keyed)
		if err != nil {
			t.Fatal(err)
		}
		for value := range 256 {
			cuts := cutWhole(t, factory.Splitter(), bytes.Repeat([]byte{byte(value)}, 5500))
			if diff := cmp.Diff([]int{1000, 1000, 1000, 1000, 1000, 500}, cuts); diff != "" {
				t.Fatalf("a run of %#x:\n%s", value, diff)
			}
		}
	}
	zeros := make([]byte, 1<<20)
	if diff := cmp.Diff([]int{256 << 10, 256 << 10, 256 << 10, 256 << 10}, cutWhole(t, newFactory(t, "gear:64KiB").Splitter(), zeros)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]int{512 << 10, 512 << 10}, cutWhole(t, newFactory(t, "rabin").Splitter(), zeros)); diff != "" {
		t.Error(diff)
	}
}
