package filter

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/bk-backup/bk/format"
)

// sizeUnits are the factors of ParseSize. A letter alone counts in 1024s, as in
// most backup programs.
var sizeUnits = map[string]uint64{
	"": 1, "b": 1,
	"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50,
	"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40, "pib": 1 << 50,
	"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "pb": 1e15,
}

// ParseSize reads a size in bytes such as 4096, 10KiB, 5M (MiB), 1.5GB (1000s).
func ParseSize(text string) (uint64, error) {
	digits := len(text)
	for i, c := range text {
		if (c < '0' || c > '9') && c != '.' {
			digits = i
			break
		}
	}
	unit, known := sizeUnits[strings.ToLower(strings.TrimSpace(text[digits:]))]
	if !known || digits == 0 {
		return 0, fmt.Errorf("%q is not a size: write a number of bytes, or one with a unit, such as 10KiB, 5M or 1.5GB", text)
	}
	if n, err := strconv.ParseUint(text[:digits], 10, 64); err == nil && n <= math.MaxUint64/unit {
		return n * unit, nil
	}
	n, err := strconv.ParseFloat(text[:digits], 64)
	if err != nil || n*float64(unit) >= math.MaxUint64 {
		return 0, fmt.Errorf("%q is not a size that fits into 64 bits", text)
	}
	return uint64(n * float64(unit)), nil
}

// timeLayouts are what ParseTime reads besides ages, most exact first.
var timeLayouts = []string{
	time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02",
}

// ParseTime reads a moment: RFC 3339, a date with or without a time (in now's
// zone), or an age before now such as 12h, 30d, 2w, 6mo, 1y, 1y6mo. Days, weeks,
// months and years are those of the calendar.
func ParseTime(text string, now time.Time) (format.Time, error) {
	for _, layout := range timeLayouts {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return format.TimeOf(t), nil
		}
	}
	t, ok := beforeNow(text, now)
	if !ok {
		return format.Time{}, fmt.Errorf("%q is not a time: write 2006-01-02, 2006-01-02T15:04:05Z, or an age such as 12h, 30d, 2w, 6mo, 1y", text)
	}
	return format.TimeOf(t), nil
}

// beforeNow takes an age off now, unit by unit.
func beforeNow(text string, now time.Time) (time.Time, bool) {
	if text == "" {
		return now, false
	}
	for text != "" {
		digits := len(text) - len(strings.TrimLeft(text, "0123456789"))
		n, err := strconv.Atoi(text[:digits])
		if err != nil || n > 1e6 {
			return now, false
		}
		text = text[digits:]
		letters := len(text) - len(strings.TrimLeft(text, "abcdefghijklmnopqrstuvwxyz"))
		switch text[:letters] {
		case "s":
			now = now.Add(-time.Duration(n) * time.Second)
		case "min":
			now = now.Add(-time.Duration(n) * time.Minute)
		case "h":
			now = now.Add(-time.Duration(n) * time.Hour)
		case "d":
			now = now.AddDate(0, 0, -n)
		case "w":
			now = now.AddDate(0, 0, -7*n)
		case "mo":
			now = now.AddDate(0, -n, 0)
		case "y":
			now = now.AddDate(-n, 0, 0)
		default:
			return now, false
		}
		text = text[letters:]
	}
	return now, true
}
