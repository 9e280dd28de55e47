package borg

import "errors"

// What callers tell apart, with errors.Is.
var (
	// ErrNoRepository: what is there is not a borg repository.
	ErrNoRepository = errors.New("there is no borg repository")
	// ErrWrongPassphrase: it does not open the key.
	ErrWrongPassphrase = errors.New("the passphrase does not fit the key")
	// ErrNoKeyFile: the keys are in a file, which is not to be found.
	ErrNoKeyFile = errors.New("there is no key file of this repository")
	// ErrVersion: something that this package does not know.
	ErrVersion = errors.New("it was made by a version of borg that is not known")
	// ErrDamaged: something is not what it was when it was written.
	ErrDamaged = errors.New("it is damaged")
	// ErrQuota: more would not fit into what the repository may take.
	ErrQuota = errors.New("the repository's storage_quota is used up")
	// ErrMissing: an object is not in the repository.
	ErrMissing = errors.New("it is missing")
)
