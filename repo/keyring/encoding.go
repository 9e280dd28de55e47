package keyring

import (
	"bytes"
	"fmt"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/seal"
)

const (
	// plainSizeMax bounds objects that are read before anything about them is
	// authenticated. It also bounds how deep their msgpack can nest.
	plainSizeMax = 64 << 10
	// clientSizeMax bounds the client chunk.
	clientSizeMax = 16 << 20
	// textSizeMax bounds names and settings, in bytes.
	textSizeMax = format.TextSizeMax
)

// encode returns the canonical msgpack of a struct whose fields stand in the
// order of their keys. It panics on types that msgpack cannot encode: that is a
// mistake in this package, and none of them depends on a value.
func encode(v any) []byte {
	var buf bytes.Buffer
	enc := msgpack.NewEncoder(&buf)
	enc.UseCompactInts(true)
	if err := enc.Encode(v); err != nil {
		panic(fmt.Sprintf("keyring: encode %T: %v", v, err))
	}
	return buf.Bytes()
}

// decode reads one msgpack value that fills b.
func decode(b []byte, v any) error {
	r := bytes.NewReader(b)
	if err := msgpack.NewDecoder(r).Decode(v); err != nil {
		return fmt.Errorf("%w: %w", seal.ErrDamaged, err)
	}
	if r.Len() > 0 {
		return fmt.Errorf("%w: %d bytes follow the content", seal.ErrDamaged, r.Len())
	}
	return nil
}

// stamp is a time as an array of seconds and nanoseconds.
type stamp []int64

func stampOf(t time.Time) stamp { return stamp{t.Unix(), int64(t.Nanosecond())} }

func (s stamp) time() (time.Time, error) {
	if len(s) != 2 || s[1] < 0 || s[1] > 999_999_999 {
		return time.Time{}, fmt.Errorf("%w: %v is not a time", seal.ErrDamaged, []int64(s))
	}
	return format.Time{Sec: s[0], Nsec: uint32(s[1])}.Time(), nil
}

// fixed copies b, the value of a key, into dst, which it must fill.
func fixed(dst, b []byte, key string) error {
	if len(b) != len(dst) {
		return fmt.Errorf("%w: %q has %d bytes, not %d", seal.ErrDamaged, key, len(b), len(dst))
	}
	copy(dst, b)
	return nil
}

func checkText(s, key string) error {
	if len(s) > textSizeMax {
		return fmt.Errorf("%q has %d bytes, and at most %d are allowed", key, len(s), textSizeMax)
	}
	return nil
}
