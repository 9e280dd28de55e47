package format

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// ID names a chunk (the SHA-256 of its plain bytes) or a snapshot (32 bytes
// that its source keeps stable; spec/stream.md, "Identity").
type ID [32]byte

// SumID returns the id of the chunk with the given plain bytes.
func SumID(plain []byte) ID { return sha256.Sum256(plain) }

// ParseID reads the 64 hexadecimal digits that String prints.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 2*len(id) {
		return id, fmt.Errorf("id %q has %d characters, not 64 hexadecimal digits", s, len(s))
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return id, fmt.Errorf("id %q is not hexadecimal", s)
	}
	return id, nil
}

// String returns the id in 64 lower-case hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Short returns the first eight digits, for people; it is not unique.
func (id ID) Short() string { return hex.EncodeToString(id[:4]) }

// IsZero reports whether the id is all zero, which no chunk and no snapshot
// has: it stands for "none".
func (id ID) IsZero() bool { return id == ID{} }

// Compare orders ids bytewise, as bytes.Compare.
func (id ID) Compare(other ID) int { return bytes.Compare(id[:], other[:]) }
