package chunker_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/bk-backup/bk/format/chunker"
)

// testPolynomial is irreducible and of degree 53.
const testPolynomial = 0x3DA3358B4DC173

var testKeyed = chunker.Keyed{Secret: [32]byte(sequence(32)), Seed: 0x9E3779B9, HasSeed: true}

// sequence returns the bytes 0, 1, 2, ...
func sequence(length int) []byte {
	s := make([]byte, length)
	for i := range s {
		s[i] = byte(i)
	}
	return s
}

// randomBytes returns the output of SplitMix64, each value least byte first.
func randomBytes(seed uint64, length int) []byte {
	out := make([]byte, 0, length+8)
	for len(out) < length {
		seed += 0x9E3779B97F4A7C15
		z := seed
		z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
		z = (z ^ z>>27) * 0x94D049BB133111EB
		out = binary.LittleEndian.AppendUint64(out, z^z>>31)
	}
	return out[:length]
}

func newFactory(t testing.TB, text string) *chunker.Factory {
	t.Helper()
	spec, err := chunker.ParseSpec(text)
	if err != nil {
		t.Fatal(err)
	}
	factory, err := chunker.New(spec, testKeyed)
	if err != nil {
		t.Fatal(err)
	}
	return factory
}

// cutWhole cuts data that lies in one buffer and checks the bounds.
func cutWhole(t testing.TB, s chunker.Splitter, data []byte) []int {
	t.Helper()
	var cuts []int
	for len(data) > 0 {
		n := s.Cut(data, true)
		if n <= 0 || n > len(data) || n > s.Max() || n < s.Min() && n != len(data) {
			t.Fatalf("chunk %d of %d bytes, with %d bytes left", len(cuts), n, len(data))
		}
		cuts = append(cuts, n)
		data = data[n:]
	}
	return cuts
}

var smallTexts = []string{
	"fixed:1", "fixed:1000", "fixed:4KiB",
	"gear:256", "gear:64,128,129", "gear:1KiB", "gear:16KiB", "gear:1000,5000,60000", "gear:64KiB",
	"rabin:64,64,65", "rabin:512,1KiB,8KiB", "rabin:100,4KiB,100000", "rabin:64,64KiB,1MiB",
	"buzhash:64,64,66,1", "buzhash:512,1KiB,16KiB", "buzhash:100,4KiB,100000,64", "buzhash:64,64KiB,1MiB",
}

// mixedBytes is random data with runs of one byte and repeats in it.
func mixedBytes(seed uint64, length int) []byte {
	data := randomBytes(seed, length)
	pick := randomBytes(^seed, 64)
	for i := 0; i+8 <= len(pick) && length > 0; i += 8 {
		at := int(binary.LittleEndian.Uint32(pick[i:])) % length
		run := min(int(binary.LittleEndian.Uint16(pick[i+4:])), length-at)
		if pick[i+6]&1 == 0 {
			copy(data[at:at+run], bytes.Repeat(pick[i+7:i+8], run))
		} else {
			copy(data[at:at+run], data)
		}
	}
	return data
}

// TestCutIgnoresBuffers shows the splitter ever more of the stream, by steps of
// any size, and wants the cuts of the whole.
func TestCutIgnoresBuffers(t *testing.T) {
	for _, text := range smallTexts {
		t.Run(text, func(t *testing.T) {
			factory := newFactory(t, text)
			rapid.Check(t, func(t *rapid.T) {
				// Scaled, since rapid prefers small numbers.
				length := rapid.IntRange(0, 100).Draw(t, "length") * rapid.SampledFrom([]int{1, 64, 997, 4096}).Draw(t, "unit")
				if text == "fixed:1" {
					length /= 100
				}
				data := mixedBytes(rapid.Uint64().Draw(t, "seed"), length)
				want := lengthsOf(factory.Splitter(), data)
				step := rapid.SampledFrom([]int{1, 63, 64, 65, 1000, 4096, 10_000, 70_000}).Draw(t, "step")

				s := factory.Splitter()
				var got []int
				begin, end, calls := 0, 0, 0
				for begin < len(data) {
					final := end == len(data)
					n := s.Cut(data[begin:end], final)
					if n == 0 && (final || end-begin >= s.Max()) {
						t.Fatalf("no cut in %d bytes, final %v", end-begin, final)
					}
					if n > 0 {
						got = append(got, n)
						begin += n
						continue
					}
					calls++
					if step < 64 {
						// Small steps all the way would take long.
						end = min(len(data), end+step+calls%97*50)
					} else {
						end = min(len(data), end+step)
					}
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatalf("cuts of the whole (-) and in steps of %d (+):\n%s", step, diff)
				}
			})
		})
	}
}

