package compare

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/cmd/internal/listing"
	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo"
)

// Diff is the program bk-diff.
type Diff struct {
	cli.SourceFlags `embed:""`
	cli.SelectFlags `embed:""`

	Older string `arg:"" optional:"" name:"A" help:"The older snapshot: latest, latest~2, or the beginning of an id."`
	Newer string `arg:"" optional:"" name:"B" help:"The newer snapshot."`
	Below string `arg:"" optional:"" name:"PATH" help:"Compare only what lies at and below this path."`

	With        string `placeholder:"URL" help:"Compare all snapshots that --host and so on select with those of this repository (or other system) that belong to them, and say what is not equal."`
	ContentOnly bool   `help:"Leave out those of which only mode, owner, time and the like changed."`
	Summary     bool   `short:"s" help:"Show the sums alone."`
}

// Help is the longer text.
func (*Diff) Help() string {
	return `A line for every path that differs:

  +  added            M  content changed (and perhaps more)
  -  removed          U  mode, owner, time or other metadata changed
  T  type changed

Content is compared by the chunks that it consists of, and nothing that both snapshots have is read. In the sums, content that only moved counts as neither new nor gone. In other systems' snapshots, files of equal size and time count as equal. Of paths that one of the listings cannot tell, since a part of it is damaged, nothing is said but which they are; the exit code is 3 then.

  bk-diff latest~1 latest
  bk-diff latest~7 latest /home/me

With --with it proves that a conversion was faithful. The snapshots of two repositories, of any kinds, that came from one another are compared whole: listings, metadata, and content by the ids of its chunks, or by hashing it where the two cut it differently. Nothing is restored. The exit code is 0 only if every snapshot has an equal one. Informative times (atime, ctime, birth) are not compared. The passphrase of the second is BK_IMPORT_PASSPHRASE, else BK_PASSPHRASE.

  bk-diff -r restic:/srv/restic --with /srv/bk`
}

// kind is the sign before a path.
type kind string

const (
	added    kind = "+"
	removed  kind = "-"
	modified kind = "M"
	metadata kind = "U"
	retyped  kind = "T"
)

// kindOf classifies a change.
func kindOf(c *repo.Change) kind {
	switch {
	case c.Old == nil:
		return added
	case c.New == nil:
		return removed
	case c.Old.Type != c.New.Type:
		return retyped
	case c.Content, c.New.Target != c.Old.Target, c.New.Rdev != c.Old.Rdev:
		return modified
	}
	return metadata
}

// Run compares.
func (c *Diff) Run(ctx context.Context, app *cli.App) error {
	if err := c.checkUsage(); err != nil {
		return err
	}
	snaps, err := app.OpenSnapshots(ctx, &c.SourceFlags, &c.SelectFlags)
	if err != nil {
		return err
	}
	defer snaps.System.Close()
	if c.With != "" {
		return c.systems(ctx, app, snaps)
	}
	older, err := snaps.Resolve(c.Older)
	if err != nil {
		return err
	}
	newer, err := snaps.Resolve(c.Newer)
	if err != nil {
		return err
	}
	gaps := listing.NewGaps(app)
	diff, err := open(ctx, snaps, older, newer, strings.Trim(c.Below, "/"), gaps.Add)
	if err != nil {
		return err
	}
	defer diff.Close()
	out := bufio.NewWriterSize(app.Stdout, 1<<16)
	var sums sums
	err = c.changes(out, app, diff, &sums)
	if err == nil {
		sums.content = diff.Difference()
		err = sums.print(out, app, older, newer)
	}
	gaps.Report()
	if flushErr := out.Flush(); err == nil {
		err = flushErr
	}
	return err
}

func (c *Diff) checkUsage() error {
	switch {
	case c.With != "" && (c.Older != "" || c.Below != "" || c.ContentOnly):
		return cli.Usagef("--with compares whole repositories: choose snapshots with --host and so on")
	case c.With == "" && c.Newer == "":
		return cli.Usagef("name two snapshots, or a second repository with --with")
	}
	return nil
}

// changes prints and counts them.
func (c *Diff) changes(out io.Writer, app *cli.App, diff changes, sums *sums) error {
	encoder := json.NewEncoder(out)
	for {
		change, err := diff.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		k := kindOf(change)
		if c.ContentOnly && k == metadata {
			continue
		}
		sums.add(k, change)
		switch {
		case c.Summary:
		case app.JSON:
			err = encoder.Encode(changeJSON(k, change))
		default:
			_, err = fmt.Fprintf(out, "%s  %s\n", k, shownPath(change))
		}
		if err != nil {
			return err
		}
	}
}

// shownPath has a slash behind directories.
func shownPath(c *repo.Change) string {
	e := c.New
	if e == nil {
		e = c.Old
	}
	path := cli.Printable("/" + c.Path)
	if e.Type == format.TypeDir && c.Path != "" {
		path += "/"
	}
	return path
}

func changeJSON(k kind, c *repo.Change) map[string]any {
	object := map[string]any{"change": string(k)}
	cli.JSONName(object, "path", "/"+c.Path)
	if c.Old != nil {
		object["old"] = listing.JSON(c.Old)
	}
	if c.New != nil {
		object["new"] = listing.JSON(c.New)
	}
	return object
}
