package find

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/cmd/internal/listing"
	"github.com/bk-backup/bk/format"
)

// Find is the program bk-find.
type Find struct {
	cli.SourceFlags `embed:""`
	cli.SelectFlags `embed:""`

	Patterns   []string `arg:"" sep:"none" name:"PATTERN" help:"What to look for, written as in gitignore: a name or *.jpg at any depth, /home/me/*.txt from the root, cache/ for directories only. ! before a pattern takes out what it matches, and what lies below; the last pattern that matches decides."`
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
	return `A line for every version of every object that matches: the first and the last of the snapshots that have it, one after another, and how many these are. A version is another one if its type, mode, owner, size, time or target is. Snapshots of one host and the same paths are one history; several histories are searched one after another. What cannot be read of a listing is named, the rest is searched, and the exit code is 3.

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
	snaps, err := app.OpenSnapshots(ctx, &c.SourceFlags, &c.SelectFlags)
	if err != nil {
		return err
	}
	defer snaps.System.Close()
	out := bufio.NewWriterSize(app.Stdout, 1<<16)
	all := histories(snaps.List)
	p := c.printer(out, app, snaps.List, len(all))
	gaps := listing.NewGaps(app)
	for _, history := range all {
		if snaps.Repo != nil {
			err = searchRepo(ctx, snaps.Repo, snaps.OwnAll(history), history, want, gaps.Add, p.version)
		} else {
			err = search(ctx, snaps.System, history, want, app.Progress(), p.version)
		}
		if err != nil {
			break
		}
	}
	gaps.Report()
	if flushErr := out.Flush(); err == nil {
		err = flushErr
	}
	return err
}

// printer writes versions as they are found.
type printer struct {
	out   *bufio.Writer
	null  bool
	json  *json.Encoder // nil for plain text
	table table

	last string          // with null: the path that was written last
	seen map[string]bool // the paths that were, if they come from several histories
}

func (c *Find) printer(out *bufio.Writer, app *cli.App, snaps []*format.Snapshot, histories int) *printer {
	p := &printer{out: out, null: c.Null, table: table{out: out, long: c.Long, hostWidth: len("HOST")}}
	switch {
	case app.JSON:
		p.json = json.NewEncoder(out)
	case c.Null && histories > 1:
		p.seen = make(map[string]bool)
	case !c.Null:
		for _, s := range snaps {
			p.table.hostWidth = max(p.table.hostWidth, utf8.RuneCountInString(cli.Printable(s.Host)))
		}
		p.table.line("FIRST", "LAST", "SNAPSHOTS", "HOST", "MODE", "OWNER", "SIZE", "CHANGED", "PATH")
	}
	return p
}

// version writes one that was found.
func (p *printer) version(v *version) error {
	if p.null {
		return p.path(v.path)
	}
	e, err := v.entry()
	if err != nil {
		return err
	}
	if p.json != nil {
		return p.json.Encode(v.json(e))
	}
	p.table.version(v, e)
	return nil
}

// path writes a path, once.
func (p *printer) path(path string) error {
	if p.seen[path] || p.seen == nil && p.last == path {
		return nil
	}
	if p.last = path; p.seen != nil {
		p.seen[path] = true
	}
	_, err := fmt.Fprintf(p.out, "/%s\x00", path)
	return err
}

// table writes lines whose columns are as wide as is usual, so that none waits
// for another. Errors show when out is flushed.
type table struct {
	out       *bufio.Writer
	long      bool
	hostWidth int
}

func (t *table) line(first, last, snapshots, host, mode, owner, size, changed, path string) {
	fmt.Fprintf(t.out, "%-28s  %-28s  %9s  %-*s  ", first, last, snapshots, t.hostWidth, host)
	if t.long {
		fmt.Fprintf(t.out, "%-10s  %-13s  ", mode, owner)
	}
	fmt.Fprintf(t.out, "%8s  %-19s  %s\n", size, changed, path)
}

func (t *table) version(v *version, e *format.Entry) {
	moment := func(s *format.Snapshot) string { return strings.TrimSpace(cli.TimeText(s.Time) + " " + s.ID.Short()) }
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
	t.line(moment(v.first), moment(v.last), cli.Count(v.snapshots), cli.Printable(v.first.Host),
		listing.Mode(e), listing.User(e)+":"+listing.Group(e), size, changed, path)
}

// json is a version as --json prints it.
func (v *version) json(e *format.Entry) map[string]any {
	object := map[string]any{"entry": listing.JSON(e), "snapshots": v.snapshots}
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
