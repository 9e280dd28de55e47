package borg

import (
	"bytes"
	"cmp"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"

	"golang.org/x/crypto/blake2b"
)

// objectID names an object: a hash of its plain content, keyed in most modes.
// The manifest has the id of zeros.
type objectID [32]byte

// String returns the id in hexadecimal.
func (id objectID) String() string { return hex.EncodeToString(id[:]) }

// manifestID is where the manifest lies.
var manifestID objectID

// mode is the first byte of every object: how it is encrypted, and how ids are
// made.
type mode byte

const (
	modeKeyfile             mode = 0x00
	modePassphrase          mode = 0x01 // of Attic; its key was always derived from the passphrase, or has become a repokey
	modeNone                mode = 0x02
	modeRepokey             mode = 0x03
	modeKeyfileBlake2       mode = 0x04
	modeRepokeyBlake2       mode = 0x05
	modeAuthenticatedBlake2 mode = 0x06
	modeAuthenticated       mode = 0x07
)

var modeNames = [...]string{"keyfile", "passphrase", "none", "repokey", "keyfile-blake2", "repokey-blake2", "authenticated-blake2", "authenticated"}

// String returns the name that borg has for a mode.
func (m mode) String() string {
	if int(m) < len(modeNames) {
		return modeNames[m]
	}
	return fmt.Sprintf("mode %#02x", byte(m))
}

// known reports whether this package can read a mode.
func (m mode) known() bool { return int(m) < len(modeNames) }

// keyed reports whether a mode has keys at all.
func (m mode) keyed() bool { return m != modeNone }

// encrypts reports whether objects are encrypted.
func (m mode) encrypts() bool {
	return m.keyed() && m != modeAuthenticated && m != modeAuthenticatedBlake2
}

// blake2 reports whether hashes are BLAKE2b, instead of (HMAC-)SHA-256.
func (m mode) blake2() bool {
	return m == modeKeyfileBlake2 || m == modeRepokeyBlake2 || m == modeAuthenticatedBlake2
}

// inFile reports whether the keys are in a file beside the repository.
func (m mode) inFile() bool { return m == modeKeyfile || m == modeKeyfileBlake2 }

// keySize is the length of the keys for hashes, in bytes.
func (m mode) keySize() int {
	if m.blake2() {
		return 128
	}
	return 32
}

const (
	macSize = 32
	ivSize  = 8
	// An encrypted object is the mode, a MAC, the counter, and the ciphertext;
	// others are the mode and the content.
	envelopeSize = 1 + macSize + ivSize
)

// errMAC says that an object is damaged, or was made with other keys.
var errMAC = errors.New("it does not authenticate")

// keys hold what objects are encrypted, authenticated and named with. The zero
// value but for mode is that of modeNone.
type keys struct {
	mode         mode
	repository   [32]byte // the id of the repository that they belong to
	encrypt      []byte   // 32 bytes: AES-256
	authenticate []byte   // MACs of objects
	name         []byte   // ids of objects
	chunkSeed    int32    // what the chunker's table is mixed with
	tamRequired  bool     // the manifest must authenticate itself

	block cipher.Block
}

// ready makes keys usable whose fields were set.
func (k *keys) ready() error {
	if !k.mode.keyed() {
		return nil
	}
	if n := k.mode.keySize(); len(k.encrypt) != 32 || len(k.authenticate) != n || len(k.name) != n {
		return fmt.Errorf("its keys have %d, %d and %d bytes instead of 32, %d and %d: %w", len(k.encrypt), len(k.authenticate), len(k.name), n, n, ErrDamaged)
	}
	var err error
	k.block, err = aes.NewCipher(k.encrypt)
	return err
}

// keyedHash begins a hash under a key: HMAC-SHA256, or BLAKE2b with the key in
// front of what is hashed.
func (k *keys) keyedHash(key []byte) hash.Hash {
	if !k.mode.blake2() {
		return hmac.New(sha256.New, key)
	}
	h, err := blake2b.New256(nil)
	if err != nil { // only for a key that is too long
		panic(err)
	}
	h.Write(key)
	return h
}

// id returns the id of an object with this plain content.
func (k *keys) id(plain []byte) (id objectID) {
	if !k.mode.keyed() {
		return sha256.Sum256(plain)
	}
	h := k.keyedHash(k.name)
	h.Write(plain)
	h.Sum(id[:0])
	return id
}

// mac authenticates a counter and a ciphertext, which lie behind each other.
func (k *keys) mac(sealed []byte) (sum [macSize]byte) {
	h := k.keyedHash(k.authenticate)
	h.Write(sealed)
	h.Sum(sum[:0])
	return sum
}

