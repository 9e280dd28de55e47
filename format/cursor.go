package format

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"
)

// errShort says that the buffer ends inside a value. More bytes may help; it is
// never shown to a caller.
var errShort = errors.New("the value goes on beyond the buffer")

// Bytes of the msgpack encoding that carry no length or value themselves.
const (
	mpNil     = 0xc0
	mpUnused  = 0xc1
	mpFalse   = 0xc2
	mpTrue    = 0xc3
	mpBin8    = 0xc4
	mpExt8    = 0xc7
	mpFloat32 = 0xca
	mpFloat64 = 0xcb
	mpUint8   = 0xcc
	mpInt8    = 0xd0
	mpFixExt1 = 0xd4
	mpStr8    = 0xd9
	mpArray16 = 0xdc
	mpArray32 = 0xdd
	mpMap16   = 0xde
	mpMap32   = 0xdf
)

// cursor reads msgpack values from a buffer. The first failure stays in err,
// after which every method returns zero values, so that callers look at err
// once for a whole map. It copies nothing and recurses nowhere.
type cursor struct {
	b   []byte
	i   int
	err error  // errShort or *Error
	key []byte // the key whose value is being read, for messages
}

// keySet remembers which keys of one map came, as bits.
type keySet uint32

// fail records an error about the value being read.
func (c *cursor) fail(class Class, format string, args ...any) {
	if c.err == nil {
		detail := fmt.Sprintf(format, args...)
		if c.key != nil {
			detail = fmt.Sprintf("key %q: %s", c.key, detail)
		}
		c.err = Errorf(class, "%s", detail)
	}
}

func (c *cursor) short() {
	if c.err == nil {
		c.err = errShort
	}
}

// wrongType fails because the value at the cursor is not what the key wants.
func (c *cursor) wrongType(want string) {
	if c.i >= len(c.b) {
		c.short()
		return
	}
	if c.b[c.i] == mpUnused {
		c.fail(ClassSyntax, "the byte 0xc1 is not msgpack")
		return
	}
	c.fail(ClassField, "want %s, found %s", want, typeName(c.b[c.i]))
}

func typeName(b byte) string {
	switch {
	case b < 0x80, b >= 0xe0, b >= mpUint8 && b < mpFixExt1:
		return "an int"
	case b < 0x90, b == mpMap16, b == mpMap32:
		return "a map"
	case b < 0xa0, b == mpArray16, b == mpArray32:
		return "an array"
	case b < 0xc0, b >= mpStr8 && b < mpArray16:
		return "a str"
	case b == mpNil:
		return "nil"
	case b == mpFalse, b == mpTrue:
		return "a bool"
	case b >= mpBin8 && b < mpExt8:
		return "a bin"
	case b == mpFloat32, b == mpFloat64:
		return "a float"
	}
	return "an extension type"
}

// number reads the n bytes after the type byte as a big-endian number and moves
// past them.
func (c *cursor) number(n int) (v uint64, ok bool) {
	if len(c.b)-c.i < 1+n {
		c.short()
		return 0, false
	}
	v = bigEndian(c.b[c.i+1:], n)
	c.i += 1 + n
	return v, true
}

