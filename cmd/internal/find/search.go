package find

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/bk-backup/bk/format"
)

// histories puts snapshots of one host and the same paths together, each oldest
// first as the list is; only those have much in common.
func histories(list []*format.Snapshot) [][]*format.Snapshot {
	var out [][]*format.Snapshot
	at := make(map[string]int)
	for _, s := range list {
		roots := slices.Sorted(slices.Values(s.Roots))
		key := s.Host + "\x00" + strings.Join(roots, "\x00")
		i, ok := at[key]
		if !ok {
			i = len(out)
			at[key] = i
			out = append(out, nil)
		}
		out[i] = append(out[i], s)
	}
	return out
}

// search walks the differences from snapshot to snapshot of one history, and then
// hands out what it found, by path and then by time.
func search(ctx context.Context, system format.System, history []*format.Snapshot, want *wanted, onProgress func(format.Progress), found func(*version) error) error {
	all, err := searchDifferences(ctx, system, history, want, onProgress)
	for i := 0; i < len(all) && err == nil; i++ {
		err = found(&all[i])
	}
	return err
}

func searchDifferences(ctx context.Context, system format.System, history []*format.Snapshot, want *wanted, onProgress func(format.Progress)) ([]version, error) {
	opts := format.ExportOptions{ListingOnly: true, Drop: want.drop, OnProgress: onProgress}
	for _, s := range history {
		opts.Snapshots = append(opts.Snapshots, s.ID)
	}
	src, err := system.Export(ctx, opts)
	if err != nil {
		return nil, fmt.Errorf("read the listings: %w", err)
	}
	defer src.Close()
	h := &versions{want: want, history: history}
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		rec, err := src.Next()
		if err == io.EOF {
			return nil, errors.New("read the listings: the source ended before its end record")
		}
		if err != nil {
			return nil, err
		}
		if _, ok := rec.(*format.End); ok {
			return h.finish(), nil
		}
		if err := h.record(rec); err != nil {
			return nil, err
		}
	}
}
