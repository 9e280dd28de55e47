package keyring

import (
	"context"
	"io"

	"github.com/bk-backup/bk/repo/seal"
)

// Unwrapper opens credentials of one kind.
type Unwrapper interface {
	// Name is the kind's name in credentials, as "passphrase".
	Name() string
	// Unwrap returns the secret of a credential with these params, which are
	// not to be trusted. It may return a wrong one: that is noticed. It fails
	// with ErrNoKeyFits if it knows that what it holds does not fit, with
	// seal.ErrDamaged or seal.ErrVersion if the params make no sense to it;
	// then other credentials are tried. Any other error ends the opening.
	Unwrap(ctx context.Context, params []byte) (*seal.Key, error)
}

// Kind is one way to open a client key: a passphrase, a key file, a device. A
// value holds what it needs to do so. It never sees the client key, which is
// sealed under the secret that it makes up or finds again.
type Kind interface {
	Unwrapper
	// Wrap makes up the secret of a new credential, and params: one msgpack map
	// (canonical, not secret, less than 60 KiB) that together with what the
	// Kind holds leads to the secret again.
	Wrap(ctx context.Context, rand io.Reader) (params []byte, secret *seal.Key, err error)
}

// Secrets are what a person or program has in order to open a repository.
type Secrets struct {
	// Passphrase returns the passphrase. It is called at most once, and only if
	// the repository has a credential that takes one. It may ask a person.
	Passphrase func(ctx context.Context) (string, error)
	// Kinds are other ways, each by its name. They are tried before the
	// passphrase.
	Kinds []Unwrapper
}

// asked asks for the passphrase when it must.
type asked struct {
	ask        func(ctx context.Context) (string, error)
	passphrase *string
}

func (a *asked) Name() string { return kindPassphrase }

func (a *asked) Unwrap(ctx context.Context, params []byte) (*seal.Key, error) {
	if a.passphrase == nil {
		p, err := a.ask(ctx)
		if err != nil {
			return nil, err
		}
		a.passphrase = &p
	}
	return Passphrase(*a.passphrase, Argon2{}).Unwrap(ctx, params)
}

// unwrappers returns the ways to try, in order.
func (s *Secrets) unwrappers() []Unwrapper {
	list := append([]Unwrapper(nil), s.Kinds...)
	if s.Passphrase != nil {
		list = append(list, &asked{ask: s.Passphrase})
	}
	return list
}