func (k *keys) stream(iv []byte) cipher.Stream {
	var counter [aes.BlockSize]byte
	copy(counter[aes.BlockSize-ivSize:], iv)
	return cipher.NewCTR(k.block, counter[:])
}

// sealed returns what an encrypted object's MAC is over: the counter and the
// ciphertext.
func (k *keys) sealed(object []byte) ([]byte, error) {
	if len(object) == 0 {
		return nil, fmt.Errorf("an object without any bytes: %w", ErrDamaged)
	}
	if m := mode(object[0]); m != k.mode {
		return nil, fmt.Errorf("it is of the mode %s, and the repository of %s: %w", m, k.mode, ErrDamaged)
	}
	if k.mode.encrypts() && len(object) < envelopeSize {
		return nil, fmt.Errorf("an encrypted object of %d bytes is shorter than %d: %w", len(object), envelopeSize, ErrDamaged)
	}
	if !k.mode.encrypts() {
		return nil, nil
	}
	return object[1+macSize:], nil
}

// open checks an object and returns its content, which is compressed, in the
// object's own storage.
func (k *keys) open(object []byte) ([]byte, error) {
	if err := k.authentic(object); err != nil {
		return nil, err
	}
	return k.decrypt(object)
}

// authentic checks the MAC of an object.
func (k *keys) authentic(object []byte) error {
	sealed, err := k.sealed(object)
	if err != nil || sealed == nil {
		return err
	}
	if sum := k.mac(sealed); subtle.ConstantTimeCompare(sum[:], object[1:1+macSize]) != 1 {
		return fmt.Errorf("%w: %w", errMAC, ErrDamaged)
	}
	return nil
}

// decrypt returns the content of an object in the object's own storage. Nothing
// has been checked of it: whoever calls it checks the id of what the content
// decompresses to, which in all modes with keys is a MAC itself, over more bytes.
// borg's mode authenticated has no other. Called again, it restores the object.
func (k *keys) decrypt(object []byte) ([]byte, error) {
	sealed, err := k.sealed(object)
	switch {
	case err != nil:
		return nil, err
	case sealed == nil:
		return object[1:], nil
	}
	content := sealed[ivSize:]
	k.stream(sealed[:ivSize]).XORKeyStream(content, content)
	return content, nil
}

// cause says why an object that was decrypted, but not authenticated, is not
// what it should be: err, unless it does not authenticate.
func (k *keys) cause(object []byte, err error) error {
	_, _ = k.decrypt(object) // it is what it was
	return cmp.Or(k.authentic(object), err)
}

// appendObject makes an object of content that is compressed. iv is the number
// of the first of the blocks of 16 bytes that it takes, which must never be used
// again with these keys.
func (k *keys) appendObject(dst, content []byte, iv uint64) []byte {
	dst = append(dst, byte(k.mode))
	if !k.mode.encrypts() {
		return append(dst, content...)
	}
	start := len(dst)
	dst = append(dst, make([]byte, macSize)...)
	dst = binary.BigEndian.AppendUint64(dst, iv)
	dst = append(dst, content...)
	sealed := dst[start+macSize:]
	k.stream(sealed[:ivSize]).XORKeyStream(sealed[ivSize:], sealed[ivSize:])
	sum := k.mac(sealed)
	copy(dst[start:], sum[:])
	return dst
}

// What an object that authenticates itself is, as the key for it is derived.
const (
	tamManifest = "manifest"
	tamArchive  = "archive"
)

const (
	tamType = "HKDF_HMAC_SHA512"
	tamSize = sha512.Size // of the code and of the salt
)

// tamKey derives the key that a manifest or an archive authenticates itself
// with. Without keys it is derived of nothing but public text.
func (k *keys) tamKey(salt []byte, what string) ([]byte, error) {
	if !k.mode.keyed() {
		return append(bytes.Clone(salt), what...), nil
	}
	secret := bytes.Join([][]byte{k.name, k.encrypt, k.authenticate}, nil)
	return hkdf.Key(sha512.New, secret, salt, "borg-metadata-authentication-"+what, tamSize)
}

// tamSum returns the code over a packed object in which the code's own bytes are
// zeros.
func (k *keys) tamSum(packed, salt []byte, what string) ([]byte, error) {
	key, err := k.tamKey(salt, what)
	if err != nil {
		return nil, err
	}
	h := hmac.New(sha512.New, key)
	h.Write(packed)
	return h.Sum(nil), nil
}
