package backup

import (
	"context"
	"fmt"
	"time"

	"github.com/bk-backup/bk/cmd/internal/chunkers"
	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/disk"
	"github.com/bk-backup/bk/repo"
)

// toRepository makes a snapshot in a repository.
func (c *Backup) toRepository(ctx context.Context, app *cli.App, opts disk.ScanOptions) error {
	begun := time.Now()
	receipt, err := app.OpenReceipt(&c.ReceiptFlag)
	if err != nil {
		return err
	}
	r, err := app.OpenRepo(ctx, &c.RepoFlags, cli.RoleSource)
	if err != nil {
		return err
	}
	defer r.Close()
	own := r.Keyring().Own()
	if opts.ChunkerFor, err = chunkers.New(r.Splitters, own.Chunker, own.Rules, c.Chunker); err != nil {
		return err
	}
	list, damage, err := r.List(ctx)
	if err != nil {
		return err
	}
	for _, d := range damage {
		app.WarnDamage(d)
	}
	parent, err := c.predecessor(list, &opts)
	if err != nil {
		return err
	}
	if parent, err = wholeParent(ctx, app, r, parent); err != nil {
		return err
	}
	opts.OnProgress = app.Progress()
	if c.ReadAll {
		parent = nil
	}
	level, _, err := app.Compression(r, c.Compression)
	if err != nil {
		return err
	}
	var sink *repo.Sink
	if !c.DryRun {
		if sink, err = r.Import(ctx, repo.ImportOptions{Backup: true, Compression: level, Known: list}); err != nil {
			return err
		}
		defer sink.Close()
	}
	if parent != nil {
		listing, err := listingOf(ctx, r, sink, parent, opts.Roots)
		if err != nil {
			return err
		}
		defer listing.Close()
		opts.Previous, opts.Snapshot.Parent = listing, parent.ID
	}
	if c.DryRun {
		return c.dryRun(ctx, app, opts)
	}
	var stats disk.ScanStats
	err = c.scan(ctx, opts, func(src format.Source) error {
		defer func() { stats = src.(*disk.Scanner).Stats() }()
		return format.Copy(ctx, sink, src)
	})
	if closeErr := sink.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	report(app, sink.Summary(), stats, parent, time.Since(begun))
	return receipt.Write(r, sink.Summary().Snapshots)
}

// wholeParent returns the parent unless something of it is known to be lost.
// Everything is then read again, and what is still as it was then heals the
// snapshots that lost it.
func wholeParent(ctx context.Context, app *cli.App, r *repo.Repository, parent *repo.Snapshot) (*repo.Snapshot, error) {
	if parent == nil {
		return nil, nil
	}
	lost, err := r.HasLost(ctx, parent)
	if err != nil || !lost {
		return parent, err
	}
	app.Warnf("a part of snapshot %s is known to be lost, so all files are read again", parent.ID.Short())
	return nil, nil
}

// report says how it went, and names what was lost.
func report(app *cli.App, sum repo.Imported, stats disk.ScanStats, parent *repo.Snapshot, took time.Duration) {
	app.ReportLosses(sum.Losses)
	if len(sum.Snapshots) != 1 {
		return
	}
	snap := sum.Snapshots[0]
	if app.JSON {
		fields := map[string]any{
			"snapshot": snap.ID.String(), "entries_new": stats.New, "entries_changed": stats.Changed,
			"entries_unchanged": stats.Unchanged, "entries_removed": stats.Removed, "files": stats.Files, "dirs": stats.Dirs,
			"bytes": snap.Bytes, "bytes_read": stats.BytesRead, "bytes_new": sum.NewBytes,
			"bytes_new_compressed": sum.PayloadBytes, "bytes_stored": sum.StoredBytes, "seconds": took.Seconds(),
		}
		if parent != nil {
			fields["parent"] = parent.ID.String()
		}
		app.JSONEvent("summary", fields)
		return
	}
	against := "nothing to compare with"
	if parent != nil {
		against = "compared with " + parent.ID.Short()
	}
	app.Sayf("snapshot %s: %s files, %s dirs, %s (%s)", snap.ID.Short(), cli.Count(stats.Files), cli.Count(stats.Dirs), cli.Bytes(snap.Bytes), against)
	app.Sayf("entries: %s new, %s changed, %s unchanged, %s removed", cli.Count(stats.New), cli.Count(stats.Changed), cli.Count(stats.Unchanged), cli.Count(stats.Removed))
	app.Sayf("content: %s read, %s of it new, %s compressed; %s stored in %s", cli.Bytes(stats.BytesRead), cli.Bytes(sum.NewBytes), cli.Bytes(sum.PayloadBytes), cli.Bytes(sum.StoredBytes), cli.Duration(took))
}

// dryRun lists what a backup would send.
func (c *Backup) dryRun(ctx context.Context, app *cli.App, opts disk.ScanOptions) error {
	var stats disk.ScanStats
	err := c.scan(ctx, opts, func(src format.Source) error {
		defer func() { stats = src.(*disk.Scanner).Stats() }()
		return format.Copy(ctx, &lister{app: app}, src)
	})
	if err != nil {
		return err
	}
	app.Sayf("would back up: %s new, %s changed, %s unchanged, %s removed; %s read", cli.Count(stats.New), cli.Count(stats.Changed), cli.Count(stats.Unchanged), cli.Count(stats.Removed), cli.Bytes(stats.BytesRead))
	return nil
}

// lister is a sink that prints paths.
type lister struct{ app *cli.App }

// Write implements format.Sink.
func (l *lister) Write(rec format.Record) error {
	var err error
	switch rec := rec.(type) {
	case *format.Entry:
		_, err = fmt.Fprintf(l.app.Stdout, "+ /%s\n", cli.Printable(rec.Path))
	case *format.Remove:
		_, err = fmt.Fprintf(l.app.Stdout, "- /%s\n", cli.Printable(rec.Path))
	}
	return err
}
