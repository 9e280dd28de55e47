// Package collect is what bk-gc does: freeing the space of what no snapshot
// needs. Start at Collect. Only that program imports it.
package collect

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/repo"
)

// Collect is the program bk-gc.
type Collect struct {
	cli.RepoFlags `embed:""`

	Grace     time.Duration `default:"24h" placeholder:"TIME" help:"How long what is condemned stays before it is deleted, such as 36h or 0, and how long a backup may be silent before it has to begin a new session. Default: ${default}."`
	MaxUnused share         `default:"5%" placeholder:"SHARE" help:"How much unneeded content may stay where needed content lies beside it. Default: ${default}."`
	MaxRepack cli.Size      `placeholder:"SIZE" help:"Copy at most this much needed content in this run. Default: no bound."`
	DryRun    bool          `short:"n" help:"Change nothing; show what would be freed."`

	Reseal   bool          `group:"New keys" help:"Move what is sealed under keys of before bk-key rotate under the new ones."`
	MaxBytes cli.Size      `group:"New keys" placeholder:"SIZE" help:"Move at most this much content in this run, but one pack at least. Default: no bound."`
	MaxTime  time.Duration `group:"New keys" placeholder:"TIME" help:"Begin to move nothing more after this time, such as 30m. Default: no bound."`
}

// Help is the longer text.
func (*Collect) Help() string {
	return `It works in two steps, and never keeps a backup, an import or a restore from running. The first run condemns what no snapshot needs; a later one, when the grace is over, looks again whether it is needed, and deletes it. So run it regularly, after bk-forget, from a timer. A run may be stopped at any point: the next one goes on.

With --grace 0 one run does both. Whoever is making a backup at that moment goes on in a new session, and may have to be run again.

After bk-key rotate, --reseal moves what is there already under the new keys, as much in each run as --max-bytes and --max-time allow; what the old keys open is deleted as all else that is condemned, when the grace is over. The repository can be used meanwhile, and snapshots keep their ids. It is done when a run says that nothing is left.`
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
func (c *Collect) Run(ctx context.Context, app *cli.App) error {
	if c.Grace < 0 {
		return cli.Usagef("--grace: %s is less than nothing", c.Grace)
	}
	if !c.Reseal && (c.MaxBytes > 0 || c.MaxTime != 0) {
		return cli.Usagef("--max-bytes and --max-time are for --reseal; there is --max-repack otherwise")
	}
	if c.MaxTime < 0 {
		return cli.Usagef("--max-time: %s is less than nothing", c.MaxTime)
	}
	r, err := app.OpenRepo(ctx, &c.RepoFlags, cli.RoleSource)
	if err != nil {
		return err
	}
	defer r.Close()
	opts := repo.CollectOptions{
		Grace: c.Grace, DryRun: c.DryRun, MaxUnused: float64(c.MaxUnused), MaxRepack: int64(c.MaxRepack),
		Reseal: c.Reseal, MaxReseal: int64(c.MaxBytes), MaxTime: c.MaxTime,
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

func (c *Collect) report(app *cli.App, sum repo.Collected) {
	app.Sayf("needed by %s: %s of %s in %s", count(sum.Snapshots, "snapshot"), cli.Bytes(sum.Needed), cli.Bytes(sum.All.Bytes), packs(sum.All.Packs))
	say := func(what, would string, p repo.PackSum) {
		if c.DryRun {
			what = would
		}
		if p.Packs > 0 {
			app.Sayf("%s: %s, %s", what, packs(p.Packs), cli.Bytes(p.Bytes))
		}
	}
	say("deleted", "would be deleted now", sum.Deleted)
	say("needed again, so they stay", "needed again, so they would stay", sum.Spared)
	say("condemned", "would be condemned", sum.Condemned)
	if sum.Copied > 0 {
		app.Sayf("of these needed in part: %s, %s, out of which %s are copied", packs(sum.Repacked.Packs), cli.Bytes(sum.Repacked.Bytes), cli.Bytes(sum.Copied))
	}
	if sum.Resealed.Packs > 0 {
		app.Sayf("of these under old keys: %s, %s", packs(sum.Resealed.Packs), cli.Bytes(sum.Resealed.Bytes))
	}
	if c.Reseal {
		c.reportOld(app, sum)
	}
	if sum.Fenced > 0 {
		app.Sayf("ended: %s, silent for %s", count(sum.Fenced, "session"), c.Grace)
	}
	switch {
	case sum.Waiting.Packs > 0:
		app.Sayf("condemned before: %s, %s, to be deleted by a run from %s on", packs(sum.Waiting.Packs), cli.Bytes(sum.Waiting.Bytes), sum.NextDue.Local().Format("2006-01-02 15:04:05"))
	case sum.Condemned.Packs > 0 && c.Grace > 0 && !c.DryRun:
		app.Sayf("to be deleted by a run %s from now or later", c.Grace)
	case sum.Condemned.Packs+sum.Deleted.Packs == 0:
		app.Sayf("there is nothing to collect")
	}
}

// reportOld says what is left under old keys.
func (c *Collect) reportOld(app *cli.App, sum repo.Collected) {
	switch {
	case sum.OldPacks.Packs+sum.OldObjects == 0:
		app.Sayf("nothing is left under old keys")
	case sum.OldObjects == 0:
		app.Sayf("left under old keys, what is condemned included: %s, %s", packs(sum.OldPacks.Packs), cli.Bytes(sum.OldPacks.Bytes))
	default:
		app.Sayf("left under old keys, what is condemned included: %s, %s, and %s", packs(sum.OldPacks.Packs), cli.Bytes(sum.OldPacks.Bytes), count(sum.OldObjects, "other object"))
	}
}

func packs(n int) string { return count(n, "pack") }

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return cli.Count(n) + " " + what + "s"
}

// fields is a sum as --json has it.
func fields(sum repo.Collected) map[string]any {
	f := map[string]any{
		"snapshots": sum.Snapshots, "bytes_needed": sum.Needed, "chunks_missing": sum.Missing,
		"bytes_copied": sum.Copied, "sessions_ended": sum.Fenced, "objects_old": sum.OldObjects,
	}
	for key, p := range map[string]repo.PackSum{
		"all": sum.All, "deleted": sum.Deleted, "spared": sum.Spared, "condemned": sum.Condemned,
		"repacked": sum.Repacked, "waiting": sum.Waiting, "resealed": sum.Resealed, "old": sum.OldPacks,
	} {
		f["packs_"+key], f["bytes_"+key] = p.Packs, p.Bytes
	}
	if !sum.NextDue.IsZero() {
		f["next_due"] = sum.NextDue.Format(time.RFC3339Nano)
	}
	return f
}
