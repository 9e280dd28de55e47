package seal

import (
	"crypto/sha256"
	"encoding"
	"fmt"
	"hash"
	"sync"

	"github.com/bk-backup/bk/format"
)

// ChunkKind is the kind of a chunk (spec/repository.md, 5). Chunks of different
// kinds never pass for one another.
type ChunkKind uint8

const (
	ChunkData ChunkKind = 1 // content of files
	ChunkMeta ChunkKind = 2 // nodes, lists and bodies of listings
)

// PackKind returns the kind of the packs that hold chunks of this kind.
func (k ChunkKind) PackKind() Kind {
	if k == ChunkMeta {
		return KindMetaPack
	}
	return KindDataPack
}

// LabelSize is the size of a Label in bytes.
const LabelSize = 20

// Label names a chunk on storage; only who has the group's label key can tell
// which chunk it is.
type Label [LabelSize]byte

// String returns hexadecimal digits.
func (l Label) String() string { return fmt.Sprintf("%x", l[:]) }

// Labeler gives chunks their labels under one group's label key. It may be used
// concurrently.
//
// A label is computed for every chunk of every backup. So the two blocks of
// SHA-256 that depend on the key alone are computed once, and their states are
// loaded for each label; hash states are pooled.
type Labeler struct {
	inner, outer []byte // states of SHA-256 after the padded key, as HMAC has it
	pool         sync.Pool
}

// hashing is what one computation of a label works on.
type hashing struct {
	hash  hash.Hash
	state encoding.BinaryUnmarshaler // the same
	in    [1 + sha256.Size]byte
	sum   [sha256.Size]byte
}

// NewLabeler returns the labeler for a group's label key.
func NewLabeler(key *Key) *Labeler {
	l := &Labeler{inner: keyState(key, 0x36), outer: keyState(key, 0x5c)}
	l.pool.New = func() any {
		h := sha256.New()
		return &hashing{hash: h, state: h.(encoding.BinaryUnmarshaler)}
	}
	return l
}

// keyState returns the state of SHA-256 after the key padded with mask.
func keyState(key *Key, mask byte) []byte {
	var block [sha256.BlockSize]byte
	copy(block[:], key[:])
	for i := range block {
		block[i] ^= mask
	}
	h := sha256.New()
	h.Write(block[:])
	return mustState(h.(encoding.BinaryMarshaler).MarshalBinary())
}

// LabelOf returns the label of a chunk: the first 20 bytes of HMAC-SHA256 over
// its kind and id.
func (l *Labeler) LabelOf(kind ChunkKind, id format.ID) Label {
	h := l.pool.Get().(*hashing)
	defer l.pool.Put(h)
	h.in[0] = byte(kind)
	copy(h.in[1:], id[:])
	h.load(l.inner)
	h.hash.Write(h.in[:])
	h.hash.Sum(h.sum[:0])
	h.load(l.outer)
	h.hash.Write(h.sum[:])
	h.hash.Sum(h.sum[:0])
	return Label(h.sum[:LabelSize])
}

func (h *hashing) load(state []byte) { mustState(nil, h.state.UnmarshalBinary(state)) }

// mustState panics on what crypto/sha256 says cannot happen: that it refuses a
// state of its own.
func mustState(state []byte, err error) []byte {
	if err != nil {
		panic("seal: state of SHA-256: " + err.Error())
	}
	return state
}
