package restic

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// scanner reads JSON from a buffer, without copying what needs no copy. It is
// as strict as encoding/json and has its meaning: numbers and strings are
// checked to the last byte, of a key that comes twice the last counts, bytes
// that are not UTF-8 become U+FFFD; but keys must be spelled exactly. Trees and
// indexes are most of what is read of a repository besides content, and this
// takes a tenth of the time.
//
// After the first error nothing more is read, and all methods return zeros.
type scanner struct {
	b   []byte
	i   int
	err error
	buf []byte // where strings with escapes are decoded
}

// depthMax bounds how deep unknown values may be nested.
const depthMax = 500

// reset begins with another buffer.
func (s *scanner) reset(b []byte) { *s = scanner{b: b, buf: s.buf} }

func (s *scanner) fail(format string, args ...any) {
	if s.err == nil {
		s.err = fmt.Errorf("JSON at byte %d: %s: %w", s.i, fmt.Sprintf(format, args...), ErrDamaged)
	}
}

func (s *scanner) unexpected(want string) {
	if s.i < len(s.b) {
		s.fail("%q instead of %s", s.b[s.i], want)
	} else {
		s.fail("it ends instead of %s", want)
	}
}

// space passes over white space.
func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\n', '\t', '\r':
			s.i++
		default:
			return
		}
	}
}

// take passes over white space and c, if c comes next.
func (s *scanner) take(c byte) bool {
	if s.err != nil {
		return false
	}
	s.space()
	if s.i < len(s.b) && s.b[s.i] == c {
		s.i++
		return true
	}
	return false
}

// expect passes over white space and c.
func (s *scanner) expect(c byte) {
	if !s.take(c) {
		s.unexpected(strconv.QuoteRune(rune(c)))
	}
}

// end demands that nothing but white space is left.
func (s *scanner) end() {
	if s.err == nil {
		if s.space(); s.i < len(s.b) {
			s.unexpected("the end")
		}
	}
}

// null passes over a null, if that comes next.
func (s *scanner) null() bool {
	if s.err != nil {
		return false
	}
	s.space()
	if s.i < len(s.b) && s.b[s.i] == 'n' {
		s.literal("null")
		return true
	}
	return false
}

func (s *scanner) literal(word string) {
	if len(s.b)-s.i < len(word) || string(s.b[s.i:s.i+len(word)]) != word {
		s.unexpected(word)
		return
	}
	s.i += len(word)
}

// object calls field with each key of an object; field passes over the value.
// The key is valid until field reads. A null is an object without keys.
func (s *scanner) object(field func(key []byte)) {
	if s.null() {
		return
	}
	if s.expect('{'); s.take('}') {
		return
	}
	for s.err == nil {
		key := s.text()
		s.expect(':')
		if s.err != nil {
			return
		}
		field(key)
		if s.take('}') {
			return
		}
		s.expect(',')
	}
}

// array calls element before each element of an array; element passes over it.
// A null is an array without elements.
func (s *scanner) array(element func()) {
	if s.null() {
		return
	}
	if s.expect('['); s.take(']') {
		return
	}
	for s.err == nil {
		element()
		if s.take(']') {
			return
		}
		s.expect(',')
	}
}

// raw passes over a string and returns what stands between its quotes, and
// whether there are escapes in it.
func (s *scanner) raw() (b []byte, escaped bool) {
	if s.expect('"'); s.err != nil {
		return nil, false
	}
	start := s.i
	for {
		s.i += plainLen(s.b[s.i:])
		if s.i == len(s.b) {
			s.unexpected("the end of a string")
			return nil, false
		}
		switch s.b[s.i] {
		case '"':
			s.i++
			return s.b[start : s.i-1], escaped
		case '\\':
			escaped = true
			if s.escape(); s.err != nil {
				return nil, false
			}
		default:
			s.unexpected("a printable byte")
			return nil, false
		}
	}
}

// escape passes over an escape sequence.
func (s *scanner) escape() {
	s.i++
	if s.i == len(s.b) {
		s.unexpected("an escape")
		return
	}
	switch s.b[s.i] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.i++
	case 'u':
		if _, ok := hex4(s.b[s.i+1:]); !ok {
			s.unexpected("an escape with four hexadecimal digits")
			return
		}
		s.i += 5
	default:
		s.unexpected("an escape")
	}
}

// plainLen returns how many bytes at the beginning of b are neither quote nor
// backslash nor below 0x20. It looks at eight at a time.
func plainLen(b []byte) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	i := 0
	for ; i+8 <= len(b); i += 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		q, e := x^ones*'"', x^ones*'\\'
		found := ((q - ones) & ^q) | ((e - ones) & ^e) | ((x - ones*0x20) & ^x)
		if found &= highs; found != 0 {
			return i + bits.TrailingZeros64(found)/8
		}
	}
	for ; i < len(b); i++ {
		if c := b[i]; c == '"' || c == '\\' || c < 0x20 {
			return i
		}
	}
	return i
}

