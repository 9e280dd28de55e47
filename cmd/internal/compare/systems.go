package compare

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/cmd/internal/fidelity"
	"github.com/bk-backup/bk/format"
)

// systems compares all snapshots with those of another system.
func (c *Diff) systems(ctx context.Context, app *cli.App, snaps *cli.Snapshots) error {
	other, err := app.OpenSystemAs(ctx, &cli.SourceFlags{RepoFlags: cli.RepoFlags{Repo: c.With, CacheDir: c.CacheDir}}, cli.RoleTarget)
	if err != nil {
		return err
	}
	defer other.Close()
	// Records as they are exported say most about where a snapshot came from.
	all, err := snaps.System.Snapshots(ctx)
	if err != nil {
		return err
	}
	theirs, err := other.Snapshots(ctx)
	if err != nil {
		return err
	}
	sel, err := c.Selection()
	if err != nil {
		return err
	}
	ours := cli.Select(all, sel)
	// What belongs to a snapshot that is not selected is missing nothing.
	_, _, theirs = fidelity.Match(leftOut(all, ours), cli.Select(theirs, sel))
	out := bufio.NewWriterSize(app.Stdout, 1<<16)
	report, err := fidelity.Compare(ctx, snaps.System, other, ours, theirs, fidelity.Options{
		NameA: c.Repo, NameB: c.With, OnProgress: app.Progress(),
		OnDifference: func(d fidelity.Difference) {
			if !c.Summary {
				c.difference(out, app, d)
			}
		},
	})
	if err == nil {
		c.report(out, app, report)
	}
	if flushErr := out.Flush(); err == nil {
		err = flushErr
	}
	if err == nil && !report.Same() {
		err = &cli.Error{Code: cli.ExitFailed, Err: fmt.Errorf("the repositories are not equal: %d of %d snapshots differ, %d are only in A, %d only in B",
			report.Pairs-report.Equal, report.Pairs, len(report.OnlyA), len(report.OnlyB))}
	}
	return err
}

// leftOut returns what is in all and not in some.
func leftOut(all, some []*format.Snapshot) (rest []*format.Snapshot) {
	chosen := make(map[*format.Snapshot]bool, len(some))
	for _, s := range some {
		chosen[s] = true
	}
	for _, s := range all {
		if !chosen[s] {
			rest = append(rest, s)
		}
	}
	return rest
}

// difference prints one.
func (c *Diff) difference(out io.Writer, app *cli.App, d fidelity.Difference) {
	if app.JSON {
		object := map[string]any{"change": "difference", "a": d.A.ID.String(), "b": d.B.ID.String(), "what": d.What}
		if d.Entry {
			cli.JSONName(object, "path", "/"+d.Path)
		}
		_ = json.NewEncoder(out).Encode(object) // a failed write shows at the flush
		return
	}
	subject := "the snapshot's record"
	if d.Entry {
		subject = cli.Printable("/" + d.Path)
	}
	fmt.Fprintf(out, "%s %s  %s: %s\n", d.A.ID.Short(), d.B.ID.Short(), subject, cli.Printable(d.What))
}

// report prints the sums.
func (c *Diff) report(out io.Writer, app *cli.App, r *fidelity.Report) {
	if app.JSON {
		_ = json.NewEncoder(out).Encode(map[string]any{
			"change": "summary", "snapshots": r.Pairs, "snapshots_equal": r.Equal, "differences": r.Differences,
			"entries": r.Entries, "bytes": r.Bytes, "bytes_hashed": r.Hashed,
			"only_a": idTexts(r.OnlyA), "only_b": idTexts(r.OnlyB),
		})
		return
	}
	for _, missing := range []struct {
		where string
		list  []*format.Snapshot
	}{{"A", r.OnlyA}, {"B", r.OnlyB}} {
		for _, s := range missing.list {
			fmt.Fprintf(out, "%s  only in %s (%s, %s)\n", s.ID.Short(), missing.where, cli.TimeText(s.Time), cli.Printable(s.Host))
		}
	}
	if app.Quiet {
		return
	}
	fmt.Fprintf(out, "%d of %d snapshots are equal: %s entries, %s of content compared; %s hashed where the two sides cut it differently\n",
		r.Equal, r.Pairs, cli.Count(r.Entries), cli.Bytes(r.Bytes), cli.Bytes(r.Hashed))
}

func idTexts(list []*format.Snapshot) []string {
	texts := make([]string, len(list))
	for i, s := range list {
		texts[i] = s.ID.String()
	}
	return texts
}
