package format

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"unsafe"
)

// Payload buffers come from pools, one for each power of two from 4 KiB to
// 32 MiB, so that a stream of chunks of any sizes needs a few buffers in all.
// From 1 MiB on they have room for what a chunk of that size may grow to in a
// codec: splitters like such sizes for their largest chunks.
const (
	payloadBitsMin   = 12
	payloadBitsMax   = 25
	payloadBitsRoomy = 20
	payloadBitsLarge = 24
)

// payloadPools hold pointers to the first byte of buffers: a pointer fits into
// an interface without an allocation, a slice does not.
var payloadPools [payloadBitsLarge - payloadBitsMin]sync.Pool

// largePayloads hold one buffer of each larger size, whatever the collector
// does: it would run all the time where such a buffer nearly fills the memory,
// and empty its pools.
var largePayloads [payloadClasses - len(payloadPools)]atomic.Pointer[byte]

const payloadClasses = payloadBitsMax - payloadBitsMin + 1

// AllocPayload returns a buffer of n bytes with any content, for a payload or
// the plain bytes of a chunk. FreePayload gives it back.
func AllocPayload(n int) []byte {
	class := payloadClass(n)
	if class < 0 {
		return make([]byte, n)
	}
	size := payloadClassSize(class)
	var p *byte
	if class < len(payloadPools) {
		p, _ = payloadPools[class].Get().(*byte)
	} else {
		p = largePayloads[class-len(payloadPools)].Swap(nil)
	}
	if p != nil {
		return unsafe.Slice(p, size)[:n]
	}
	return make([]byte, n, size)
}

// FreePayload gives a buffer of AllocPayload, or any part of it that begins
// where it began, back for use by others; nobody may use it afterwards. Other
// buffers are left to the garbage collector.
func FreePayload(b []byte) {
	class := bits.Len(uint(cap(b))) - 1 - payloadBitsMin
	if class < 0 || class >= payloadClasses || cap(b) != payloadClassSize(class) {
		return
	}
	if class < len(payloadPools) {
		payloadPools[class].Put(unsafe.SliceData(b))
	} else {
		largePayloads[class-len(payloadPools)].Store(unsafe.SliceData(b))
	}
}

// FreeIdlePayloads gives the large buffers that nobody uses back to the
// collector, for programs that need the memory for something else.
func FreeIdlePayloads() {
	for i := range largePayloads {
		largePayloads[i].Store(nil)
	}
}

// payloadClass returns the pool of buffers that hold n bytes, or -1.
func payloadClass(n int) int {
	if n <= 1<<payloadBitsMin {
		return 0
	}
	class := bits.Len(uint(n-1)) - payloadBitsMin
	if class > 0 && n <= payloadClassSize(class-1) {
		class--
	}
	if class >= payloadClasses {
		return -1
	}
	return class
}

// payloadClassSize returns the size of a pool's buffers.
func payloadClassSize(class int) int {
	size := 1 << (class + payloadBitsMin)
	if class < payloadBitsRoomy-payloadBitsMin {
		return size
	}
	return PayloadSizeMax(size)
}
