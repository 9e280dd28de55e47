package tar

import (
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/bk-backup/bk/format"
)

// parseNumber reads a number field of a header: octal digits padded in any way,
// or base 256, of which the first bit is set and the rest is big-endian two's
// complement. An empty field is 0.
func parseNumber(field []byte) (int64, error) {
	if len(field) > 0 && field[0]&0x80 != 0 {
		return parseBase256(field)
	}
	text := strings.Trim(string(field), " \x00")
	if i := strings.IndexAny(text, " \x00"); i >= 0 {
		text = text[:i]
	}
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 8, 63)
	if err != nil {
		return 0, errors.New("a number is neither octal nor base 256")
	}
	return int64(n), nil
}

func parseBase256(field []byte) (int64, error) {
	// The sign is the bit below the mark.
	var fill byte
	if field[0]&0x40 != 0 {
		fill = 0xff
	}
	var n uint64
	for i, c := range field {
		c ^= fill
		if i == 0 {
			c &= 0x7f
		}
		if n>>56 != 0 {
			return 0, errors.New("a number is too great")
		}
		n = n<<8 | uint64(c)
	}
	if n > math.MaxInt64 {
		return 0, errors.New("a number is too great")
	}
	if fill != 0 {
		return ^int64(n), nil
	}
	return int64(n), nil
}

// putNumber writes n into a header's field, as octal digits with a closing zero
// byte, or in base 256 where that is too short. It reports whether the octal
// digits were enough.
func putNumber(field []byte, n int64) bool {
	digits := len(field) - 1
	if n >= 0 && n < 1<<(3*min(digits, 20)) {
		text := strconv.FormatInt(n, 8)
		copy(field, strings.Repeat("0", digits-len(text))+text)
		field[digits] = 0
		return true
	}
	for i := len(field) - 1; i >= 0; i-- {
		field[i] = byte(n)
		n >>= 8
	}
	field[0] |= 0x80
	return false
}

// parseSeconds reads a time of an extended header: decimal seconds since 1970,
// perhaps negative, perhaps with a fraction, of which nine digits count.
func parseSeconds(text string) (format.Time, error) {
	whole, fraction, hasFraction := strings.Cut(text, ".")
	negative := strings.HasPrefix(whole, "-")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if whole == "" || whole == "-" {
		sec, err = 0, nil
	}
	if err != nil || hasFraction && strings.Trim(fraction, "0123456789") != "" || text == "" || text == "-" || text == "." {
		return format.Time{}, errors.New("a time is not a decimal number of seconds")
	}
	nsec := uint32(0)
	beyond := strings.Trim(fraction[min(9, len(fraction)):], "0") != ""
	for i := range 9 {
		nsec *= 10
		if i < len(fraction) {
			nsec += uint32(fraction[i] - '0')
		}
	}
	if negative && beyond {
		nsec++ // toward the past, as for every other time
	}
	if negative && nsec > 0 {
		if sec == math.MinInt64 {
			return format.Time{}, errors.New("a time is out of range")
		}
		// Half a second before 1970 is written as -0.5 and is {-1, 500000000}.
		sec--
		nsec = 1e9 - nsec
	}
	return format.Time{Sec: sec, Nsec: nsec}, nil
}

// formatSeconds is the reverse of parseSeconds, without needless digits.
func formatSeconds(t format.Time) string {
	if t.Nsec == 0 {
		return strconv.FormatInt(t.Sec, 10)
	}
	sec, nsec, sign := t.Sec, t.Nsec, ""
	if sec < 0 {
		sec, nsec, sign = -(sec + 1), 1e9-nsec, "-"
	}
	fraction := strconv.FormatUint(uint64(nsec)+1e9, 10)[1:]
	return sign + strconv.FormatInt(sec, 10) + "." + strings.TrimRight(fraction, "0")
}
