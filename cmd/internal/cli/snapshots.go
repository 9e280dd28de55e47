package cli

import (
	"context"
	"fmt"
	"strconv"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo"
)

// Snapshots are what a system holds, oldest first, as programs choose among it.
type Snapshots struct {
	System format.System
	List   []*format.Snapshot
	// Repo is the system if it is a bk repository, else nil.
	Repo *repo.Repository
	own  map[format.ID]*repo.Snapshot
	// unselected is how many there were before some were selected.
	unselected int
}

// OpenSnapshots opens the system that the flags name and lists what it holds of
// what sel selects. Snapshots that cannot be read are named, and make the exit
// code ExitLossy. The caller closes the system.
func (app *App) OpenSnapshots(ctx context.Context, f *SourceFlags, sel *SelectFlags) (*Snapshots, error) {
	selection, err := sel.Selection()
	if err != nil {
		return nil, err
	}
	system, err := app.OpenSystem(ctx, f)
	if err != nil {
		return nil, err
	}
	s, damage, err := ListSnapshots(ctx, system)
	if err != nil {
		system.Close()
		return nil, err
	}
	for _, d := range damage {
		app.WarnDamage(d)
		app.Lossy()
	}
	s.unselected = len(s.List)
	s.List = Select(s.List, selection)
	return s, nil
}

// ListSnapshots lists a system. Of a bk repository, snapshots that cannot be
// read are left out and returned as damage.
func ListSnapshots(ctx context.Context, system format.System) (*Snapshots, []repo.Damage, error) {
	s := &Snapshots{System: system}
	var isRepo bool
	if s.Repo, isRepo = system.(*repo.Repository); !isRepo {
		var err error
		s.List, err = system.Snapshots(ctx)
		return s, nil, err
	}
	// Listed once for both kinds of records.
	list, damage, err := s.Repo.List(ctx)
	s.own = make(map[format.ID]*repo.Snapshot, len(list))
	for _, snap := range list {
		s.own[snap.ID] = snap
		s.List = append(s.List, &snap.Meta)
	}
	return s, damage, err
}

// Resolve finds the snapshot that a name stands for.
func (s *Snapshots) Resolve(name string) (*format.Snapshot, error) {
	if len(s.List) == 0 && s.unselected > 0 {
		return nil, &Error{Op: "snapshot " + strconv.Quote(name), Err: fmt.Errorf("none of the %d snapshots matches what --host, --tag, --path and the like choose", s.unselected), Fix: "run bk-snapshots for the list"}
	}
	snap, err := Resolve(s.List, name)
	if err != nil {
		return nil, &Error{Err: err, Fix: "run bk-snapshots for the list"}
	}
	return snap, nil
}

// Choose returns the snapshots that names stand for, each once and in the order
// of the list, or all.
func (s *Snapshots) Choose(names []string, all bool) ([]*format.Snapshot, error) {
	if all {
		return s.List, nil
	}
	chosen := make(map[format.ID]bool)
	for _, name := range names {
		snap, err := s.Resolve(name)
		if err != nil {
			return nil, err
		}
		chosen[snap.ID] = true
	}
	var out []*format.Snapshot
	for _, snap := range s.List {
		if chosen[snap.ID] {
			out = append(out, snap)
		}
	}
	return out, nil
}

// Own returns a snapshot of a bk repository as package repo has it; nil for
// other systems.
func (s *Snapshots) Own(snap *format.Snapshot) *repo.Snapshot { return s.own[snap.ID] }

// OwnAll is Own for several.
func (s *Snapshots) OwnAll(list []*format.Snapshot) []*repo.Snapshot {
	out := make([]*repo.Snapshot, len(list))
	for i, snap := range list {
		out[i] = s.own[snap.ID]
	}
	return out
}
