package transfer

import (
	"context"
	"fmt"
	"slices"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/cmd/internal/filterflags"
	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/filter"
)

// Export is the program bk-export.
type Export struct {
	cli.SourceFlags `embed:""`
	cli.SelectFlags `embed:""`

	Snapshots []string `arg:"" optional:"" sep:"none" name:"SNAPSHOT" help:"Snapshots: latest, latest~2, or the beginning of an id."`
	All       bool     `help:"All snapshots that --host, --tag and so on select."`
	Have      string   `placeholder:"FILE" help:"Leave out the snapshots whose ids are in FILE, as bk-import --list-imported writes it (- for standard input), and begin with a difference to the newest of them."`
	Plain     bool     `help:"Send payloads uncompressed."`
	Full      bool     `help:"Send the whole listing of every snapshot, not differences."`
	Flat      bool     `help:"Send every snapshot whole, content included, for simple readers."`
	Copy      bool     `xor:"copy" help:"Name what a changed file has in common with its version before by place (copy records) and not by chunk: the best input for bk-import --chunker."`
	NoCopy    bool     `name:"no-copy" xor:"copy" help:"Send no copy records even where --have makes a difference to what the receiver holds: changed files are sent whole. For filters that cannot work with copy records."`
	NoHeld    bool     `name:"no-held" help:"Send again what --have lists of a snapshot that was cut off. For filters that have to see all content."`
	Held      bool     `help:"Name content and do not send it: for bk-import --held into the same repository."`

	filterflags.PathFlags `embed:""`
}

// Help is the longer text.
func (*Export) Help() string {
	return `The stream goes to standard output: into bk-import, bk-filter, bk-restore --stdin, bk-show, or a file. Each piece of content is sent once, and each snapshot as its difference to the one before; with --all those of one host and the same paths stand together. Where --have leaves several hosts with something new, the first goes on from what the receiver holds, the others come whole: give --host to send them one by one, or use bk-sync. What the patterns drop is never read.

  bk-export --all | bk-import -r /srv/other
  bk-export latest --drop '*.iso' | zstd > latest.bk.zst`
}

// Run writes the stream.
func (c *Export) Run(ctx context.Context, app *cli.App) error {
	if c.All == (len(c.Snapshots) > 0) {
		return cli.Usagef("name snapshots, or give --all")
	}
	patterns, err := c.Compile()
	if err != nil {
		return cli.Usagef("%w", err)
	}
	out, err := app.StreamOut()
	if err != nil {
		return err
	}
	system, err := app.OpenSystem(ctx, &c.SourceFlags)
	if err != nil {
		return err
	}
	defer system.Close()
	chosen, err := c.choose(ctx, system)
	if err != nil {
		return err
	}
	opts := format.ExportOptions{
		Flat: c.Flat, Full: c.Full, Plain: c.Plain, Held: c.Held, Copy: c.Copy, NoCopy: c.NoCopy,
		Producer: app.Name + " " + cli.Version, OnProgress: app.Progress(), OnDamage: app.Damaged,
	}
	if c.Have != "" {
		have, err := readHave(c.Have)
		if err != nil {
			return err
		}
		chosen, opts.Base = have.leaveOut(chosen)
		for _, s := range chosen {
			opts.Snapshots = append(opts.Snapshots, s.ID)
		}
		if !c.NoHeld && !c.Flat && have.arrived.of(opts.Snapshots) {
			opts.Arrived = have.arrived.has
		}
	} else {
		for _, s := range chosen {
			opts.Snapshots = append(opts.Snapshots, s.ID)
		}
	}
	var stages []format.Stage
	if patterns != nil {
		opts.Drop = patterns.Match
		stage, err := filter.New(filter.Options{Paths: patterns})
		if err != nil {
			return err
		}
		defer stage.Close()
		stages = append(stages, stage)
	}
	w := format.NewWriter(out, format.WriterOptions{})
	if len(chosen) == 0 {
		return writeEmpty(w, opts.Producer)
	}
	src, err := system.Export(ctx, opts)
	if err != nil {
		return err
	}
	defer src.Close()
	losses := &lossWatcher{app: app}
	if err := format.Copy(ctx, w, src, append(stages, losses)...); err != nil {
		return &cli.Error{Code: cli.ExitFailed, Op: "export", Err: err}
	}
	return nil
}

// choose resolves the arguments.
func (c *Export) choose(ctx context.Context, system format.System) ([]*format.Snapshot, error) {
	list, err := system.Snapshots(ctx)
	if err != nil {
		return nil, err
	}
	sel, err := c.SelectFlags.Selection()
	if err != nil {
		return nil, err
	}
	list = cli.Select(list, sel)
	if c.All {
		return slices.Concat(inSeries(list)...), nil
	}
	var chosen []*format.Snapshot
	for _, name := range c.Snapshots {
		s, err := cli.Resolve(list, name)
		if err != nil {
			return nil, &cli.Error{Err: err, Fix: "run bk-snapshots for the list"}
		}
		chosen = append(chosen, s)
	}
	return chosen, nil
}

// writeEmpty writes a stream without snapshots: there is nothing new.
func writeEmpty(w *format.Writer, producer string) error {
	if err := w.Write(&format.Header{Version: format.Version, Producer: producer}); err != nil {
		return err
	}
	return w.Write(&format.End{})
}

// lossWatcher reports the losses that commits carry, and passes everything on.
type lossWatcher struct{ app *cli.App }

// Process implements format.Stage.
func (l *lossWatcher) Process(rec format.Record, emit func(format.Record) error) error {
	if c, ok := rec.(*format.Commit); ok && len(c.Losses) > 0 {
		l.app.Warnf("%s", fmt.Sprintf("a snapshot records %d kinds of loss from when it was made; bk-import names them", len(c.Losses)))
	}
	return emit(rec)
}
