// Package seal makes and opens the objects of which a repository consists: the
// 128-byte header, the key schedule, the sealing itself, checksums, padded
// sizes, the names of objects and the labels of chunks. It implements sections
// 2 and 5 (labels) of spec/repository.md and knows nothing of what stands
// inside an object.
//
// Start reading at [Header], then [Keys] and [AEAD]; [SealObject] and
// [OpenObject] put them together for objects that are sealed whole. Packs are
// sealed chunk by chunk: that is package repo/pack. Credentials and the plain
// config are package repo/keyring's.
//
// Packages below repo, and repo itself, may import this package. It imports
// format for [format.ID], and nothing else of this module.
package seal

import "errors"

// The ways in which an object can fail to open. They are told apart with
// errors.Is; the errors returned say more, and name the object where
// [Expect].Name was given.
var (
	// ErrWrongKey: the object was sealed under another key than the one given.
	// The object itself may be in perfect order.
	ErrWrongKey = errors.New("wrong key")
	// ErrDamaged: the bytes are not the ones that were written, or they are
	// not the object that belongs under this name.
	ErrDamaged = errors.New("damaged")
	// ErrVersion: the object was written by a newer version of the format than
	// this program knows.
	ErrVersion = errors.New("format is newer than this program")
	// ErrTooLarge: the content does not fit into one object.
	ErrTooLarge = errors.New("too large for one object")
)
