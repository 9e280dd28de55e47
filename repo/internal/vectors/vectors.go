// Package vectors keeps the test vectors of spec/vectors/repo in step with the
// code: a test makes them with fixed randomness and compares them with the
// file, then opens what the file has. With -update the tests write the files
// anew. Only tests of package repo and of those below it import it.
package vectors

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write the vectors in spec/vectors/repo anew")

// dir is where the vectors lie, seen from package repo or one directly below it.
func dir() string {
	if _, err := os.Stat("../spec"); err == nil {
		return "../spec/vectors/repo"
	}
	return "../../spec/vectors/repo"
}

// Hex is bytes that stand in JSON as lower-case hexadecimal digits.
type Hex []byte

// MarshalJSON implements json.Marshaler.
func (h Hex) MarshalJSON() ([]byte, error) { return json.Marshal(hex.EncodeToString(h)) }

// UnmarshalJSON implements json.Unmarshaler.
func (h *Hex) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	var err error
	*h, err = hex.DecodeString(s)
	return err
}

// Rand returns randomness that depends on seed alone.
func Rand(seed string) io.Reader { return rand.NewChaCha8(sha256.Sum256([]byte(seed))) }

// Fill fills dst from r.
func Fill(t testing.TB, r io.Reader, dst []byte) {
	t.Helper()
	if _, err := io.ReadFull(r, dst); err != nil {
		t.Fatal(err)
	}
}

// Check fails the test if the vectors in the file of that name are not the ones
// that were just made, and returns those of the file. T is what one file holds.
func Check[T any](t *testing.T, name string, made T) T {
	t.Helper()
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(made); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir(), name)
	if *update {
		if err := os.WriteFile(path, buf.Bytes(), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	stored, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(stored, buf.Bytes()) {
		t.Errorf("%s: this code makes other vectors than the ones in the file; if that is meant, run the tests with -update and tell implementers", path)
	}
	var held T
	dec := json.NewDecoder(bytes.NewReader(stored))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&held); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return held
}
