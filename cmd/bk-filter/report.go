package main

import (
	"bufio"
	"encoding/json"
	"fmt"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/format/filter"
)

// listing tells on standard output what would go, a line each.
type listing struct {
	out  *bufio.Writer
	json bool
	err  error
}

func newListing(app *cli.App) *listing {
	return &listing{out: bufio.NewWriter(app.Stdout), json: app.JSON}
}

// add lists one thing: snapshot, reason, size and path.
func (l *listing) add(d filter.Dropped) {
	switch {
	case l.json:
		l.addJSON(d)
	case d.Why == filter.BySnapshot:
		fmt.Fprintf(l.out, "%s  %s\n", d.Snapshot.Short(), d.Why)
	default:
		fmt.Fprintf(l.out, "%s  %-10s  %9s  %s\n", d.Snapshot.Short(), d.Why, cli.Bytes(d.Size), cli.Printable("/"+d.Path))
	}
}

func (l *listing) addJSON(d filter.Dropped) {
	fields := map[string]any{"snapshot": d.Snapshot.String(), "why": d.Why}
	if d.Why != filter.BySnapshot {
		fields["type"], fields["size"] = d.Type, d.Size
		cli.JSONName(fields, "path", d.Path)
	}
	line, err := json.Marshal(fields)
	if err != nil && l.err == nil {
		l.err = err
	}
	fmt.Fprintf(l.out, "%s\n", line)
}

func (l *listing) flush() error {
	if err := l.out.Flush(); l.err == nil {
		l.err = err
	}
	if l.err != nil {
		return fmt.Errorf("write the listing: %w", l.err)
	}
	return nil
}

// summarize says on standard error how much went.
func summarize(app *cli.App, s filter.Summary, dryRun bool) {
	if app.JSON {
		app.JSONEvent("summary", map[string]any{
			"snapshots": s.Snapshots, "dropped_snapshots": s.DroppedSnapshots,
			"entries": s.Entries, "dropped_entries": s.DroppedEntries, "bytes": s.Bytes, "dropped_bytes": s.DroppedBytes,
			"resent_chunks": s.ResentChunks, "spool_bytes": s.SpoolBytes})
		return
	}
	verb := "dropped"
	if dryRun {
		verb = "would drop"
	}
	line := fmt.Sprintf("%s: %s %s of %s entries (%s of %s)", app.Name, verb, cli.Count(s.DroppedEntries),
		cli.Count(s.DroppedEntries+s.Entries), cli.Bytes(s.DroppedBytes), cli.Bytes(s.DroppedBytes+s.Bytes))
	if s.DroppedSnapshots > 0 {
		line += fmt.Sprintf(" and %s of %s snapshots", cli.Count(s.DroppedSnapshots), cli.Count(s.DroppedSnapshots+s.Snapshots))
	}
	app.Sayf("%s", line)
}
