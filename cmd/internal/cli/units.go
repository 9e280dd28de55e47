package cli

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes on the command line: 4096, 64KiB, 10M (powers of
// 1024, as restic, rsync and dd have it), 10MB (powers of 1000).
type Size int64

var sizeUnits = []struct {
	suffix string
	factor float64
}{
	{"kib", 1 << 10}, {"mib", 1 << 20}, {"gib", 1 << 30}, {"tib", 1 << 40},
	{"kb", 1e3}, {"mb", 1e6}, {"gb", 1e9}, {"tb", 1e12},
	{"k", 1 << 10}, {"m", 1 << 20}, {"g", 1 << 30}, {"t", 1 << 40}, {"b", 1},
}

// ParseSize reads a Size.
func ParseSize(text string) (Size, error) {
	num, factor := strings.ToLower(strings.TrimSpace(text)), 1.0
	for _, u := range sizeUnits {
		if strings.HasSuffix(num, u.suffix) {
			num, factor = strings.TrimSuffix(num, u.suffix), u.factor
			break
		}
	}
	v, err := strconv.ParseFloat(strings.TrimSpace(num), 64)
	if err != nil || v < 0 || v*factor >= math.MaxInt64 {
		return 0, fmt.Errorf("size %q is not a number of bytes such as 4096, 64KiB or 10M", text)
	}
	return Size(v * factor), nil
}

// UnmarshalText makes Size a flag.
func (s *Size) UnmarshalText(b []byte) (err error) {
	*s, err = ParseSize(string(b))
	return err
}

// Bytes prints a size for people: 1.3 GiB.
func Bytes[N int | int64 | uint64](n N) string {
	v := float64(n)
	for _, unit := range []string{"B", "KiB", "MiB", "GiB", "TiB"} {
		if v < 1023.5 {
			if unit == "B" || v >= 99.95 {
				return fmt.Sprintf("%.0f %s", v, unit)
			}
			return fmt.Sprintf("%.1f %s", v, unit)
		}
		v /= 1024
	}
	return fmt.Sprintf("%.1f PiB", v)
}

// Count prints a number with thousands separated: 79,123.
func Count[N int | int64 | uint64](n N) string {
	s := fmt.Sprintf("%d", n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Duration prints a time span for people: 3.2 s, 4:05, 1:02:03.
func Duration(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	sec := int64(d.Round(time.Second) / time.Second)
	if sec < 3600 {
		return fmt.Sprintf("%d:%02d", sec/60, sec%60)
	}
	return fmt.Sprintf("%d:%02d:%02d", sec/3600, sec/60%60, sec%60)
}
