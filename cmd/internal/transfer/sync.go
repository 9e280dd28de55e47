package transfer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/bk-backup/bk/cmd/internal/chunkers"
	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/cmd/internal/filterflags"
	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/filter"
	"github.com/bk-backup/bk/repo"
)

// Sync is the program bk-sync: bk-export, bk-filter and bk-import in one
// process, for what the target lacks.
type Sync struct {
	cli.SourceFlags `embed:""`
	cli.SelectFlags `embed:""`

	chunkers.Flag `embed:""`

	To          string `required:"" env:"BK_IMPORT_REPO" placeholder:"URL" help:"Repository to bring up to date: a path, the URL of a bk-serve, or of another system ${targets}."`
	Compression string `placeholder:"LEVEL" help:"Compress again: none, fastest, default, better, best or zstd:LEVEL. Default, keep: what comes compressed stays as it is, and the repository's setting applies to the rest."`
	Strict      bool   `help:"Refuse what another system cannot hold, before it is written, instead of leaving it out and saying so."`
	DryRun      bool   `help:"Say which snapshots would be brought over, and do nothing."`

	filterflags.Flags `embed:""`
}

// Help is the longer text.
func (*Sync) Help() string {
	return `Brings over what the target does not hold yet: every snapshot of the source that --host, --tag and so on select, the first ones whole, later ones as differences. Run it daily: it costs what changed. Interrupted, run it again: what arrived in a repository of bk is not stored again, and from bk and restic not read again either. What borg, tar archives and trees of hard links hold is known only when it was read.

  bk-sync -r restic:/srv/restic --to /srv/bk
  bk-sync -r /srv/bk --to /mnt/offsite --drop '*.iso'
  bk-sync -r /srv/bk --to borg:/srv/borg -o encryption=keyfile-blake2

The filter options have to be the same in every run into one target. The target's passphrase is BK_IMPORT_PASSPHRASE, else BK_PASSPHRASE (or _FILE, _COMMAND), or it is asked for. Over a network or with other programs between, the same is

  bk-export --all --have <(bk-import --list-imported) | bk-filter --drop '*.iso' | bk-import

The target may be of another system: restic:DIR, borg:DIR, or tar:DIR/ for an archive for each snapshot. It is made if it is not there, -o, --chunker and passphrases are as with bk-import, and what it holds is recognised again. -o KEY=VALUE goes to the source or the target, whichever has that key.`
}

// Run brings the target up to date.
func (c *Sync) Run(ctx context.Context, app *cli.App) error {
	opts, err := c.Options(ctx, filterflags.Surroundings{Now: time.Now(), Env: os.Environ(), Stderr: app.Stderr})
	if err != nil {
		return cli.Usagef("%w", err)
	}
	sel, err := c.Selection()
	if err != nil {
		return err
	}
	foreign, err := app.ForeignTarget(&cli.RepoFlags{Repo: c.To})
	if err != nil {
		return err
	}
	if foreign != nil {
		return c.toForeign(ctx, app, foreign, opts, sel)
	}
	if c.Strict {
		return cli.Usagef("--strict is for targets of other systems: a repository of bk holds everything")
	}
	source, err := app.OpenSystem(ctx, &c.SourceFlags)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := app.OpenRepo(ctx, &cli.RepoFlags{Repo: c.To, CacheDir: c.CacheDir}, cli.RoleTarget)
	if err != nil {
		return err
	}
	defer target.Close()
	if from, ok := source.(*repo.Repository); ok && from.Keyring().Repository() == target.Keyring().Repository() {
		return cli.Usagef("source and target are the same repository: to change what it holds, use bk-rewrite")
	}
	list, err := source.Snapshots(ctx)
	if err != nil {
		return err
	}
	s := syncer{app: app, source: source, target: target, filter: opts}
	s.in.Compression, s.in.Recompress, err = app.Compression(target, c.Compression)
	if err != nil {
		return err
	}
	if s.in.ChunkerFor, err = c.Flag.For(target); err != nil {
		return err
	}
	var damage []repo.Damage
	if s.known, damage, err = target.List(ctx); err != nil {
		return err
	}
	if len(damage) > 0 {
		return fmt.Errorf("find out what %s holds already: %s: %w", target, damage[0].Name, damage[0].Err)
	}
	if s.in.ChunkerFor != nil {
		s.arrived = make(arrived)
		err := target.Partials(ctx, func(p repo.Partial) error {
			s.arrived.addRefs(p)
			return nil
		})
		if err != nil {
			return err
		}
	}
	list = choose(cli.Select(list, sel), &s.filter)
	runs, kept, err := plan(list, heldBy(target, s.known), opts.Description())
	if err != nil {
		return err
	}
	if c.DryRun {
		return announce(app, list, runs, kept)
	}
	err = s.all(ctx, runs)
	s.sum.HeldAlready += kept
	report(app, s.sum)
	return err
}

