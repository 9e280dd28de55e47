package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
)

// copiedKinds are the small objects that nothing else tells the content of, so
// that only a copy of the repository can bring them back.
var copiedKinds = []seal.Kind{
	seal.KindConfig, seal.KindCredential, seal.KindClient, seal.KindSnapshot, seal.KindForget, seal.KindDamage,
}

// wantedObjects are small objects that are damaged or hidden.
type wantedObjects struct {
	names     []string             // on storage, of those that are known
	damaged   map[string]bool      // of these, those that are there
	snapshots map[format.ID]string // hidden ones of which only the id is known, and what they were found by
	forgotten *forgottenSet
}

// wantObjects gathers what copies are asked for. What was forgotten is not.
func (p *repairer) wantObjects() (*wantedObjects, error) {
	w := &wantedObjects{damaged: make(map[string]bool), snapshots: make(map[format.ID]string)}
	for about, f := range p.findings {
		name, ok := seal.ParseName(f.Object)
		switch {
		case f.What == Hidden && !f.Snapshot.IsZero():
			w.snapshots[f.Snapshot] = about
		case !ok || !slices.Contains(copiedKinds, name.Kind):
		case f.What == Hidden:
			w.names = append(w.names, f.Object)
		case f.What == Damaged && p.ropts.isDamage(f.Err):
			w.names = append(w.names, f.Object)
			w.damaged[f.Object] = true
		}
	}
	slices.Sort(w.names)
	if len(w.names)+len(w.snapshots) == 0 {
		return w, nil
	}
	var err error
	w.forgotten, err = p.r.forgotten(p.ctx)
	return w, err
}

// restoreObjects takes damaged and hidden objects again from copies of the
// repository. Snapshots says whether some of these are snapshots, which may need
// what is lost.
func (p *repairer) restoreObjects() (snapshots bool, err error) {
	w, err := p.wantObjects()
	for _, source := range p.ropts.From {
		from, ok := source.(*Repository)
		if err != nil || len(w.names)+len(w.snapshots) == 0 {
			break
		}
		if !ok || from.keys.Repository() != p.r.keys.Repository() || from.keys.Client() != p.r.keys.Client() {
			continue
		}
		var found bool
		found, err = p.restoreFrom(from, w)
		snapshots = snapshots || found
	}
	if err != nil {
		return snapshots, fmt.Errorf("take objects from a copy: %w", err)
	}
	return snapshots, nil
}

func (p *repairer) restoreFrom(from *Repository, w *wantedObjects) (snapshots bool, err error) {
	copied, err := from.copiedSnapshots(p.ctx)
	if err != nil {
		return false, err
	}
	var rest []string
	for _, name := range w.names {
		source := name
		if n, _ := seal.ParseName(name); n.Kind == seal.KindSnapshot {
			s := copied[slotName(name)]
			if s == nil || w.forgotten.ids[s.ID] {
				rest = append(rest, name)
				continue
			}
			source, snapshots = s.objectName(), true
		}
		had, err := p.putBack(from, source, name, w.damaged[name])
		if err != nil {
			return snapshots, err
		}
		if !had {
			rest = append(rest, name)
		}
	}
	w.names = rest
	for _, s := range copied {
		about, wanted := w.snapshots[s.ID]
		if !wanted || w.forgotten.ids[s.ID] {
			continue
		}
		had, err := p.putBack(from, s.objectName(), about, false)
		if err != nil {
			return snapshots, err
		}
		if had {
			snapshots = true
			delete(w.snapshots, s.ID)
		}
	}
	return snapshots, nil
}

// putBack stores an object of a copy here. What it stands in for goes: before, if
// it has the same name, or else afterwards. About is the finding that it settles.
func (p *repairer) putBack(from *Repository, source, about string, isDamaged bool) (had bool, err error) {
	stored, err := from.wholeObject(p.ctx, source)
	if err != nil {
		return false, context.Cause(p.ctx) // it is not there, or no better there
	}
	p.sum.Objects = append(p.sum.Objects, about)
	if p.ropts.DryRun {
		return true, nil
	}
	remove := func() error {
		if err := p.r.store.Delete(p.ctx, about); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		return nil
	}
	if isDamaged && about == source {
		if err := remove(); err != nil {
			return true, err
		}
	}
	if err := p.r.store.Create(p.ctx, source, stored); err != nil && !errors.Is(err, store.ErrExists) {
		return true, err
	}
	if isDamaged && about != source {
		return true, remove()
	}
	return true, nil
}

// copiedSnapshots returns the snapshots that can be read, by their slots.
func (r *Repository) copiedSnapshots(ctx context.Context) (map[string]*Snapshot, error) {
	list, _, err := r.List(ctx)
	if err != nil {
		return nil, err
	}
	bySlot := make(map[string]*Snapshot, len(list))
	for _, s := range list {
		bySlot[s.slot().String()] = s
	}
	return bySlot, nil
}

// wholeObject returns a small object as it is stored, if it is what its name says.
func (r *Repository) wholeObject(ctx context.Context, name string) ([]byte, error) {
	info, err := r.store.Stat(ctx, name)
	if err == nil {
		err = r.checkObject(ctx, info)
	}
	if err != nil {
		return nil, err
	}
	stored, err := r.store.Get(ctx, name, seal.ObjectSizeMax)
	if err == nil {
		err = seal.Scrub(name, stored)
	}
	return stored, err
}
