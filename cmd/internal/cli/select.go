package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bk-backup/bk/format"
)

// Selection narrows a list of snapshots. Zero fields select everything.
type Selection struct {
	Hosts         []string  // any of these
	Tags          []string  // each a comma-separated list: any item whose tags are all there
	Paths         []string  // each of these is among the roots
	After, Before time.Time // made not before, and before
}

// Matches reports whether a snapshot is selected.
func (sel *Selection) Matches(s *format.Snapshot, made time.Time) bool {
	if len(sel.Hosts) > 0 && !slices.Contains(sel.Hosts, s.Host) {
		return false
	}
	if len(sel.Tags) > 0 && !slices.ContainsFunc(sel.Tags, func(list string) bool { return hasTags(s, list) }) {
		return false
	}
	for _, p := range sel.Paths {
		if !slices.Contains(s.Roots, strings.Trim(p, "/")) {
			return false
		}
	}
	if !sel.After.IsZero() && made.Before(sel.After) {
		return false
	}
	return sel.Before.IsZero() || made.Before(sel.Before)
}

func hasTags(s *format.Snapshot, list string) bool {
	for _, tag := range strings.Split(list, ",") {
		if tag == "" {
			if len(s.Tags) > 0 {
				return false
			}
			continue
		}
		if !slices.Contains(s.Tags, tag) {
			return false
		}
	}
	return true
}

// Select returns the snapshots that match, in order.
func Select(list []*format.Snapshot, sel Selection) []*format.Snapshot {
	var out []*format.Snapshot
	for _, s := range list {
		var made time.Time
		if s.Time != nil {
			made = s.Time.Time()
		}
		if sel.Matches(s, made) {
			out = append(out, s)
		}
	}
	return out
}

// Resolve finds the snapshot that name means in a list that is oldest first:
// latest, latest~2 (the second before the latest), or a prefix of an id of at
// least two digits.
func Resolve(list []*format.Snapshot, name string) (*format.Snapshot, error) {
	if len(list) == 0 {
		return nil, fmt.Errorf("snapshot %q: there are no snapshots to choose from", name)
	}
	base, back, err := splitTilde(name)
	if err != nil {
		return nil, err
	}
	at := -1
	if base == "latest" {
		at = len(list) - 1
	} else {
		prefix := strings.ToLower(base)
		if len(prefix) < 2 || strings.Trim(prefix, "0123456789abcdef") != "" {
			return nil, fmt.Errorf("snapshot %q is neither \"latest\" nor the beginning of an id in hexadecimal", name)
		}
		for i, s := range list {
			if !strings.HasPrefix(s.ID.String(), prefix) {
				continue
			}
			if at >= 0 {
				return nil, fmt.Errorf("snapshot %q is ambiguous: %s and %s begin so", name, list[at].ID, s.ID)
			}
			at = i
		}
		if at < 0 {
			return nil, fmt.Errorf("snapshot %q: no id begins so", name)
		}
	}
	if back > at {
		return nil, fmt.Errorf("snapshot %q: there are only %d before %s", name, at, base)
	}
	return list[at-back], nil
}

func splitTilde(name string) (base string, back int, err error) {
	base, count, found := strings.Cut(name, "~")
	if !found {
		return base, 0, nil
	}
	if count == "" {
		return base, 1, nil
	}
	back, err = strconv.Atoi(count)
	if err != nil || back < 0 {
		return "", 0, fmt.Errorf("snapshot %q: what follows ~ is not a number", name)
	}
	return base, back, nil
}

// SplitTarget divides SNAPSHOT:PATH. The path is as in the stream.
func SplitTarget(arg string) (snapshot, path string) {
	snapshot, path, _ = strings.Cut(arg, ":")
	return snapshot, strings.Trim(path, "/")
}

// SelectFlags narrow the snapshots that a program considers.
type SelectFlags struct {
	Host   []string `sep:"none" placeholder:"NAME" help:"Only snapshots of this host (repeatable)."`
	Tag    []string `sep:"none" placeholder:"TAGS" help:"Only snapshots with all of these comma-separated tags (repeatable: any of them)."`
	Path   []string `sep:"none" placeholder:"DIR" help:"Only snapshots that were made of this path (repeatable: all of them)."`
	After  string   `placeholder:"TIME" help:"Only snapshots made at this time or later."`
	Before string   `placeholder:"TIME" help:"Only snapshots made before this time."`
}

// Selection turns the flags into what Select takes.
func (f *SelectFlags) Selection() (sel Selection, err error) {
	sel = Selection{Hosts: f.Host, Tags: f.Tag, Paths: f.Path}
	if f.After != "" {
		if sel.After, err = ParseTime(f.After); err != nil {
			return sel, Usagef("--after: %w", err)
		}
	}
	if f.Before != "" {
		if sel.Before, err = ParseTime(f.Before); err != nil {
			return sel, Usagef("--before: %w", err)
		}
	}
	return sel, nil
}
