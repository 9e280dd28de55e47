// Package repair is what bk-repair does: making the best of a damaged
// repository. Start at Repair; files.go takes lost content from files again. Only
// that program imports it.
package repair

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/bk-backup/bk/cmd/internal/check"
	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/repo"
	"github.com/bk-backup/bk/repo/seal"
)

// Repair is the program bk-repair.
type Repair struct {
	cli.RepoFlags `embed:""`

	From             []string `sep:"none" placeholder:"PATH|REPO" help:"Where to look for what is lost (repeatable): / for the files of this machine, another directory that stands for /, or a repository: a copy of this one, another one of bk, restic:PATH ... Its passphrase is BK_FROM_PASSPHRASE, else BK_PASSPHRASE."`
	StructureOnly    bool     `help:"Do not read all content in order to find damage."`
	UnreadableIsLost bool     `help:"Take for lost what the storage fails to hand out, as failing disks do. Otherwise nothing is done then, since the trouble may pass."`
	RemoveUnreadable bool     `help:"Remove packs of which nothing can be read, since no index and not they themselves say what lies where. Otherwise they stay: a copy of an index may turn up."`
	GiveUp           []string `sep:"none" placeholder:"OBJECT" help:"Give up the snapshot of this object, snapshots/..., which is damaged, so that bk-gc works again (repeatable). It is recorded as what bk-forget removes. Refused if it can be read; if --from has it, it comes back instead."`
	AllPaths         bool     `help:"Name all paths that damage touches, and not only the first ones of each object."`
	DryRun           bool     `short:"n" help:"Change nothing; say what would be done."`
}

// Help is the longer text.
func (*Repair) Help() string {
	return `Finds damage as bk-check --read-data does, and then lists packs again that no index lists, moves what can be read of damaged packs to new ones, and takes what is lost from the places that --from names. Damaged snapshots, credentials and records, and snapshots that storage hides, come back from a copy of the repository alone; without one they stay as they are, and what still works is said. A damaged snapshot of which there is no copy keeps bk-gc from collecting, since nobody knows what it needs: --give-up with the name that bk-check prints removes it for good. What is beyond help is written down: from then on snapshots that need it are restored without it, with zeros in place of lost content, and what is missing is named, with the exit code 3. If it comes again, with a later backup or a repair with another --from, they are whole again.

No snapshot is removed but with --give-up, and no pack before all that can be read of it lies elsewhere. It may be stopped and run again; backups may go on meanwhile.

  bk-repair --dry-run
  bk-repair --from / --from /mnt/offsite/repo
  bk-repair --structure-only --give-up snapshots/...`
}

// Run repairs.
func (c *Repair) Run(ctx context.Context, app *cli.App) error {
	r, err := app.OpenRepo(ctx, &c.RepoFlags, cli.RoleSource)
	if err != nil {
		return err
	}
	defer r.Close()
	opts := repo.RepairOptions{UnreadableIsLost: c.UnreadableIsLost, RemoveUnreadable: c.RemoveUnreadable, GiveUp: c.GiveUp, DryRun: c.DryRun}
	opts.Check.ReadData.All = !c.StructureOnly
	opts.Check.OnProgress = app.StepProgress()
	for _, place := range c.From {
		from, closeFrom, err := openFrom(ctx, app, place)
		if err != nil {
			return err
		}
		defer closeFrom()
		opts.From = append(opts.From, from)
	}
	out, err := r.Repair(ctx, opts)
	if out != nil && out.Found != nil {
		if err := check.Show(app, out.Found.Findings, c.AllPaths); err != nil {
			return err
		}
		c.report(app, out)
	}
	return err
}

