package keyring

import (
	"fmt"
	"time"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/seal"
)

const (
	// plainSizeMax bounds objects that are read before anything about them is
	// authenticated.
	plainSizeMax = 64 << 10
	// clientSizeMax bounds the client chunk.
	clientSizeMax = 16 << 20
	// textSizeMax bounds names and settings, in bytes.
	textSizeMax = format.TextSizeMax
)

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
