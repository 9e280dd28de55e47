package cli

import (
	"context"
	"errors"
	"os"
	"os/user"
	"strconv"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/tar"
)

func openTar(ctx context.Context, app *App, place string, opts SourceOptions) (format.System, error) {
	if err := settings("tar", opts.Settings, nil); err != nil {
		return nil, err
	}
	s, err := tar.Open(ctx, place, tar.Options{
		Stdin:       app.Stdin,
		LookupUser:  lookupUser,
		LookupGroup: lookupGroup,
		OnError: func(path string, err error) {
			app.Lossy()
			app.Warnf("/%s: %v", path, err)
		},
	})
	if errors.Is(err, os.ErrNotExist) {
		return nil, &Error{Code: ExitNoRepository, Err: err, Fix: "check the name of the archive"}
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

func createTar(ctx context.Context, app *App, place string, opts SinkOptions) (ForeignSink, error) {
	if err := settings("tar", opts.Settings, nil); err != nil {
		return nil, err
	}
	if opts.Held || len(opts.Chunker) > 0 {
		return nil, Usagef("--held and --chunker are for systems that keep chunks, which a tar archive does not")
	}
	o := tar.SinkOptions{Strict: opts.Strict, OnProgress: opts.OnProgress}
	if place == "-" {
		out, err := app.StreamOut()
		if err != nil {
			return nil, err
		}
		o.Stdout = out
	}
	s, err := tar.Create(ctx, place, o)
	if err != nil {
		return nil, err
	}
	return tarSink{s}, nil
}

type tarSink struct{ *tar.Sink }

func (s tarSink) Sums() ForeignSums {
	w := s.Summary()
	return ForeignSums{Snapshots: w.Snapshots, Held: w.Held, Entries: w.Entries, Bytes: w.Bytes, Losses: w.Losses}
}

// lookupUser and lookupGroup find the numbers of names on this machine.
func lookupUser(name string) (uint32, bool) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, false
	}
	return parseOwner(u.Uid)
}

func lookupGroup(name string) (uint32, bool) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, false
	}
	return parseOwner(g.Gid)
}

func parseOwner(text string) (uint32, bool) {
	id, err := strconv.ParseUint(text, 10, 32)
	return uint32(id), err == nil
}
