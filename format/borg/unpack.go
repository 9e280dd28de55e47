package borg

import (
	"fmt"
	"math"
)

// depthMax bounds how deep containers nest in what is skipped.
const depthMax = 16

// unpacker reads msgpack as borg writes it: by the old specification, in which
// text and bytes are one type. The newer types of bytes are accepted, too. The
// first error stays.
type unpacker struct {
	b     []byte
	i     int
	err   error
	short bool // it failed because the bytes end too early
}

// fail notes the first error.
func (u *unpacker) fail(text string, args ...any) {
	if u.err == nil {
		u.err = fmt.Errorf("msgpack, byte %d: %s: %w", u.i, fmt.Sprintf(text, args...), ErrDamaged)
		u.i = len(u.b)
	}
}

// cut notes that the bytes end too early.
func (u *unpacker) cut() {
	u.short = u.short || u.err == nil
	u.fail("it is cut off")
}

// need returns the next n bytes and goes on behind them.
func (u *unpacker) need(n int) []byte {
	if u.err != nil || n < 0 || n > len(u.b)-u.i {
		u.cut()
		return nil
	}
	u.i += n
	return u.b[u.i-n : u.i]
}

// peek returns the next byte, which is that of a reserved type at the end.
func (u *unpacker) peek() byte {
	if u.err != nil || u.i >= len(u.b) {
		return 0xc1
	}
	return u.b[u.i]
}

// number reads a big endian number of n bytes.
func (u *unpacker) number(n int) uint64 {
	v := uint64(0)
	for _, c := range u.need(n) {
		v = v<<8 | uint64(c)
	}
	return v
}

// null reports whether the next value is nil, and passes over it.
func (u *unpacker) null() bool {
	if u.peek() != 0xc0 {
		return false
	}
	u.i++
	return true
}

// head reads the head of a container: its fixed form holds up to 15 elements and
// begins at fixed, the longer forms are wide and wide+1. Every element takes at
// least size bytes, so that a count which cannot be true is refused.
func (u *unpacker) head(what string, fixed, wide byte, size int) int {
	c := u.peek()
	n := uint64(0)
	switch {
	case c&0xf0 == fixed:
		u.i++
		n = uint64(c & 0x0f)
	case c == wide:
		u.i++
		n = u.number(2)
	case c == wide+1:
		u.i++
		n = u.number(4)
	case u.i >= len(u.b):
		u.cut()
		return 0
	default:
		u.fail("%#x is not %s", c, what)
		return 0
	}
	if n > uint64(len(u.b)-u.i)/uint64(size) {
		u.cut()
		return 0
	}
	return int(n)
}

func (u *unpacker) mapHead() int   { return u.head("a map", 0x80, 0xde, 2) }
func (u *unpacker) arrayHead() int { return u.head("an array", 0x90, 0xdc, 1) }

// bytes reads text or bytes, which share the unpacker's memory.
func (u *unpacker) bytes() []byte {
	c := u.peek()
	n := uint64(0)
	switch {
	case c&0xe0 == 0xa0:
		u.i++
		n = uint64(c & 0x1f)
	case c == 0xd9 || c == 0xc4:
		u.i++
		n = u.number(1)
	case c == 0xda || c == 0xc5:
		u.i++
		n = u.number(2)
	case c == 0xdb || c == 0xc6:
		u.i++
		n = u.number(4)
	case u.i >= len(u.b):
		u.cut()
		return nil
	default:
		u.fail("%#x is not bytes", c)
		return nil
	}
	if n > math.MaxInt32 {
		u.cut()
		return nil
	}
	return u.need(int(n))
}

// text reads bytes into a string; nil is the empty one.
func (u *unpacker) text() string {
	if u.null() {
		return ""
	}
	return string(u.bytes())
}

// id reads the 32 bytes of an id.
func (u *unpacker) id() (id objectID) {
	b := u.bytes()
	if u.err == nil && len(b) != len(id) {
		u.fail("an id of %d bytes", len(b))
		return id
	}
	copy(id[:], b)
	return id
}

