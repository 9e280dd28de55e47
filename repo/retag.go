package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/bk-backup/bk/format"
)

// Replaced is a snapshot and the one that stands in its place.
type Replaced struct{ Old, New *Snapshot }

// Retag changes the tags of snapshots to what tags makes of them. A snapshot is
// signed and never changes: a copy with other tags, and so with another id, is
// committed, and the old one forgotten. Snapshots whose tags stay as they are
// are left alone. known are the snapshots of the repository as List returned
// them.
//
// The copy lists the same entries and keeps time, host, origin and all else.
// It counts as imported under the id that the snapshot had first, so that
// whoever receives the old one again recognises it (spec/repository.md, 8).
//
// Copies are committed before what they replace is forgotten. What was replaced
// is returned also with an error. A crash in between leaves both.
func (r *Repository) Retag(ctx context.Context, known, snaps []*Snapshot, tags func(old []string) []string) (_ []Replaced, err error) {
	if err := r.keys.CheckWrite(); err != nil {
		return nil, err
	}
	var session *session
	defer func() {
		if session != nil {
			err = errors.Join(err, session.end())
		}
	}()
	var done []Replaced
	var old []*Snapshot
	for _, s := range snaps {
		after := tags(slices.Clone(s.Meta.Tags))
		if slices.Equal(after, s.Meta.Tags) {
			continue
		}
		if session == nil {
			if session, err = r.beginSession(ctx, known); err != nil {
				return nil, err
			}
		}
		replacement := r.retagged(s, after)
		if err = session.commit(ctx, replacement); err != nil {
			err = fmt.Errorf("change the tags of snapshot %s: %w", s.ID.Short(), err)
			break
		}
		done = append(done, Replaced{s, replacement})
		old = append(old, s)
	}
	// Also when interrupted: a snapshot and its copy should not both stay.
	return done, errors.Join(err, r.Forget(context.WithoutCancel(ctx), old, "replaced by a copy with other tags"))
}

// retagged returns a copy of a snapshot with other tags, not committed yet.
func (r *Repository) retagged(s *Snapshot, tags []string) *Snapshot {
	c := &Snapshot{Root: s.Root, Entries: s.Entries, Bytes: s.Bytes, Losses: cloneLosses(s.Losses), Imported: s.Imported}
	c.Meta = *s.Meta.Clone()
	c.Meta.Tags = tags
	if c.Imported.IsZero() {
		c.Imported = s.ID
	}
	if c.Meta.Origin == nil {
		repository := r.keys.Repository()
		c.Meta.Origin = &format.Origin{System: "bk", Repository: string(repository[:]), ID: string(s.ID[:])}
	}
	return c
}
