//go:build linux

package disk

import (
	"errors"
	"fmt"
	"path"

	"golang.org/x/sys/unix"

	"github.com/bk-backup/bk/format"
)

// snapshotState is what a restore knows about the snapshot that it is in.
type snapshotState struct {
	index    int // of this stream
	id       format.ID
	parent   format.ID
	roots    []string // relative to the target
	unsorted bool
	last     string // path of the last entry or remove
	leaf     string // path of the last entry that is not a directory
	begun    bool   // whether there was any
	removed  bool   // the last was a remove
	matched  bool   // something lay inside the prefix
	matchDir bool   // and it was a directory, or something below one
}

func (r *Restore) header(h *format.Header) error {
	r.features = make(map[format.Feature]bool)
	for _, f := range h.Features {
		r.features[f] = true
	}
	r.chunks.never = r.features[format.FeatureFlat]
	r.stage = atSnapshot
	return nil
}

func (r *Restore) begin(s *format.Snapshot) error {
	last, index := r.snapshot.id, r.snapshot.index
	if r.history.any {
		index++
	}
	switch {
	case s.Parent.IsZero():
	case !r.history.any && (r.opts.Base.IsZero() || s.Parent != r.opts.Base):
		return format.Errorf(format.ClassParent,
			"the snapshot is a difference to snapshot %s, which the target is not known to hold; make the stream without a base", s.Parent)
	case !r.history.any && r.opts.Delete:
		return errors.New("restore: what a difference to what the target holds does not name cannot be deleted: " +
			"restore a whole snapshot, or without delete")
	case r.history.any && s.Parent != last:
		return format.Errorf(format.ClassParent, "the parent %s is not the snapshot before", s.Parent)
	}
	r.snapshot = snapshotState{index: index, id: s.ID, parent: s.Parent, unsorted: s.Unsorted}
	r.placed = false
	for _, root := range s.Roots {
		if rel, ok := r.inTarget(root, true); ok {
			r.snapshot.roots = append(r.snapshot.roots, rel)
		} else if format.IsBelow(r.opts.Prefix, root) {
			r.snapshot.roots = append(r.snapshot.roots, "")
		}
	}
	r.report.expect(s.Estimate)
	r.stage = inSnapshot
	return r.history.begin(r)
}

// inTarget turns a path of the listing into one relative to the target, and
// reports whether it lies inside the prefix at all.
func (r *Restore) inTarget(p string, isDir bool) (string, bool) {
	switch {
	case r.opts.Prefix == "":
		return p, true
	case format.IsBelow(p, r.opts.Prefix):
		return p[len(r.opts.Prefix)+1:], true
	case p != r.opts.Prefix:
		return "", false
	case isDir:
		return "", true
	}
	return path.Base(p), true
}

// inListing is the reverse of inTarget, for what lies below a directory.
func (r *Restore) inListing(p string) string {
	if r.opts.Prefix == "" {
		return p
	}
	return r.opts.Prefix + "/" + p
}

// order holds that paths ascend, where the snapshot says so, and that nothing
// lies below what is not a directory. A path comes twice only where a remove and
// then the entry of a directory say that it begins empty.
func (r *Restore) order(p string, kind format.Kind, isDir bool) error {
	s := &r.snapshot
	if err := format.CheckPath(p); err != nil {
		return err
	}
	emptied := s.removed && isDir && s.last == p
	if s.begun && !s.unsorted {
		if format.ComparePaths(s.last, p) >= 0 && !emptied {
			e := format.Errorf(format.ClassOrder, "it comes after %q", s.last)
			e.Path = p
			return e
		}
		if kind == format.KindEntry && s.leaf != "" && format.IsBelow(p, s.leaf) {
			return treeError(p, s.leaf)
		}
	}
	s.begun, s.last, s.removed = true, p, kind == format.KindRemove
	if kind == format.KindEntry && !isDir {
		s.leaf = p
	}
	return nil
}

func treeError(p, above string) error {
	e := format.Errorf(format.ClassTree, "it lies below %q, which is not a directory", above)
	e.Path = p
	return e
}

func (r *Restore) entry(e *format.Entry) error {
	isDir := e.Type == format.TypeDir
	if err := r.order(e.Path, format.KindEntry, isDir); err != nil {
		return err
	}
	if e.Path == "" && !isDir {
		return treeError(e.Path, "")
	}
	p, inside := r.inTarget(e.Path, isDir)
	r.path, r.placed = p, inside
	if e.Type == format.TypeFile {
		r.stage = inFile
	}
	if !inside {
		if e.Type == format.TypeFile {
			r.outsideEntry(e)
		}
		return nil
	}
	r.snapshot.matched = true
	r.snapshot.matchDir = r.snapshot.matchDir || isDir || e.Path != r.opts.Prefix
	if len(e.Extra) > 0 {
		r.report.problem(LossExtension, p, fmt.Errorf("it has the key %q", e.Extra[0].Key))
	}
	m := r.metadataOf(e)
	switch e.Type {
	case format.TypeDir:
		return r.dirEntry(p, m)
	case format.TypeFile:
		return r.fileEntry(p, e, m)
	}
	return r.nodeEntry(p, e, m)
}

func (r *Restore) dirEntry(p string, m *metadata) error {
	if p == "" {
		return r.targetEntry(m)
	}
	top := r.stack[len(r.stack)-1]
	if top.path == p || format.IsBelow(top.path, p) {
		// Unsorted: it was implied by what came before, and is still open.
		d, err := r.enter(p)
		if err != nil || d.dead != nil {
			return err
		}
		d.meta, d.explicit = m, true
		r.countDir(d, m, ActionUnchanged)
		return r.history.explicit(p)
	}
	parent, err := r.enter(format.ParentPath(p))
	if err != nil {
		return err
	}
	_, err = r.push(parent, path.Base(p), p, m)
	return err
}

// targetEntry is the entry of what the target itself stands for.
func (r *Restore) targetEntry(m *metadata) error {
	d, err := r.enter("")
	if err != nil {
		return err
	}
	action := ActionUnchanged
	switch {
	case d.fresh && d.before.stat == nil:
		action = ActionCreated
		d.meta = m
	case r.history.targetEmpty:
		d.meta = m
	}
	r.countDir(d, m, action)
	return r.history.explicit("")
}

func (r *Restore) remove(rec *format.Remove) error {
	if err := r.order(rec.Path, format.KindRemove, false); err != nil {
		return err
	}
	if p, inside := r.inTarget(rec.Path, true); inside {
		return r.history.remove(r, p)
	}
	if format.IsBelow(r.opts.Prefix, rec.Path) {
		return r.history.remove(r, "")
	}
	return nil
}

func (r *Restore) commit(c *format.Commit) error {
	if err := r.drain(); err != nil {
		return err
	}
	if r.opts.Prefix != "" && !r.snapshot.matched && r.snapshot.parent.IsZero() {
		return fmt.Errorf("restore: the snapshot %s has nothing at %s", r.snapshot.id.Short(), r.opts.Prefix)
	}
	for len(r.stack) > 1 {
		if err := r.pop(); err != nil {
			return err
		}
	}
	if err := r.history.settle(r); err != nil {
		return err
	}
	if r.opts.Delete && r.snapshot.matchDir {
		if err := r.prune(); err != nil {
			return err
		}
	}
	if r.opts.Sync && !r.opts.DryRun {
		if err := unix.Syncfs(r.stack[0].fd); err != nil {
			return fmt.Errorf("restore: flush the file system of %s: %w", r.target, err)
		}
	}
	r.report.committed(c.Losses)
	r.stage = atSnapshot
	return nil
}