// int reads a number: neg says that it is below zero, and v is its distance
// from zero.
func (u *unpacker) int() (v uint64, neg bool) {
	c := u.peek()
	switch {
	case c < 0x80:
		u.i++
		return uint64(c), false
	case c >= 0xe0:
		u.i++
		return uint64(-int64(int8(c))), true
	case c >= 0xcc && c <= 0xcf:
		u.i++
		return u.number(1 << (c - 0xcc)), false
	case c >= 0xd0 && c <= 0xd3:
		u.i++
		size := 1 << (c - 0xd0)
		shift := 64 - 8*size
		s := int64(u.number(size)<<shift) >> shift
		if s < 0 {
			return uint64(-s), true
		}
		return uint64(s), false
	case u.i >= len(u.b):
		u.cut()
		return 0, false
	}
	// Numbers beyond 64 bits, and in old archives all times, are bytes: little
	// endian, with sign.
	b := u.bytes()
	if u.err != nil {
		return 0, false
	}
	return u.longInt(b)
}

// longInt decodes a number that was stored as bytes.
func (u *unpacker) longInt(b []byte) (v uint64, neg bool) {
	neg = len(b) > 0 && b[len(b)-1]&0x80 != 0
	for i, c := range b {
		if neg {
			c = ^c
		}
		switch {
		case i < 8:
			v |= uint64(c) << (8 * i)
		case c != 0:
			u.fail("a number of %d bytes", len(b))
			return 0, false
		}
	}
	if neg {
		v++
	}
	return v, neg
}

// uint reads a number from 0 to most.
func (u *unpacker) uint(most uint64) uint64 {
	v, neg := u.int()
	if u.err == nil && (neg || v > most) {
		u.fail("a number is not from 0 to %d", most)
		return 0
	}
	return v
}

// bool reads true or false.
func (u *unpacker) bool() bool {
	c := u.peek()
	switch {
	case c == 0xc2 || c == 0xc3:
		u.i++
	case u.i >= len(u.b):
		u.cut()
	default:
		u.fail("%#x is not a truth value", c)
	}
	return c == 0xc3
}

// skip passes over one value of any type.
func (u *unpacker) skip() {
	var open [depthMax]uint64 // values left in each container
	depth := 0
	for {
		inside := u.skipHead()
		if u.err != nil {
			return
		}
		if inside > 0 {
			if depth == depthMax {
				u.fail("containers nest more than %d deep", depthMax)
				return
			}
			open[depth] = inside
			depth++
			continue
		}
		for depth > 0 {
			if open[depth-1]--; open[depth-1] > 0 {
				break
			}
			depth--
		}
		if depth == 0 {
			return
		}
	}
}

// skipHead passes over a value that has no others inside, or over the head of
// one that has and returns their number.
func (u *unpacker) skipHead() (inside uint64) {
	c := u.peek()
	switch {
	case c&0xf0 == 0x80 || c == 0xde || c == 0xdf:
		return 2 * uint64(u.mapHead())
	case c&0xf0 == 0x90 || c == 0xdc || c == 0xdd:
		return uint64(u.arrayHead())
	case c < 0x80 || c >= 0xe0 || c >= 0xcc && c <= 0xd3:
		u.int()
	case c&0xe0 == 0xa0 || c >= 0xd9 && c <= 0xdb || c >= 0xc4 && c <= 0xc6:
		u.bytes()
	case c == 0xc0 || c == 0xc2 || c == 0xc3:
		u.i++
	case c == 0xca || c == 0xcb: // floats
		u.i++
		u.need(4 << (c - 0xca))
	case c >= 0xd4 && c <= 0xd8: // extensions
		u.i++
		u.need(1 + 1<<(c-0xd4))
	case c >= 0xc7 && c <= 0xc9:
		u.i++
		n := u.number(1 << (c - 0xc7))
		u.need(1 + int(min(n, math.MaxInt32)))
	case u.i >= len(u.b):
		u.cut()
	default:
		u.fail("%#x begins no value", c)
	}
	return 0
}
