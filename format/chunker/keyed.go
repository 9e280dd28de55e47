package chunker

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	rabin "github.com/restic/chunker"
)

const (
	gearInfo  = "bk chunker gear 1"
	rabinInfo = "bk chunker rabin 1"

	// polynomialBytes is as much as HKDF with SHA-256 gives: 1020 candidates of
	// 8 bytes. One in 27 is irreducible, so all fail for one secret in 10^17.
	polynomialBytes = 255 * sha256.Size

	// polynomialDegree is restic's, the greatest prime that leaves 8 bits of a
	// 64-bit word free.
	polynomialDegree = 53
)

// Keyed is what makes cuts differ between groups that do not trust each other.
// It never prints what it holds. It implements spec/chunker.md, section
// "Secrets".
//
// A secret does not hide content from one who sees the lengths of chunks: such
// splitters are broken. What protects is that lengths are not visible.
type Keyed struct {
	// Secret is 32 random bytes, never zero. Fixed splitters and buzhash need
	// none, rabin none if Polynomial is given.
	Secret [32]byte
	// Polynomial is rabin's, irreducible and of degree 53, bit i being the
	// coefficient of x^i: restic's chunker_polynomial. Zero derives it from
	// Secret. Gear ignores it.
	Polynomial uint64
	// Seed is buzhash's, borg's chunk_seed taken as 32 bits; HasSeed says that it
	// was given, since 0 is one. Others ignore it.
	Seed    uint32
	HasSeed bool
}

// Public returns the key of cuts that anyone may know and repeat, for streams
// that are made without a repository.
func Public() Keyed {
	return Keyed{Secret: sha256.Sum256([]byte("bk chunker public 1"))}
}

// Format prints a placeholder whatever the verb.
func (k Keyed) Format(state fmt.State, _ rune) { fmt.Fprint(state, "chunker.Keyed(hidden)") }

// MarshalText returns a placeholder, so that no log or JSON carries the secret.
func (k Keyed) MarshalText() ([]byte, error) { return []byte("chunker.Keyed(hidden)"), nil }

func (k Keyed) expand(info string, length int) ([]byte, error) {
	if k.Secret == ([32]byte{}) {
		return nil, errors.New("the secret is missing (32 zero bytes): use the group's secret, or Public for cuts that anyone may know")
	}
	return hkdf.Key(sha256.New, k.Secret[:], nil, info, length)
}

// gearTable derives the 256 values that gear adds, each from 1 to 2^63. In a run
// of one byte the hash is the negative of the byte's value, hence at least 2^63,
// which is above every threshold: such runs never hold a cut but at Max.
func (k Keyed) gearTable() (*[256]uint64, error) {
	stream, err := k.expand(gearInfo, 256*8)
	if err != nil {
		return nil, err
	}
	var table [256]uint64
	for i := range table {
		table[i] = binary.LittleEndian.Uint64(stream[8*i:])>>1 + 1
	}
	return &table, nil
}

func (k Keyed) polynomial() (rabin.Pol, error) {
	if k.Polynomial != 0 {
		given := rabin.Pol(k.Polynomial)
		// The value stays out of the error: it is a secret.
		if given.Deg() != polynomialDegree || !given.Irreducible() {
			return 0, fmt.Errorf("the polynomial must be irreducible and of degree %d", polynomialDegree)
		}
		return given, nil
	}
	stream, err := k.expand(rabinInfo, polynomialBytes)
	if err != nil {
		return 0, err
	}
	derived, err := rabin.DerivePolynomial(bytes.NewReader(stream))
	if err != nil {
		return 0, fmt.Errorf("derive a polynomial (another secret is needed): %w", err)
	}
	return derived, nil
}

// NewPolynomial draws a polynomial as Keyed takes it.
func NewPolynomial(rand io.Reader) (uint64, error) {
	drawn, err := rabin.DerivePolynomial(rand)
	if err != nil {
		return 0, fmt.Errorf("draw a polynomial: %w", err)
	}
	return uint64(drawn), nil
}
