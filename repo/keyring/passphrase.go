package keyring

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/argon2"

	"github.com/bk-backup/bk/repo/internal/mp"
	"github.com/bk-backup/bk/repo/seal"
)

const (
	kindPassphrase = "passphrase"
	kdfArgon2id    = "argon2id"
	kdfSaltSize    = 32
)

// Argon2 is what deriving a key from a passphrase costs. The zero value stands
// for what new credentials have: 64 MiB, 3 passes, 4 threads.
type Argon2 struct {
	MemoryKiB uint32
	Passes    uint32
	Threads   uint8
}

var argon2Default = Argon2{MemoryKiB: 64 << 10, Passes: 3, Threads: 4}

// Limits on what a credential may ask for, which is not authenticated when it
// has to be done (spec/repository.md, 4).
const (
	argon2MemoryMaxKiB = 4 << 20
	argon2PassesMax    = 64
	argon2ThreadsMax   = 64
)

func (a Argon2) check() error {
	if a.MemoryKiB > argon2MemoryMaxKiB || a.Passes > argon2PassesMax || a.Threads > argon2ThreadsMax ||
		a.Passes == 0 || a.Threads == 0 || a.MemoryKiB < 8*uint32(a.Threads) {
		return fmt.Errorf("Argon2id with %d KiB, %d passes and %d threads is out of bounds", a.MemoryKiB, a.Passes, a.Threads)
	}
	return nil
}

type passphraseParams struct {
	KDF     string `msgpack:"kdf"`
	Memory  uint32 `msgpack:"memory"`
	Passes  uint32 `msgpack:"passes"`
	Salt    []byte `msgpack:"salt"`
	Threads uint8  `msgpack:"threads"`
}

type passphrase struct {
	text string
	cost Argon2
}

// Passphrase is the Kind of credentials that open with a passphrase. cost is
// for new ones; those that exist say themselves what they cost. The passphrase's
// bytes count as they are: how accented letters are composed matters.
func Passphrase(text string, cost Argon2) Kind {
	if cost == (Argon2{}) {
		cost = argon2Default
	}
	return passphrase{text, cost}
}

func (p passphrase) Name() string { return kindPassphrase }

func (p passphrase) Wrap(_ context.Context, rand io.Reader) ([]byte, *seal.Key, error) {
	if p.text == "" {
		return nil, nil, errors.New("an empty passphrase would protect nothing")
	}
	if err := p.cost.check(); err != nil {
		return nil, nil, err
	}
	salt := make([]byte, kdfSaltSize)
	if _, err := io.ReadFull(rand, salt); err != nil {
		return nil, nil, fmt.Errorf("draw the salt of a passphrase: %w", err)
	}
	params := mp.Encode(&passphraseParams{kdfArgon2id, p.cost.MemoryKiB, p.cost.Passes, salt, p.cost.Threads})
	return params, p.derive(p.cost, salt), nil
}

func (p passphrase) Unwrap(ctx context.Context, params []byte) (*seal.Key, error) {
	var v passphraseParams
	if err := mp.Decode(params, &v); err != nil {
		return nil, err
	}
	if v.KDF != kdfArgon2id {
		return nil, fmt.Errorf("%w: key derivation %q is not known", seal.ErrVersion, v.KDF)
	}
	if len(v.Salt) != kdfSaltSize {
		return nil, fmt.Errorf("%w: the salt of the passphrase has %d bytes", seal.ErrDamaged, len(v.Salt))
	}
	cost := Argon2{v.Memory, v.Passes, v.Threads}
	if err := cost.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", seal.ErrDamaged, err)
	}
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	return p.derive(cost, v.Salt), nil
}

func (p passphrase) derive(cost Argon2, salt []byte) *seal.Key {
	key := seal.Key(argon2.IDKey([]byte(p.text), salt, cost.Passes, cost.MemoryKiB, cost.Threads, seal.KeySize))
	return &key
}
