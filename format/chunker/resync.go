package chunker

import (
	"errors"
	"fmt"
)

// Change says that Old bytes at offset At of the old file are New bytes in the
// new one. All else is the same, in the same order: Old = New overwrites,
// Old = 0 inserts (at the end: appends), New = 0 deletes (to the end: truncates).
type Change struct {
	At, Old, New int64
}

// Step is what a Resync waits for.
type Step int

const (
	// StepOffer wants the length of the next old chunk, by Resync.Offer.
	StepOffer Step = iota
	// StepCut wants the length of the chunk of the new file that begins at
	// Resync.Offset, by Resync.Cut. The splitter was reset there or has cut.
	StepCut
	// StepDone says that the new file is covered. What is left of the old
	// chunks is not needed.
	StepDone
)

// Resync turns the chunks of an old file into those of a new one and has only
// the places cut again where they may differ. What results is what cutting all
// of the new file would give, as long as the old chunks are the cuts of the
// same splitter with the same secret.
//
// It goes by one property of splitters, which buzhash lacks: a cut depends on the
// bytes since the last cut alone. So a chunk stays if its bytes did not change and it begins at
// a cut, and cutting again ends as soon as it meets a cut of the old file
// behind the change. Fixed splitters are no special case; after a shift by other
// than a multiple of their length they simply never meet one.
//
// Its memory does not grow with the number of chunks. The caller looks at Step
// and serves it until StepDone; ExampleResync shows the loop.
type Resync struct {
	oldSize, newSize int64
	changes          []Change
	next             int   // the first change that is not wholly before newAt
	shift            int64 // new offset less old offset, behind the changes before next
	oldAt            int64 // the end of the old chunks offered so far
	newAt            int64 // the end of the new chunks known so far
}

// NewResync takes the old file's size and the changes in the order of their
// offsets, none overlapping the one before. It keeps the slice.
func NewResync(oldSize int64, changes []Change) (*Resync, error) {
	if oldSize < 0 {
		return nil, fmt.Errorf("resync: the old size %d is negative", oldSize)
	}
	newSize, end := oldSize, int64(0)
	for i, c := range changes {
		if c.At < end || c.Old < 0 || c.New < 0 || c.At > oldSize || c.Old > oldSize-c.At {
			return nil, fmt.Errorf("resync: change %d (%d bytes at %d become %d) lies outside the %d old bytes or reaches into the change before", i, c.Old, c.At, c.New, oldSize)
		}
		end = c.At + c.Old
		newSize -= c.Old
		if newSize+c.New < newSize {
			return nil, fmt.Errorf("resync: change %d makes the file longer than 2^63 bytes", i)
		}
		newSize += c.New
	}
	return &Resync{oldSize: oldSize, newSize: newSize, changes: changes}, nil
}

// Size returns the new file's size.
func (r *Resync) Size() int64 { return r.newSize }

// Offset returns where in the new file the next chunk begins.
func (r *Resync) Offset() int64 { return r.newAt }

// Step says what is to be done next.
func (r *Resync) Step() Step {
	if r.newAt == r.newSize {
		return StepDone
	}
	at, same := r.match()
	if same && r.oldAt <= at {
		return StepOffer
	}
	return StepCut
}

// match returns the old offset of the new file's offset newAt, or false if the
// byte there is a changed one. Where bytes were deleted both ends of the gap
// match; it returns the later one, from which the files go on alike.
func (r *Resync) match() (int64, bool) {
	for r.next < len(r.changes) {
		c := r.changes[r.next]
		begin := c.At + r.shift
		if r.newAt < begin {
			break
		}
		if r.newAt < begin+c.New {
			return 0, false
		}
		r.next++
		r.shift += c.New - c.Old
	}
	return r.newAt - r.shift, true
}

// Offer takes the length of the next old chunk and says whether it is the next
// chunk of the new file. If not, it is not a chunk of the new file in this
// place, and the next step goes on without it.
func (r *Resync) Offer(size int64) (keep bool, err error) {
	if r.Step() != StepOffer {
		return false, errors.New("resync: an old chunk was offered out of turn")
	}
	if size <= 0 || size > r.oldSize-r.oldAt {
		return false, fmt.Errorf("resync: an old chunk of %d bytes at offset %d does not fit a file of %d", size, r.oldAt, r.oldSize)
	}
	at, _ := r.match()
	begin, end := r.oldAt, r.oldAt+size
	r.oldAt = end
	if begin != at {
		return false, nil
	}
	if r.next < len(r.changes) && end > r.changes[r.next].At {
		return false, nil
	}
	// The old file's last chunk may have been cut by the end of the file, and
	// then says nothing if more follows.
	if end == r.oldSize && r.newAt+size != r.newSize {
		return false, nil
	}
	r.newAt += size
	return true, nil
}

// Cut takes the length of the new file's next chunk as the splitter cut it.
func (r *Resync) Cut(size int64) error {
	if r.Step() != StepCut {
		return errors.New("resync: a chunk was cut out of turn")
	}
	if size <= 0 || size > r.newSize-r.newAt {
		return fmt.Errorf("resync: a new chunk of %d bytes at offset %d does not fit a file of %d", size, r.newAt, r.newSize)
	}
	r.newAt += size
	return nil
}
