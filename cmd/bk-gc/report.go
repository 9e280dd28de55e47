package main

import (
	"time"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/repo"
)

func (c *command) report(app *cli.App, sum repo.Collected) {
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
		"bytes_copied": sum.Copied, "sessions_ended": sum.Fenced,
	}
	for key, p := range map[string]repo.PackSum{
		"all": sum.All, "deleted": sum.Deleted, "spared": sum.Spared, "condemned": sum.Condemned,
		"repacked": sum.Repacked, "waiting": sum.Waiting,
	} {
		f["packs_"+key], f["bytes_"+key] = p.Packs, p.Bytes
	}
	if !sum.NextDue.IsZero() {
		f["next_due"] = sum.NextDue.Format(time.RFC3339Nano)
	}
	return f
}
