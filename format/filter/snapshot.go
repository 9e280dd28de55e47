package filter

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bk-backup/bk/format"
)

// SnapshotRule chooses snapshots by what their record says; all that is set
// must apply. A snapshot without a time is neither before nor after anything.
type SnapshotRule struct {
	Host   *string
	Tag    *string
	Path   *string      // at or below one of the roots
	After  *format.Time // begun at this moment or later
	Before *format.Time // begun before this moment
	IDHex  string       // beginning of the id, in lower-case hexadecimal digits
}

// ParseSnapshotRule reads conditions joined by commas: host=NAME, tag=NAME,
// path=/PATH, after=TIME, before=TIME, id=DIGITS. A backslash takes the next byte
// as it is, a comma for example. Times are those of ParseTime.
func ParseSnapshotRule(text string, now time.Time) (SnapshotRule, error) {
	var rule SnapshotRule
	for _, condition := range splitConditions(text) {
		name, value, _ := strings.Cut(condition, "=")
		if value == "" {
			return rule, fmt.Errorf("%q chooses no snapshots: write host=, tag=, path=, after=, before= or id= with a value", condition)
		}
		if err := rule.set(name, value, now); err != nil {
			return rule, fmt.Errorf("%q chooses no snapshots: %w", condition, err)
		}
	}
	return rule, nil
}

func (r *SnapshotRule) set(name, value string, now time.Time) error {
	switch name {
	case "host":
		r.Host = &value
	case "tag":
		r.Tag = &value
	case "path":
		value = strings.Trim(value, "/")
		r.Path = &value
		return format.CheckPath(value)
	case "after", "before":
		t, err := ParseTime(value, now)
		if name == "after" {
			r.After = &t
		} else {
			r.Before = &t
		}
		return err
	case "id":
		r.IDHex = strings.ToLower(value)
		if strings.Trim(r.IDHex, "0123456789abcdef") != "" || len(value) > hex.EncodedLen(len(format.ID{})) {
			return fmt.Errorf("an id is 1 to 64 hexadecimal digits")
		}
	default:
		return fmt.Errorf("there is no condition %q, only host, tag, path, after, before and id", name)
	}
	return nil
}

// splitConditions cuts at commas that are not escaped, and takes escapes away.
func splitConditions(text string) []string {
	parts := []string{""}
	for i := 0; i < len(text); i++ {
		last := &parts[len(parts)-1]
		switch {
		case text[i] == ',':
			parts = append(parts, "")
		case text[i] == '\\' && i+1 < len(text):
			i++
			*last += text[i : i+1]
		default:
			*last += text[i : i+1]
		}
	}
	return parts
}

// Match reports whether the snapshot is chosen.
func (r *SnapshotRule) Match(s *format.Snapshot) bool {
	switch {
	case r.Host != nil && s.Host != *r.Host,
		r.Tag != nil && !slices.Contains(s.Tags, *r.Tag),
		r.Path != nil && !slices.ContainsFunc(s.Roots, func(root string) bool { return atOrBelow(*r.Path, root) }),
		r.After != nil && (s.Time == nil || s.Time.Compare(*r.After) < 0),
		r.Before != nil && (s.Time == nil || s.Time.Compare(*r.Before) >= 0),
		!strings.HasPrefix(s.ID.String(), r.IDHex):
		return false
	}
	return true
}
