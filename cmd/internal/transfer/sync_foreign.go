package transfer

import (
	"context"
	"errors"
	"fmt"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/filter"
)

// toForeign brings a target of another system up to date.
func (c *Sync) toForeign(ctx context.Context, app *cli.App, target *cli.ForeignTarget, opts filter.Options, sel cli.Selection) error {
	if c.Compression != "" {
		return cli.Usagef("--compression is for repositories of bk; others have -o")
	}
	same, err := target.IsSource(&c.RepoFlags)
	if err != nil {
		return err
	}
	if same {
		return cli.Usagef("source and target are the same repository")
	}
	s := foreignSyncer{app: app, target: target, filter: opts}
	c.Option, s.how.Settings = target.Options(&c.RepoFlags, c.Option)
	s.how.Strict, s.how.Chunker, s.how.OnProgress = c.Strict, c.Chunker, app.Progress()
	if s.source, err = app.OpenSystem(ctx, &c.SourceFlags); err != nil {
		return err
	}
	defer s.source.Close()
	list, err := s.source.Snapshots(ctx)
	if err != nil {
		return err
	}
	list = choose(cli.Select(list, sel), &s.filter)
	lines, err := target.ImportedSoFar(ctx)
	if err != nil {
		return fmt.Errorf("find out what %s holds already: %w", target, err)
	}
	runs, kept, err := plan(list, heldByForeign(lines), opts.Description())
	if err != nil {
		return err
	}
	if c.DryRun {
		return announce(app, list, runs, kept)
	}
	for _, r := range runs {
		if err = s.one(ctx, r); err != nil {
			break
		}
	}
	s.sum.Held += uint64(kept)
	reportForeign(app, s.sum)
	return err
}

// foreignSyncer moves snapshots from a source through a filter into another
// system.
type foreignSyncer struct {
	app    *cli.App
	source format.System
	target *cli.ForeignTarget
	filter filter.Options
	how    cli.SinkOptions
	sum    cli.ForeignSums
}

// one does a run.
func (s *foreignSyncer) one(ctx context.Context, r run) (err error) {
	out := format.ExportOptions{
		Snapshots: r.snapshots, Base: r.base, Producer: s.app.Name + " " + cli.Version,
		Flat: s.target.Flat(), NoCopy: !s.filter.TakesCopy(),
		Nameless: s.target.Recuts(s.how.Chunker) && s.filter.TakesNameless(),
		OnDamage: s.app.Damaged,
	}
	if !s.filter.Paths.Empty() {
		out.Drop = s.filter.Paths.Match
	}
	stage, err := filter.New(s.filter)
	if err != nil {
		return cli.Usagef("%w", err)
	}
	defer func() { err = errors.Join(err, stage.Close()) }()
	src, err := s.source.Export(ctx, out)
	if err != nil {
		return err
	}
	defer src.Close()
	sink, err := s.target.Open(ctx, s.how)
	if err != nil {
		return err
	}
	err = format.Copy(ctx, sink, src, stage)
	if closeErr := sink.Close(); err == nil {
		err = closeErr
	}
	s.sum.Add(sink.Sums())
	return err
}
