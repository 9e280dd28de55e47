package chunker_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"math/bits"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format/chunker"
)

var update = flag.Bool("update", false, "write the expected results of the vectors anew")

// specVectors holds the same files as testdata, for other implementations.
const specVectors = "../../spec/vectors/chunker"

// piece is a run of input: bytes of SplitMix64, or one byte over and over.
type piece struct {
	Random *uint64 `json:"random,omitempty"`
	Repeat string  `json:"repeat,omitempty"`
	Length int     `json:"length"`
}

type cutVector struct {
	Name       string  `json:"name"`
	Spec       string  `json:"spec"`
	Secret     string  `json:"secret,omitempty"`
	Polynomial string  `json:"polynomial,omitempty"`
	Seed       string  `json:"seed,omitempty"`
	Input      []piece `json:"input"`
	SHA256     string  `json:"sha256"`
	Chunks     []int   `json:"chunks"`
}

func (v cutVector) input(t *testing.T) []byte {
	var data []byte
	for _, p := range v.Input {
		if p.Random != nil {
			data = append(data, randomBytes(*p.Random, p.Length)...)
			continue
		}
		data = append(data, bytes.Repeat(unhex(t, p.Repeat), p.Length)...)
	}
	return data
}

func (v cutVector) keyed(t *testing.T) (k chunker.Keyed) {
	if v.Secret != "" {
		k.Secret = [32]byte(unhex(t, v.Secret))
	}
	if v.Polynomial != "" {
		p, err := strconv.ParseUint(v.Polynomial, 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		k.Polynomial = p
	}
	if v.Seed != "" {
		seed, err := strconv.ParseUint(v.Seed, 16, 32)
		if err != nil {
			t.Fatal(err)
		}
		k.Seed, k.HasSeed = uint32(seed), true
	}
	return k
}

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	out, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func readJSON(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func TestVectorsOfCuts(t *testing.T) {
	for _, method := range []string{"fixed", "gear", "rabin", "buzhash"} {
		path := filepath.Join("testdata", method+".json")
		var vectors []cutVector
		readJSON(t, path, &vectors)
		for i, v := range vectors {
			spec, err := chunker.ParseSpec(v.Spec)
			if err != nil {
				t.Fatalf("%s: %v", v.Name, err)
			}
			factory, err := chunker.New(spec, v.keyed(t))
			if err != nil {
				t.Fatalf("%s: %v", v.Name, err)
			}
			data := v.input(t)
			sum := sha256.Sum256(data)
			got := v
			got.SHA256 = hex.EncodeToString(sum[:])
			got.Chunks = append([]int{}, cutWhole(t, factory.Splitter(), data)...)
			if *update {
				vectors[i] = got
				continue
			}
			if diff := cmp.Diff(v, got); diff != "" {
				t.Errorf("%s: %s: vector (-), ours (+):\n%s", path, v.Name, diff)
			}
		}
		if *update {
			writeVectors(t, path, vectors)
		}
	}
}

// writeVectors writes one vector to a line, which diffs well.
func writeVectors(t *testing.T, path string, vectors []cutVector) {
	var out bytes.Buffer
	for i, v := range vectors {
		line, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.WriteString(map[bool]string{true: "[\n", false: ",\n"}[i == 0])
		out.Write(line)
	}
	out.WriteString("\n]\n")
	for _, path := range []string{path, filepath.Join(specVectors, filepath.Base(path))} {
		if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestVectorsOfNames reads texts with the spec they name, or that name none.
func TestVectorsOfNames(t *testing.T) {
	var vectors struct {
		Valid []struct {
			Text, Canonical, Method string
			Min, Avg, Max, Window   int
		}
		Invalid []string
	}
	readJSON(t, "testdata/names.json", &vectors)
	for _, v := range vectors.Valid {
		want := chunker.Spec{Method: chunker.Method(v.Method), Min: v.Min, Avg: v.Avg, Max: v.Max, Window: v.Window}
		spec, err := chunker.ParseSpec(v.Text)
		if err != nil {
			t.Errorf("%q: %v", v.Text, err)
			continue
		}
		if spec != want || spec.String() != v.Canonical {
			t.Errorf("%q is %+v, %q; want %+v, %q", v.Text, spec, spec, want, v.Canonical)
		}
	}
	for _, text := range vectors.Invalid {
		if spec, err := chunker.ParseSpec(text); err == nil {
			t.Errorf("%q was read as %+v", text, spec)
		}
	}
	if len(vectors.Valid) < 10 || len(vectors.Invalid) < 10 {
		t.Error("vectors are missing")
	}
}

func TestVectorsLieInSpec(t *testing.T) {
	names, err := filepath.Glob("testdata/*.json")
	if err != nil || len(names) != 7 {
		t.Fatalf("%d vector files, %v", len(names), err)
	}
	copies, err := filepath.Glob(specVectors + "/*.json")
	if err != nil || len(copies) != len(names) {
		t.Fatalf("%d of %d vector files in %s, %v", len(copies), len(names), specVectors, err)
	}
	for _, name := range names {
		here, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		there, err := os.ReadFile(filepath.Join(specVectors, filepath.Base(name)))
		if err != nil || !bytes.Equal(here, there) {
			t.Errorf("%s differs from its copy in %s (%v)", name, specVectors, err)
		}
	}
}

// TestBuzhashTable computes hashes from the table that is published, without the
// splitter.
func TestBuzhashTable(t *testing.T) {
	var texts []string
	readJSON(t, "testdata/buzhash-table.json", &texts)
	if len(texts) != 256 {
		t.Fatalf("%d numbers", len(texts))
	}
	var table [256]uint32
	for i, text := range texts {
		table[i] = binary.BigEndian.Uint32(unhex(t, text))
	}
	const seed, window, least, most, mask = 0x9E3779B9, 4095, 512, 16 << 10, 1<<10 - 1
	data := randomBytes(12, 20_000)
	var want []int
	for rest := data; len(rest) > 0; {
		end := min(len(rest), most)
		n := least
		for ; n+window < end; n++ {
			var sum uint32
			for j, b := range rest[n : n+window] {
				sum ^= bits.RotateLeft32(table[b]^seed, (window-1-j)%32)
			}
			if sum&mask == 0 {
				break
			}
		}
		if n+window >= end {
			n = end
		}
		want = append(want, n)
		rest = rest[n:]
	}
	if diff := cmp.Diff(want, cutWhole(t, newFactory(t, "buzhash:512,1KiB,16KiB").Splitter(), data)); diff != "" {
		t.Error(diff)
	}
}
