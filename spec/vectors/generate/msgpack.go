package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// The vectors are encoded here by hand, not by package format, so that a mistake
// there cannot hide itself.

// bin is a msgpack bin; a Go string is a str.
type bin string

// raw is bytes of msgpack as they are.
type raw []byte

// list is an array, dict a map whose keys are sorted, inOrder one that keeps its
// order.
type (
	list    []any
	kv      struct{ key, value any }
	dict    []kv
	inOrder []kv
)

// repeat is a value that comes n times in an array.
type repeat struct {
	n     int
	value any
}

// enc returns the shortest form of a value.
func enc(v any) []byte {
	switch v := v.(type) {
	case nil:
		return []byte{0xc0}
	case bool:
		if v {
			return []byte{0xc3}
		}
		return []byte{0xc2}
	case int:
		return encInt(int64(v))
	case int64:
		return encInt(v)
	case uint64:
		return encUint(v)
	case string:
		return append(head(len(v), 0xa0, 32, 0xd9), v...)
	case bin:
		return append(head(len(v), 0, 0, 0xc4), v...)
	case raw:
		return v
	case list:
		b := arrayHead(len(v))
		for _, x := range v {
			b = append(b, enc(x)...)
		}
		return b
	case repeat:
		return append(arrayHead(v.n), bytes.Repeat(enc(v.value), v.n)...)
	case dict:
		v = slices.Clone(v)
		slices.SortStableFunc(v, func(a, b kv) int { return strings.Compare(fmt.Sprint(a.key), fmt.Sprint(b.key)) })
		return enc(inOrder(v))
	case inOrder:
		b := head16(len(v), 0x80, 0xde)
		for _, f := range v {
			b = append(append(b, enc(f.key)...), enc(f.value)...)
		}
		return b
	}
	panic(fmt.Sprintf("no encoding of %T", v))
}

func encUint(v uint64) []byte {
	switch {
	case v < 1<<7:
		return []byte{byte(v)}
	case v < 1<<8:
		return []byte{0xcc, byte(v)}
	case v < 1<<16:
		return binary.BigEndian.AppendUint16([]byte{0xcd}, uint16(v))
	case v < 1<<32:
		return binary.BigEndian.AppendUint32([]byte{0xce}, uint32(v))
	}
	return binary.BigEndian.AppendUint64([]byte{0xcf}, v)
}

func encInt(v int64) []byte {
	switch {
	case v >= 0:
		return encUint(uint64(v))
	case v >= -32:
		return []byte{byte(v)}
	case v >= -1<<7:
		return []byte{0xd0, byte(v)}
	case v >= -1<<15:
		return binary.BigEndian.AppendUint16([]byte{0xd1}, uint16(v))
	case v >= -1<<31:
		return binary.BigEndian.AppendUint32([]byte{0xd2}, uint32(v))
	}
	return binary.BigEndian.AppendUint64([]byte{0xd3}, uint64(v))
}

// head returns the head of a str or bin: the forms with 8, 16 and 32 bits follow
// each other from wide on.
func head(n, short, shortMax int, wide byte) []byte {
	switch {
	case n < shortMax:
		return []byte{byte(short + n)}
	case n < 1<<8:
		return []byte{wide, byte(n)}
	case n < 1<<16:
		return binary.BigEndian.AppendUint16([]byte{wide + 1}, uint16(n))
	}
	return binary.BigEndian.AppendUint32([]byte{wide + 2}, uint32(n))
}

// head16 returns the head of an array or a map.
func head16(n, short int, wide byte) []byte {
	switch {
	case n < 16:
		return []byte{byte(short + n)}
	case n < 1<<16:
		return binary.BigEndian.AppendUint16([]byte{wide}, uint16(n))
	}
	return binary.BigEndian.AppendUint32([]byte{wide + 1}, uint32(n))
}

func arrayHead(n int) []byte { return head16(n, 0x90, 0xdc) }
