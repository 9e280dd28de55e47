package retain

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/repo"
	"github.com/bk-backup/bk/repo/retention"
)

// series is a group of snapshots that a policy counts in, oldest first.
type series struct {
	name    string
	snaps   []*repo.Snapshot
	reasons [][]string // why each stays
}

// group divides snapshots by what they have in common.
func group(list []*repo.Snapshot, by grouping) []*series {
	var out []*series
	at := make(map[string]*series)
	for _, s := range list {
		var key, name []string
		if by.host {
			key, name = append(key, s.Meta.Host), append(name, "host "+cli.Printable(s.Meta.Host))
		}
		if by.paths {
			roots := slices.Sorted(slices.Values(s.Meta.Roots))
			for i := range roots {
				roots[i] = "/" + roots[i]
			}
			key, name = append(key, strings.Join(roots, "\x00")), append(name, cli.Printable(strings.Join(roots, " ")))
		}
		if by.tags {
			tags := slices.Sorted(slices.Values(s.Meta.Tags))
			key, name = append(key, strings.Join(tags, "\x00")), append(name, "tags "+cli.Printable(strings.Join(tags, ",")))
		}
		k := strings.Join(key, "\x00\x00")
		g := at[k]
		if g == nil {
			g = &series{name: strings.Join(name, ", ")}
			if len(name) == 0 {
				g.name = "all snapshots"
			}
			at[k] = g
			out = append(out, g)
		}
		g.snaps = append(g.snaps, s)
	}
	return out
}

// judge applies a policy.
func (g *series) judge(p *retention.Policy) {
	items := make([]retention.Item, len(g.snaps))
	for i, s := range g.snaps {
		items[i] = retention.Item{Time: s.Time(), Tags: s.Meta.Tags, Received: s.Received, Imported: !s.Imported.IsZero()}
	}
	for _, v := range p.Apply(items, time.Local) {
		g.reasons = append(g.reasons, v.Reasons)
	}
}

// gone returns the snapshots that nothing keeps.
func (g *series) gone() []*repo.Snapshot {
	var out []*repo.Snapshot
	for i, s := range g.snaps {
		if len(g.reasons[i]) == 0 {
			out = append(out, s)
		}
	}
	return out
}

func (g *series) showTable(w io.Writer) error {
	gone := len(g.gone())
	fmt.Fprintf(w, "%s: keep %d, remove %d\n", g.name, len(g.snaps)-gone, gone)
	rows := make([][]string, len(g.snaps))
	for i, s := range g.snaps {
		action := "keep"
		if len(g.reasons[i]) == 0 {
			action = "remove"
		}
		paths := make([]string, len(s.Meta.Roots))
		for n, p := range s.Meta.Roots {
			paths[n] = cli.Printable("/" + p)
		}
		rows[i] = []string{action, s.ID.Short(), shownTime(s), cli.Printable(s.Meta.Host), cli.Printable(strings.Join(s.Meta.Tags, ",")),
			cli.Bytes(s.Bytes), cli.Printable(strings.Join(g.reasons[i], ", ")), strings.Join(paths, " ")}
	}
	return cli.Table(w, []string{"", "ID", "TIME", "HOST", "TAGS", "SIZE", "STAYS AS", "PATHS"}, rows, map[int]bool{5: true})
}

func (g *series) showJSON(w io.Writer, dry bool) error {
	enc := json.NewEncoder(w)
	for i, s := range g.snaps {
		object := cli.SnapshotJSON(&s.Meta)
		object["entries"], object["bytes"] = s.Entries, s.Bytes
		object["keep"] = len(g.reasons[i]) > 0
		object["reasons"] = append([]string{}, g.reasons[i]...)
		object["dry_run"] = dry
		if err := enc.Encode(object); err != nil {
			return err
		}
	}
	return nil
}
