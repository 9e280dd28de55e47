package fidelity

import (
	"slices"
	"strings"

	"github.com/bk-backup/bk/format"
)

// Pair are two snapshots that should be equal.
type Pair struct{ A, B *format.Snapshot }

// Match finds the snapshots of two lists that belong together: by any id that
// both have had (their own, the one under which they came, those before a
// stage), then by the system where they first came from, then by time, host and
// roots. Pairs come in the order of a. A snapshot is in one pair at most.
func Match(a, b []*format.Snapshot) (pairs []Pair, onlyA, onlyB []*format.Snapshot) {
	taken := make(map[*format.Snapshot]*format.Snapshot, len(a)) // of a, by b's
	partner := make(map[*format.Snapshot]*format.Snapshot, len(a))
	for _, names := range []func(*format.Snapshot) []string{idNames, originNames, timeNames} {
		byName := make(map[string]*format.Snapshot, len(b))
		for _, s := range b {
			for _, name := range names(s) {
				if taken[s] == nil && byName[name] == nil {
					byName[name] = s
				}
			}
		}
		for _, s := range a {
			if partner[s] != nil {
				continue
			}
			for _, name := range names(s) {
				if other := byName[name]; other != nil && taken[other] == nil {
					partner[s], taken[other] = other, s
					break
				}
			}
		}
	}
	for _, s := range a {
		if other := partner[s]; other != nil {
			pairs = append(pairs, Pair{s, other})
		} else {
			onlyA = append(onlyA, s)
		}
	}
	for _, s := range b {
		if taken[s] == nil {
			onlyB = append(onlyB, s)
		}
	}
	return pairs, onlyA, onlyB
}

func idNames(s *format.Snapshot) []string {
	names := []string{string(s.ID[:])}
	for i := len(s.Via) - 1; i >= 0; i-- {
		names = append(names, string(s.Via[i].From[:]))
	}
	return names
}

func originNames(s *format.Snapshot) []string {
	if s.Origin == nil {
		return nil
	}
	return []string{s.Origin.System + "\x00" + s.Origin.Repository + "\x00" + s.Origin.ID}
}

func timeNames(s *format.Snapshot) []string {
	if s.Time == nil {
		return nil
	}
	roots := slices.Sorted(slices.Values(s.Roots))
	return []string{s.Time.Time().String() + "\x00" + s.Host + "\x00" + strings.Join(roots, "\x00")}
}

// recordDifferences names what two snapshots' records say differently.
func recordDifferences(a, b *format.Snapshot) []string {
	var what []string
	check := func(name string, same bool) {
		if !same {
			what = append(what, name)
		}
	}
	check("time", (a.Time == nil) == (b.Time == nil) && (a.Time == nil || *a.Time == *b.Time))
	check("host", a.Host == b.Host)
	check("user", a.User == b.User)
	check("roots", slices.Equal(a.Roots, b.Roots))
	check("tags", slices.Equal(a.Tags, b.Tags))
	check("comment", a.Comment == b.Comment)
	return what
}
