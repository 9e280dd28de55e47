package restic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	"golang.org/x/crypto/scrypt"

	"github.com/bk-backup/bk/repo/store"
)

const (
	keyFileSizeMax = 64 << 10
	keyFilesMax    = 64
	saltSizeMax    = 1 << 10

	// scrypt takes 128*N*r bytes and time by N*r*p. restic calibrates to about
	// 32 MiB and half a second (N*r*p = 2^21); a hostile key file may not ask for
	// more than these.
	scryptMemoryMax = 256 << 20
	scryptWorkMax   = 1 << 26
)

// keyFile is one of the files in keys/: the master keys under a passphrase.
type keyFile struct {
	KDF  string `json:"kdf"`
	N    uint64 `json:"N"`
	R    uint64 `json:"r"`
	P    uint64 `json:"p"`
	Salt []byte `json:"salt"`
	Data []byte `json:"data"`
}

// masterKeyFile is the content of keyFile.Data.
type masterKeyFile struct {
	MAC struct {
		K []byte `json:"k"`
		R []byte `json:"r"`
	} `json:"mac"`
	Encrypt []byte `json:"encrypt"`
}

func parseKeyFile(b []byte) (*keyFile, error) {
	k := new(keyFile)
	if err := json.Unmarshal(b, k); err != nil {
		return nil, err
	}
	if k.KDF != "scrypt" {
		return nil, fmt.Errorf("its passphrase is derived by %q, which is not known", k.KDF)
	}
	switch {
	case k.N < 2 || k.N&(k.N-1) != 0 || k.R == 0 || k.P == 0:
		return nil, fmt.Errorf("scrypt cannot work with N=%d, r=%d, p=%d", k.N, k.R, k.P)
	case k.N > scryptMemoryMax/128 || k.R > scryptMemoryMax/128/k.N || k.P > scryptWorkMax/(k.N*k.R):
		return nil, fmt.Errorf("scrypt with N=%d, r=%d, p=%d takes more memory or time than is allowed", k.N, k.R, k.P)
	case len(k.Salt) > saltSizeMax:
		return nil, fmt.Errorf("a salt of %d bytes is more than %d", len(k.Salt), saltSizeMax)
	}
	return k, nil
}

// open returns the master keys, or errMAC for another passphrase.
func (k *keyFile) open(passphrase string) (*keys, error) {
	derived, err := scrypt.Key([]byte(passphrase), k.Salt, int(k.N), int(k.R), int(k.P), 64)
	if err != nil {
		return nil, err
	}
	user, err := newKeys(derived[:32], derived[32:48], derived[48:])
	if err != nil {
		return nil, err
	}
	plain, err := user.openInPlace(k.Data)
	if err != nil {
		return nil, err
	}
	var m masterKeyFile
	if err := json.Unmarshal(plain, &m); err != nil {
		return nil, err
	}
	return newKeys(m.Encrypt, m.MAC.K, m.MAC.R)
}

// findKeys tries a passphrase on every key file. What is wrong with a file that
// cannot be tried is logged, and told if none fits.
func findKeys(ctx context.Context, st store.Reader, passphrase string, log *slog.Logger) (*keys, error) {
	var names []string
	err := st.List(ctx, "keys/", func(info store.Info) error {
		if _, ok := objectID(info.Name); ok && len(names) < keyFilesMax {
			names = append(names, info.Name)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the keys of %s: %w", st, err)
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%s has no key files in keys/: %w", st, ErrNoRepository)
	}
	var trouble error
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		ks, err := tryKey(ctx, st, name, passphrase)
		if err == nil {
			return ks, nil
		}
		if !errors.Is(err, errMAC) {
			log.Warn("a key file cannot be used", "object", name, "error", err)
			trouble = errors.Join(trouble, fmt.Errorf("%s: %w", name, err))
		}
	}
	if trouble != nil {
		return nil, fmt.Errorf("open %s: %w; some key files could not be tried: %w", st, ErrWrongPassphrase, trouble)
	}
	return nil, fmt.Errorf("open %s: %w", st, ErrWrongPassphrase)
}

func tryKey(ctx context.Context, st store.Reader, name, passphrase string) (*keys, error) {
	b, err := st.Get(ctx, name, keyFileSizeMax)
	if err != nil {
		return nil, err
	}
	k, err := parseKeyFile(b)
	if err != nil {
		return nil, err
	}
	return k.open(passphrase)
}
