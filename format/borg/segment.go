package borg

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Tags of the entries of a segment.
const (
	tagPut    = 0
	tagDelete = 1
	tagCommit = 2
)

const (
	segmentMagicSize = 8
	// An entry is a CRC over what follows it, the size of the whole entry, a tag,
	// and for what is put or deleted an id.
	entryHeadSize = 4 + 4 + 1
	putHeadSize   = entryHeadSize + len(objectID{})
	// entrySizeMax is the most bytes that borg makes an entry of.
	entrySizeMax = 20 << 20
)

// The beginning of a segment, of borg and of the Attic that it came from.
const (
	segmentMagic      = "BORG_SEG"
	segmentMagicAttic = "ATTICSEG"
)

// commitEntry is an entry that says that all before it counts.
var commitEntry = appendEntry(nil, tagCommit, nil, nil)

// place is where an entry lies.
type place struct {
	segment, offset uint32
}

// String says where that is in messages.
func (p place) String() string { return fmt.Sprintf("segment %d at offset %d", p.segment, p.offset) }

// number is a place as one number, which is what tables hold.
func (p place) number() uint64 { return uint64(p.segment)<<32 | uint64(p.offset) }

func placeOf(number uint64) place {
	return place{segment: uint32(number >> 32), offset: uint32(number)}
}

// segmentName returns the name of a segment on storage.
func segmentName(number uint32, perDir uint64) string {
	return fmt.Sprintf("data/%d/%d", uint64(number)/perDir, number)
}

// entryHead is what an entry begins with.
type entryHead struct {
	crc  uint32
	size uint32 // of the whole entry
	tag  byte
	id   objectID // zeros for a commit
}

// parseEntryHead reads the head of an entry: putHeadSize bytes, or fewer at the
// end of a segment.
func parseEntryHead(b []byte) (h entryHead, err error) {
	if len(b) < entryHeadSize {
		return h, errors.New("its head is cut off")
	}
	h.crc, h.size, h.tag = binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]), b[8]
	least, most := uint32(putHeadSize), uint32(putHeadSize)
	switch h.tag {
	case tagPut:
		most = entrySizeMax
	case tagDelete:
	case tagCommit:
		least, most = entryHeadSize, entryHeadSize
	default:
		return h, fmt.Errorf("its tag %d is not known", h.tag)
	}
	if h.size < least || h.size > most {
		return h, fmt.Errorf("its size of %d bytes cannot be", h.size)
	}
	if h.tag != tagCommit {
		if len(b) < putHeadSize {
			return h, errors.New("its head is cut off")
		}
		copy(h.id[:], b[entryHeadSize:])
	}
	return h, nil
}

// checkEntry checks a whole entry against the CRC in its head.
func checkEntry(b []byte, h *entryHead) error {
	if sum := crc32.ChecksumIEEE(b[4:]); sum != h.crc {
		return fmt.Errorf("its CRC is %08x, and should be %08x", sum, h.crc)
	}
	return nil
}

// appendEntry appends an entry; id is nil for a commit.
func appendEntry(dst []byte, tag byte, id *objectID, data []byte) []byte {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	size := entryHeadSize + len(data)
	if id != nil {
		size += len(id)
	}
	dst = binary.LittleEndian.AppendUint32(dst, uint32(size))
	dst = append(dst, tag)
	if id != nil {
		dst = append(dst, id[:]...)
	}
	dst = append(dst, data...)
	binary.LittleEndian.PutUint32(dst[start:], crc32.ChecksumIEEE(dst[start+4:]))
	return dst
}

// parseSegment calls fn with every entry of a segment that is cut into pieces:
// read returns the bytes at an offset, at least least of them unless the segment
// ends before, and what it returned is not used after its next call. Data of
// entries is passed over. It fails with an *entryError at the first entry that
// cannot be.
func parseSegment(size int64, read func(offset int64, least int) ([]byte, error), fn func(offset uint32, h *entryHead) error) error {
	b, err := read(0, segmentMagicSize)
	if err != nil {
		return err
	}
	if len(b) < segmentMagicSize || string(b[:segmentMagicSize]) != segmentMagic && string(b[:segmentMagicSize]) != segmentMagicAttic {
		return &entryError{0, errors.New("it does not begin as a segment does")}
	}
	for at := int64(segmentMagicSize); at < size; {
		b, err := read(at, putHeadSize)
		if err != nil {
			return err
		}
		h, err := parseEntryHead(b[:min(len(b), putHeadSize)])
		switch {
		case err != nil:
			return &entryError{at, err}
		case int64(h.size) > size-at:
			return &entryError{at, errors.New("it is cut off")}
		case at > 1<<32-1:
			return &entryError{at, errors.New("it lies beyond 4 GiB")}
		}
		if len(b) >= int(h.size) {
			// Whole entries that were read are checked, those without data always.
			if err := checkEntry(b[:h.size], &h); err != nil {
				return &entryError{at, err}
			}
		}
		if err := fn(uint32(at), &h); err != nil {
			return err
		}
		at += int64(h.size)
	}
	return nil
}

// entryError says where a segment is not what it should be.
type entryError struct {
	offset int64
	err    error
}

func (e *entryError) Error() string { return fmt.Sprintf("entry at offset %d: %v", e.offset, e.err) }

// Unwrap returns what kind of error it is, and why.
func (e *entryError) Unwrap() []error { return []error{ErrDamaged, e.err} }
