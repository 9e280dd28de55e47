package find

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/cmd/internal/listing"
	"github.com/bk-backup/bk/format"
)

// Find is the program bk-find.
type Find struct {
	cli.RepoFlags   `embed:""`
	cli.SelectFlags `embed:""`

	Patterns   []string `arg:"" sep:"none" name:"PATTERN" help:"What to look for, written as in gitignore: a name or *.jpg at any depth, /home/me/*.txt from the root, cache/ for directories only. ! before a pattern takes out what it matches."`
	IgnoreCase bool     `short:"i" help:"Let patterns match letters (ASCII) of either case."`

	Type        []string `group:"What is found" placeholder:"TYPE" help:"Only objects of this type: file, dir, symlink, char, block, fifo or socket."`
	LargerThan  string   `group:"What is found" placeholder:"SIZE" help:"Only files larger than this, such as 10KiB, 5M, 1GB."`
	SmallerThan string   `group:"What is found" placeholder:"SIZE" help:"Only files smaller than this."`
	NewerThan   string   `group:"What is found" placeholder:"TIME" help:"Only what was changed after this: 2026-01-02, 2026-01-02T15:04:05Z, or an age such as 30d."`
	OlderThan   string   `group:"What is found" placeholder:"TIME" help:"Only what was changed before this."`

	Long bool `short:"l" help:"Show mode and owner too."`
	Null bool `short:"0" name:"null" help:"Write each path once and nothing else, and end it with a zero byte."`
}

// Help is the longer text.
func (*Find) Help() string {
	return `A line for every version of every object that matches: the first and the last of the snapshots that have it, one after another, and how many these are. A version is another one if its type, mode, owner, size, time or target is. Snapshots of one host and the same paths are one history; several histories are searched one after another.

  bk-find '*.cat.jpg'
  bk-find --host laptop /home/me/thesis.tex
  bk-find '*.iso' --larger-than 1GB --type file`
}

// Run searches.
func (c *Find) Run(ctx context.Context, app *cli.App) error {
	if c.Null && (c.Long || app.JSON) {
		return cli.Usagef("--null goes with plain paths, not with --long or --json")
	}
	want, err := c.wanted(time.Now())
	if err != nil {
		return cli.Usagef("%w", err)
	}
	snaps, err := app.OpenSnapshots(ctx, &c.RepoFlags, &c.SelectFlags)
	if err != nil {
		return err
	}
	defer snaps.System.Close()
	out := bufio.NewWriterSize(app.Stdout, 1<<16)
	var all []version
	for _, history := range histories(snaps.List) {
		found, err := search(ctx, snaps.System, history, want, app.Progress())
		if err != nil {
			return err
		}
		all = append(all, found...)
	}
	if err := c.print(out, app, all); err != nil {
		return err
	}
	return out.Flush()
}

// print writes what was found.
func (c *Find) print(out *bufio.Writer, app *cli.App, all []version) error {
	switch {
	case app.JSON:
		enc := json.NewEncoder(out)
		for i := range all {
			if err := enc.Encode(all[i].json()); err != nil {
				return err
			}
		}
		return nil
	case c.Null:
		seen := make(map[string]bool)
		for i := range all {
			if path := all[i].entry.Path; !seen[path] {
				seen[path] = true
				fmt.Fprintf(out, "/%s\x00", path)
			}
		}
		return nil
	}
	header := []string{"FIRST", "LAST", "SNAPSHOTS", "HOST", "SIZE", "CHANGED", "PATH"}
	right := map[int]bool{2: true, 4: true}
	if c.Long {
		header = []string{"FIRST", "LAST", "SNAPSHOTS", "HOST", "MODE", "OWNER", "SIZE", "CHANGED", "PATH"}
		right = map[int]bool{2: true, 6: true}
	}
	rows := make([][]string, len(all))
	for i := range all {
		rows[i] = all[i].row(c.Long)
	}
	return cli.Table(out, header, rows, right)
}

// row is a version in the table.
func (v *version) row(long bool) []string {
	e := v.entry
	moment := func(s *format.Snapshot) string { return strings.TrimSpace(cli.TimeText(s.Time) + " " + s.ID.Short()) }
	row := []string{moment(v.first), moment(v.last), cli.Count(v.snapshots), cli.Printable(v.first.Host)}
	if long {
		row = append(row, listing.Mode(e), listing.User(e)+":"+listing.Group(e))
	}
	size, changed := "-", "-"
	if e.Type == format.TypeFile && e.Has&format.HasSize != 0 {
		size = cli.Bytes(e.Size)
	}
	if e.Has&format.HasMtime != 0 {
		changed = cli.TimeText(&e.Mtime)
	}
	path := cli.Printable("/" + e.Path)
	if e.Type == format.TypeDir && e.Path != "" {
		path += "/"
	}
	if e.Type == format.TypeSymlink {
		path += " -> " + cli.Printable(e.Target)
	}
	return append(row, size, changed, path)
}

// json is a version as --json prints it.
func (v *version) json() map[string]any {
	object := map[string]any{"entry": listing.JSON(v.entry), "snapshots": v.snapshots}
	for key, s := range map[string]*format.Snapshot{"first": v.first, "last": v.last} {
		at := map[string]any{"id": s.ID.String()}
		if s.Time != nil {
			at["time"] = cli.TimeJSON(*s.Time)
		}
		object[key] = at
	}
	if v.first.Host != "" {
		cli.JSONName(object, "host", v.first.Host)
	}
	return object
}