// syncer moves snapshots from a source through a filter into a repository.
type syncer struct {
	app    *cli.App
	source format.System
	target *repo.Repository
	filter filter.Options
	in     repo.ImportOptions
	known  []*repo.Snapshot
	// arrived is what came of snapshots that were cut off, where content is cut
	// anew; where it is not, the target can be asked for any chunk.
	arrived arrived
	sum     repo.Imported
}

// choose applies the filter's choice of snapshots here, where all of them are
// known, so that nothing is read of those that are left out.
func choose(list []*format.Snapshot, opts *filter.Options) []*format.Snapshot {
	rules := opts.Snapshots
	opts.Snapshots = nil
	return chooseSnapshots(list, rules)
}

// chooseSnapshots returns those that any rule matches; all without rules.
func chooseSnapshots(list []*format.Snapshot, rules []filter.SnapshotRule) []*format.Snapshot {
	if len(rules) == 0 {
		return list
	}
	var chosen []*format.Snapshot
	for _, snap := range list {
		for i := range rules {
			if rules[i].Match(snap) {
				chosen = append(chosen, snap)
				break
			}
		}
	}
	return chosen
}

// all does the runs one after another, and adds up what they did.
func (s *syncer) all(ctx context.Context, runs []run) error {
	s.in.OnProgress = s.app.Progress()
	s.in.OnWarning = func(text string) { s.app.Warnf("%s", text) }
	for _, r := range runs {
		sum, err := s.one(ctx, r)
		s.sum.Add(sum)
		s.known = append(s.known, sum.Snapshots...)
		if err != nil {
			return err
		}
	}
	return nil
}

// one does a run.
func (s *syncer) one(ctx context.Context, r run) (sum repo.Imported, err error) {
	out := format.ExportOptions{
		Snapshots: r.snapshots, Base: r.base, Producer: s.app.Name + " " + cli.Version,
		NoCopy: !s.filter.TakesCopy(), OnDamage: s.app.Damaged,
	}
	anew := s.in.ChunkerFor != nil
	// What a file shares with its version before is cut in the same places again
	// only where that is known to lie in one piece.
	out.Copy = anew && !out.NoCopy
	in := s.in
	in.Known = s.known
	// Both ends are ours and asked to hold the same: what the target has need
	// not be read at the source.
	if s.filter.TakesHeld() && !anew {
		out.HasChunk, in.Held = s.target.HasChunk, true
	}
	if s.filter.TakesHeld() && anew && s.arrived.of(r.snapshots) {
		out.Arrived = s.arrived.has
	}
	out.Nameless = anew && s.filter.TakesNameless()
	if !s.filter.Paths.Empty() {
		out.Drop = s.filter.Paths.Match
	}
	stage, err := filter.New(s.filter)
	if err != nil {
		return sum, cli.Usagef("%w", err)
	}
	defer func() { err = errors.Join(err, stage.Close()) }()
	src, err := s.source.Export(ctx, out)
	if err != nil {
		return sum, err
	}
	defer src.Close()
	sink, err := s.target.Import(ctx, in)
	if err != nil {
		return sum, err
	}
	err = format.Copy(ctx, sink, src, stage)
	if closeErr := sink.Close(); err == nil {
		err = closeErr
	}
	return sink.Summary(), err
}

// announce says what would be done.
func announce(app *cli.App, list []*format.Snapshot, runs []run, kept int) error {
	byID := make(map[format.ID]*format.Snapshot, len(list))
	for _, snap := range list {
		byID[snap.ID] = snap
	}
	count := 0
	for _, r := range runs {
		for _, id := range r.snapshots {
			count++
			snap := byID[id]
			if app.JSON {
				app.JSONEvent("snapshot", cli.SnapshotJSON(snap))
				continue
			}
			if _, err := fmt.Fprintf(app.Stdout, "%s  %s  %s\n", id.Short(), cli.TimeText(snap.Time), cli.Printable(snap.Host)); err != nil {
				return err
			}
		}
	}
	app.Sayf("would bring over %d snapshots, %d held already", count, kept)
	return nil
}
