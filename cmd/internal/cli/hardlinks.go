package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/hardlinks"
)

// openHardlinks finds the snapshots in a directory of trees of hard links, and
// names what there is none.
func openHardlinks(_ context.Context, app *App, place string, opts SourceOptions) (format.System, error) {
	o := hardlinks.Options{
		Zone: time.Local,
		OnError: func(path string, err error) {
			app.Lossy()
			app.Warnf("%s: %v", Printable("/"+path), err)
		},
	}
	zone, inside := "", unset
	err := settings("hardlinks", opts.Settings, map[string]*string{
		"time-zone": &zone, "pattern": &o.Pattern, "root": &inside, "at": &o.At, "host": &o.Host, "name": &o.Name,
	})
	if err != nil {
		return nil, err
	}
	if inside != unset {
		o.Inside, o.InsideSet = inside, true
	}
	if zone != "" {
		if o.Zone, err = time.LoadLocation(zone); err != nil {
			return nil, Usagef("time-zone=%s: %w", zone, err)
		}
	}
	s, err := hardlinks.Open(place, o)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, &Error{Code: ExitNoRepository, Op: "read hardlinks:" + place, Err: errors.New("there is no such directory"), Fix: "check the place"}
	case errors.Is(err, hardlinks.ErrNone):
		return nil, &Error{Code: ExitNoRepository, Err: err, Fix: "name the directory that has daily.0 or 2026-11-30 in it, or say with --pattern how snapshots are named"}
	case err != nil:
		return nil, err
	}
	for _, skipped := range s.Skipped() {
		app.Warnf("%s", fmt.Sprintf("%s is no snapshot: %s", Printable(skipped.Name), skipped.Reason))
	}
	return s, nil
}

// unset is what no setting can be.
const unset = "\x00"
