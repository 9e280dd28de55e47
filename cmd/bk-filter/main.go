// Command bk-filter takes things out of a stream, or changes them on the way,
// from standard input to standard output.
package main

import (
	"cmp"
	"context"
	"io"
	"os"
	"runtime/debug"
	"time"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/cmd/internal/filterflags"
	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/filter"
)

// memoryMax is what the collector keeps the heap below where it can, in bytes.
const memoryMax = 40 << 20

// readSize is how much is read at a time, in bytes: a widened pipe holds more than
// the 64 KiB of a Reader.
const readSize = 256 << 10

type command struct {
	filterflags.Flags `embed:""`
	DryRun            bool `help:"Write no stream, but list on standard output what would go."`
}

func main() {
	cli.Main("bk-filter", "Take things out of a stream, or change them on the way.", &command{})
}

// Help is what stands below the summary in --help and the manual.
func (*command) Help() string {
	return `The stream comes from standard input and goes to standard output. Without options, not a byte of it changes.

A snapshot that passes gets a new id, which follows from its old one and from the options: so an incremental run through the same filter finds what it is based on, and one through another filter is refused. An age such as 30d is another filter every day. Choosing snapshots changes no id.

Content that goes but may be needed again waits in an encrypted file without a name in TMPDIR.

Examples:
  bk-export --all | bk-filter --drop '*.cat.jpg' | bk-import -r /srv/bk
  bk-backup --stdout ~ | bk-filter --keep /home/jo/photos --drop-if 'grep -q secret' > photos.bk
  bk-filter --dry-run --larger-than 1G < everything.bk`
}

// Run filters from end to end.
func (c *command) Run(ctx context.Context, app *cli.App) error {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryMax)
	}
	opts, err := c.Options(ctx, filterflags.Surroundings{Now: time.Now(), Env: os.Environ(), Stderr: app.Stderr})
	if err != nil {
		return cli.Usagef("%w", err)
	}
	in, err := app.StreamIn()
	if err != nil {
		return err
	}
	sink, finish, err := c.sink(app, &opts)
	if err != nil {
		return err
	}
	f, err := filter.New(opts)
	if err != nil {
		return cli.Usagef("%w", err)
	}
	err = format.Copy(ctx, sink, format.NewReader(in, format.ReaderOptions{BufferSize: readSize}), f)
	// The first error alone is for people: it is the cause.
	if err := cmp.Or(err, finish(), f.Close()); err != nil {
		return err
	}
	summarize(app, f.Summary(), c.DryRun)
	return nil
}

// sink returns where the stream goes: standard output or, with --dry-run,
// nowhere, and then what is dropped is listed. finish completes the listing.
func (c *command) sink(app *cli.App, opts *filter.Options) (sink format.Sink, finish func() error, err error) {
	if c.DryRun {
		l := newListing(app)
		opts.OnDrop = l.add
		return format.NewWriter(io.Discard, format.WriterOptions{}), l.flush, nil
	}
	out, err := app.StreamOut()
	if err != nil {
		return nil, nil, err
	}
	return format.NewWriter(out, format.WriterOptions{}), func() error { return nil }, nil
}
