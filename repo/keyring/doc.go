// Package keyring has the keys of a repository: credentials open the client
// key, the client key opens the client chunk, and that holds the keys of the
// client's groups and its signing key. It reads and writes the objects below
// config/, credentials/ and clients/ (spec/repository.md, sections 3 and 4), and
// signs what has to be signed (section 8).
//
// Start reading at [Keyring], which [Init] makes and [Open] opens. [Kind] is
// what another way to open a repository has to implement; [Passphrase] is one.
//
// Package repo and programs may import this package. It imports repo/seal,
// repo/store, and format for times.
package keyring

import "errors"

var (
	// ErrNoRepository: the storage holds no bk repository.
	ErrNoRepository = errors.New("there is no bk repository")
	// ErrConfigGone: there are snapshots, and no config that makes a repository of
	// them. It comes with ErrNoRepository.
	ErrConfigGone = errors.New("snapshots are there, and config/ is gone")
	// ErrNoCredentials: there is nothing that a key could fit. It comes with
	// ErrNoKeyFits.
	ErrNoCredentials = errors.New("no credential is there")
	// ErrExists: the storage holds a repository already.
	ErrExists = errors.New("there is a repository already")
	// ErrNoKeyFits: none of the credentials opens with the secrets given.
	ErrNoKeyFits = errors.New("no key fits")
	// ErrLastCredential: nothing else would open the client key.
	ErrLastCredential = errors.New("it is the last credential of this client")
	// ErrInUse: it is not certain that another one opens the client key.
	ErrInUse = errors.New("it is the credential that the repository was opened with")
	// ErrConflict: another process changed the client chunk meanwhile.
	ErrConflict = errors.New("the keys were changed by another process")
	// ErrRevoked: there is another client key by now, which must be opened anew.
	ErrRevoked = errors.New("the client's key was replaced since the repository was opened")
	// ErrSignature: a signature is not by the client that it should be by.
	ErrSignature = errors.New("the signature is wrong")
)
