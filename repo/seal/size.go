package seal

import "math/bits"

const (
	paddedSizeMin = 64 << 10 // the smallest padded size, in bytes
	paddedPow2Max = 1 << 20  // up to here padded sizes are powers of two
	objectSizeMin = 1 << 10  // the smallest size of a sealed object that is not a pack or an index

	// ObjectSizeMax is the greatest size in bytes of an object that is not a
	// pack. A pack is less than 4 GiB.
	ObjectSizeMax = 1 << 30
)

// PaddedSize returns the size to which a pack or an index of size bytes is
// padded (spec/repository.md, 2.4): never less; 64 KiB for small ones, less than
// twice as much up to 1 MiB, at most 3.2% more above.
func PaddedSize(size int64) int64 {
	if size <= paddedSizeMin {
		return paddedSizeMin
	}
	if size <= paddedPow2Max {
		return 1 << bits.Len64(uint64(size-1))
	}
	e := bits.Len64(uint64(size)) - 1
	s := bits.Len64(uint64(e))
	unit := int64(1) << (e - s)
	return (size + unit - 1) &^ (unit - 1)
}

// objectSize returns the size to which an object of kind k, which would have
// size bytes without padding, is padded.
func objectSize(k Kind, size int64) int64 {
	if k == KindIndex || k.IsPack() {
		return PaddedSize(size)
	}
	if size <= objectSizeMin {
		return objectSizeMin
	}
	return 1 << bits.Len64(uint64(size-1))
}
