package seal

import (
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
)

// KeySize is the size in bytes of every secret and of every key derived from one.
const KeySize = 32

// Key is a secret of 32 bytes. It prints as "key(hidden)" whatever the verb, so
// that none ends up in a log.
type Key [KeySize]byte

// Format hides the key.
func (Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("key(hidden)")) }

// Purpose is what a derived key is for (spec/repository.md, 2.2).
type Purpose string

const (
	PurposeCommitment Purpose = "commitment" // not secret: it stands in the header
	PurposeBody       Purpose = "body"
	PurposeChunk      Purpose = "chunk"
	PurposeDirectory  Purpose = "directory"
)

// Keys derives the keys of one object (spec/repository.md, 2.2). It may be used
// concurrently.
type Keys struct {
	prk   []byte
	info  [boundSize]byte
	suite Suite
}

// NewKeys returns the key schedule of the object with header h, below secret:
// the group's epoch key, the client key for [KindClient], the secret that a
// credential derives for [KindCredential]. h.Commitment is not looked at.
func NewKeys(secret *Key, h *Header) (*Keys, error) {
	prk, err := hkdf.Extract(sha256.New, secret[:], h.Salt[:])
	if err != nil {
		return nil, fmt.Errorf("derive the keys of a %s: %w", h.Kind, err)
	}
	k := &Keys{prk: prk, suite: h.Suite}
	copy(k.info[:], h.Append(make([]byte, 0, HeaderSize)))
	return k, nil
}

// Key returns the key for a purpose.
func (k *Keys) Key(p Purpose) (Key, error) {
	b, err := hkdf.Expand(sha256.New, k.prk, "bk 1 "+string(p)+string(k.info[:]), KeySize)
	if err != nil {
		return Key{}, fmt.Errorf("derive the %s key: %w", p, err)
	}
	return Key(b), nil
}

// AEAD returns the cipher of the object's suite under the key for a purpose.
func (k *Keys) AEAD(p Purpose) (*AEAD, error) {
	key, err := k.Key(p)
	if err != nil {
		return nil, err
	}
	return NewAEAD(k.suite, &key)
}

// Commit writes the commitment to the secret into h, the header that k was made
// from.
func (k *Keys) Commit(h *Header) error {
	c, err := k.Key(PurposeCommitment)
	h.Commitment = c
	return err
}

// Check compares the commitment in h with the one that the secret gives, in
// constant time, and fails with ErrWrongKey if they differ. Nothing of an object
// is decrypted before it passed.
func (k *Keys) Check(h *Header) error {
	c, err := k.Key(PurposeCommitment)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(c[:], h.Commitment[:]) != 1 {
		return fmt.Errorf("%w: the %s was sealed under another one", ErrWrongKey, h.Kind)
	}
	return nil
}
