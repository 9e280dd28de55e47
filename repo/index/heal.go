package index

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
)

// badRun is the error of a run that cannot be read as it was written.
type badRun struct {
	run *Run
	err error
}

// Error implements error.
func (e *badRun) Error() string { return e.err.Error() }

// Unwrap returns what is wrong with it.
func (e *badRun) Unwrap() error { return e.err }

// healsMax is how many damaged runs one look at the index may meet.
const healsMax = 2 * runsMax

// healed looks, and once more whenever it met a damaged run, of which another has
// taken the place.
func (c *Cache) healed(look func() error) error {
	for tries := 0; ; tries++ {
		err := look()
		if err == nil {
			return nil
		}
		var bad *badRun
		if !errors.As(err, &bad) || tries == healsMax {
			return err
		}
		if err := c.heal(bad); err != nil {
			return err
		}
	}
}

// heal replaces a damaged run, unless somebody else did meanwhile.
func (c *Cache) heal(bad *badRun) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Contains(c.runs, bad.run) {
		return nil
	}
	if c.marked || c.fetch == nil {
		return bad.run.beyondHelp(bad.err)
	}
	return c.rebuild(context.Background(), bad.run)
}

// beyondHelp is the error of a damaged run that cannot be replaced now, since
// marks name its records by their places. It leaves the cache at least.
func (r *Run) beyondHelp(err error) error {
	if r.shelf == shelfKept {
		os.Remove(r.path)
	}
	return fmt.Errorf("%w; it was removed, and the next run makes it anew", err)
}

// rebuild drops a damaged run, and reads what it covered from storage again. Of
// what has vanished there, another index object stands in for it by now: until
// somebody refreshes the cache, its chunks are as those that others have just
// stored. The new run is not kept, as the disk may go on like that; the next
// program makes one that is.
func (c *Cache) rebuild(ctx context.Context, run *Run) error {
	c.runs = slices.DeleteFunc(c.runs, func(r *Run) bool { return r == run })
	covered := make(map[[32]byte]bool)
	for _, r := range c.runs {
		r.Covers(func(name [32]byte) { covered[name] = true })
	}
	var names [][32]byte
	run.Covers(func(name [32]byte) {
		if !covered[name] {
			names = append(names, name)
		}
	})
	c.remove(run)
	c.keeps = false
	_, err := c.cover(ctx, names)
	return err
}

// Verify reads all records, and replaces the runs that are damaged. Whoever makes
// marks, which fail at a damaged run, calls it before.
func (c *Cache) Verify(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range slices.Clone(c.runs) {
		if r.verifyAll() == nil {
			continue
		}
		if err := c.rebuild(ctx, r); err != nil {
			return err
		}
	}
	return nil
}