func lengthsOf(s chunker.Splitter, data []byte) []int {
	var cuts []int
	for len(data) > 0 {
		n := s.Cut(data, true)
		cuts = append(cuts, n)
		data = data[n:]
	}
	return cuts
}

func TestResetForgets(t *testing.T) {
	for _, text := range smallTexts {
		s := newFactory(t, text).Splitter()
		data := randomBytes(3, 200_000)
		want := cutWhole(t, s, data)
		if n := s.Cut(randomBytes(4, s.Min()-1), false); n != 0 {
			t.Fatalf("%s: cut at %d, below the minimum", text, n)
		}
		s.Cut(randomBytes(4, min(s.Max()-1, 100_000)), false)
		s.Reset()
		if diff := cmp.Diff(want, cutWhole(t, s, data)); diff != "" {
			t.Errorf("%s after Reset:\n%s", text, diff)
		}
		if n := s.Cut(nil, true); n != 0 {
			t.Errorf("%s: Cut of nothing is %d", text, n)
		}
	}
}

// TestCutScansOnce spoils the bytes that a call has scanned, all but the window,
// and wants the cut that they led to.
func TestCutScansOnce(t *testing.T) {
	for _, text := range []string{"gear:16KiB", "gear:64KiB", "rabin:16KiB,64KiB,256KiB"} {
		s := newFactory(t, text).Splitter()
		data := randomBytes(20, 1<<20)
		for len(data) > s.Max() {
			want := s.Cut(data, false)
			shown := want - 1
			if n := s.Cut(data[:shown], false); n != 0 {
				t.Fatalf("%s: cut %d before %d", text, n, want)
			}
			spoiled := append(make([]byte, shown-64), data[shown-64:]...)
			if n := s.Cut(spoiled, false); n != want {
				t.Fatalf("%s: cut %d instead of %d", text, n, want)
			}
			data = data[want:]
		}
	}
}

// TestCutShorterBuffer breaks the rule that a buffer only grows: no panic, and
// the cuts are those of what is shown last.
func TestCutShorterBuffer(t *testing.T) {
	for _, text := range smallTexts {
		s := newFactory(t, text).Splitter()
		data := randomBytes(5, 100_000)
		if first := s.Cut(data, true); s.Cut(data[:first-1], false) != 0 {
			t.Fatalf("%s: a cut before the first", text)
		}
		if n, want := s.Cut(data[:max(s.Min()/2, 1)], true), max(s.Min()/2, 1); n != want {
			t.Errorf("%s: %d bytes of %d", text, n, want)
		}
	}
}

func TestSecretsMatter(t *testing.T) {
	data := randomBytes(6, 1<<20)
	other := testKeyed
	other.Secret[31]++
	for _, text := range []string{"gear:16KiB", "rabin:4KiB,16KiB,64KiB"} {
		spec, _ := chunker.ParseSpec(text)
		factory, err := chunker.New(spec, other)
		if err != nil {
			t.Fatal(err)
		}
		same := map[int]bool{}
		for _, end := range ends(cutWhole(t, newFactory(t, text).Splitter(), data)) {
			same[end] = true
		}
		shared, all := 0, ends(cutWhole(t, factory.Splitter(), data))
		for _, end := range all {
			if same[end] {
				shared++
			}
		}
		if shared > 2 {
			t.Errorf("%s: %d of %d cuts are the same under another secret", text, shared, len(all))
		}
	}
}

// ends turns lengths into the offsets of their ends.
func ends(lengths []int) []int {
	out, at := make([]int, 0, len(lengths)), 0
	for _, n := range lengths {
		at += n
		out = append(out, at)
	}
	return out
}

