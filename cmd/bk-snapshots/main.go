// Command bk-snapshots lists snapshots.
package main

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/format"
)

func main() {
	cli.Main("bk-snapshots", "List the snapshots of a repository.", &command{})
}

type command struct {
	cli.SourceFlags `embed:""`
	cli.SelectFlags `embed:""`
}

// Run lists them, oldest first. Those that cannot be read are named.
func (c *command) Run(ctx context.Context, app *cli.App) error {
	snapshots, err := app.OpenSnapshots(ctx, &c.SourceFlags, &c.SelectFlags)
	if err != nil {
		return err
	}
	defer snapshots.System.Close()
	list := snapshots.List
	if app.JSON {
		enc := json.NewEncoder(app.Stdout)
		for _, s := range list {
			object := cli.SnapshotJSON(s)
			if own := snapshots.Own(s); own != nil {
				object["entries"], object["bytes"] = own.Entries, own.Bytes
			}
			if err := enc.Encode(object); err != nil {
				return err
			}
		}
		return nil
	}
	rows := make([][]string, len(list))
	for i, s := range list {
		rows[i] = row(snapshots, s)
	}
	return cli.Table(app.Stdout, []string{"ID", "TIME", "HOST", "TAGS", "SIZE", "PATHS"}, rows, map[int]bool{4: true})
}

func row(list *cli.Snapshots, s *format.Snapshot) []string {
	size := ""
	if own := list.Own(s); own != nil {
		size = cli.Bytes(own.Bytes)
	} else if s.Estimate != nil {
		size = cli.Bytes(s.Estimate.Bytes)
	}
	paths := make([]string, len(s.Roots))
	for i, p := range s.Roots {
		paths[i] = "/" + cli.Printable(p)
	}
	return []string{s.ID.Short(), cli.TimeText(s.Time), cli.Printable(s.Host), cli.Printable(strings.Join(s.Tags, ",")), size, strings.Join(paths, " ")}
}
