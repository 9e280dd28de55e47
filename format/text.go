package format

import (
	"encoding/hex"
	"strconv"
)

// AppendText appends the diagnostic text of a record to dst: one line of
// printable ASCII, without a newline, that tells everything about it
// (spec/stream.md, "Diagnostic text"). The same record has the same text in every
// implementation, so vectors compare it:
//
//	entry mode=420 mtime=[1767225600 0] path="a/b" size=13 type=file zz=0x93010203
//	data id=b94d...  size=13 payload=13:b94d...
//
// First the kind, then each key of the canonical body in its order as key=value,
// after a space. Values are:
//
//   - an int in decimal; a bool as true or false;
//   - a bin that is an id or a digest in lower-case hexadecimal; any other bin in
//     double quotes, where printable ASCII stands for itself but \" and \\ for
//     quote and backslash, and \xNN for every other byte;
//   - a str as it is if it is made of A-Z a-z 0-9 _ . : + - alone and not empty,
//     otherwise as such a bin; the same goes for keys and the kind;
//   - an array as its elements between [ and ], separated by spaces; a map of the
//     specification as key=value between { and }, likewise;
//   - the value of an unknown key as 0x and its bytes in hexadecimal.
//
// A data record ends with payload=, the payload's size, a colon, and the SHA-256
// of the payload as it is, not decoded.
func AppendText(dst []byte, rec Record) []byte {
	dst = appendWord(dst, string(rec.Kind()))
	if e := checkRecord(rec); e != nil {
		return appendQuoted(append(dst, " invalid="...), e.Detail)
	}
	c := bodyCursor(rec)
	for n := c.mapLen(); n > 0; n-- {
		dst = textField(append(dst, ' '), &c, recordSchemas[rec.Kind()])
	}
	if d, ok := rec.(*Data); ok {
		dst = strconv.AppendInt(append(dst, " payload="...), int64(len(d.Payload)), 10)
		sum := SumID(d.Payload)
		dst = hex.AppendEncode(append(dst, ':'), sum[:])
	}
	return dst
}

// bodyCursor returns a cursor on the canonical body of a record that is right by
// itself. Text and JSON are made from it, so that they tell every key there is.
func bodyCursor(rec Record) cursor {
	return cursor{b: appendRecord(nil, rec), i: len(appendStr([]byte{0}, string(rec.Kind())))}
}

// textField appends the next key and its value.
func textField(dst []byte, c *cursor, known schema) []byte {
	key := string(c.nextKey())
	dst = append(appendWord(dst, key), '=')
	k, ok := known[key]
	if !ok {
		return hex.AppendEncode(append(dst, "0x"...), c.skip(DepthMax))
	}
	return textValue(dst, c, k)
}

func textValue(dst []byte, c *cursor, k schemaKey) []byte {
	switch t := c.b[c.i]; {
	case isMapHead(t):
		dst = append(dst, '{')
		for n, i := c.mapLen(), 0; i < n; i++ {
			if i > 0 {
				dst = append(dst, ' ')
			}
			dst = textField(dst, c, k.in)
		}
		return append(dst, '}')
	case typeName(t) == "an array":
		dst = append(dst, '[')
		for n, i := c.array(len(c.b)), 0; i < n; i++ {
			if i > 0 {
				dst = append(dst, ' ')
			}
			dst = textValue(dst, c, k)
		}
		return append(dst, ']')
	case t == mpFalse, t == mpTrue:
		return strconv.AppendBool(dst, c.bool())
	case typeName(t) == "a str":
		return appendWord(dst, string(c.str()))
	case typeName(t) == "a bin":
		if k.shape == shapeID || k.shape == shapeRefs {
			return hex.AppendEncode(dst, c.bin())
		}
		return appendQuoted(dst, string(c.bin()))
	}
	return appendInteger(dst, c)
}

func appendInteger(dst []byte, c *cursor) []byte {
	v, negative := c.integer()
	if negative {
		return strconv.AppendInt(dst, int64(v), 10)
	}
	return strconv.AppendUint(dst, v, 10)
}

// appendWord appends s as it is where that is unmistakable, else quoted.
func appendWord(dst []byte, s string) []byte {
	for i := range len(s) {
		switch b := s[i]; {
		case b >= 'a' && b <= 'z', b >= 'A' && b <= 'Z', b >= '0' && b <= '9':
		case b == '_', b == '.', b == ':', b == '+', b == '-':
		default:
			return appendQuoted(dst, s)
		}
	}
	if s == "" {
		return appendQuoted(dst, s)
	}
	return append(dst, s...)
}

// appendQuoted appends s between double quotes, in printable ASCII.
func appendQuoted(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for i := range len(s) {
		switch b := s[i]; {
		case b == '"' || b == '\\':
			dst = append(dst, '\\', b)
		case b >= ' ' && b <= '~':
			dst = append(dst, b)
		default:
			dst = hex.AppendEncode(append(dst, `\x`...), []byte{b})
		}
	}
	return append(dst, '"')
}
