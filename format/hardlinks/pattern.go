package hardlinks

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// stamp is what the name of a snapshot's directory tells.
type stamp struct {
	prefix  string // before the time or number
	suffix  string // behind it
	time    time.Time
	hasTime bool // otherwise it is a number, or nothing
	number  int  // in a rotation: the newest is 0
}

// pattern tells the names of snapshots from others.
type pattern struct {
	expr *regexp.Regexp // with groups named by the conversions, "prefix" and "suffix"
}

// conversions are what stands behind % in a pattern, as in strftime(3), but N.
var conversions = map[byte]string{
	'Y': `(?P<Y>\d{4})`, 'm': `(?P<m>\d{2})`, 'd': `(?P<d>\d{2})`,
	'H': `(?P<H>\d{2})`, 'M': `(?P<M>\d{2})`, 'S': `(?P<S>\d{2})`,
	's': `(?P<s>\d{1,11})`, 'N': `(?P<N>\d{1,9})`, 'z': `(?P<z>Z|[+-]\d{2}:?\d{2})`, '%': `%`,
}

// parsePattern reads a pattern as people write it: conversions, * for anything
// and ? for any byte.
func parsePattern(text string) (*pattern, error) {
	var expr strings.Builder
	expr.WriteString(`(?s)^`)
	seen := make(map[byte]bool)
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '*':
			expr.WriteString(`.*`)
		case '?':
			expr.WriteString(`.`)
		case '%':
			i++
			if i == len(text) || conversions[text[i]] == "" {
				return nil, fmt.Errorf("pattern %q: %% is followed by one of Y m d H M S s z N %%", text)
			}
			if seen[text[i]] && text[i] != '%' {
				return nil, fmt.Errorf("pattern %q has %%%c twice", text, text[i])
			}
			seen[text[i]] = true
			expr.WriteString(conversions[text[i]])
		default:
			expr.WriteString(regexp.QuoteMeta(text[i : i+1]))
		}
	}
	hasDay := seen['Y'] && seen['m'] && seen['d']
	if !hasDay && (seen['Y'] || seen['m'] || seen['d'] || seen['H'] || seen['M'] || seen['S']) {
		return nil, fmt.Errorf("pattern %q names parts of a time but not %%Y, %%m and %%d", text)
	}
	expr.WriteString(`$`)
	compiled, err := regexp.Compile(expr.String())
	if err != nil {
		return nil, fmt.Errorf("pattern %q: %w", text, err)
	}
	return &pattern{compiled}, nil
}

// The patterns that are tried where none is given.
var (
	datePattern = &pattern{regexp.MustCompile(
		`^(?P<prefix>(?:.*?[^0-9])?)(?P<Y>(?:19|20|21)\d{2})[-_.]?(?P<m>\d{2})[-_.]?(?P<d>\d{2})` +
			`(?:[-_.T@ ]{0,3}(?P<H>\d{2})[-_.:h]?(?P<M>\d{2})(?:[-_.:m]?(?P<S>\d{2})s?)?(?P<z>Z|[+-]\d{2}:?\d{2})?)?` +
			`(?P<suffix>(?:[-_. ].*)?)$`)}
	numberPattern = &pattern{regexp.MustCompile(`^(?P<prefix>.*[^0-9._-])[._-](?P<N>\d{1,9})$`)}
)

// parse takes a name apart, in a zone that the name need not state.
func (p *pattern) parse(name string, zone *time.Location) (stamp, bool) {
	match := p.expr.FindStringSubmatch(name)
	if match == nil {
		return stamp{}, false
	}
	var s stamp
	fields := map[string]int{"m": 1, "d": 1}
	for i, group := range p.expr.SubexpNames() {
		switch group {
		case "":
		case "prefix":
			s.prefix = match[i]
		case "suffix":
			s.suffix = match[i]
		case "z":
			if match[i] != "" {
				zone = fixedZone(match[i])
			}
		default:
			if match[i] == "" {
				continue
			}
			n, err := strconv.Atoi(match[i])
			if err != nil {
				return stamp{}, false
			}
			fields[group] = n
		}
	}
	s.number = fields["N"]
	if sec, ok := fields["s"]; ok {
		s.time, s.hasTime = time.Unix(int64(sec), 0), true
	}
	if year, ok := fields["Y"]; ok {
		s.time = time.Date(year, time.Month(fields["m"]), fields["d"], fields["H"], fields["M"], fields["S"], 0, zone)
		s.hasTime = true
		// What is no day of the calendar is no time.
		return s, fields["m"] >= 1 && fields["m"] <= 12 && fields["d"] >= 1 && fields["H"] < 24 && fields["M"] < 60 && fields["S"] <= 60 &&
			time.Date(year, time.Month(fields["m"]), fields["d"], 0, 0, 0, 0, time.UTC).Day() == fields["d"]
	}
	return s, true
}

// fixedZone reads Z, +0100 or -01:00.
func fixedZone(text string) *time.Location {
	if text == "Z" {
		return time.UTC
	}
	digits := strings.ReplaceAll(text[1:], ":", "")
	n, err := strconv.Atoi(digits)
	if err != nil {
		return time.UTC
	}
	seconds := n/100*3600 + n%100*60
	if text[0] == '-' {
		seconds = -seconds
	}
	return time.FixedZone(text, seconds)
}