func (c *Repair) report(app *cli.App, out *repo.Repaired) {
	var left []*repo.Finding // of which nothing was repaired
	known := uint64(0)
	for _, f := range out.Found.Findings {
		if f.What == repo.Known {
			known = f.Lost
		} else if !canHelp(f) && !putBack(f, out.Objects) && !isGivenUp(f, out.GivenUp) {
			left = append(left, f)
		}
	}
	if out.Marked+known > 0 || len(left) > 0 {
		app.Lossy()
	}
	if app.JSON {
		app.JSONEvent("summary", map[string]any{
			"findings": len(out.Found.Findings), "packs_listed": out.Listed, "indexes_removed": out.Indexes, "plans_removed": out.Plans,
			"packs_replaced": out.Moved.Packs, "bytes_replaced": out.Moved.Bytes, "chunks_moved": out.Kept, "packs_removed": out.Removed,
			"chunks_restored": out.Restored, "chunks_lost": out.Marked, "chunks_known_lost": known, "findings_left": len(left), "objects_restored": len(out.Objects),
			"objects_given_up": len(out.GivenUp), "dry_run": c.DryRun,
		})
		return
	}
	if len(out.Found.Findings) == 0 {
		app.Sayf("no damage was found")
		return
	}
	would := ""
	if c.DryRun {
		would = "would be "
	}
	say := func(what string, n uint64) {
		if n > 0 {
			app.Sayf("%s%s: %s", would, what, cli.Count(n))
		}
	}
	say("listed again, packs", uint64(out.Listed))
	say("removed, damaged indexes", uint64(out.Indexes))
	say("removed, damaged plans of bk-gc", uint64(out.Plans))
	say("replaced by what can be read of them, packs", uint64(out.Moved.Packs))
	say("removed, packs of which nothing can be read", uint64(out.Removed))
	say("restored from elsewhere, chunks", out.Restored)
	say("put back from a copy, small objects", uint64(len(out.Objects)))
	for _, g := range out.GivenUp {
		switch {
		case g.Whole:
			app.Sayf("%sremoved: the damaged object %s of a snapshot that another object has whole", would, g.Object)
		case g.Snapshot.IsZero():
			app.Sayf("%sgiven up: the snapshot of %s", would, g.Object)
		default:
			app.Sayf("%sgiven up: the snapshot %s of %s", would, g.Snapshot.Short(), g.Object)
		}
	}
	say("written down as beyond help, chunks", out.Marked)
	if known > 0 {
		app.Sayf("known to be beyond help: %s chunks", cli.Count(known))
	}
	for _, text := range advice(left) {
		app.Warnf("%s", text)
	}
}

// putBack reports whether an object was taken from a copy.
func putBack(f *repo.Finding, objects []string) bool {
	return slices.Contains(objects, f.Object) || !f.Snapshot.IsZero() && slices.Contains(objects, "snapshot "+f.Snapshot.String())
}

// isGivenUp reports whether what was found is gone because it was given up.
func isGivenUp(f *repo.Finding, given []repo.GivenUp) bool {
	return slices.ContainsFunc(given, func(g repo.GivenUp) bool { return g.Object == f.Object })
}

// advice says of what could not be repaired what is gone, what still works, and
// what to do.
func advice(left []*repo.Finding) (texts []string) {
	counts := make(map[seal.Kind]int)
	hidden, returned, other := 0, 0, 0
	for _, f := range left {
		name, ok := seal.ParseName(f.Object)
		switch {
		case f.What == repo.Hidden:
			hidden++
		case f.What == repo.Returned:
			returned++
		case ok && (name.Kind == seal.KindSnapshot || name.Kind == seal.KindCredential || name.Kind == seal.KindForget):
			counts[name.Kind]++
		default:
			other++
		}
	}
	say := func(n int, text string) {
		if n > 0 {
			texts = append(texts, fmt.Sprintf(text, n))
		}
	}
	say(counts[seal.KindSnapshot], "%d of the snapshots cannot be opened: all others restore, and backups go on, but bk-gc frees nothing, since what these need is not known; run "+cli.UnreadableFix)
	say(counts[seal.KindCredential], "%d of the credentials open nothing any more: the others do; bk-key add makes new ones, bk-key remove takes the damaged ones away, --from with a copy of this repository brings them back")
	say(counts[seal.KindForget], "%d of the records of what was forgotten cannot be read: no snapshot is affected, but bk-check cannot tell any more whether what they name is hidden; --from with a copy of this repository brings them back")
	say(hidden, "%d snapshots or records that were there are neither there nor forgotten: --from with a copy of this repository that has them brings snapshots back")
	say(returned, "%d snapshots that were forgotten are there: a bk-forget that goes on removes them; if none does, run bk-forget with their ids again")
	say(other, "%d of the objects cannot be repaired: put them in place from another copy of the repository")
	return texts
}

// canHelp reports whether a repair does something about a finding.
func canHelp(f *repo.Finding) bool {
	if f.Object == "" {
		return f.What == repo.Missing // chunks, which are restored or written down
	}
	name, _ := seal.ParseName(f.Object)
	switch name.Kind {
	case seal.KindDataPack, seal.KindIndex, seal.KindPlan:
		return !strings.HasPrefix(f.Object, "packs/") || f.What != repo.Damaged || f.Readable
	}
	return false
}
