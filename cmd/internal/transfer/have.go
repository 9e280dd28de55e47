package transfer

import (
	"bufio"
	"os"
	"slices"
	"strings"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo"
)

// have is the list of what a receiver holds, as bk-import --list-imported writes
// it (spec/stream.md, section 14).
type have struct {
	ids     map[format.ID]bool // of all snapshots that it holds
	parents map[format.ID]bool // those of ids that a difference can be based on
	arrived arrived
}

// arrived is what came of snapshots that were cut off: chunks by snapshots. It
// takes about 40 bytes for each chunk.
type arrived map[format.ID]map[format.ID]struct{}

// of reports whether anything came of one of these snapshots.
func (a arrived) of(ids []format.ID) bool {
	for _, id := range ids {
		if len(a[id]) > 0 {
			return true
		}
	}
	return false
}

// has is format.ExportOptions.Arrived.
func (a arrived) has(snapshot, chunk format.ID) bool {
	_, ok := a[snapshot][chunk]
	return ok
}

// add notes chunks that came of the snapshot with any of these ids.
func (a arrived) add(ids, chunks []format.ID) {
	var set map[format.ID]struct{}
	for _, id := range ids {
		if a[id] != nil {
			set = a[id]
		}
	}
	if set == nil {
		set = make(map[format.ID]struct{}, len(chunks))
	}
	for _, id := range ids {
		a[id] = set
	}
	for _, id := range chunks {
		set[id] = struct{}{}
	}
}

// addRefs notes what a repository says that came.
func (a arrived) addRefs(p repo.Partial) {
	ids := make([]format.ID, len(p.Chunks))
	for i, ref := range p.Chunks {
		ids[i] = ref.ID
	}
	a.add(p.IDs, ids)
}

// readHave reads such a list; - is standard input.
func readHave(file string) (h have, err error) {
	in := os.Stdin
	if file != "-" {
		if in, err = os.Open(file); err != nil {
			return h, &cli.Error{Op: "read the list of what the receiver has", Err: err}
		}
		defer in.Close()
	}
	h = have{make(map[format.ID]bool), make(map[format.ID]bool), make(arrived)}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20) // every stage that a snapshot went through adds to its line
	for lines.Scan() {
		if err := h.line(lines.Text()); err != nil {
			return h, cli.Usagef("--have %s: %w", file, err)
		}
	}
	if err := lines.Err(); err != nil {
		return h, &cli.Error{Op: "read the list of what the receiver has", Err: err}
	}
	return h, nil
}

func (h *have) line(text string) error {
	var partial, chunks []format.ID
	for word := range strings.FieldsSeq(text) {
		digits := strings.TrimLeft(word, noParent+partialOf+partialChunk)
		id, err := format.ParseID(digits)
		if err != nil {
			return err
		}
		switch word[:len(word)-len(digits)] {
		case "":
			h.ids[id], h.parents[id] = true, true
		case noParent:
			h.ids[id] = true
		case partialOf:
			partial = append(partial, id)
		case partialChunk:
			chunks = append(chunks, id)
		default:
			return format.Errorf(format.ClassField, "%q is no id", word)
		}
	}
	if len(partial) > 0 {
		h.arrived.add(partial, chunks)
	}
	return nil
}

// leaveOut takes what the receiver holds out of a list, and puts what is left of
// each series together, so that a snapshot is a small difference to the one before.
// base is the newest that the receiver holds of the first series with something
// new, which is one that it holds something of if there is any.
func (h *have) leaveOut(list []*format.Snapshot) (rest []*format.Snapshot, base format.ID) {
	based := -1
	all := inSeries(list)
	bases := make([]format.ID, len(all))
	for i, one := range all {
		all[i] = slices.DeleteFunc(one, func(s *format.Snapshot) bool {
			if h.parents[s.ID] {
				bases[i] = s.ID
			}
			return h.ids[s.ID]
		})
		if based < 0 && len(all[i]) > 0 && !bases[i].IsZero() {
			based = i
		}
	}
	if based < 0 {
		for _, s := range list {
			if h.parents[s.ID] {
				base = s.ID
			}
		}
	} else {
		base, rest = bases[based], all[based]
		all[based] = nil
	}
	return append(rest, slices.Concat(all...)...), base
}
