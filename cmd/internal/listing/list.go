package listing

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/format"
)

// List is the program bk-ls.
type List struct {
	cli.SourceFlags `embed:""`
	cli.SelectFlags `embed:""`

	Snapshot string `arg:"" name:"SNAPSHOT[:PATH]" help:"Snapshot: latest, latest~2, or the beginning of an id; with a path, only what lies there."`
	Long     bool   `short:"l" help:"Show mode, owner, group, size and time, as ls -l does, and the targets of links."`
	Depth    int    `short:"d" placeholder:"N" help:"Show at most N levels below the path: 1 is what a directory holds. Default: all."`
	Null     bool   `short:"0" name:"null" help:"End each path with a zero byte, and write it as it is: for xargs -0. Otherwise what could disturb a terminal is written as an escape."`
}

// Help is the longer text.
func (*List) Help() string {
	return `A line for every entry, in the order of paths, with all that lies below directories. Only the part of the listing that is asked for is read. What of it cannot be read is named, the rest is shown, and the exit code is 3.

  bk-ls latest
  bk-ls -l latest:/home/me --depth 1
  bk-ls -0 latest:/home/me | xargs -0 ...`
}

// Run lists.
func (c *List) Run(ctx context.Context, app *cli.App) error {
	switch {
	case c.Depth < 0:
		return cli.Usagef("--depth: %d is not a number of levels", c.Depth)
	case c.Null && (c.Long || app.JSON):
		return cli.Usagef("--null goes with plain paths, not with --long or --json")
	}
	snaps, err := app.OpenSnapshots(ctx, &c.SourceFlags, &c.SelectFlags)
	if err != nil {
		return err
	}
	defer snaps.System.Close()
	name, below := cli.SplitTarget(c.Snapshot)
	snap, err := snaps.Resolve(name)
	if err != nil {
		return err
	}
	gaps := NewGaps(app)
	entries, err := Open(ctx, snaps, snap, below, gaps.Add)
	if err != nil {
		return err
	}
	defer entries.Close()
	out := bufio.NewWriterSize(app.Stdout, 1<<16)
	shown, err := c.print(out, app, entries, below)
	gaps.Report()
	if flushErr := out.Flush(); err == nil {
		err = flushErr
	}
	if err == nil && shown == 0 && gaps.count == 0 && below != "" {
		err = &cli.Error{Op: fmt.Sprintf("list %s of snapshot %s", cli.Printable("/"+below), snap.ID.Short()),
			Err: fmt.Errorf("there is nothing at that path"), Fix: "paths are whole, from the root: see bk-ls " + name + " --depth 1"}
	}
	return err
}

// print writes the entries that are at most so many levels below a path.
func (c *List) print(out *bufio.Writer, app *cli.App, entries Entries, below string) (shown int, err error) {
	top := levels(below)
	var line []byte
	encoder := json.NewEncoder(out)
	for {
		e, err := entries.Next()
		if err == io.EOF {
			return shown, nil
		}
		if err != nil {
			return shown, err
		}
		shown++
		if c.Depth > 0 && levels(e.Path)-top >= c.Depth {
			if levels(e.Path)-top > c.Depth {
				continue // below a directory that the listing does not name
			}
			if e.Type == format.TypeDir {
				if err := entries.SkipBelow(); err != nil {
					return shown, err
				}
			}
		}
		switch {
		case app.JSON:
			err = encoder.Encode(JSON(e))
		case c.Null:
			line = append(append(append(line[:0], '/'), e.Path...), 0)
			_, err = out.Write(line)
		case c.Long:
			line = append(AppendLong(line[:0], e, time.Local), '\n')
			_, err = out.Write(line)
		default:
			line = append(append(append(line[:0], '/'), cli.Printable(e.Path)...), '\n')
			_, err = out.Write(line)
		}
		if err != nil {
			return shown, err
		}
	}
}

// levels returns how deep a path lies: 0 for the root.
func levels(path string) int {
	if path == "" {
		return 0
	}
	return strings.Count(path, "/") + 1
}
