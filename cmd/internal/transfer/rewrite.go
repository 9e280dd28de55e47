package transfer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/cmd/internal/filterflags"
	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/filter"
	"github.com/bk-backup/bk/repo"
)

// Rewrite is the program bk-rewrite: a repository exported through a filter into
// itself, where content that is there already is only named.
type Rewrite struct {
	cli.RepoFlags   `embed:""`
	cli.SelectFlags `embed:""`

	Snapshots []string `arg:"" optional:"" sep:"none" name:"SNAPSHOT" help:"Snapshots: latest, latest~2, or the beginning of an id."`
	All       bool     `help:"All snapshots that --host, --tag and so on select."`
	Forget    bool     `help:"Forget the snapshots that were rewritten. Without it they stay beside the new ones."`
	DryRun    bool     `help:"Say what would be dropped from each snapshot, and do nothing."`

	filterflags.Flags `embed:""`
}

// Help is the longer text.
func (*Rewrite) Help() string {
	return `Makes new snapshots of old ones, without what the filter options drop and with what they change. Content is neither read nor stored again, only listings are, unless --magic or --drop-if have to look at it. Snapshots that would stay as they are are left alone, and so are those that were made by the same command before: interrupted, it can be run again.

What was dropped is gone from storage only when the old snapshots are forgotten (--forget, or bk-forget) and bk-gc has run.

  bk-rewrite --all --drop '*.cat.jpg' --forget
  bk-rewrite latest --rename home/old=home/new`
}

// Run rewrites.
func (c *Rewrite) Run(ctx context.Context, app *cli.App) error {
	if c.All == (len(c.Snapshots) > 0) {
		return cli.Usagef("name snapshots, or give --all")
	}
	opts, err := c.Options(ctx, filterflags.Surroundings{Now: time.Now(), Env: os.Environ(), Stderr: app.Stderr})
	if err != nil {
		return cli.Usagef("%w", err)
	}
	if opts.Description() == "" {
		return cli.Usagef("give a filter option such as --drop: there is nothing to change")
	}
	r, err := app.OpenRepo(ctx, &c.RepoFlags, cli.RoleSource)
	if err != nil {
		return err
	}
	defer r.Close()
	list, damage, err := r.List(ctx)
	if err != nil {
		return err
	}
	if len(damage) > 0 {
		return fmt.Errorf("list the snapshots: %s: %w", damage[0].Name, damage[0].Err)
	}
	w := rewriter{app: app, r: r, filter: opts, list: list, dryRun: c.DryRun}
	chosen, err := c.choose(&w)
	if err != nil {
		return err
	}
	if err := w.run(ctx, chosen); err != nil {
		return err
	}
	if c.Forget && !c.DryRun {
		if err := w.forget(ctx, chosen); err != nil {
			return err
		}
	}
	w.report()
	return nil
}

// choose resolves the arguments.
func (c *Rewrite) choose(w *rewriter) ([]*format.Snapshot, error) {
	sel, err := c.Selection()
	if err != nil {
		return nil, err
	}
	var all []*format.Snapshot
	for _, s := range w.list {
		all = append(all, &s.Meta)
	}
	all = cli.Select(all, sel)
	chosen := all
	if !c.All {
		chosen = nil
		for _, name := range c.Snapshots {
			s, err := cli.Resolve(all, name)
			if err != nil {
				return nil, &cli.Error{Err: err, Fix: "run bk-snapshots for the list"}
			}
			chosen = append(chosen, s)
		}
	}
	return w.chooseByRules(chosen), nil
}

// rewriter moves snapshots through a filter within a repository.
type rewriter struct {
	app    *cli.App
	r      *repo.Repository
	filter filter.Options
	list   []*repo.Snapshot // of the repository, before
	dryRun bool

	sum       repo.Imported
	dropped   filter.Summary
	before    int // snapshots that had been rewritten by the same filter before
	forgotten int
	read      int64 // chunks of content
}

func (w *rewriter) chooseByRules(list []*format.Snapshot) []*format.Snapshot {
	rules := w.filter.Snapshots
	w.filter.Snapshots = nil
	return chooseSnapshots(list, rules)
}

// fresh leaves out what went through this filter before.
func (w *rewriter) fresh(chosen []*format.Snapshot) (rest []*format.Snapshot) {
	description := w.filter.Description()
	done := make(map[format.ID]bool)
	for _, s := range w.list {
		for _, id := range s.SameIDs() {
			done[id] = true
		}
	}
	for _, s := range chosen {
		through := slices.ContainsFunc(s.Via, func(v format.Via) bool { return v.Stage == description })
		if through || done[filter.MapID(s.ID, description)] {
			w.before++
			continue
		}
		rest = append(rest, s)
	}
	return rest
}

