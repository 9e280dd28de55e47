package restic

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/bk-backup/bk/format"
)

// kind is what a blob is. A blob of content and one of a tree may share an id.
type kind uint8

const (
	dataBlob kind = iota
	treeBlob
	kinds
)

func (k kind) String() string { return [...]string{"data", "tree"}[k] }

// blob says where a blob lies: 48 bytes, of which there are as many as blobs.
type blob struct {
	id     format.ID
	pack   uint32 // number of the pack in the index
	offset uint32
	stored uint32 // bytes in the pack, encrypted
	plain  uint32 // bytes of content if that is compressed, otherwise 0
}

// size returns the bytes of the blob's content.
func (b *blob) size() uint32 {
	if b.plain != 0 {
		return b.plain
	}
	return b.stored - sealOverhead
}

const (
	packTailSize     = 4        // length of the header, at the end of a pack
	packHeaderMax    = 16 << 20 // restic's own limit
	packEntrySize    = 1 + 4 + 32
	packEntrySizeZip = packEntrySize + 4
)

// parsePackHeader calls add with each blob of a pack, given the decrypted header
// and the size of what comes before the header.
func parsePackHeader(b []byte, room int64, add func(kind, blob)) error {
	offset := int64(0)
	for len(b) > 0 {
		what := b[0]
		if what > 3 {
			return fmt.Errorf("a blob has the type %d, which is not known: %w", what, ErrVersion)
		}
		size := packEntrySize
		if what >= 2 {
			size = packEntrySizeZip
		}
		if len(b) < size {
			return fmt.Errorf("its header is cut off: %w", ErrDamaged)
		}
		e := blob{id: format.ID(b[size-32 : size]), offset: uint32(offset), stored: binary.LittleEndian.Uint32(b[1:])}
		if what >= 2 {
			e.plain = binary.LittleEndian.Uint32(b[5:])
		}
		offset += int64(e.stored)
		if e.stored < sealOverhead || offset > room {
			return fmt.Errorf("blob %s lies outside: %w", e.id, ErrDamaged)
		}
		add(kind(what&1), e)
		b = b[size:]
	}
	return nil
}

// readPackHeader calls add with each blob of a pack of the given size.
func (r *Repository) readPackHeader(ctx context.Context, name string, packSize int64, add func(kind, blob)) error {
	if packSize < packTailSize+sealOverhead || packSize > 1<<32-1 {
		return fmt.Errorf("a pack cannot have %d bytes: %w", packSize, ErrDamaged)
	}
	// Most headers are small, and one read has them whole.
	tail := make([]byte, min(packSize, 32<<10))
	if err := r.store.ReadAt(ctx, name, tail, packSize-int64(len(tail))); err != nil {
		return err
	}
	headerSize := int64(binary.LittleEndian.Uint32(tail[len(tail)-packTailSize:]))
	if headerSize < sealOverhead || headerSize > packHeaderMax || headerSize > packSize-packTailSize {
		return fmt.Errorf("a header cannot have %d bytes: %w", headerSize, ErrDamaged)
	}
	start := packSize - packTailSize - headerSize
	header := tail[:len(tail)-packTailSize]
	if int64(len(header)) >= headerSize {
		header = header[int64(len(header))-headerSize:]
	} else {
		header = make([]byte, headerSize)
		if err := r.store.ReadAt(ctx, name, header, start); err != nil {
			return err
		}
	}
	plain, err := r.keys.openInPlace(header)
	if err != nil {
		return fmt.Errorf("its header: %w: %w", err, ErrDamaged)
	}
	return parsePackHeader(plain, start, add)
}
