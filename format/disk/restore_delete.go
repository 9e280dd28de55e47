//go:build linux

package disk

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/bk-backup/bk/format"
)

// prune removes what the target has below the snapshot's roots and the listing
// does not. It runs when the snapshot is complete, so that a stream that is cut
// off removes nothing.
func (r *Restore) prune() error {
	root := r.stack0()
	if root < 0 {
		return nil // a dry run into a target that is not there
	}
	names, err := readNames(root, -1)
	if err != nil {
		return fmt.Errorf("restore: list the target %s: %w", r.target, err)
	}
	c := r.newPruner()
	listed := c.visit
	c.visit = func(dirfd int, name, p string, st *unix.Stat_t) (keep, gone bool, err error) {
		if _, ok, err := r.history.at(p); ok || err != nil {
			return true, false, err
		}
		if !r.prunable(p) {
			return true, false, nil
		}
		return listed(dirfd, name, p, st)
	}
	c.enter = func(p string) bool {
		_, ok, err := r.history.at(p)
		if err != nil {
			return false
		}
		if !ok && (!r.prunable(p) || r.protected(p, true)) {
			return false
		}
		return r.leadsToRoot(p)
	}
	for _, name := range names {
		if name == r.history.asideName {
			continue
		}
		if _, err := c.remove(root, name, name); err != nil {
			return fmt.Errorf("restore: delete what is not in the snapshot: %w", err)
		}
	}
	return nil
}

// newPruner returns a clearer that removes everything that is not protected.
func (r *Restore) newPruner() *clearer {
	dry := r.opts.DryRun
	c := &clearer{
		readOnly: dry,
		enter:    func(p string) bool { return !r.protected(p, true) },
		visit: func(_ int, _, p string, st *unix.Stat_t) (keep, gone bool, err error) {
			if r.protected(p, st.Mode&unix.S_IFMT == unix.S_IFDIR) {
				return true, false, nil
			}
			if dry {
				r.removed(p)
			}
			return dry, false, nil
		},
		removed: r.removed,
		failed:  func(p string, err error) { r.report.problem(LossUnwritable, p, err) },
	}
	return c
}

func (r *Restore) protected(p string, isDir bool) bool {
	return r.opts.Protect != nil && r.opts.Protect(r.inListing(p), isDir)
}

// prunable reports whether the listing is complete where p lies, so that what it
// lacks is to go.
func (r *Restore) prunable(p string) bool {
	if len(r.snapshot.roots) == 0 {
		return r.knownBelow(format.ParentPath(p))
	}
	for _, root := range r.snapshot.roots {
		if format.IsBelow(p, root) {
			return true
		}
	}
	return false
}

// knownBelow reports whether a directory, or one that it lies in and that the
// listing does not have, was given by an entry.
func (r *Restore) knownBelow(dir string) bool {
	for {
		pl, ok, err := r.history.at(dir)
		if err != nil {
			return false
		}
		if ok || dir == "" {
			return pl.flags&placeExplicit != 0
		}
		dir = format.ParentPath(dir)
	}
}

// leadsToRoot reports whether a directory is a root, or lies below or above one.
func (r *Restore) leadsToRoot(p string) bool {
	if len(r.snapshot.roots) == 0 {
		return true
	}
	for _, root := range r.snapshot.roots {
		if root == p || format.IsBelow(p, root) || format.IsBelow(root, p) {
			return true
		}
	}
	return false
}
