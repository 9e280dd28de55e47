package restic

import (
	"bytes"
	"crypto/cipher"
	"encoding/json"
	"fmt"
	"io"
	"time"

	//lint:ignore SA1019 as in crypt.go
	"golang.org/x/crypto/poly1305"
	"golang.org/x/crypto/scrypt"
)

// seal appends an encrypted item with content plain to dst. The two must not
// overlap. rand gives the IV.
func (ks *keys) seal(dst, plain []byte, rand io.Reader) ([]byte, error) {
	at := len(dst)
	dst = append(dst, make([]byte, ivSize)...)
	iv := dst[at : at+ivSize]
	if _, err := io.ReadFull(rand, iv); err != nil {
		return nil, fmt.Errorf("draw the IV of an encrypted item: %w", err)
	}
	var oneTime [32]byte
	copy(oneTime[:16], ks.r[:])
	ks.nonce.Encrypt(oneTime[16:], iv)
	stream := cipher.NewCTR(ks.encrypt, iv)
	dst = append(dst, plain...)
	sealed := dst[at+ivSize:]
	stream.XORKeyStream(sealed, sealed)
	var mac [macSize]byte
	poly1305.Sum(&mac, sealed, &oneTime)
	return append(dst, mac[:]...), nil
}

// How a passphrase of a new repository is derived: restic's own figures on a
// machine of today, 32 MiB and about half a second.
const (
	newKeyN    = 1 << 15
	newKeyR    = 8
	newKeyP    = 5
	saltSize   = 64 // restic refuses others
	masterSize = 32 + 16 + 16
)

// newKeyFile draws master keys and returns them with the key file that a
// passphrase opens.
func newKeyFile(passphrase, user, host string, now time.Time, rand io.Reader, work uint64) (*keys, []byte, error) {
	var drawn [saltSize + masterSize]byte
	if _, err := io.ReadFull(rand, drawn[:]); err != nil {
		return nil, nil, fmt.Errorf("draw the keys: %w", err)
	}
	salt, encrypt, k, r := drawn[:64], drawn[64:96], drawn[96:112], drawn[112:]
	var master masterKeyFile
	master.Encrypt, master.MAC.K, master.MAC.R = encrypt, k, r
	plain, err := json.Marshal(master)
	if err != nil {
		return nil, nil, err
	}
	derived, err := scrypt.Key([]byte(passphrase), salt, int(work), newKeyR, newKeyP, 64)
	if err != nil {
		return nil, nil, err
	}
	outer, err := newKeys(derived[:32], derived[32:48], derived[48:])
	if err != nil {
		return nil, nil, err
	}
	data, err := outer.seal(nil, plain, rand)
	if err != nil {
		return nil, nil, err
	}
	file, err := json.Marshal(struct {
		Created  time.Time `json:"created"`
		Username string    `json:"username"`
		Hostname string    `json:"hostname"`
		keyFile
	}{now, user, host, keyFile{KDF: "scrypt", N: work, R: newKeyR, P: newKeyP, Salt: salt, Data: data}})
	if err != nil {
		return nil, nil, err
	}
	ks, err := newKeys(bytes.Clone(encrypt), k, r)
	return ks, file, err
}
