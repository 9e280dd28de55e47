package chunker

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"strconv"
	"testing"
)

// TestVectorsOfSecrets is inside the package, since what a secret derives is
// nobody else's business.
func TestVectorsOfSecrets(t *testing.T) {
	text, err := os.ReadFile("testdata/secrets.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		Name, Secret string
		GearFirst    []string `json:"gear_first"`
		GearSHA256   string   `json:"gear_sha256"`
		Polynomial   string
	}
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	for _, v := range vectors {
		secret, err := hex.DecodeString(v.Secret)
		if err != nil {
			t.Fatal(err)
		}
		keyed := Keyed{Secret: [32]byte(secret)}
		if v.Name == "public" && keyed != Public() {
			t.Errorf("Public is %x", Public().Secret)
		}
		table, err := keyed.gearTable()
		if err != nil {
			t.Fatal(err)
		}
		var all []byte
		for _, value := range table {
			if value < 1 || value > 1<<63 {
				t.Errorf("%s: %#x is no value of a gear table", v.Name, value)
			}
			all = binary.LittleEndian.AppendUint64(all, value)
		}
		for i, want := range v.GearFirst {
			if got := strconv.FormatUint(table[i], 16); got != want {
				t.Errorf("%s: gear value %d is %s, want %s", v.Name, i, got, want)
			}
		}
		if sum := sha256.Sum256(all); hex.EncodeToString(sum[:]) != v.GearSHA256 {
			t.Errorf("%s: the gear table has the SHA-256 %x, want %s", v.Name, sum, v.GearSHA256)
		}
		polynomial, err := keyed.polynomial()
		if err != nil {
			t.Fatal(err)
		}
		if got := strconv.FormatUint(uint64(polynomial), 16); got != v.Polynomial {
			t.Errorf("%s: polynomial %s, want %s", v.Name, got, v.Polynomial)
		}
	}
	if len(vectors) != 3 {
		t.Errorf("%d vectors", len(vectors))
	}
}
