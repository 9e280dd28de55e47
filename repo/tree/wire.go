package tree

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The shortest msgpack form of the values that nodes are made of.

func appendUint(dst []byte, v uint64) []byte {
	switch {
	case v < 0x80:
		return append(dst, byte(v))
	case v < 1<<8:
		return append(dst, 0xcc, byte(v))
	case v < 1<<16:
		return append(dst, 0xcd, byte(v>>8), byte(v))
	case v < 1<<32:
		return binary.BigEndian.AppendUint32(append(dst, 0xce), uint32(v))
	}
	return binary.BigEndian.AppendUint64(append(dst, 0xcf), v)
}

func appendBin(dst []byte, s string) []byte {
	switch n := len(s); {
	case n < 1<<8:
		dst = append(dst, 0xc4, byte(n))
	case n < 1<<16:
		dst = append(dst, 0xc5, byte(n>>8), byte(n))
	default:
		dst = binary.BigEndian.AppendUint32(append(dst, 0xc6), uint32(n))
	}
	return append(dst, s...)
}

// appendStr appends a str of at most 31 bytes.
func appendStr(dst []byte, s string) []byte {
	return append(append(dst, 0xa0|byte(len(s))), s...)
}

// appendArray appends the head of an array of at most 65,535 elements.
func appendArray(dst []byte, n int) []byte {
	if n < 16 {
		return append(dst, 0x90|byte(n))
	}
	return append(dst, 0xdc, byte(n>>8), byte(n))
}

var errShort = errors.New("the bytes end inside a value")

// wire reads msgpack values from a buffer. The first failure stays in err, after
// which every method returns zero values. It copies nothing, allocates nothing
// and recurses nowhere.
type wire struct {
	b   []byte
	i   int
	err error
}

func (w *wire) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf(format, args...)
	}
}

// head returns the first byte of the next value, or the byte 0xc1, which begins
// no value, where there is none.
func (w *wire) head() byte {
	if w.err != nil {
		return 0xc1
	}
	if w.i >= len(w.b) {
		w.err = errShort
		return 0xc1
	}
	return w.b[w.i]
}

// number reads the n bytes behind the head, 1, 2, 4 or 8, and moves past them.
func (w *wire) number(n int) uint64 {
	if w.err != nil {
		return 0
	}
	if len(w.b)-w.i < 1+n {
		w.err = errShort
		return 0
	}
	b := w.b[w.i+1:]
	w.i += 1 + n
	switch n {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(binary.BigEndian.Uint16(b))
	case 4:
		return uint64(binary.BigEndian.Uint32(b))
	}
	return binary.BigEndian.Uint64(b)
}

// uint reads an int of any form that is not negative and at most limit.
func (w *wire) uint(limit uint64) uint64 {
	var v uint64
	switch t := w.head(); {
	case t < 0x80:
		w.i++
		v = uint64(t)
	case t >= 0xcc && t <= 0xcf:
		v = w.number(1 << (t - 0xcc))
	case t >= 0xd0 && t <= 0xd3:
		n := 1 << (t - 0xd0)
		v = w.number(n)
		if v>>(8*n-1) != 0 {
			w.fail("a number is negative")
		}
	default:
		w.fail("want an int, found the byte %#x", t)
	}
	if v > limit {
		w.fail("%d is more than %d", v, limit)
	}
	if w.err != nil {
		return 0
	}
	return v
}

func (w *wire) take(n uint64) []byte {
	if w.err != nil {
		return nil
	}
	if uint64(len(w.b)-w.i) < n {
		w.err = errShort
		return nil
	}
	b := w.b[w.i : w.i+int(n)]
	w.i += int(n)
	return b
}

// bin reads a bin; the bytes are part of the buffer.
func (w *wire) bin() []byte {
	t := w.head()
	if t < 0xc4 || t > 0xc6 {
		w.fail("want a bin, found the byte %#x", t)
		return nil
	}
	return w.take(w.number(1 << (t - 0xc4)))
}

