package retention

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Span is a length of time by the calendar.
type Span struct{ Years, Months, Days, Hours int }

// spanMax bounds each number of a span: beyond it everything is kept anyway.
const spanMax = 100_000

// ParseSpan reads numbers with units, such as 1y5m7d2h, 2w or 36h; m is months.
func ParseSpan(text string) (Span, error) {
	fail := func(err error) (Span, error) {
		return Span{}, fmt.Errorf("%q is not a span such as 1y5m7d2h, 2w or 36h: %w", text, err)
	}
	var s Span
	rest := text
	if rest == "" {
		return fail(errors.New("it is empty"))
	}
	for rest != "" {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		n, err := strconv.Atoi(rest[:digits])
		if err != nil || n > spanMax {
			return fail(fmt.Errorf("a number from 0 to %d must stand at %q", spanMax, rest))
		}
		if rest = rest[digits:]; rest == "" {
			return fail(errors.New("the last number has no unit"))
		}
		switch rest[0] {
		case 'y':
			s.Years += n
		case 'm':
			s.Months += n
		case 'w':
			s.Days += 7 * n
		case 'd':
			s.Days += n
		case 'h':
			s.Hours += n
		default:
			return fail(fmt.Errorf("the units are y, m, w, d and h, not %q", rest[:1]))
		}
		rest = rest[1:]
	}
	return s, nil
}

// IsZero reports whether the span has no length.
func (s Span) IsZero() bool { return s == Span{} }

// Before returns the moment that lies the span before t.
func (s Span) Before(t time.Time) time.Time {
	return t.AddDate(-s.Years, -s.Months, -s.Days).Add(-time.Duration(s.Hours) * time.Hour)
}

// String returns the span as ParseSpan reads it.
func (s Span) String() string {
	var b strings.Builder
	for _, part := range []struct {
		n    int
		unit string
	}{{s.Years, "y"}, {s.Months, "m"}, {s.Days, "d"}, {s.Hours, "h"}} {
		if part.n != 0 {
			fmt.Fprintf(&b, "%d%s", part.n, part.unit)
		}
	}
	if b.Len() == 0 {
		return "0h"
	}
	return b.String()
}

// UnmarshalText makes Span a flag.
func (s *Span) UnmarshalText(b []byte) (err error) {
	*s, err = ParseSpan(string(b))
	return err
}
