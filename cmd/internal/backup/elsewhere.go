package backup

import (
	"context"
	"errors"
	"path"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo"
)

// listingOf returns the listing that a backup of the roots is compared with, moved
// to where their entries are. sink is nil for a backup that writes nothing.
func listingOf(ctx context.Context, r *repo.Repository, sink *repo.Sink, parent *repo.Snapshot, roots []string) (*repo.Listing, error) {
	above, err := elsewhere(ctx, r, parent, roots)
	if err != nil {
		return nil, err
	}
	if above == "" || sink == nil {
		return r.Listing(ctx, parent, repo.ListingOptions{})
	}
	return sink.MoveParent(ctx, parent, above)
}

// elsewhere returns the path below which a snapshot's entries belong, so that they
// meet those of a backup of the roots; "" where they have their own places.
//
// Only other programs' snapshots need it. restic names what was given to it as a
// relative path from the working directory: the snapshot says that it is of
// /home/me, its listing has me, or what lies in it.
func elsewhere(ctx context.Context, r *repo.Repository, parent *repo.Snapshot, roots []string) (string, error) {
	names, err := rootNames(roots)
	if err != nil || len(names) == 0 || parent.Meta.Origin == nil || parent.Meta.Origin.System == "bk" {
		return "", err
	}
	has := func(path string) (bool, error) {
		_, err := r.File(ctx, parent, path)
		if errors.Is(err, repo.ErrNoEntry) {
			return false, nil
		}
		if errors.Is(err, repo.ErrNotFile) {
			err = nil
		}
		return err == nil, err
	}
	above, atTop := format.ParentPath(names[0]), true
	for _, name := range names {
		if name == "" {
			return "", nil
		}
		if found, err := has(name); found || err != nil {
			return "", err
		}
		found, err := has(path.Base(name))
		if err != nil {
			return "", err
		}
		atTop = atTop && found && format.ParentPath(name) == above
	}
	switch {
	case atTop:
		return above, nil
	case len(names) == 1:
		return names[0], nil
	}
	return "", nil
}
