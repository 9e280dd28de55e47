package backup

import (
	"context"
	"errors"
	"path"
	"strings"

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
// /home/me, its listing has me, or what lies in it. borg does the same.
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
	for _, name := range names {
		if name == "" {
			return "", nil
		}
		if found, err := has(name); found || err != nil {
			return "", err
		}
	}
	// What the listing has of the first path, the longest end of it, says where
	// the working directory was; the other paths have to agree.
	for above, rest := "", names[0]; rest != ""; {
		first, below, _ := strings.Cut(rest, "/")
		above, rest = path.Join(above, first), below
		all := rest != ""
		for _, name := range names {
			if all = all && format.IsBelow(name, above); !all {
				break
			}
			if all, err = has(name[len(above)+1:]); err != nil {
				return "", err
			}
		}
		if all {
			return above, nil
		}
	}
	if len(names) == 1 {
		return names[0], nil
	}
	return "", nil
}
