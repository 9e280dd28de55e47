package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/filter"
)

// report tells what was dropped: with --dry-run each thing on standard output,
// and a summary on standard error.
type report struct {
	cmd  *command
	list *bufio.Writer
}

func newReport(cmd *command) *report { return &report{cmd, bufio.NewWriter(os.Stdout)} }

// sink is where the stream goes; with --dry-run, nowhere.
func (r *report) sink() format.Sink {
	if r.cmd.DryRun {
		return discard{}
	}
	return format.NewWriter(os.Stdout, format.WriterOptions{})
}

type discard struct{}

func (discard) Write(format.Record) error { return nil }

// onDrop lists one thing: snapshot, reason, size and path.
func (r *report) onDrop() func(filter.Dropped) {
	if !r.cmd.DryRun {
		return nil
	}
	return func(d filter.Dropped) {
		switch {
		case r.cmd.JSON:
			fmt.Fprintf(r.list, "%s\n", droppedJSON(d))
		case d.Why == filter.BySnapshot:
			fmt.Fprintf(r.list, "%s  %-10s\n", d.Snapshot.Short(), d.Why)
		default:
			fmt.Fprintf(r.list, "%s  %-10s  %9s  %s\n", d.Snapshot.Short(), d.Why, bytesText(d.Size), printable("/"+d.Path))
		}
	}
}

func droppedJSON(d filter.Dropped) []byte {
	fields := map[string]any{"event": "dropped", "snapshot": d.Snapshot.String(), "why": d.Why}
	if d.Why != filter.BySnapshot {
		fields["type"], fields["size"] = d.Type, d.Size
		if valid := strings.ToValidUTF8(d.Path, ""); valid == d.Path {
			fields["path"] = d.Path
		} else {
			fields["path_hex"] = fmt.Sprintf("%x", d.Path)
		}
	}
	return encodeJSON(fields)
}

// encodeJSON is for maps of text and numbers, which always can be encoded.
func encodeJSON(fields map[string]any) []byte {
	b, err := json.Marshal(fields)
	if err != nil {
		panic(err)
	}
	return b
}

func (r *report) flush() error {
	if !r.cmd.DryRun {
		return nil
	}
	if err := r.list.Flush(); err != nil {
		return fmt.Errorf("write the listing: %w", err)
	}
	return nil
}

func (r *report) summary(s filter.Summary) error {
	if r.cmd.JSON {
		_, err := fmt.Fprintf(os.Stderr, "%s\n", encodeJSON(map[string]any{
			"event": "summary", "snapshots": s.Snapshots, "dropped_snapshots": s.DroppedSnapshots,
			"entries": s.Entries, "dropped_entries": s.DroppedEntries, "bytes": s.Bytes, "dropped_bytes": s.DroppedBytes,
			"resent_chunks": s.ResentChunks, "spool_bytes": s.SpoolBytes}))
		return err
	}
	if r.cmd.Quiet {
		return nil
	}
	verb := "dropped"
	if r.cmd.DryRun {
		verb = "would drop"
	}
	line := fmt.Sprintf("%s %s of %s entries (%s of %s)", verb, countText(s.DroppedEntries), countText(s.DroppedEntries+s.Entries),
		bytesText(s.DroppedBytes), bytesText(s.DroppedBytes+s.Bytes))
	if s.DroppedSnapshots > 0 {
		line += fmt.Sprintf(" and %s of %s snapshots", countText(s.DroppedSnapshots), countText(s.DroppedSnapshots+s.Snapshots))
	}
	_, err := fmt.Fprintf(os.Stderr, "bk-filter: %s\n", line)
	return err
}

// printable escapes what could move a terminal's cursor or fake a line.
func printable(path string) string {
	quoted := strconv.Quote(path)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

func bytesText(n uint64) string {
	value, units := float64(n), []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	if n < 1<<10 {
		return strconv.FormatUint(n, 10) + " B"
	}
	unit := ""
	for _, unit = range units {
		if value /= 1024; value < 1023.95 {
			break
		}
	}
	return fmt.Sprintf("%.1f %s", value, unit)
}

func countText(n uint64) string {
	text := strconv.FormatUint(n, 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
