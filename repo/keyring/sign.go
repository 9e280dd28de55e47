package keyring

import (
	"crypto/ed25519"
	"fmt"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/bk-backup/bk/repo/internal/mp"
	"github.com/bk-backup/bk/repo/seal"
)

// What is signed begins with one of these, so that no signature counts for
// something else (spec/repository.md, 8 and 9).
const (
	signedSnapshot = "bk snapshot 1\x00"
	signedForget   = "bk forget 1\x00"
	signedDamage   = "bk damage 1\x00"
)

// signed is the plaintext of an object that is signed.
type signed struct {
	//lint:ignore U1000 msgpack reads it by reflection
	_msgpack  struct{} `msgpack:",as_array"`
	Body      []byte
	Signature []byte
}

// resealed is the plaintext of one that was sealed again.
type resealed struct {
	//lint:ignore U1000 msgpack reads it by reflection
	_msgpack  struct{} `msgpack:",as_array"`
	Body      []byte
	Signature []byte
	Received  stamp
}

// parseSigned reads either; received is nil in the first.
func parseSigned(plain []byte) (s resealed, err error) {
	var parts []msgpack.RawMessage
	if err := mp.Decode(plain, &parts); err != nil {
		return s, err
	}
	if len(parts) != 3 {
		var once signed
		err = mp.Decode(plain, &once)
		s.Body, s.Signature = once.Body, once.Signature
		return s, err
	}
	err = mp.Decode(plain, &s)
	return s, err
}

// Resealed returns what stands in a signed object that is sealed again: body and
// signature as they were, and when storage received it first, which is received
// unless the object says so itself.
func Resealed(plain []byte, received time.Time) ([]byte, error) {
	s, err := parseSigned(plain)
	if err != nil {
		return nil, err
	}
	if s.Received == nil {
		s.Received = stampOf(received)
	}
	return mp.Encode(&s), nil
}

// Received returns when storage received what has been sealed again since; the
// zero time if it has not been.
func Received(plain []byte) (time.Time, error) {
	s, err := parseSigned(plain)
	if err != nil || s.Received == nil {
		return time.Time{}, err
	}
	return s.Received.time()
}

// SignedBody returns the body of a signed object without verifying it.
func SignedBody(plain []byte) ([]byte, error) {
	s, err := parseSigned(plain)
	return s.Body, err
}

// PublicKey returns the key by which the client's signatures are verified.
func (k *Keyring) PublicKey() ed25519.PublicKey {
	return k.signingKey().Public().(ed25519.PublicKey)
}

func (k *Keyring) signingKey() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(k.chunk.sign[:]) }

func (k *Keyring) sign(context string, body []byte) []byte {
	signature := ed25519.Sign(k.signingKey(), append([]byte(context), body...))
	return mp.Encode(&signed{Body: body, Signature: signature})
}

func verify(public ed25519.PublicKey, context string, plain []byte) ([]byte, error) {
	s, err := parseSigned(plain)
	if err != nil {
		return nil, err
	}
	if len(s.Signature) != ed25519.SignatureSize {
		return nil, fmt.Errorf("%w: a signature of %d bytes", seal.ErrDamaged, len(s.Signature))
	}
	if !ed25519.Verify(public, append([]byte(context), s.Body...), s.Signature) {
		return nil, ErrSignature
	}
	return s.Body, nil
}

// SignSnapshot returns what stands in a snapshot object: body, and the client's
// signature over it.
func (k *Keyring) SignSnapshot(body []byte) []byte { return k.sign(signedSnapshot, body) }

// VerifySnapshot returns the body that stands in a snapshot object of this
// client. It fails with ErrSignature if the client did not sign it, with
// seal.ErrDamaged if it is nothing signed at all.
func (k *Keyring) VerifySnapshot(plain []byte) ([]byte, error) {
	return verify(k.PublicKey(), signedSnapshot, plain)
}

// SignForget is SignSnapshot for forget objects.
func (k *Keyring) SignForget(body []byte) []byte { return k.sign(signedForget, body) }

// VerifyForget is VerifySnapshot for forget objects.
func (k *Keyring) VerifyForget(plain []byte) ([]byte, error) {
	return verify(k.PublicKey(), signedForget, plain)
}

// SignDamage is SignSnapshot for lists of damage.
func (k *Keyring) SignDamage(body []byte) []byte { return k.sign(signedDamage, body) }

// VerifyDamage is VerifySnapshot for lists of damage.
func (k *Keyring) VerifyDamage(plain []byte) ([]byte, error) {
	return verify(k.PublicKey(), signedDamage, plain)
}
