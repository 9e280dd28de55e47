package format

import "math"

// scanDepthMax is the deepest that anything in a body may nest: the body, an
// array in it (via), a map in that, and an unknown key's value.
const scanDepthMax = 3 + DepthMax

// scanner finds where a msgpack value ends without looking at what it means. It
// can be given the same bytes again with more behind them and goes on where it
// was, so that a value that arrives byte by byte is scanned once. Its stack is
// an array, since the depth is bounded.
type scanner struct {
	depthMax int // containers inside each other, at most scanDepthMax
	sizeMax  int // bytes of the whole value

	begun bool
	at    int // position of the next head; may lie beyond the bytes there are
	depth int
	left  [scanDepthMax + 1]uint64 // values still to come, by depth
}

// scan returns the size of the value that b begins with, or errShort.
func (s *scanner) scan(b []byte) (int, error) {
	if !s.begun {
		s.begun = true
		s.left[0] = 1
	}
	for {
		for s.left[s.depth] == 0 {
			if s.depth == 0 {
				if s.at > len(b) {
					return 0, errShort
				}
				return s.at, nil
			}
			s.depth--
		}
		if s.at >= len(b) {
			return 0, errShort
		}
		h, err := scanHead(b[s.at:])
		if err != nil {
			return 0, err
		}
		// Every value takes a byte at least, so a count or a length that the
		// limit has no room for is refused at once, before the bytes come.
		if h.size+h.bytes+h.values > uint64(s.sizeMax-s.at) {
			return 0, Errorf(ClassLimit, "a record's body has more than %d bytes", s.sizeMax)
		}
		s.left[s.depth]--
		s.at += int(h.size + h.bytes)
		if !h.container {
			continue
		}
		if s.depth >= s.depthMax {
			return 0, Errorf(ClassLimit, "values nest more than %d deep", s.depthMax)
		}
		s.depth++
		s.left[s.depth] = h.values
	}
}

// head is what the first bytes of a value say about it.
type head struct {
	size      uint64 // bytes of the head itself
	bytes     uint64 // bytes that follow: of a str, bin, number or extension type
	values    uint64 // values that follow: elements of an array, keys and values of a map
	container bool
}

func scanHead(b []byte) (head, error) {
	switch t := b[0]; {
	case t < 0x80, t >= 0xe0:
		return head{size: 1}, nil
	case t < 0x90:
		return head{size: 1, values: 2 * uint64(t&0x0f), container: true}, nil
	case t < 0xa0:
		return head{size: 1, values: uint64(t & 0x0f), container: true}, nil
	case t < 0xc0:
		return head{size: 1, bytes: uint64(t & 0x1f)}, nil
	case t == mpNil, t == mpFalse, t == mpTrue:
		return head{size: 1}, nil
	case t == mpUnused:
		return head{}, Errorf(ClassSyntax, "the byte 0xc1 is not msgpack")
	case t < mpExt8:
		return scanLength(b, 1<<(t-mpBin8), 0)
	case t < mpFloat32:
		return scanLength(b, 1<<(t-mpExt8), 1)
	case t < mpUint8:
		return head{size: 1, bytes: 4 << (t - mpFloat32)}, nil
	case t < mpInt8:
		return head{size: 1, bytes: 1 << (t - mpUint8)}, nil
	case t < mpFixExt1:
		return head{size: 1, bytes: 1 << (t - mpInt8)}, nil
	case t < mpStr8:
		return head{size: 1, bytes: 1 + 1<<(t-mpFixExt1)}, nil
	case t < mpArray16:
		return scanLength(b, 1<<(t-mpStr8), 0)
	case t < mpMap16:
		h, err := scanLength(b, 2<<(t-mpArray16), 0)
		return head{size: h.size, values: h.bytes, container: true}, err
	default:
		h, err := scanLength(b, 2<<(t-mpMap16), 0)
		if err == nil && h.bytes > FieldsMax {
			return head{}, Errorf(ClassLimit, "a map has %d keys, more than %d", h.bytes, FieldsMax)
		}
		return head{size: h.size, values: 2 * h.bytes, container: true}, err
	}
}

// scanLength reads the length of n bytes behind the type byte; more is added to
// the bytes that follow.
func scanLength(b []byte, n int, more uint64) (head, error) {
	if len(b) < 1+n {
		return head{}, errShort
	}
	return head{size: uint64(1 + n), bytes: bigEndian(b[1:], n) + more}, nil
}

// CheckValue fails unless b is exactly one well-formed msgpack value that nests
// at most DepthMax deep. After that every length and count in b is true, so that
// a decoder that believes them allocates no more than b has room for.
func CheckValue(b []byte) error {
	if err := checkRaw(b); err != nil {
		return err
	}
	return nil
}

// checkRaw reports whether b is exactly one well-formed value that nests at
// most DepthMax deep.
func checkRaw(b []byte) *Error {
	s := scanner{depthMax: DepthMax, sizeMax: math.MaxInt}
	n, err := s.scan(b)
	switch e, _ := err.(*Error); {
	case e != nil:
		return e
	case err != nil:
		return Errorf(ClassSyntax, "the value ends early")
	case n != len(b):
		return Errorf(ClassSyntax, "more bytes follow the value")
	}
	return nil
}
