package format

import (
	"encoding/base64"
	"encoding/hex"
	"strconv"
	"time"
	"unicode/utf8"
)

// AppendJSON appends a record as one JSON object to dst, without a newline, for
// programs that do not read msgpack:
//
//	{"kind":"entry","mode":420,"mtime":"2026-01-01T00:00:00Z","path":"a/b","type":"file"}
//
// After "kind" the keys of the canonical body follow in its order. A bin that is
// an id or a digest is in hexadecimal, another one a string if it is UTF-8;
// otherwise "_b64" is added to its key and the value is in base64, or, inside an
// array, stands as {"b64": ...}. A time is in RFC 3339 in UTC where the year has
// four digits, otherwise the array of seconds and nanoseconds. Unknown keys are
// in "extra", their msgpack bytes in hexadecimal. A data record has
// "payload_size" in place of its payload. Numbers are exact: some need 64 bits.
func AppendJSON(dst []byte, rec Record) []byte {
	dst = appendJSONString(append(dst, `{"kind":`...), string(rec.Kind()))
	if e := checkRecord(rec); e != nil {
		dst = appendJSONString(append(dst, `,"invalid":`...), e.Detail)
		return append(dst, '}')
	}
	c := bodyCursor(rec)
	dst = jsonFields(dst, &c, recordSchemas[rec.Kind()], true)
	if d, ok := rec.(*Data); ok {
		dst = strconv.AppendInt(append(dst, `,"payload_size":`...), int64(len(d.Payload)), 10)
	}
	return append(dst, '}')
}

// jsonFields appends the keys of a map, and "extra" for those that are not known.
func jsonFields(dst []byte, c *cursor, known schema, comma bool) []byte {
	var extra []byte
	for n := c.mapLen(); n > 0; n-- {
		key := string(c.nextKey())
		k, ok := known[key]
		if !ok {
			if extra != nil {
				extra = append(extra, ',')
			}
			extra = append(appendJSONString(extra, key), `:"`...)
			extra = append(hex.AppendEncode(extra, c.skip(DepthMax)), '"')
			continue
		}
		if comma {
			dst = append(dst, ',')
		}
		comma = true
		dst = jsonField(dst, c, key, k)
	}
	if extra != nil {
		if comma {
			dst = append(dst, ',')
		}
		dst = append(append(append(dst, `"extra":{`...), extra...), '}')
	}
	return dst
}

func jsonField(dst []byte, c *cursor, key string, k schemaKey) []byte {
	if k.shape == shapeText {
		b := c.bin()
		if !utf8.Valid(b) {
			dst = append(appendJSONString(dst, key+"_b64"), ':')
			return appendBase64(dst, b)
		}
		return appendJSONString(append(appendJSONString(dst, key), ':'), string(b))
	}
	dst = append(appendJSONString(dst, key), ':')
	if k.shape == shapeTime {
		return appendJSONTime(dst, c.time())
	}
	return jsonValue(dst, c, k)
}

func jsonValue(dst []byte, c *cursor, k schemaKey) []byte {
	switch t := c.b[c.i]; {
	case isMapHead(t):
		return append(jsonFields(append(dst, '{'), c, k.in, false), '}')
	case typeName(t) == "an array":
		dst = append(dst, '[')
		for n, i := c.array(len(c.b)), 0; i < n; i++ {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = jsonValue(dst, c, k)
		}
		return append(dst, ']')
	case t == mpFalse, t == mpTrue:
		return strconv.AppendBool(dst, c.bool())
	case typeName(t) == "a str":
		return appendJSONString(dst, string(c.str()))
	case typeName(t) == "a bin":
		b := c.bin()
		if k.shape == shapeID || k.shape == shapeRefs {
			return append(hex.AppendEncode(append(dst, '"'), b), '"')
		}
		if !utf8.Valid(b) {
			return append(appendBase64(append(dst, `{"b64":`...), b), '}')
		}
		return appendJSONString(dst, string(b))
	}
	return appendInteger(dst, c)
}

func appendJSONTime(dst []byte, t Time) []byte {
	if t.Printable() {
		return append(t.Time().AppendFormat(append(dst, '"'), time.RFC3339Nano), '"')
	}
	dst = strconv.AppendInt(append(dst, '['), t.Sec, 10)
	return append(strconv.AppendUint(append(dst, ','), uint64(t.Nsec), 10), ']')
}

func appendBase64(dst, b []byte) []byte {
	return append(base64.StdEncoding.AppendEncode(append(dst, '"'), b), '"')
}

// appendJSONString appends s, which is UTF-8, as a JSON string.
func appendJSONString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for i := range len(s) {
		switch b := s[i]; {
		case b == '"' || b == '\\':
			dst = append(dst, '\\', b)
		case b < ' ' || b == 0x7f:
			dst = hex.AppendEncode(append(dst, `\u00`...), []byte{b})
		default:
			dst = append(dst, b)
		}
	}
	return append(dst, '"')
}
