package retain

import (
	"context"
	"errors"
	"fmt"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo"
)

// Forget is the program bk-forget.
type Forget struct {
	cli.RepoFlags   `embed:""`
	cli.SelectFlags `embed:""`
	PolicyFlags     `embed:""`

	Snapshots []string `arg:"" optional:"" sep:"none" name:"SNAPSHOT" help:"Snapshots to remove: latest, latest~2, or the beginning of an id."`
	DryRun    bool     `short:"n" help:"Remove nothing; show what would stay and why."`
}

// Help is the longer text.
func (*Forget) Help() string {
	return `Removes the snapshots that are named; or, with --keep-..., of all that --host, --tag and so on select, those that no rule keeps. The rules count in each group of snapshots by itself, by default those of one host and the same paths. That something was removed stays recorded in the repository, signed.

Times are those at which the snapshots were made. A snapshot whose time lies a day after the storage received it, or (unless it was imported or its tags were changed) a day before, may have been made by a wrong clock: it is judged like the others, and also as if it had been made when it was received, but never costs another one its place.

  bk-forget 1f4a90c2
  bk-forget --dry-run --keep-daily 7 --keep-weekly 5 --keep-monthly 12 --keep-yearly 75`
}

// Run removes.
func (c *Forget) Run(ctx context.Context, app *cli.App) error {
	policy, groupBy, err := c.policy()
	if err != nil {
		return err
	}
	switch {
	case len(c.Snapshots) > 0 && !policy.IsZero():
		return cli.Usagef("name the snapshots to remove, or say with --keep-... which stay")
	case len(c.Snapshots) == 0 && policy.IsZero():
		return cli.Usagef("nothing says what to remove: name snapshots, or say with --keep-... which stay")
	}
	snaps, err := app.OpenSnapshots(ctx, &cli.SourceFlags{RepoFlags: c.RepoFlags}, &c.SelectFlags)
	if err != nil {
		return err
	}
	defer snaps.System.Close()
	if snaps.Repo == nil {
		return cli.Usagef("snapshots can be removed from a bk repository only; others are opened for reading")
	}
	if len(c.Snapshots) > 0 {
		return c.named(ctx, app, snaps)
	}
	groups := group(snaps.OwnAll(snaps.List), groupBy)
	var gone []*repo.Snapshot
	for _, g := range groups {
		g.judge(policy)
		gone = append(gone, g.gone()...)
	}
	if err := c.show(app, groups); err != nil {
		return err
	}
	for _, g := range groups {
		if len(g.gone()) == len(g.snaps) {
			return &cli.Error{Op: "remove snapshots of " + g.name, Err: errors.New("no rule keeps any of them, so nothing was removed"),
				Fix: "add --keep-last 1, or remove them by name"}
		}
	}
	return c.remove(ctx, app, snaps.Repo, gone, "policy "+c.text(), len(snaps.List))
}

// named removes the snapshots on the command line.
func (c *Forget) named(ctx context.Context, app *cli.App, snaps *cli.Snapshots) error {
	chosen, err := snaps.Choose(c.Snapshots, false)
	if err != nil {
		return err
	}
	g := &series{name: "the snapshots that are named", snaps: snaps.OwnAll(chosen), reasons: make([][]string, len(chosen))}
	if err := c.show(app, []*series{g}); err != nil {
		return err
	}
	return c.remove(ctx, app, snaps.Repo, g.snaps, "by name", len(snaps.List))
}

func (c *Forget) remove(ctx context.Context, app *cli.App, r *repo.Repository, gone []*repo.Snapshot, reason string, total int) error {
	if c.DryRun {
		app.Sayf("would remove %d of %d snapshots", len(gone), total)
		return nil
	}
	if err := r.Forget(ctx, gone, reason); err != nil {
		return err
	}
	app.Sayf("removed %d of %d snapshots", len(gone), total)
	return nil
}

// show prints the table, which says of each snapshot why it stays.
func (c *Forget) show(app *cli.App, groups []*series) error {
	for i, g := range groups {
		if app.JSON {
			if err := g.showJSON(app.Stdout, c.DryRun); err != nil {
				return err
			}
			continue
		}
		if app.Quiet {
			continue
		}
		if i > 0 {
			fmt.Fprintln(app.Stdout)
		}
		if err := g.showTable(app.Stdout); err != nil {
			return err
		}
	}
	return nil
}

// shownTime is the time a snapshot is judged by, for people.
func shownTime(s *repo.Snapshot) string {
	t := format.TimeOf(s.Time())
	return cli.TimeText(&t)
}
