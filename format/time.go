package format

import (
	"cmp"
	"math"
	"time"
)

// Time is a moment as the stream carries it: seconds since 1970-01-01 00:00:00
// UTC and nanoseconds after that second, so that years before 1970 and after
// 2262 keep every digit. Nsec is at most 999,999,999 and always counts upward:
// half a second before 1970 is {-1, 500000000}.
type Time struct {
	Sec  int64
	Nsec uint32
}

// TimeOf converts from the standard library, without loss.
func TimeOf(t time.Time) Time { return Time{t.Unix(), uint32(t.Nanosecond())} }

// Time converts to the standard library in UTC. Seconds beyond what time.Time
// can represent wrap; callers that print check with Printable first.
func (t Time) Time() time.Time { return time.Unix(t.Sec, int64(t.Nsec)).UTC() }

// Printable reports whether the year lies in 0 to 9999, where RFC 3339 can say it.
func (t Time) Printable() bool { return t.Sec >= -62167219200 && t.Sec <= 253402300799 }

// UnixNano returns nanoseconds since 1970, and false where int64 cannot hold
// them (before 1677 or after 2262).
func (t Time) UnixNano() (int64, bool) {
	if t.Sec < math.MinInt64/1_000_000_000 || t.Sec >= math.MaxInt64/1_000_000_000 {
		return 0, false
	}
	return t.Sec*1e9 + int64(t.Nsec), true
}

// Compare orders moments.
func (t Time) Compare(other Time) int {
	if c := cmp.Compare(t.Sec, other.Sec); c != 0 {
		return c
	}
	return cmp.Compare(t.Nsec, other.Nsec)
}
