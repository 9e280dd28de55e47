package pack

import (
	"encoding/binary"
	"fmt"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/seal"
)

// Codec says how a chunk's payload is encoded.
type Codec uint8

const (
	CodecNone Codec = 0 // the plain bytes
	CodecZstd Codec = 1 // one zstd frame
)

// Sizes in bytes.
const (
	// SizeMax is the most that a pack may have; what would exceed it is refused.
	SizeMax = 1<<32 - 1

	entrySize   = seal.LabelSize + 1 + 4 + 4
	trailerSize = 8 + 4 + 4 + seal.Overhead
	writerSize  = 16
	// directorySizeMin is the plaintext of the directory of a pack without chunks.
	directorySizeMin = writerSize + 4
	packSizeMin      = seal.HeaderSize + directorySizeMin + seal.Overhead + trailerSize
)

// Entry is what the directory of a pack says of one chunk.
type Entry struct {
	Label      seal.Label
	Codec      Codec
	RawSize    uint32 // plain bytes, 1 to format.ChunkSizeMax
	StoredSize uint32 // sealed bytes: payload and tag
	Offset     uint32 // of the sealed chunk in the pack
}

// Info is what an index says of one pack. With the group's keys it is enough to
// read chunks, without the pack's header.
type Info struct {
	Name   [32]byte  // SHA-256 of the pack
	Kind   seal.Kind // KindDataPack or KindMetaPack
	Suite  seal.Suite
	Epoch  uint32
	Salt   seal.Salt
	Size   int64         // bytes of the pack, padding included
	Writer seal.ClientID // who wrote it
	Count  uint32        // chunks
}

// ObjectName returns the name of the pack on storage.
func (p *Info) ObjectName() string { return seal.Name{Kind: p.Kind, Sum: p.Name}.String() }

// Listed is a pack and its directory, as an index lists it.
type Listed struct {
	Info    Info
	Entries []Entry
}

// check says what about an entry cannot be, whoever wrote it.
func (e *Entry) check() error {
	if e.RawSize == 0 || e.RawSize > format.ChunkSizeMax {
		return fmt.Errorf("%w: a chunk of %d bytes", seal.ErrDamaged, e.RawSize)
	}
	payload := int64(e.StoredSize) - seal.Overhead
	switch e.Codec {
	case CodecNone:
		if payload != int64(e.RawSize) {
			return fmt.Errorf("%w: %d stored bytes for an uncompressed chunk of %d", seal.ErrDamaged, e.StoredSize, e.RawSize)
		}
	case CodecZstd:
		if payload < 1 || payload > int64(format.PayloadSizeMax(int(e.RawSize))) {
			return fmt.Errorf("%w: %d stored bytes for a chunk of %d", seal.ErrDamaged, e.StoredSize, e.RawSize)
		}
	default:
		return fmt.Errorf("%w: codec %d is not known", seal.ErrVersion, e.Codec)
	}
	return nil
}

// append appends the entry as directories have it. The offset is not part of it.
func (e *Entry) append(dst []byte) []byte {
	dst = append(dst, e.Label[:]...)
	dst = append(dst, byte(e.Codec))
	dst = binary.BigEndian.AppendUint32(dst, e.RawSize)
	return binary.BigEndian.AppendUint32(dst, e.StoredSize)
}

// parseEntries reads count entries, of which b has the bytes, into dst. end is
// where their chunks end in the pack.
func parseEntries(dst []Entry, b []byte, count int) (entries []Entry, end int64, err error) {
	offset := int64(seal.HeaderSize)
	for i := range count {
		p := b[i*entrySize:][:entrySize]
		e := Entry{
			Label:      seal.Label(p[:seal.LabelSize]),
			Codec:      Codec(p[seal.LabelSize]),
			RawSize:    binary.BigEndian.Uint32(p[seal.LabelSize+1:]),
			StoredSize: binary.BigEndian.Uint32(p[seal.LabelSize+5:]),
			Offset:     uint32(offset),
		}
		if err := e.check(); err != nil {
			return nil, 0, fmt.Errorf("entry %d: %w", i, err)
		}
		if offset += int64(e.StoredSize); offset > SizeMax {
			return nil, 0, fmt.Errorf("%w: entry %d goes beyond what a pack can hold", seal.ErrDamaged, i)
		}
		dst = append(dst, e)
	}
	return dst, offset, nil
}

// appendChunkAD appends what a chunk is authenticated with, besides itself.
func appendChunkAD(dst, header []byte, label *seal.Label, codec Codec, rawSize uint32) []byte {
	dst = append(dst, header...)
	dst = append(dst, label[:]...)
	dst = append(dst, byte(codec))
	return binary.BigEndian.AppendUint32(dst, rawSize)
}
