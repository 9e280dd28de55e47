package restic

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/bk-backup/bk/format"
)

// Limits on what is read whole, in bytes.
const (
	fileSizeMax   = 256 << 20 // a file of index/ or snapshots/, as stored and as plain JSON
	treeSizeMax   = 512 << 20 // the JSON of one directory; restic needs about 500 bytes for a file
	zstdMemoryMax = 512 << 20
)

// objectID returns the id that a name such as data/77/770e... ends with. Other
// names are none of a repository's and are to be ignored.
func objectID(name string) (format.ID, bool) {
	id, err := format.ParseID(name[strings.LastIndexByte(name, '/')+1:])
	return id, err == nil
}

// loadFile returns the JSON of a file in index/ or snapshots/, whose name is the
// SHA-256 of what is stored.
func (r *Repository) loadFile(ctx context.Context, name string) ([]byte, error) {
	stored, err := r.store.Get(ctx, name, fileSizeMax)
	if err != nil {
		return nil, err
	}
	id, _ := objectID(name)
	if sum := format.ID(sha256.Sum256(stored)); sum != id {
		return nil, fmt.Errorf("its content has the SHA-256 %s, not the one that it is named by: %w", sum, ErrDamaged)
	}
	plain, err := r.keys.openInPlace(stored)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrDamaged)
	}
	return unpackJSON(plain)
}

// unpackJSON returns the JSON in an unpacked file: in format 2 it may begin with
// a byte that says how it is encoded.
func unpackJSON(plain []byte) ([]byte, error) {
	if len(plain) == 0 {
		return nil, fmt.Errorf("it is empty: %w", ErrDamaged)
	}
	switch plain[0] {
	case '{', '[':
		return plain, nil
	case 2:
		return decodeZstd(plain[1:], nil, fileSizeMax)
	}
	return nil, fmt.Errorf("its encoding %d is not known: %w", plain[0], ErrVersion)
}

// zstdDecoder decodes what restic keeps for itself; chunks of content are
// decoded by package format.
var zstdDecoder = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(zstdMemoryMax))
})

// decodeZstd decodes b into dst's storage, or more where that is too small.
func decodeZstd(b, dst []byte, sizeMax int) ([]byte, error) {
	var h zstd.Header
	if err := h.Decode(b); err != nil {
		return nil, fmt.Errorf("zstd: %w: %w", err, ErrDamaged)
	}
	if h.HasFCS && h.FrameContentSize > uint64(sizeMax) {
		return nil, fmt.Errorf("zstd: it decodes to %d bytes, more than %d", h.FrameContentSize, sizeMax)
	}
	decoder, err := zstdDecoder()
	if err != nil {
		return nil, err
	}
	plain, err := decoder.DecodeAll(b, dst[:0])
	switch {
	case err != nil:
		return nil, fmt.Errorf("zstd: %w: %w", err, ErrDamaged)
	case len(plain) > sizeMax:
		return nil, fmt.Errorf("zstd: it decodes to %d bytes, more than %d: %w", len(plain), sizeMax, errors.ErrUnsupported)
	}
	return plain, nil
}