// bigEndian reads 1, 2, 4 or 8 bytes.
func bigEndian(b []byte, n int) uint64 {
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

// uint reads an int of any format that is not negative and at most limit.
func (c *cursor) uint(limit uint64) uint64 {
	if c.i < len(c.b) {
		if v := uint64(c.b[c.i]); v < 0x80 && v <= limit {
			c.i++
			return v
		}
	}
	v, negative := c.integer()
	if c.err != nil {
		return 0
	}
	if negative {
		c.fail(ClassField, "%d is negative", int64(v))
		return 0
	}
	if v > limit {
		c.fail(ClassField, "%d is more than %d", v, limit)
		return 0
	}
	return v
}

// int reads an int of any format that an int64 holds.
func (c *cursor) int() int64 {
	v, negative := c.integer()
	if !negative && v > math.MaxInt64 {
		c.fail(ClassField, "%d does not fit into 64 bits with a sign", v)
		return 0
	}
	return int64(v)
}

// integer reads an int of any format. If it is negative, v is its two's
// complement.
func (c *cursor) integer() (v uint64, negative bool) {
	if c.i >= len(c.b) {
		c.short()
		return 0, false
	}
	switch t := c.b[c.i]; {
	case t < 0x80:
		c.i++
		return uint64(t), false
	case t >= 0xe0:
		c.i++
		return uint64(int64(int8(t))), true
	case t >= mpUint8 && t < mpInt8:
		v, _ = c.number(1 << (t - mpUint8))
		return v, false
	case t >= mpInt8 && t < mpFixExt1:
		n := 1 << (t - mpInt8)
		v, _ = c.number(n)
		unused := 64 - 8*n
		signed := int64(v<<unused) >> unused
		return uint64(signed), signed < 0
	}
	c.wrongType("an int")
	return 0, false
}

func (c *cursor) bool() bool {
	if c.i < len(c.b) {
		switch c.b[c.i] {
		case mpFalse:
			c.i++
			return false
		case mpTrue:
			c.i++
			return true
		}
	}
	c.wrongType("a bool")
	return false
}

// take returns the next n bytes.
func (c *cursor) take(n uint64) []byte {
	if uint64(len(c.b)-c.i) < n {
		c.short()
		return nil
	}
	b := c.b[c.i : c.i+int(n)]
	c.i += int(n)
	return b
}

// str reads a str. The bytes are part of the buffer.
func (c *cursor) str() []byte {
	if c.i < len(c.b) {
		switch t := c.b[c.i]; {
		case t >= 0xa0 && t < 0xc0:
			c.i++
			return c.take(uint64(t & 0x1f))
		case t >= mpStr8 && t < mpArray16:
			if n, ok := c.number(1 << (t - mpStr8)); ok {
				return c.take(n)
			}
			return nil
		}
	}
	c.wrongType("a str")
	return nil
}

// bin reads a bin. The bytes are part of the buffer.
func (c *cursor) bin() []byte {
	if c.i < len(c.b) {
		if t := c.b[c.i]; t >= mpBin8 && t < mpExt8 {
			if n, ok := c.number(1 << (t - mpBin8)); ok {
				return c.take(n)
			}
			return nil
		}
	}
	c.wrongType("a bin")
	return nil
}

// text reads a bin as a string. Where it equals old, which the same key had in
// the record before, old is returned and nothing allocated.
func (c *cursor) text(old string) string {
	b := c.bin()
	if string(b) == old {
		return old
	}
	return string(b)
}

// word reads a str, which must be UTF-8, as a string, like text.
func (c *cursor) word(old string) string {
	b := c.str()
	if string(b) == old {
		return old
	}
	if !utf8.Valid(b) {
		c.fail(ClassField, "a str is not UTF-8")
		return ""
	}
	return string(b)
}

// id reads a bin of 32 bytes.
func (c *cursor) id(id *ID) {
	b := c.bin()
	if c.err != nil {
		return
	}
	if len(b) != len(id) {
		c.fail(ClassField, "an id or a digest has %d bytes, not %d", len(b), len(id))
		return
	}
	*id = ID(b)
}

// time reads an array of seconds and nanoseconds.
func (c *cursor) time() (t Time) {
	c.arrayOf(2)
	t.Sec = c.int()
	t.Nsec = uint32(c.uint(999_999_999))
	return t
}

// array reads the head of an array of at most limit elements.
func (c *cursor) array(limit int) int {
	n := uint64(0)
	if c.i >= len(c.b) {
		c.short()
		return 0
	}
	switch t := c.b[c.i]; {
	case t >= 0x90 && t < 0xa0:
		n = uint64(t & 0x0f)
		c.i++
	case t == mpArray16 || t == mpArray32:
		n, _ = c.number(2 << (t - mpArray16))
	default:
		c.wrongType("an array")
		return 0
	}
	if n > uint64(limit) {
		c.fail(ClassLimit, "an array has %d elements, more than %d", n, limit)
		return 0
	}
	return int(n)
}

// arrayOf reads the head of an array that has exactly n elements.
func (c *cursor) arrayOf(n int) {
	if c.i < len(c.b) && int(c.b[c.i]) == 0x90+n {
		c.i++
		return
	}
	if found := c.array(math.MaxInt); c.err == nil && found != n {
		c.fail(ClassField, "an array has %d elements, not %d", found, n)
	}
}

// mapLen reads the head of a map.
func (c *cursor) mapLen() int {
	n := uint64(0)
	if c.i >= len(c.b) {
		c.short()
		return 0
	}
	switch t := c.b[c.i]; {
	case t >= 0x80 && t < 0x90:
		n = uint64(t & 0x0f)
		c.i++
	case t == mpMap16 || t == mpMap32:
		n, _ = c.number(2 << (t - mpMap16))
	default:
		c.wrongType("a map")
		return 0
	}
	if n > FieldsMax {
		c.fail(ClassLimit, "a map has %d keys, more than %d", n, FieldsMax)
		return 0
	}
	return int(n)
}

// nextKey reads a key of a map of the specification: a str.
func (c *cursor) nextKey() []byte {
	// Nearly every key is a short str that is all there.
	if c.i < len(c.b) {
		if n := int(c.b[c.i]) - 0xa0; n >= 0 && n < 32 && n < len(c.b)-c.i {
			c.key = c.b[c.i+1 : c.i+1+n]
			c.i += 1 + n
			return c.key
		}
	}
	return c.longKey()
}

func (c *cursor) longKey() []byte {
	c.key = nil
	b := c.str()
	if c.err != nil {
		if e, ok := c.err.(*Error); ok && e.Class == ClassField {
			e.Detail = "key of a map: " + e.Detail
		}
		return nil
	}
	if len(b) > TextSizeMax {
		c.fail(ClassLimit, "a key has %d bytes, more than %d", len(b), TextSizeMax)
		return nil
	}
	c.key = b
	return b
}

// once notes that the key with the given bit came, and fails if it did before.
func (c *cursor) once(seen *keySet, bit keySet) {
	if *seen&bit != 0 {
		c.fail(ClassField, "comes twice")
	}
	*seen |= bit
}

// require fails if the key with the given bit has not come.
func (c *cursor) require(seen, bit keySet, name string) {
	if seen&bit == 0 {
		c.key = nil
		c.fail(ClassField, "the required key %q is missing", name)
	}
}

// skip moves past one value of any kind that nests at most depthMax deep, and
// returns its bytes.
func (c *cursor) skip(depthMax int) []byte {
	if c.err != nil {
		return nil
	}
	s := scanner{depthMax: depthMax, sizeMax: math.MaxInt}
	n, err := s.scan(c.b[c.i:])
	if err != nil {
		c.err = err
		if e, ok := err.(*Error); ok {
			c.err = nil
			c.fail(e.Class, "%s", e.Detail)
		}
		return nil
	}
	b := c.b[c.i : c.i+n]
	c.i += n
	return b
}

// extra keeps the value of a key that this version does not know.
func (c *cursor) extra(extra *[]Field) {
	if c.err != nil {
		return
	}
	key := string(c.key)
	if !utf8.ValidString(key) {
		c.fail(ClassField, "a str is not UTF-8")
		return
	}
	raw := c.skip(DepthMax)
	if c.err != nil {
		return
	}
	*extra = append(*extra, Field{Key: key, Raw: append([]byte(nil), raw...)})
}

// binHead reads the head of a bin and returns its length. Anything else in its
// place is not the shape of a record.
func (c *cursor) binHead() (uint64, error) {
	if c.i < len(c.b) {
		if t := c.b[c.i]; t >= mpBin8 && t < mpExt8 {
			n, ok := c.number(1 << (t - mpBin8))
			if !ok {
				return 0, errShort
			}
			return n, nil
		}
	}
	c.wrongType("a bin")
	return 0, notRecord(c.err)
}
