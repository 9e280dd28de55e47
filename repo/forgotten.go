package repo

import (
	"context"
	"fmt"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/seal"
)

// forgottenSet is what signed records say was taken out of the repository.
type forgottenSet struct {
	ids map[format.ID]bool
	// slots are those that were emptied; the value says whether it is known which
	// snapshot lay there. It is not where one was given up that nobody could read.
	slots map[seal.Name]bool
	// named are snapshots that others named as those before them and that were
	// nowhere when one was given up: what was given up is among them, or nobody
	// named it.
	named map[format.ID]bool
	// unread counts those that were given up and of which settle knows no id.
	unread int
}

// forgotten reads all records. One that cannot be read is passed over.
func (r *Repository) forgotten(ctx context.Context) (*forgottenSet, error) {
	f := &forgottenSet{ids: make(map[format.ID]bool), slots: make(map[seal.Name]bool), named: make(map[format.ID]bool)}
	err := r.eachForget(ctx, func(body *forgetBody, err error) error {
		if err != nil {
			r.opts.Log.Warn("a record of what was forgotten cannot be read", "error", err)
			return nil
		}
		f.add(body)
		return nil
	})
	return f, err
}

func (f *forgottenSet) add(body *forgetBody) {
	for _, id := range body.Named {
		if len(id) == len(format.ID{}) {
			f.named[format.ID(id)] = true
		}
	}
	known := make([]bool, len(body.Snapshots))
	for i, id := range body.Snapshots {
		if len(id) == len(format.ID{}) && !format.ID(id).IsZero() {
			known[i], f.ids[format.ID(id)] = true, true
		}
	}
	body.eachSlot(func(i int, slot seal.Name) {
		f.slots[slot] = f.slots[slot] || i < len(known) && known[i]
	})
}

// has reports whether a snapshot that lay in a slot was forgotten, or given up.
func (f *forgottenSet) has(id format.ID, slot seal.Name) bool {
	known, emptied := f.slots[slot]
	return f.ids[id] || emptied && !known
}

// missingHead is a snapshot that another one names as the one before it.
type missingHead struct {
	id format.ID
	by *Snapshot
}

// missingHeads returns the snapshots that others name and that are neither there
// nor forgotten.
func (f *forgottenSet) missingHeads(list []*Snapshot) (missing []missingHead) {
	done := make(map[format.ID]bool, len(list))
	for _, s := range list {
		done[s.ID] = true
	}
	for _, s := range list {
		for _, head := range s.Heads {
			if !done[head] && !f.ids[head] {
				done[head] = true
				missing = append(missing, missingHead{head, s})
			}
		}
	}
	return missing
}

// settle finds out which snapshots were given up unread: those that others name
// and that were missing already when it was recorded. If these are more than were
// given up, storage hides some, and any of them may be hidden: none counts then.
func (f *forgottenSet) settle(list []*Snapshot) {
	f.unread = 0
	for _, known := range f.slots {
		if !known {
			f.unread++
		}
	}
	for _, s := range list { // a copy may have brought one back since
		if known, emptied := f.slots[s.slot()]; emptied && !known {
			f.unread--
		}
	}
	var given []format.ID
	for _, m := range f.missingHeads(list) {
		if f.named[m.id] {
			given = append(given, m.id)
		}
	}
	if len(given) > f.unread {
		return
	}
	f.unread -= len(given)
	for _, id := range given {
		f.ids[id] = true
	}
}

// note says of a snapshot that is missing what else may have become of it.
func (f *forgottenSet) note() string {
	if f.unread == 0 {
		return ""
	}
	return fmt.Sprintf(" (unless it is one of %d that could not be read and were given up)", f.unread)
}
