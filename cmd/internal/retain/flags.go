package retain

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/repo/retention"
)

// PolicyFlags say what stays.
type PolicyFlags struct {
	KeepLast    Count          `group:"What stays" placeholder:"N" help:"The N newest snapshots; 'unlimited' for all, here and below."`
	KeepHourly  Count          `group:"What stays" placeholder:"N" help:"The newest snapshot of each of the N newest hours that have one."`
	KeepDaily   Count          `group:"What stays" placeholder:"N" help:"The same for days."`
	KeepWeekly  Count          `group:"What stays" placeholder:"N" help:"The same for weeks, from Monday on."`
	KeepMonthly Count          `group:"What stays" placeholder:"N" help:"The same for months."`
	KeepYearly  Count          `group:"What stays" placeholder:"N" help:"The same for years."`
	KeepWithin  retention.Span `group:"What stays" placeholder:"SPAN" help:"What is newer than SPAN before the newest snapshot: 1y5m7d2h, 2w, 36h (m is months)."`
	KeepTag     []string       `group:"What stays" sep:"none" placeholder:"TAGS" help:"Snapshots with all of these comma-separated tags (repeatable: any of them)."`
	GroupBy     string         `group:"What stays" default:"host,paths" placeholder:"LIST" help:"What the snapshots of a group have in common: any of host, paths, tags; nothing between quotes for one group. Default: ${default}."`
}

// Count is a number of snapshots, or all.
type Count int

// UnmarshalText reads it.
func (c *Count) UnmarshalText(b []byte) error {
	text := string(b)
	if text == "unlimited" || text == "-1" {
		*c = retention.All
		return nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return fmt.Errorf("%q is neither a number of snapshots nor \"unlimited\"", text)
	}
	*c = Count(n)
	return nil
}

// grouping is what the snapshots of a group have in common.
type grouping struct{ host, paths, tags bool }

// policy returns what the flags ask for.
func (f *PolicyFlags) policy() (*retention.Policy, grouping, error) {
	p := &retention.Policy{
		Last: int(f.KeepLast), Hourly: int(f.KeepHourly), Daily: int(f.KeepDaily), Weekly: int(f.KeepWeekly),
		Monthly: int(f.KeepMonthly), Yearly: int(f.KeepYearly), Within: f.KeepWithin,
	}
	for _, list := range f.KeepTag {
		if list == "" {
			return nil, grouping{}, cli.Usagef("--keep-tag: an empty list of tags would keep everything")
		}
		p.Tags = append(p.Tags, strings.Split(list, ","))
	}
	var g grouping
	for _, word := range strings.Split(f.GroupBy, ",") {
		switch strings.TrimSpace(word) {
		case "host", "hosts":
			g.host = true
		case "path", "paths":
			g.paths = true
		case "tag", "tags":
			g.tags = true
		case "":
		default:
			return nil, g, cli.Usagef("--group-by: %q is none of host, paths, tags", word)
		}
	}
	return p, g, nil
}

// text is the policy as flags, for the record of what was forgotten.
func (f *PolicyFlags) text() string {
	var parts []string
	for _, c := range []struct {
		name string
		n    Count
	}{
		{"last", f.KeepLast}, {"hourly", f.KeepHourly}, {"daily", f.KeepDaily},
		{"weekly", f.KeepWeekly}, {"monthly", f.KeepMonthly}, {"yearly", f.KeepYearly},
	} {
		switch {
		case c.n == retention.All:
			parts = append(parts, fmt.Sprintf("--keep-%s unlimited", c.name))
		case c.n > 0:
			parts = append(parts, fmt.Sprintf("--keep-%s %d", c.name, c.n))
		}
	}
	if !f.KeepWithin.IsZero() {
		parts = append(parts, "--keep-within "+f.KeepWithin.String())
	}
	for _, list := range f.KeepTag {
		parts = append(parts, "--keep-tag "+list)
	}
	return strings.Join(append(parts, "--group-by "+f.GroupBy), " ")
}
