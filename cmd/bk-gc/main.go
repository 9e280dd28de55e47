// Command bk-gc frees the space of what no snapshot needs.
package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/repo"
)

func main() {
	cli.Main("bk-gc", "Free the space of what no snapshot needs.", &command{})
}

type command struct {
	cli.RepoFlags `embed:""`

	Grace     time.Duration `default:"24h" placeholder:"TIME" help:"How long what is condemned stays before it is deleted, such as 36h or 0, and how long a backup may be silent before it has to begin a new session. Default: ${default}."`
	MaxUnused share         `default:"5%" placeholder:"SHARE" help:"How much unneeded content may stay where needed content lies beside it. Default: ${default}."`
	MaxRepack cli.Size      `placeholder:"SIZE" help:"Copy at most this much needed content in this run. Default: no bound."`
	DryRun    bool          `short:"n" help:"Change nothing; show what would be freed."`
}

// Help is the longer text.
func (*command) Help() string {
	return `It works in two steps, and never keeps a backup, an import or a restore from running. The first run condemns what no snapshot needs; a later one, when the grace is over, looks again whether it is needed, and deletes it. So run it regularly, after bk-forget, from a timer. A run may be stopped at any point: the next one goes on.

With --grace 0 one run does both. Whoever is making a backup at that moment goes on in a new session, and may have to be run again.`
}

// share is a part of the whole in percent.
type share float64

// UnmarshalText makes share a flag.
func (s *share) UnmarshalText(b []byte) error {
	v, err := strconv.ParseFloat(strings.TrimSuffix(string(b), "%"), 64)
	if err != nil || v < 0 || v > 1000 {
		return fmt.Errorf("%q is not a share such as 5%%", b)
	}
	*s = share(v / 100)
	return nil
}

// Run collects.
func (c *command) Run(ctx context.Context, app *cli.App) error {
	if c.Grace < 0 {
		return cli.Usagef("--grace: %s is less than nothing", c.Grace)
	}
	r, err := app.OpenRepo(ctx, &c.RepoFlags, cli.RoleSource)
	if err != nil {
		return err
	}
	defer r.Close()
	opts := repo.CollectOptions{
		Grace: c.Grace, DryRun: c.DryRun, MaxUnused: float64(c.MaxUnused), MaxRepack: int64(c.MaxRepack),
		OnProgress: app.StepProgress(),
	}
	if c.MaxUnused == 0 {
		opts.MaxUnused = -1
	}
	sum, err := r.Collect(ctx, opts)
	if err != nil {
		return err
	}
	if app.JSON {
		app.JSONEvent("summary", fields(sum))
	} else {
		c.report(app, sum)
	}
	if sum.Missing > 0 {
		app.Lossy()
		app.Warnf("%s chunks that snapshots need are in no pack: run bk-check", cli.Count(sum.Missing))
	}
	return nil
}
