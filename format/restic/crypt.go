package restic

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"

	//lint:ignore SA1019 restic's format authenticates with Poly1305-AES, and no other package has it.
	"golang.org/x/crypto/poly1305"
)

const (
	ivSize  = 16
	macSize = poly1305.TagSize
	// sealOverhead is how much longer an encrypted item is than its content.
	sealOverhead = ivSize + macSize
)

// errMAC says that an item is damaged, or was made with other keys.
var errMAC = errors.New("it does not authenticate")

// keys open encrypted items: IV, ciphertext by AES-256 in counter mode, and a
// Poly1305-AES code over the ciphertext.
type keys struct {
	encrypt cipher.Block
	nonce   cipher.Block // AES-128 under k: encrypts the IV to the second half of the one-time key
	r       [16]byte
}

func newKeys(encrypt, k, r []byte) (*keys, error) {
	if len(encrypt) != 32 || len(k) != 16 || len(r) != 16 {
		return nil, fmt.Errorf("keys of %d, %d and %d bytes instead of 32, 16 and 16", len(encrypt), len(k), len(r))
	}
	ks := &keys{r: [16]byte(r)}
	var err error
	if ks.encrypt, err = aes.NewCipher(encrypt); err != nil {
		return nil, err
	}
	if ks.nonce, err = aes.NewCipher(k); err != nil {
		return nil, err
	}
	return ks, nil
}

// open checks an item and puts its content into dst, which has exactly
// len(item)-sealOverhead bytes and may begin where the ciphertext does.
func (ks *keys) open(dst, item []byte) error {
	if len(item) < sealOverhead {
		return fmt.Errorf("an encrypted item of %d bytes is shorter than %d", len(item), sealOverhead)
	}
	iv, sealed, mac := item[:ivSize], item[ivSize:len(item)-macSize], item[len(item)-macSize:]
	if [ivSize]byte(iv) == [ivSize]byte{} {
		return errMAC
	}
	var oneTime [32]byte
	copy(oneTime[:16], ks.r[:])
	ks.nonce.Encrypt(oneTime[16:], iv)
	if !poly1305.Verify((*[macSize]byte)(mac), sealed, &oneTime) {
		return errMAC
	}
	cipher.NewCTR(ks.encrypt, iv).XORKeyStream(dst[:len(sealed)], sealed)
	return nil
}

// openInPlace opens an item in its own storage.
func (ks *keys) openInPlace(item []byte) ([]byte, error) {
	if len(item) < sealOverhead {
		return nil, fmt.Errorf("an encrypted item of %d bytes is shorter than %d", len(item), sealOverhead)
	}
	plain := item[ivSize : len(item)-macSize]
	if err := ks.open(plain, item); err != nil {
		return nil, err
	}
	return plain, nil
}