// hex4 reads four hexadecimal digits.
func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range b[:4] {
		d := hexDigits[c]
		if d > 15 {
			return 0, false
		}
		r = r<<4 | rune(d)
	}
	return r, true
}

// hexDigits has the value of each hexadecimal digit, and 255 for other bytes.
var hexDigits = func() (t [256]byte) {
	for i := range t {
		t[i] = 255
	}
	for i, c := range "0123456789abcdef" {
		t[c] = byte(i)
	}
	for i, c := range "ABCDEF" {
		t[c] = byte(10 + i)
	}
	return t
}()

// text returns the value of a string, valid until the next call of text. A null
// is the empty string.
func (s *scanner) text() []byte {
	if s.null() {
		return nil
	}
	b, escaped := s.raw()
	if !escaped && utf8.Valid(b) {
		return b
	}
	out := s.buf[:0]
	for i := 0; i < len(b); {
		if b[i] != '\\' {
			r, n := utf8.DecodeRune(b[i:])
			out = utf8.AppendRune(out, r)
			i += n
			continue
		}
		i++
		switch c := b[i]; c {
		case 'u':
			r, _ := hex4(b[i+1:])
			i += 5
			if utf16.IsSurrogate(r) {
				low := rune(-1)
				if len(b)-i >= 6 && b[i] == '\\' && b[i+1] == 'u' {
					low, _ = hex4(b[i+2:])
				}
				if r = utf16.DecodeRune(r, low); r != utf8.RuneError {
					i += 6
				}
			}
			out = utf8.AppendRune(out, r)
			continue
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		default:
			out = append(out, c)
		}
		i++
	}
	s.buf = out
	return out
}

// number passes over a number and returns its digits.
func (s *scanner) number() []byte {
	s.space()
	start := s.i
	if s.i < len(s.b) && s.b[s.i] == '-' {
		s.i++
	}
	if s.i < len(s.b) && s.b[s.i] == '0' {
		s.i++
	} else {
		s.digits()
	}
	if s.i < len(s.b) && s.b[s.i] == '.' {
		s.i++
		s.digits()
	}
	if s.i < len(s.b) && (s.b[s.i] == 'e' || s.b[s.i] == 'E') {
		s.i++
		if s.i < len(s.b) && (s.b[s.i] == '+' || s.b[s.i] == '-') {
			s.i++
		}
		s.digits()
	}
	if s.err != nil {
		return nil
	}
	return s.b[start:s.i]
}

// digits passes over one digit or more.
func (s *scanner) digits() {
	start := s.i
	for s.i < len(s.b) && s.b[s.i]-'0' <= 9 {
		s.i++
	}
	if s.i == start {
		s.unexpected("a digit")
	}
}

// uint returns a whole number from 0 to limit, which is at least 9. A null is 0.
func (s *scanner) uint(limit uint64) uint64 {
	if s.err != nil || s.null() {
		return 0
	}
	digits := s.number()
	var v uint64
	for _, c := range digits {
		d := uint64(c - '0')
		if d > 9 || v > (limit-d)/10 {
			s.fail("the number %q is not a whole number from 0 to %d", digits, limit)
			return 0
		}
		v = v*10 + d
	}
	return v
}

// skip passes over any value.
func (s *scanner) skip() { s.skipValue(0) }

func (s *scanner) skipValue(depth int) {
	if s.err != nil {
		return
	}
	if s.space(); s.i == len(s.b) {
		s.unexpected("a value")
		return
	}
	switch c := s.b[s.i]; {
	case c == '"':
		s.raw()
	case c == '-' || c-'0' <= 9:
		s.number()
	case c == 't':
		s.literal("true")
	case c == 'f':
		s.literal("false")
	case c == 'n':
		s.literal("null")
	case (c == '{' || c == '[') && depth == depthMax:
		s.fail("more than %d values inside each other", depthMax)
	case c == '{':
		s.skipObject(depth + 1)
	case c == '[':
		s.i++
		if s.take(']') {
			return
		}
		for s.err == nil {
			s.skipValue(depth + 1)
			if s.take(']') {
				return
			}
			s.expect(',')
		}
	default:
		s.unexpected("a value")
	}
}

func (s *scanner) skipObject(depth int) {
	s.i++
	if s.take('}') {
		return
	}
	for s.err == nil {
		s.raw()
		s.expect(':')
		s.skipValue(depth)
		if s.take('}') {
			return
		}
		s.expect(',')
	}
}
