package borg

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"
)

const (
	keyBlobSizeMax = 64 << 10
	// borg asks for 100000 rounds; a hostile key may not ask for much more.
	iterationsMax = 10_000_000
	saltSizeMax   = 1 << 10
)

// keyFileHead is what the first line of a key file begins with; the id of the
// repository in hexadecimal follows.
const keyFileHead = "BORG_KEY "

// keyBlob is keys under a passphrase: the value "key" of a repository's
// configuration, or what follows the first line of a key file.
type keyBlob struct {
	iterations uint64
	salt       []byte
	hash       [sha256.Size]byte // HMAC-SHA256 of the plain keys, under the passphrase's key
	data       []byte            // the keys, encrypted
}

// errPassphrase says that a key does not open.
var errPassphrase = errors.New("the passphrase does not fit")

// KeyFileHead returns the first line of the key file of a repository, whose id
// is in hexadecimal.
func KeyFileHead(repository string) string { return keyFileHead + repository }

// parseKeyFile divides a key file into the id of its repository and the key.
func parseKeyFile(b []byte) (repository [32]byte, blob *keyBlob, err error) {
	head, rest, _ := strings.Cut(string(b), "\n")
	digits, ok := strings.CutPrefix(head, keyFileHead)
	raw, err := hex.DecodeString(strings.TrimSpace(digits))
	if !ok || err != nil || len(raw) != len(repository) {
		return repository, nil, fmt.Errorf("it does not begin with %sand 64 hexadecimal digits: %w", keyFileHead, ErrDamaged)
	}
	blob, err = parseKeyBlob(rest)
	return [32]byte(raw), blob, err
}

// parseKeyBlob reads a key's base64.
func parseKeyBlob(text string) (*keyBlob, error) {
	if len(text) > keyBlobSizeMax {
		return nil, fmt.Errorf("a key of %d bytes is more than %d: %w", len(text), keyBlobSizeMax, ErrDamaged)
	}
	raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrDamaged)
	}
	u := &unpacker{b: raw}
	k := new(keyBlob)
	algorithm := ""
	for range u.mapHead() {
		switch key := u.text(); key {
		case "version":
			if v := u.uint(math.MaxUint64); v != 1 && u.err == nil {
				return nil, fmt.Errorf("the key has version %d: %w", v, ErrVersion)
			}
		case "algorithm":
			algorithm = u.text()
		case "iterations":
			k.iterations = u.uint(math.MaxUint64)
		case "salt":
			k.salt = bytes.Clone(u.bytes())
		case "hash":
			if b := u.bytes(); len(b) == len(k.hash) {
				k.hash = [sha256.Size]byte(b)
			}
		case "data":
			k.data = bytes.Clone(u.bytes())
		default:
			u.skip()
		}
	}
	switch {
	case u.err != nil:
		return nil, u.err
	case algorithm != "sha256":
		return nil, fmt.Errorf("its passphrase is derived by %q: %w", algorithm, ErrVersion)
	case k.iterations < 1 || k.iterations > iterationsMax || len(k.salt) > saltSizeMax:
		return nil, fmt.Errorf("its passphrase is derived in %d rounds with %d bytes of salt, which is refused: %w", k.iterations, len(k.salt), ErrDamaged)
	}
	return k, nil
}

// encode returns the key as a repository's configuration has it, in lines.
func (k *keyBlob) encode() string {
	b := appendMapHead(nil, 6)
	b = appendBytes(appendBytes(b, "algorithm"), "sha256")
	b = appendBytes(appendBytes(b, "data"), k.data)
	b = appendBytes(appendBytes(b, "hash"), k.hash[:])
	b = appendUint(appendBytes(b, "iterations"), k.iterations)
	b = appendBytes(appendBytes(b, "salt"), k.salt)
	b = appendUint(appendBytes(b, "version"), 1)
	text := base64.StdEncoding.EncodeToString(b)
	var lines []string
	const width = 70
	for ; len(text) > width; text = text[width:] {
		lines = append(lines, text[:width])
	}
	return strings.Join(append(lines, text), "\n")
}

// passphraseKey derives the key that keys are encrypted with.
func (k *keyBlob) passphraseKey(passphrase string) ([]byte, error) {
	return pbkdf2.Key(sha256.New, passphrase, k.salt, int(k.iterations), 32)
}

// crypt encrypts or decrypts with a passphrase's key.
func crypt(key, data []byte) ([]byte, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	out := make([]byte, len(data))
	cipher.NewCTR(block, make([]byte, aes.BlockSize)).XORKeyStream(out, data)
	return out, nil
}

func sumKeys(key, plain []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(plain)
	return h.Sum(nil)
}

// open returns the keys, or errPassphrase.
func (k *keyBlob) open(passphrase string, m mode) (*keys, error) {
	key, err := k.passphraseKey(passphrase)
	if err != nil {
		return nil, err
	}
	plain, err := crypt(key, k.data)
	if err != nil {
		return nil, err
	}
	if !hmac.Equal(sumKeys(key, plain), k.hash[:]) {
		return nil, errPassphrase
	}
	return parseKeys(plain, m)
}

// sealKeys encrypts keys with a passphrase. salt has 32 random bytes.
func sealKeys(ks *keys, passphrase string, salt []byte) (*keyBlob, error) {
	k := &keyBlob{iterations: 100_000, salt: salt}
	key, err := k.passphraseKey(passphrase)
	if err != nil {
		return nil, err
	}
	plain := ks.appendPacked(nil)
	k.hash = [sha256.Size]byte(sumKeys(key, plain))
	k.data, err = crypt(key, plain)
	return k, err
}

// parseKeys reads what is inside a key.
func parseKeys(plain []byte, m mode) (*keys, error) {
	u := &unpacker{b: plain}
	ks := &keys{mode: m}
	for range u.mapHead() {
		switch key := u.text(); key {
		case "version":
			if v := u.uint(math.MaxUint64); v != 1 && u.err == nil {
				return nil, fmt.Errorf("the keys have version %d: %w", v, ErrVersion)
			}
		case "repository_id":
			ks.repository = u.id()
		case "enc_key":
			ks.encrypt = bytes.Clone(u.bytes())
		case "enc_hmac_key":
			ks.authenticate = bytes.Clone(u.bytes())
		case "id_key":
			ks.name = bytes.Clone(u.bytes())
		case "chunk_seed":
			v, neg := u.int()
			if v > 1<<32 {
				u.fail("a seed of the chunker that does not fit into 32 bits")
			}
			if ks.chunkSeed = int32(uint32(v)); neg {
				ks.chunkSeed = int32(-uint32(v))
			}
		case "tam_required":
			ks.tamRequired = u.bool()
		default:
			u.skip()
		}
	}
	if u.err != nil {
		return nil, u.err
	}
	return ks, ks.ready()
}

// appendPacked is the reverse of parseKeys.
func (k *keys) appendPacked(dst []byte) []byte {
	dst = appendMapHead(dst, 7)
	dst = appendInt(appendBytes(dst, "chunk_seed"), int64(k.chunkSeed))
	dst = appendBytes(appendBytes(dst, "enc_hmac_key"), k.authenticate)
	dst = appendBytes(appendBytes(dst, "enc_key"), k.encrypt)
	dst = appendBytes(appendBytes(dst, "id_key"), k.name)
	dst = appendBytes(appendBytes(dst, "repository_id"), k.repository[:])
	dst = appendBool(appendBytes(dst, "tam_required"), k.tamRequired)
	return appendUint(appendBytes(dst, "version"), 1)
}
