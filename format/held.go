package format

import (
	"slices"
	"strings"
)

// HeldID is an id of a snapshot that a target holds.
type HeldID struct {
	ID ID
	// Changed says that the snapshot came under this id and was changed since: a
	// difference to it finds no parent there.
	Changed bool
	// Through is the stage that a snapshot of this id went through to become what
	// the target holds, the last one of several; "" if it is the same snapshot.
	Through string
}

// HeldAs returns the ids that a snapshot goes by where it is held, as its record
// there says: its own, and the newest first those of its via (spec/stream.md,
// section 14). Repositories that it only lay in are no stages that changed it.
func HeldAs(s *Snapshot) []HeldID {
	ids := []HeldID{{ID: s.ID}}
	through := ""
	for _, v := range slices.Backward(s.Via) {
		if system, _, _ := strings.Cut(v.Stage, " "); through == "" && !strings.HasSuffix(system, "-repository") {
			through = v.Stage
		}
		ids = append(ids, HeldID{ID: v.From, Through: through})
	}
	return ids
}
