package format

import "encoding/binary"

// The shortest msgpack form of each value.

func appendUint(dst []byte, v uint64) []byte {
	switch {
	case v < 0x80:
		return append(dst, byte(v))
	case v < 1<<8:
		return append(dst, mpUint8, byte(v))
	case v < 1<<16:
		return append(dst, mpUint8+1, byte(v>>8), byte(v))
	case v < 1<<32:
		return binary.BigEndian.AppendUint32(append(dst, mpUint8+2), uint32(v))
	}
	return binary.BigEndian.AppendUint64(append(dst, mpUint8+3), v)
}

func appendInt(dst []byte, v int64) []byte {
	switch {
	case v >= 0:
		return appendUint(dst, uint64(v))
	case v >= -32:
		return append(dst, byte(v))
	case v >= -1<<7:
		return append(dst, mpInt8, byte(v))
	case v >= -1<<15:
		return append(dst, mpInt8+1, byte(v>>8), byte(v))
	case v >= -1<<31:
		return binary.BigEndian.AppendUint32(append(dst, mpInt8+2), uint32(v))
	}
	return binary.BigEndian.AppendUint64(append(dst, mpInt8+3), uint64(v))
}

func appendStr(dst []byte, s string) []byte {
	switch n := len(s); {
	case n < 32:
		dst = append(dst, 0xa0|byte(n))
	case n < 1<<8:
		dst = append(dst, mpStr8, byte(n))
	case n < 1<<16:
		dst = append(dst, mpStr8+1, byte(n>>8), byte(n))
	default:
		dst = binary.BigEndian.AppendUint32(append(dst, mpStr8+2), uint32(n))
	}
	return append(dst, s...)
}

func appendBinHead(dst []byte, n int) []byte {
	switch {
	case n < 1<<8:
		return append(dst, mpBin8, byte(n))
	case n < 1<<16:
		return append(dst, mpBin8+1, byte(n>>8), byte(n))
	}
	return binary.BigEndian.AppendUint32(append(dst, mpBin8+2), uint32(n))
}

func appendBin(dst []byte, s string) []byte {
	return append(appendBinHead(dst, len(s)), s...)
}

func appendID(dst []byte, id *ID) []byte {
	return append(append(dst, mpBin8, byte(len(id))), id[:]...)
}

func appendArrayHead(dst []byte, n int) []byte {
	switch {
	case n < 16:
		return append(dst, 0x90|byte(n))
	case n < 1<<16:
		return append(dst, mpArray16, byte(n>>8), byte(n))
	}
	return binary.BigEndian.AppendUint32(append(dst, mpArray32), uint32(n))
}