func (w *rewriter) run(ctx context.Context, chosen []*format.Snapshot) (err error) {
	// One run, with snapshots of one series behind each other.
	runs, _, err := plan(w.fresh(chosen), held{}, "")
	if err != nil || len(runs) == 0 {
		return err
	}
	held := w.filter.TakesHeld()
	out := format.ExportOptions{Snapshots: runs[0].snapshots, Held: held, Producer: w.app.Name + " " + cli.Version, OnProgress: w.app.Progress()}
	if !w.filter.Paths.Empty() {
		out.Drop = w.filter.Paths.Match
	}
	if w.dryRun {
		out.Drop, w.filter.OnDrop = nil, w.announce
	}
	stage, err := filter.New(w.filter)
	if err != nil {
		return cli.Usagef("%w", err)
	}
	defer func() { err = errors.Join(err, stage.Close()) }()
	before := w.r.Stats().DataChunksRead.Load()
	src, err := w.r.Export(ctx, out)
	if err != nil {
		return err
	}
	defer src.Close()
	defer func() {
		w.dropped = stage.Summary()
		w.read = w.r.Stats().DataChunksRead.Load() - before
	}()
	if w.dryRun {
		return format.Copy(ctx, discard{}, src, stage)
	}
	sink, err := w.r.Import(ctx, repo.ImportOptions{
		Held: held, SkipUnchanged: true, Known: w.list, OnWarning: func(text string) { w.app.Warnf("%s", text) },
	})
	if err != nil {
		return err
	}
	err = format.Copy(ctx, sink, src, stage)
	if closeErr := sink.Close(); err == nil {
		err = closeErr
	}
	w.sum = sink.Summary()
	return err
}

// discard is a sink for what only the filter is to see.
type discard struct{}

// Write implements format.Sink.
func (discard) Write(format.Record) error { return nil }

// announce says what would be dropped.
func (w *rewriter) announce(d filter.Dropped) {
	if w.app.JSON {
		object := map[string]any{"snapshot": d.Snapshot.String(), "why": string(d.Why), "size": d.Size}
		cli.JSONName(object, "path", "/"+d.Path)
		w.app.JSONEvent("dropped", object)
		return
	}
	fmt.Fprintf(w.app.Stdout, "%s  %s  %s\n", d.Snapshot.Short(), d.Why, cli.Printable("/"+d.Path))
}

// forget forgets those of the chosen that have a rewritten version, made now or
// before.
func (w *rewriter) forget(ctx context.Context, chosen []*format.Snapshot) error {
	description := w.filter.Description()
	made := make(map[format.ID]*repo.Snapshot)
	for _, s := range append(slices.Clone(w.list), w.sum.Snapshots...) {
		made[s.Imported] = s
	}
	isChosen := make(map[format.ID]bool)
	for _, s := range chosen {
		isChosen[s.ID] = true
	}
	var old []*repo.Snapshot
	emptied := 0
	for _, s := range w.list {
		if now := made[filter.MapID(s.ID, description)]; isChosen[s.ID] && now != nil {
			old = append(old, s)
			if now.Entries == 0 && s.Entries > 0 {
				emptied++
			}
		}
	}
	if emptied > 0 {
		// Nobody keeps snapshots of nothing on purpose, and nothing undoes a forget.
		return &cli.Error{
			Op:  "forget what was rewritten",
			Err: fmt.Errorf("of %d of the %d snapshots the filter keeps nothing; all old ones stay", emptied, len(old)),
			Fix: "look at the patterns and paths, with --dry-run: a pattern with a slash begins at the root, as in --keep /home/me/papers. What was made now, bk-forget removes; it can also forget old snapshots that are to go",
		}
	}
	if err := w.r.Forget(ctx, old, "replaced by rewritten ones"); err != nil {
		return err
	}
	w.forgotten = len(old)
	return nil
}

// report says how it went.
func (w *rewriter) report() {
	w.app.ReportLosses(w.sum.Losses)
	if w.app.JSON {
		ids := make([]string, len(w.sum.Snapshots))
		for i, s := range w.sum.Snapshots {
			ids[i] = s.ID.String()
		}
		w.app.JSONEvent("summary", map[string]any{
			"snapshots": ids, "snapshots_unchanged": w.sum.Unchanged, "snapshots_before": w.before, "snapshots_forgotten": w.forgotten,
			"dropped_entries": w.dropped.DroppedEntries, "dropped_bytes": w.dropped.DroppedBytes,
			"chunks_read": w.read, "chunks_new": w.sum.NewChunks, "bytes_stored": w.sum.StoredBytes,
			"losses": lossesJSON(w.sum.Losses),
		})
		return
	}
	if w.dryRun {
		// Which of them come out as they were, only making them would tell.
		w.app.Sayf("would drop %s entries (%s); of %d snapshots those would be rewritten that this changes, %d were rewritten before",
			cli.Count(w.dropped.DroppedEntries), cli.Bytes(w.dropped.DroppedBytes), w.dropped.Snapshots, w.before)
		return
	}
	w.app.Sayf("rewrote %d snapshots; %d stay as they are, %d were rewritten before; %d forgotten", len(w.sum.Snapshots), w.sum.Unchanged, w.before, w.forgotten)
	w.app.Sayf("content read: %s chunks; stored: %s", cli.Count(uint64(w.read)), cli.Bytes(w.sum.StoredBytes))
}
