package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

// Suite is the cipher that an object is sealed with (spec/repository.md, 2.1).
type Suite uint8

const (
	SuiteAES256GCM         Suite = 1
	SuiteXChaCha20Poly1305 Suite = 2
)

var suiteNames = map[Suite]string{
	SuiteAES256GCM:         "aes-256-gcm",
	SuiteXChaCha20Poly1305: "xchacha20-poly1305",
}

// Suites lists the suites that this program knows, the usual one first.
func Suites() []Suite { return []Suite{SuiteAES256GCM, SuiteXChaCha20Poly1305} }

// ParseSuite reads the name that String prints.
func ParseSuite(name string) (Suite, error) {
	for s, n := range suiteNames {
		if n == name {
			return s, nil
		}
	}
	return 0, fmt.Errorf("no cipher suite is called %q; there are aes-256-gcm and xchacha20-poly1305", name)
}

// String returns the name that people use for the suite.
func (s Suite) String() string {
	if n, ok := suiteNames[s]; ok {
		return n
	}
	return fmt.Sprintf("suite %d", uint8(s))
}

// Overhead is what sealing adds to a plaintext, in bytes, in every suite: the tag.
const Overhead = 16

// AEAD seals and opens under one key with counted nonces (spec/repository.md,
// 2.3). It may be used concurrently.
type AEAD struct {
	aead cipher.AEAD
}

// NewAEAD returns the suite's cipher under a key. It fails with ErrVersion for a
// suite that this program does not know.
func NewAEAD(s Suite, key *Key) (*AEAD, error) {
	var (
		a   cipher.AEAD
		err error
	)
	switch s {
	case SuiteAES256GCM:
		var block cipher.Block
		if block, err = aes.NewCipher(key[:]); err == nil {
			a, err = cipher.NewGCM(block)
		}
	case SuiteXChaCha20Poly1305:
		a, err = chacha20poly1305.NewX(key[:])
	default:
		return nil, fmt.Errorf("%w: %s is not known", ErrVersion, s)
	}
	if err != nil {
		return nil, fmt.Errorf("set up %s: %w", s, err)
	}
	return &AEAD{a}, nil
}

// Seal appends the sealed plaintext to dst, with the nonce that counter gives.
// The caller uses every counter once under one key. The plaintext may lie where
// the result begins (then dst has room for Overhead more), or apart from dst.
func (a *AEAD) Seal(dst []byte, counter uint64, plaintext, ad []byte) []byte {
	return a.aead.Seal(dst, a.nonce(counter), plaintext, ad)
}

// Open appends the plaintext to dst, or fails with ErrDamaged. dst may be
// sealed[:0], which decrypts in place. What lies behind dst after a failure is
// not defined.
func (a *AEAD) Open(dst []byte, counter uint64, sealed, ad []byte) ([]byte, error) {
	out, err := a.aead.Open(dst, a.nonce(counter), sealed, ad)
	if err != nil {
		return nil, fmt.Errorf("%w: authentication failed", ErrDamaged)
	}
	return out, nil
}

func (a *AEAD) nonce(counter uint64) []byte {
	nonce := make([]byte, a.aead.NonceSize(), chacha20poly1305.NonceSizeX)
	binary.BigEndian.PutUint64(nonce[len(nonce)-8:], counter)
	return nonce
}
