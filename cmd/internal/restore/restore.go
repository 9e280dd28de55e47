// Package restore is what bk-restore does: a snapshot of a repository, or a
// stream, into the file system. Start at Restore. Only that program imports it.
package restore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/cmd/internal/filterflags"
	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/disk"
	"github.com/bk-backup/bk/format/filter"
	"github.com/bk-backup/bk/repo"
)

// Restore is the program bk-restore.
type Restore struct {
	cli.SourceFlags `embed:""`
	cli.SelectFlags `embed:""`

	Snapshot string `arg:"" optional:"" name:"SNAPSHOT[:PATH]" help:"Snapshot: latest, latest~2, or the beginning of an id; with a path, only what lies there, placed into the target without the path before it."`
	Target   string `short:"t" required:"" placeholder:"DIR" help:"Directory to restore into."`
	Stdin    bool   `help:"Restore a stream from standard input; of several snapshots the last."`

	filterflags.PathFlags `embed:""`

	Overwrite    string `default:"if-changed" enum:"always,if-changed,if-newer,never" help:"What to do with files that are there: ${enum}. if-changed leaves those with the right size and time."`
	Delete       bool   `help:"Remove what lies in the target and not in the snapshot."`
	NumericOwner bool   `help:"Set owners by number, not by name."`
	Verify       bool   `help:"Read back and compare everything, also what seemed right already."`
	Sync         bool   `help:"Flush the target to its disk before saying that it is done."`
	Strict       bool   `help:"Restore nothing if anything would be lost: everything but content is first made in a directory beside, and taken away again."`
	DryRun       bool   `short:"n" help:"Change nothing; say what would be done."`

	lost uint64 // files of which the source lost a part
}

// Help is the longer text.
func (*Restore) Help() string {
	return `Nothing is ever written outside the target, whatever the snapshot or stream holds. Running a restore again goes on where an interrupted one stopped: files that are right already are left. What could not be set (owners, as an ordinary user) is named, and the exit code is 3; with --stdin also what the stream says was lost before, by whatever wrote it or stood in the pipe.

  bk-restore latest --target /mnt
  bk-restore latest:home/me/thesis -t ~/thesis.old
  zstdcat backup.bk.zst | bk-restore --stdin -t /mnt`
}

// Run restores.
func (c *Restore) Run(ctx context.Context, app *cli.App) error {
	switch {
	case c.Stdin == (c.Snapshot != ""):
		return cli.Usagef("name a snapshot, or give --stdin")
	case c.Strict && c.Stdin:
		return cli.Usagef("--strict looks at everything before it restores, and a stream comes only once: import it, and restore that")
	case c.Strict && c.DryRun:
		return cli.Usagef("--strict and --dry-run exclude each other: the one makes files, the other does not")
	}
	patterns, err := c.Compile()
	if err != nil {
		return cli.Usagef("%w", err)
	}
	opts, err := c.options(app, patterns)
	if err != nil {
		return err
	}
	if c.Stdin {
		return c.fromStream(ctx, app, opts, patterns)
	}
	return c.fromSystem(ctx, app, opts, patterns)
}

func (c *Restore) options(app *cli.App, patterns *filter.Patterns) (disk.RestoreOptions, error) {
	mode, err := disk.ParseOverwrite(c.Overwrite)
	if err != nil {
		return disk.RestoreOptions{}, cli.Usagef("--overwrite: %w", err)
	}
	opts := disk.RestoreOptions{
		Overwrite: mode, Delete: c.Delete, NumericOwner: c.NumericOwner, Verify: c.Verify,
		Sync: c.Sync, DryRun: c.DryRun, OnProgress: app.Progress(),
		OnProblem: func(p disk.Problem) {
			if p.Err != nil && (p.Kind == disk.LossUnwritable || p.Kind == disk.LossDamaged) {
				app.Warnf("%s: %v", cli.Printable(p.Path), p.Err)
			}
		},
	}
	if c.DryRun {
		opts.OnItem = func(it disk.Item) {
			if it.Action != disk.ActionUnchanged {
				fmt.Fprintf(app.Stdout, "%-9s %s\n", it.Action, cli.Printable(it.Path))
			}
		}
	}
	if patterns != nil {
		opts.Protect = func(path string, isDir bool) bool {
			drop, _ := patterns.Match(path, isDir)
			return drop
		}
	}
	return opts, nil
}

// fromStream restores what comes on standard input.
func (c *Restore) fromStream(ctx context.Context, app *cli.App, opts disk.RestoreOptions, patterns *filter.Patterns) error {
	in, err := app.StreamIn()
	if err != nil {
		return err
	}
	var stages []format.Stage
	if patterns != nil {
		f, err := filter.New(filter.Options{Paths: patterns, TempDir: os.TempDir()})
		if err != nil {
			return err
		}
		defer f.Close()
		stages = append(stages, f)
	}
	return c.restore(ctx, app, opts, format.NewReader(in, format.ReaderOptions{}), stages...)
}

