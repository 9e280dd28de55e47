package find

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo"
)

// searchRepo walks the listings of one history of a bk repository at once and
// hands out what it finds on its way. Own and history are the same snapshots.
func searchRepo(ctx context.Context, r *repo.Repository, own []*repo.Snapshot, history []*format.Snapshot, want *wanted, onGap func(repo.Gap), found func(*version) error) error {
	all, err := r.Versions(ctx, own, repo.VersionsOptions{Want: want.path, Skip: want.skip, OnGap: onGap})
	if err != nil {
		return err
	}
	defer all.Close()
	for {
		versions, err := all.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the listings: %w", err)
		}
		for _, v := range spans(versions, history, want) {
			if err := found(&v); err != nil {
				return err
			}
		}
	}
}

// spans cuts the versions of one path into runs of snapshots, by time. Versions
// that differ in nothing that counts are one.
func spans(versions []repo.Version, history []*format.Snapshot, want *wanted) (out []version) {
	for i := range versions {
		e, in := &versions[i].Entry, versions[i].In
		if !want.match(e) || slices.ContainsFunc(versions[:i], func(v repo.Version) bool { return v.Entry.Equal(e) }) {
			continue
		}
		for _, v := range versions[i+1:] {
			if v.Entry.Equal(e) {
				in = in.With(v.In)
			}
		}
		for from, to := range in.Runs() {
			out = append(out, version{path: e.Path, decoded: e, first: history[from], last: history[to-1], snapshots: to - from, from: from})
		}
	}
	slices.SortFunc(out, func(a, b version) int { return cmp.Compare(a.from, b.from) })
	return out
}
