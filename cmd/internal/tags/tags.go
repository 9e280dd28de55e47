// Package tags is what bk-tag does: other tags for snapshots. Start at Tag. Only
// that program imports it.
package tags

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/repo"
)

// Tag is the program bk-tag.
type Tag struct {
	cli.RepoFlags   `embed:""`
	cli.SelectFlags `embed:""`

	Snapshots []string `arg:"" optional:"" sep:"none" name:"SNAPSHOT" help:"Snapshots: latest, latest~2, or the beginning of an id."`
	All       bool     `help:"All snapshots that --host, --tag and so on select."`

	Add    []string `sep:"none" placeholder:"TAGS" help:"Add these tags (comma-separated, repeatable)."`
	Remove []string `sep:"none" placeholder:"TAGS" help:"Remove these tags."`
	Set    []string `sep:"none" placeholder:"TAGS" help:"Make these the only tags; nothing between quotes for none."`
}

// Help is the longer text.
func (*Tag) Help() string {
	return `A snapshot is signed and never changes, its tags included. So a copy with other tags takes its place, under another id, which is shown; time, host, origin and the files stay as they are.

  bk-tag --add keep latest
  bk-tag --all --tag monday --remove monday --add weekly`
}

// Run changes the tags.
func (c *Tag) Run(ctx context.Context, app *cli.App) error {
	change, err := c.change()
	if err != nil {
		return err
	}
	if c.All == (len(c.Snapshots) > 0) {
		return cli.Usagef("name snapshots, or give --all")
	}
	snaps, err := app.OpenSnapshots(ctx, &cli.SourceFlags{RepoFlags: c.RepoFlags}, &c.SelectFlags)
	if err != nil {
		return err
	}
	defer snaps.System.Close()
	if snaps.Repo == nil {
		return cli.Usagef("the tags of another system's snapshots cannot be changed")
	}
	chosen, err := snaps.Choose(c.Snapshots, c.All)
	if err != nil {
		return err
	}
	known, _, err := snaps.Repo.List(ctx)
	if err != nil {
		return err
	}
	done, err := snaps.Repo.Retag(ctx, known, snaps.OwnAll(chosen), change)
	if reportErr := report(app, done); err == nil {
		err = reportErr
	}
	if err == nil {
		app.Sayf("changed the tags of %d of %d snapshots", len(done), len(chosen))
	}
	return err
}

// change returns what becomes of a list of tags.
func (c *Tag) change() (func(old []string) []string, error) {
	if len(c.Set) > 0 && len(c.Add)+len(c.Remove) > 0 {
		return nil, cli.Usagef("--set excludes --add and --remove")
	}
	if len(c.Add)+len(c.Remove)+len(c.Set) == 0 {
		return nil, cli.Usagef("nothing to change: give --add, --remove or --set")
	}
	add, remove := splitTags(append(slices.Clone(c.Set), c.Add...)), splitTags(c.Remove)
	return func(old []string) []string {
		tags := old
		if len(c.Set) > 0 {
			tags = nil
		}
		for _, tag := range add {
			if !slices.Contains(tags, tag) {
				tags = append(tags, tag)
			}
		}
		return slices.DeleteFunc(tags, func(tag string) bool { return slices.Contains(remove, tag) })
	}, nil
}

// splitTags joins comma-separated lists.
func splitTags(lists []string) []string {
	return slices.DeleteFunc(strings.Split(strings.Join(lists, ","), ","), func(tag string) bool { return tag == "" })
}

// report shows old and new ids on standard output.
func report(app *cli.App, done []repo.Replaced) error {
	for _, d := range done {
		if app.JSON {
			object := map[string]any{"old": d.Old.ID.String(), "new": d.New.ID.String(), "tags": append([]string{}, d.New.Meta.Tags...)}
			if err := json.NewEncoder(app.Stdout).Encode(object); err != nil {
				return err
			}
			continue
		}
		if _, err := fmt.Fprintf(app.Stdout, "%s -> %s  %s  %s\n", d.Old.ID.Short(), d.New.ID.Short(), cli.TimeText(d.New.Meta.Time), cli.Printable(strings.Join(d.New.Meta.Tags, ","))); err != nil {
			return err
		}
	}
	return nil
}