// str reads a str; the bytes are part of the buffer.
func (w *wire) str() []byte {
	switch t := w.head(); {
	case t >= 0xa0 && t < 0xc0:
		w.i++
		return w.take(uint64(t & 0x1f))
	case t >= 0xd9 && t <= 0xdb:
		return w.take(w.number(1 << (t - 0xd9)))
	default:
		w.fail("want a str, found the byte %#x", t)
		return nil
	}
}

// array reads the head of an array of at most limit elements.
func (w *wire) array(limit int) int {
	var n uint64
	switch t := w.head(); {
	case t >= 0x90 && t < 0xa0:
		w.i++
		n = uint64(t & 0x0f)
	case t == 0xdc || t == 0xdd:
		n = w.number(2 << (t - 0xdc))
	default:
		w.fail("want an array, found the byte %#x", t)
	}
	if n > uint64(limit) {
		w.fail("an array has %d elements, more than %d", n, limit)
	}
	if w.err != nil {
		return 0
	}
	return int(n)
}

// skip moves past one value of any kind and returns its bytes. It counts the
// values that are still to come instead of following how they nest, so it needs
// no limit on the depth; each value takes a byte at least, so it ends.
func (w *wire) skip() []byte {
	start, left := w.i, uint64(1)
	for ; left > 0; left-- {
		t := w.head()
		if n := int(fixedSize[t]); n > 0 {
			w.i += n
			switch {
			case t < 0x80 || t >= 0xa0:
			case t < 0x90:
				left += 2 * uint64(t&0x0f)
			default:
				left += uint64(t & 0x0f)
			}
			continue
		}
		left += w.skipLong(t)
		if w.err != nil {
			break
		}
	}
	if w.err == nil && w.i > len(w.b) {
		w.err = errShort
	}
	if w.err != nil {
		w.i = start
		return nil
	}
	return w.b[start:w.i]
}

// fixedSize has the size of the value, or of the array's or map's head, that
// begins with a byte, if that byte says it all, else 0.
var fixedSize = func() (size [256]uint8) {
	for t := range size {
		switch {
		case t < 0xa0, t >= 0xe0, t == 0xc0, t == 0xc2, t == 0xc3:
			size[t] = 1
		case t < 0xc0:
			size[t] = 1 + uint8(t&0x1f)
		case t == 0xca, t == 0xcb:
			size[t] = 1 + 4<<(t-0xca)
		case t >= 0xcc && t < 0xd0:
			size[t] = 1 + 1<<(t-0xcc)
		case t >= 0xd0 && t < 0xd4:
			size[t] = 1 + 1<<(t-0xd0)
		case t >= 0xd4 && t < 0xd9:
			size[t] = 2 + 1<<(t-0xd4)
		}
	}
	return size
}()

// skipLong moves past a value whose size stands behind its first byte, or past
// the head of an array or a map, and returns how many values that holds.
func (w *wire) skipLong(t byte) uint64 {
	switch {
	case t == 0xc1:
		w.fail("the byte 0xc1 is not msgpack")
	case t < 0xc7:
		w.take(w.number(1 << (t - 0xc4)))
	case t < 0xca:
		w.take(w.number(1<<(t-0xc7)) + 1)
	case t < 0xdc:
		w.take(w.number(1 << (t - 0xd9)))
	case t < 0xde:
		return w.number(2 << (t - 0xdc))
	default:
		return 2 * w.number(2<<(t-0xde))
	}
	return 0
}

// isMap reports whether the next value is a map.
func (w *wire) isMap() bool {
	t := w.head()
	return t >= 0x80 && t < 0x90 || t == 0xde || t == 0xdf
}

// id reads a bin of 32 bytes.
func (w *wire) id() (id [32]byte) {
	b := w.bin()
	if w.err == nil && len(b) != len(id) {
		w.fail("an id has %d bytes, not %d", len(b), len(id))
	}
	if w.err == nil {
		copy(id[:], b)
	}
	return id
}

// tag reads the str that says what a chunk is.
func (w *wire) tag(want string) {
	if got := w.str(); w.err == nil && string(got) != want {
		w.fail("want a %q, found a %q", want, got)
	}
}

// end fails if bytes are left.
func (w *wire) end() {
	if w.err == nil && w.i != len(w.b) {
		w.fail("%d bytes are left behind the value", len(w.b)-w.i)
	}
}
