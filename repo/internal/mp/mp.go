// Package mp encodes and decodes the small msgpack objects of a repository by
// way of structs whose fields stand in the order of their keys. Package repo and
// those below it import it. What is large or read often (nodes of listings, the
// stream) has encodings of its own.
package mp

import (
	"bytes"
	"fmt"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/seal"
)

// Encode returns the canonical encoding of v, if the fields of its structs stand
// in the order of their keys and those that are optional say omitempty. It
// panics on types that msgpack cannot encode, which no value decides.
func Encode(v any) []byte {
	var buf bytes.Buffer
	enc := msgpack.NewEncoder(&buf)
	enc.UseCompactInts(true)
	if err := enc.Encode(v); err != nil {
		panic(fmt.Sprintf("encode %T: %v", v, err))
	}
	return buf.Bytes()
}

// Decode reads into v the one value that b consists of, or fails with
// seal.ErrDamaged. b need not be trusted: package msgpack believes the length
// of an array and recurses without bound, so everything is checked before.
func Decode(b []byte, v any) error {
	err := format.CheckValue(b)
	if err == nil {
		err = msgpack.Unmarshal(b, v)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", seal.ErrDamaged, err)
	}
	return nil
}
