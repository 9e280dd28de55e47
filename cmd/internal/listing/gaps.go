package listing

import (
	"errors"
	"fmt"
	"strings"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/repo"
)

// gapsShown is how many gaps are named one by one.
const gapsShown = 10

// Gaps tells people about parts of listings that cannot be read, while a program
// goes on with the rest.
type Gaps struct {
	app     *cli.App
	count   int
	unknown bool // some are not known to be lost
}

// NewGaps returns one that writes to the standard error of app.
func NewGaps(app *cli.App) *Gaps { return &Gaps{app: app} }

// Add names a gap, and makes the exit code cli.ExitLossy.
func (g *Gaps) Add(gap repo.Gap) {
	g.app.Lossy()
	g.count++
	g.unknown = g.unknown || !errors.Is(gap.Err, repo.ErrKnownLost)
	if g.count > gapsShown {
		return
	}
	g.app.Warnf("%s of %s cannot be read: %v", gapPlace(gap), gapSnapshots(gap.Snapshots), gap.Err)
}

// Report says at the end what can be done.
func (g *Gaps) Report() {
	if g.count > gapsShown {
		g.app.Warnf("%s more parts of listings cannot be read", cli.Count(g.count-gapsShown))
	}
	switch {
	case g.unknown:
		fmt.Fprintln(g.app.Stderr, "to fix: run bk-check to see what is damaged, and bk-repair, with --from if another place has it")
	case g.count > 0:
		fmt.Fprintln(g.app.Stderr, "to fix: bk-repair --from, if another place has what is lost")
	}
}

// gapPlace says which entries a gap is.
func gapPlace(gap repo.Gap) string {
	from := cli.Printable("/" + gap.Path)
	switch {
	case gap.One:
		return "what is known of " + from
	case gap.Path == "" && gap.Before == "":
		return "the whole listing"
	case gap.Before == "":
		return "the listing from " + from + " on"
	}
	return "the listing from " + from + " up to " + cli.Printable("/"+gap.Before)
}

// gapSnapshots names the snapshots that a gap is in.
func gapSnapshots(list []*repo.Snapshot) string {
	if len(list) == 1 {
		return "snapshot " + list[0].ID.Short()
	}
	shown := make([]string, 0, 4)
	for _, s := range list[:min(len(list), 3)] {
		shown = append(shown, s.ID.Short())
	}
	if len(list) > 3 {
		shown = append(shown, "...")
	}
	return fmt.Sprintf("%s snapshots (%s)", cli.Count(len(list)), strings.Join(shown, ", "))
}