// fromSystem restores a snapshot of a repository or of another system.
func (c *Restore) fromSystem(ctx context.Context, app *cli.App, opts disk.RestoreOptions, patterns *filter.Patterns) error {
	system, err := app.OpenSystem(ctx, &c.SourceFlags)
	if err != nil {
		return err
	}
	defer system.Close()
	list, err := system.Snapshots(ctx)
	if err != nil {
		return err
	}
	sel, err := c.Selection()
	if err != nil {
		return err
	}
	name, path := cli.SplitTarget(c.Snapshot)
	snap, err := cli.Resolve(cli.Select(list, sel), name)
	if err != nil {
		return &cli.Error{Err: err, Fix: "run bk-snapshots for the list"}
	}
	opts.Prefix = path
	export := format.ExportOptions{Snapshots: []format.ID{snap.ID}, Full: true, Drop: dropper(path, patterns), Producer: app.Name}
	if c.Strict {
		if err := c.rehearse(ctx, app, system, export, opts); err != nil {
			return err
		}
	}
	// A bk repository hands content out in the order in which it is stored.
	if r, ok := system.(*repo.Repository); ok {
		opts.Content, export.Held = r, true
	}
	// What the one says the other hears before it gets the record.
	var lost error
	export.OnDamage = func(_ format.ID, _ string, err error) {
		c.lost++
		lost = fmt.Errorf("a part of its content is lost in snapshot %s: %w", snap.ID.Short(), err)
	}
	opts.Lost = func() error {
		err := lost
		lost = nil
		return err
	}
	src, err := system.Export(ctx, export)
	if err != nil {
		return err
	}
	defer src.Close()
	return c.restore(ctx, app, opts, src)
}

// rehearse fails if the target could not hold all of the snapshot.
func (c *Restore) rehearse(ctx context.Context, app *cli.App, system format.System, export format.ExportOptions, opts disk.RestoreOptions) error {
	export.ListingOnly = true
	src, err := system.Export(ctx, export)
	if err != nil {
		return err
	}
	defer src.Close()
	losses, err := disk.Rehearse(ctx, c.Target, src, opts)
	if err != nil {
		return err
	}
	if len(losses) == 0 {
		return nil
	}
	app.ReportLosses(losses)
	return &cli.Error{
		Code: cli.ExitFailed, Op: "restore with --strict",
		Err: errors.New("not everything can be kept there, so nothing was restored"),
		Fix: "restore as root, onto a file system that holds what is named above, or leave --strict out",
	}
}

// dropper leaves out what lies outside a path or what the patterns drop.
func dropper(below string, patterns *filter.Patterns) func(string, bool) (bool, bool) {
	if below == "" && patterns == nil {
		return nil
	}
	return func(path string, isDir bool) (drop, skipBelow bool) {
		if below != "" && path != below && !format.IsBelow(path, below) {
			above := path == "" || format.IsBelow(below, path)
			return !above, !above
		}
		if patterns == nil {
			return false, false
		}
		return patterns.Match(path, isDir)
	}
}

// restore moves the records and reports.
func (c *Restore) restore(ctx context.Context, app *cli.App, opts disk.RestoreOptions, src format.Source, stages ...format.Stage) error {
	begun := time.Now()
	sink, err := disk.NewRestore(ctx, c.Target, opts)
	if err != nil {
		return err
	}
	err = format.Copy(ctx, sink, src, stages...)
	if closeErr := sink.Close(); err == nil {
		err = closeErr
	}
	c.report(app, sink.Summary(), time.Since(begun))
	return err
}

func (c *Restore) report(app *cli.App, sum disk.Summary, took time.Duration) {
	app.ReportLosses(sum.Losses)
	if !c.Stdin {
		// What could not be read when the snapshot was made is no news, and the
		// repository keeps it; what was lost since then is, unless it was named
		// above. Of a stream nobody else sees what it says: this program is the last
		// in the pipe.
		sum.Source = slices.DeleteFunc(sum.Source, func(l format.Loss) bool {
			return l.Kind != format.LossDamaged || l.Count <= c.lost
		})
	}
	app.ReportLosses(sum.Source)
	if app.JSON {
		app.JSONEvent("summary", map[string]any{
			"files": sum.Files, "dirs": sum.Dirs, "others": sum.Others, "bytes": sum.Bytes, "unchanged": sum.Unchanged,
			"skipped": sum.Skipped, "removed": sum.Removed, "dry_run": c.DryRun, "seconds": took.Seconds(),
		})
		return
	}
	verb := "restored"
	if c.DryRun {
		verb = "would restore"
	}
	parts := []string{fmt.Sprintf("%s %s files, %s dirs, %s others, %s", verb, cli.Count(sum.Files), cli.Count(sum.Dirs), cli.Count(sum.Others), cli.Bytes(sum.Bytes))}
	for _, more := range []struct {
		n    uint64
		text string
	}{{sum.Unchanged, "right already"}, {sum.Skipped, "left alone"}, {sum.Removed, "removed"}} {
		if more.n > 0 {
			parts = append(parts, cli.Count(more.n)+" "+more.text)
		}
	}
	app.Sayf("%s in %s", strings.Join(parts, "; "), cli.Duration(took))
}