func TestNewRefuses(t *testing.T) {
	gear := chunker.Spec{Method: chunker.Gear, Min: 1024, Avg: 4096, Max: 16384}
	for _, c := range []struct {
		spec  chunker.Spec
		keyed chunker.Keyed
		want  string
	}{
		{gear, chunker.Keyed{}, "secret is missing"},
		{chunker.ResticRabin, chunker.Keyed{}, "secret is missing"},
		{chunker.ResticRabin, chunker.Keyed{Polynomial: testPolynomial ^ 2}, "irreducible"},
		{chunker.ResticRabin, chunker.Keyed{Polynomial: 0x11b}, "degree 53"},
		{chunker.ResticRabin, chunker.Keyed{Polynomial: 1<<63 | 1}, "degree 53"},
		{chunker.BorgBuzhash, chunker.Keyed{Secret: testKeyed.Secret}, "needs a seed"},
		{chunker.Spec{}, testKeyed, "no method"},
		{chunker.Spec{Method: chunker.Fixed, Min: 1, Avg: 1, Max: 1, Window: 1}, testKeyed, "no window"},
		{chunker.Spec{Method: chunker.Gear}, testKeyed, "minimum 0"},
	} {
		if _, err := chunker.New(c.spec, c.keyed); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("New(%v): error %v, want %q", c.spec, err, c.want)
		}
	}
	for spec, keyed := range map[chunker.Spec]chunker.Keyed{
		chunker.ResticRabin:                             {Polynomial: testPolynomial},
		{Method: chunker.Fixed, Min: 1, Avg: 1, Max: 1}: {},
	} {
		if _, err := chunker.New(spec, keyed); err != nil {
			t.Error(err)
		}
	}
}

func TestKeyedHides(t *testing.T) {
	keyed := chunker.Keyed{Secret: [32]byte(bytes.Repeat([]byte{0xab}, 32)), Polynomial: testPolynomial}
	encoded, err := json.Marshal(keyed)
	if err != nil {
		t.Fatal(err)
	}
	texts := []string{string(encoded)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		texts = append(texts, fmt.Sprintf(verb, keyed), fmt.Sprintf(verb, &keyed), fmt.Sprintf(verb, []chunker.Keyed{keyed}))
	}
	for _, text := range texts {
		for _, leak := range []string{"abab", "171", "ABAB", "3da3358b", "17349423945073011"} {
			if strings.Contains(text, leak) {
				t.Errorf("%q shows the secret", text)
			}
		}
	}
}

// TestWaiting cuts streams that come in pieces of any sizes, and wants the chunks
// of the whole.
func TestWaiting(t *testing.T) {
	for _, text := range smallTexts {
		t.Run(text, func(t *testing.T) {
			factory := newFactory(t, text)
			rapid.Check(t, func(t *rapid.T) {
				length := rapid.IntRange(0, 100).Draw(t, "length") * rapid.SampledFrom([]int{1, 64, 997, 4096}).Draw(t, "unit")
				if text == "fixed:1" {
					length /= 100
				}
				data := mixedBytes(rapid.Uint64().Draw(t, "seed"), length)
				s, want := factory.Splitter(), lengthsOf(factory.Splitter(), data)
				var w chunker.Waiting
				var got []int
				var whole []byte
				emit := func(chunk []byte) error {
					got, whole = append(got, len(chunk)), append(whole, chunk...)
					return nil
				}
				for rest := data; len(rest) > 0; {
					n := min(len(rest), 1+rapid.SampledFrom([]int{0, 1, 63, 1000, 4096, 70_000, 1 << 20}).Draw(t, "piece"))
					if len(data) > 1<<12 {
						n = min(len(rest), max(n, len(data)/20))
					}
					if err := w.Cut(s, bytes.Clone(rest[:n]), emit); err != nil {
						t.Fatal(err)
					}
					rest = rest[n:]
					if !bytes.Equal(append(bytes.Clone(whole), w.Bytes()...), data[:len(data)-len(rest)]) {
						t.Fatal("chunks and what waits are not the bytes so far")
					}
					if w.Len() >= s.Max() {
						t.Fatalf("%d bytes wait", w.Len())
					}
				}
				if err := w.End(s, emit); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, got); diff != "" || !bytes.Equal(whole, data) || w.Len() != 0 {
					t.Fatalf("cuts of the whole (-) and in pieces (+):\n%s", diff)
				}
			})
		})
	}
}
