package check

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo"
)

// pathsShown is how many paths are shown of each object, and snapshotsShown how
// many snapshots of each path, unless all are asked for.
const (
	pathsShown     = 20
	snapshotsShown = 6
)

// Show writes findings to standard output, for people or with --json as a line
// of JSON each.
func Show(app *cli.App, findings []*repo.Finding, all bool) error {
	out := bufio.NewWriter(app.Stdout)
	for _, f := range findings {
		if app.JSON {
			if err := showJSON(out, f); err != nil {
				return err
			}
		} else {
			show(out, f, all)
		}
	}
	return out.Flush()
}

func show(out io.Writer, f *repo.Finding, all bool) {
	object := f.Object
	if object != "" {
		object += ": "
	}
	fmt.Fprintf(out, "%s: %s%s\n", f.What, object, cli.Printable(fmt.Sprint(f.Err)))
	if f.Lost > 0 {
		fmt.Fprintf(out, "  lost with it: %s chunks\n", cli.Count(f.Lost))
	} else if strings.HasPrefix(f.Object, "packs/") && f.What != repo.Unlisted {
		fmt.Fprintln(out, "  nothing that a snapshot needs is lost with it")
	}
	more := f.More
	for i, t := range f.Touched {
		if i >= pathsShown && !all {
			more += uint64(len(f.Touched) - i)
			break
		}
		path := cli.Printable("/" + t.Path)
		switch {
		case t.Range && t.Before == "":
			path = "everything from " + path + " on"
		case t.Range:
			path = fmt.Sprintf("everything from %s up to %s", path, cli.Printable("/"+t.Before))
		}
		fmt.Fprintf(out, "  %s (in %s)\n", path, snapshotsText(t.Snapshots, all))
	}
	if more > 0 {
		fmt.Fprintf(out, "  and %s more\n", cli.Count(more))
	}
}

func snapshotsText(ids []format.ID, all bool) string {
	var b strings.Builder
	for i, id := range ids {
		if i == snapshotsShown && !all {
			fmt.Fprintf(&b, " and %s more", cli.Count(len(ids)-i))
			break
		}
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(id.Short())
	}
	return b.String()
}

func showJSON(out io.Writer, f *repo.Finding) error {
	touched := make([]map[string]any, len(f.Touched))
	for i, t := range f.Touched {
		ids := make([]string, len(t.Snapshots))
		for n, id := range t.Snapshots {
			ids[n] = id.String()
		}
		touched[i] = map[string]any{"snapshots": ids, "range": t.Range}
		cli.JSONName(touched[i], "path", "/"+t.Path)
		if t.Before != "" {
			cli.JSONName(touched[i], "before", "/"+t.Before)
		}
	}
	object := map[string]any{"finding": f.What, "error": fmt.Sprint(f.Err), "chunks_lost": f.Lost, "touched": touched, "touched_more": f.More}
	if f.Object != "" {
		object["object"] = f.Object
	}
	return json.NewEncoder(out).Encode(object)
}
