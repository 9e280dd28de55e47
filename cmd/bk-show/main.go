// Command bk-show shows a stream: as text, as JSON, as a listing, as a summary,
// and checks it. Package cmd/internal/show does the work.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/cmd/internal/show"
)

func main() {
	cli.Main("bk-show", "Look into a stream of backups.", &command{})
}

type command struct {
	Text    bool `xor:"mode" help:"A line a record, with everything in it. This is the default."`
	List    bool `xor:"mode" short:"l" help:"List the entries like tar tv."`
	Summary bool `xor:"mode" short:"s" help:"Snapshots, files, bytes, unique bytes, compression."`
	Vector  bool `xor:"mode" hidden:"" help:"Answer as spec/vectors/README.md says."`
	Verify  bool `help:"Decode and check every payload, and check every reference to a chunk. Alone, it shows the summary."`

	File string `arg:"" optional:"" help:"The file that holds the stream. Standard input if not given."`
}

// Help is the longer text.
func (*command) Help() string {
	return `With --json every record is a JSON object on a line of its own. The exit code is 4 if the stream is cut off or wrong.

No listing and no content is kept, so --verify leaves some things to the program that takes the stream in: whether what a copy record names is in the parent (feature copy), whether an entry lies below what the parent has as a file, whether the receiver has the base (feature base) and the chunks that were not sent (feature held), and the SHA-256 of a file whose content was not all sent with it.

  bk-export --all | bk-show --summary --verify
  zstdcat home.bk.zst | bk-show --list`
}

// mode returns what the flags choose.
func (c *command) mode(json bool) show.Mode {
	switch {
	case json:
		return show.JSON
	case c.List:
		return show.List
	case c.Vector:
		return show.Vector
	case c.Summary, c.Verify && !c.Text:
		return show.Summary
	}
	return show.Text
}

// Run shows the stream.
func (c *command) Run(ctx context.Context, app *cli.App) error {
	if app.JSON && (c.Text || c.List || c.Summary || c.Vector) {
		return cli.Usagef("--json, --text, --list and --summary exclude each other")
	}
	var in io.Reader
	if c.File != "" {
		file, err := os.Open(c.File)
		if err != nil {
			return fmt.Errorf("open the stream: %w", err)
		}
		defer file.Close()
		in = file
	} else {
		var err error
		if in, err = app.StreamIn(); err != nil {
			return err
		}
	}
	return show.Run(ctx, app.Stdout, in, show.Options{Mode: c.mode(app.JSON), Verify: c.Verify, Location: time.Local})
}
