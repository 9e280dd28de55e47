package format

import (
	"math/bits"
	"sync"
	"unsafe"
)

// Payload buffers come from pools, one for each power of two from 4 KiB to
// 64 MiB, so that a stream of chunks of any sizes needs a few buffers in all.
const (
	payloadBitsMin = 12
	payloadBitsMax = 26
)

// payloadPools hold pointers to the first byte of buffers: a pointer fits into
// an interface without an allocation, a slice does not.
var payloadPools [payloadBitsMax - payloadBitsMin + 1]sync.Pool

// AllocPayload returns a buffer of n bytes with any content, for a payload or
// the plain bytes of a chunk. FreePayload gives it back.
func AllocPayload(n int) []byte {
	class := payloadClass(n)
	if class < 0 {
		return make([]byte, n)
	}
	size := 1 << (class + payloadBitsMin)
	if p, _ := payloadPools[class].Get().(*byte); p != nil {
		return unsafe.Slice(p, size)[:n]
	}
	return make([]byte, n, size)
}

// FreePayload gives a buffer of AllocPayload, or any part of it that begins
// where it began, back for use by others; nobody may use it afterwards. Other
// buffers are left to the garbage collector.
func FreePayload(b []byte) {
	size := cap(b)
	if size&(size-1) != 0 {
		return
	}
	class := bits.TrailingZeros(uint(size)) - payloadBitsMin
	if size == 0 || class < 0 || class >= len(payloadPools) {
		return
	}
	payloadPools[class].Put(unsafe.SliceData(b))
}

// payloadClass returns the pool of buffers that hold n bytes, or -1.
func payloadClass(n int) int {
	if n > 1<<payloadBitsMax {
		return -1
	}
	if n <= 1<<payloadBitsMin {
		return 0
	}
	return bits.Len(uint(n-1)) - payloadBitsMin
}
