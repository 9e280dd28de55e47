package transfer

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/filter"
	"github.com/bk-backup/bk/repo"
)

// run is one stream from a source to a target.
type run struct {
	base      format.ID // of the source; zero: none
	snapshots []format.ID
}

// held is what a target says about where its snapshots came from.
type held struct {
	// as are the ids under which it holds a snapshot as it came: they can be the
	// parent of a difference.
	as map[format.ID]bool
	// was are ids of snapshots that came like that and cannot be one: they were
	// rewritten since, or lack content.
	was map[format.ID]bool
	// other are ids of snapshots that came through a stage, by the last of their
	// stages.
	other map[format.ID]string
	// gone are all ids that lead to snapshots alone that were rewritten or lack
	// content: a difference to one of them, whatever stages it goes through, finds
	// no parent, or one with gaps that every later snapshot would take over, even
	// if the source is whole again.
	gone map[format.ID]bool
}

// lacks reports whether a part of a snapshot's content was lost on its way.
func lacks(s *repo.Snapshot) bool {
	return slices.ContainsFunc(s.Losses, func(l format.Loss) bool { return l.Kind == format.LossDamaged })
}

func heldBy(target *repo.Repository, list []*repo.Snapshot) held {
	h := held{make(map[format.ID]bool), make(map[format.ID]bool), make(map[format.ID]string), make(map[format.ID]bool)}
	own := target.ViaStage()
	led := make(map[format.ID]bool)
	for _, s := range list {
		same := s.SameIDs()
		whole := !lacks(s)
		for _, id := range same {
			if whole {
				h.as[id] = true
			} else {
				h.was[id], h.gone[id] = true, true
			}
		}
		via := s.Meta.Via
		rewritten := -1 // the last id under which it came, if it was rewritten since
		for i, v := range via {
			switch {
			case v.Stage != own:
				h.other[v.From] = via[len(via)-1].Stage
			case !slices.Contains(same, v.From):
				h.was[v.From] = true
				rewritten = i
			}
		}
		for i, v := range via {
			if i <= rewritten || !whole {
				h.gone[v.From] = true
			} else {
				led[v.From] = true
			}
		}
	}
	for id := range h.gone {
		if h.as[id] || led[id] {
			delete(h.gone, id)
		}
	}
	return h
}

// heldByForeign is heldBy for a target of another system, which lists the ids that
// its snapshots go by.
func heldByForeign(lines [][]format.HeldID) held {
	h := held{as: make(map[format.ID]bool), was: make(map[format.ID]bool), other: make(map[format.ID]string)}
	for _, ids := range lines {
		for _, id := range ids {
			switch {
			case id.Through != "":
				h.other[id.ID] = id.Through
			case id.Changed:
				h.was[id.ID] = true
			default:
				h.as[id.ID] = true
			}
		}
	}
	return h
}

// plan says which snapshots of a source are new to a target, and in which
// streams they go so that each is a small difference to the one before.
// description is that of the filter between them, "" if there is none.
//
// Snapshots of one host and the same roots are a series. A series of which the
// target holds something is a stream of its own, on the newest that it holds.
// All others are one stream, in which each chunk is sent once.
func plan(list []*format.Snapshot, h held, description string) (runs []run, kept int, err error) {
	mapped := func(id format.ID) format.ID {
		if description == "" {
			return id
		}
		return filter.MapID(id, description)
	}
	type series struct {
		base  format.ID
		isNew []format.ID
	}
	var all []*series
	byName := make(map[string]*series)
	var newest format.ID // that the target holds, of any series
	for _, s := range list {
		name := seriesName(s)
		one := byName[name]
		if one == nil {
			one = new(series)
			byName[name] = one
			all = append(all, one)
		}
		id := mapped(s.ID)
		switch {
		case h.as[id]:
			one.base, newest = s.ID, s.ID
			kept++
		case h.was[id]:
			kept++
		default:
			if stage, ok := h.other[s.ID]; ok {
				return nil, 0, changedFilter(s.ID, stage, description)
			}
			one.isNew = append(one.isNew, s.ID)
		}
	}
	rest := run{base: newest}
	for _, one := range all {
		switch {
		case len(one.isNew) == 0:
		case one.base.IsZero():
			rest.snapshots = append(rest.snapshots, one.isNew...)
		default:
			runs = append(runs, run{one.base, one.isNew})
		}
	}
	if len(rest.snapshots) > 0 {
		runs = append(runs, rest)
	}
	return runs, kept, nil
}

// inSeries puts snapshots of one host and the same roots together, in the order of
// the list and of the first of each series.
func inSeries(list []*format.Snapshot) (all [][]*format.Snapshot) {
	number := make(map[string]int)
	for _, s := range list {
		name := seriesName(s)
		n, ok := number[name]
		if !ok {
			n = len(all)
			number[name] = n
			all = append(all, nil)
		}
		all[n] = append(all[n], s)
	}
	return all
}

// seriesName is equal for snapshots of one host and the same roots.
func seriesName(s *format.Snapshot) string {
	roots := slices.Sorted(slices.Values(s.Roots))
	return s.Host + "\x00" + strings.Join(roots, "\x00")
}

func changedFilter(id format.ID, stage, description string) error {
	now := "without a filter"
	if description != "" {
		now = fmt.Sprintf("through %q", description)
	}
	return &cli.Error{
		Err: fmt.Errorf("snapshot %s came into the target through %q before, and now would come %s: that would mix two conversions of one history", id.Short(), cli.Printable(stage), now),
		Fix: "give the filter options of the first run again, or convert into another repository; to take more out of what is there, use bk-rewrite",
	}
}
