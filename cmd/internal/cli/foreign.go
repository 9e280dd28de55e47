package cli

import (
	"context"
	"errors"
	"os"
	"os/user"
	"strconv"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/tar"
	"github.com/bk-backup/bk/repo/store"
)

// systems are the foreign systems that can be read, by the scheme before the
// place. Adding one is a package and a line here.
var systems = map[string]func(ctx context.Context, app *App, place string) (format.System, error){
	"borg":   openBorg,
	"restic": openRestic,
	"tar":    openTar,
}

// sinks are the foreign systems that can be written, likewise.
var sinks = map[string]func(ctx context.Context, app *App, place string, opts SinkOptions) (ForeignSink, error){
	"tar": createTar,
}

// SinkOptions are what every foreign sink is told.
type SinkOptions struct {
	Strict     bool // refuse what cannot be held
	OnProgress func(format.Progress)
}

// ForeignSink writes snapshots into another system.
type ForeignSink interface {
	format.SinkCloser
	// Sums tells what was done so far.
	Sums() ForeignSums
}

// ForeignSums is what a foreign sink did.
type ForeignSums struct {
	Snapshots, Held uint64 // written now, and there already
	Entries, Bytes  uint64
	Losses          []format.Loss
}

// OpenSink prepares writing into the foreign system that the flags name. It
// returns nil if that is a bk repository.
func (app *App) OpenSink(ctx context.Context, f *RepoFlags, opts SinkOptions) (ForeignSink, error) {
	url, err := f.location(RoleTarget.places...)
	if err != nil {
		return nil, err
	}
	scheme, place := store.SplitLocation(url)
	create, ok := sinks[scheme]
	if !ok {
		return nil, nil
	}
	return create(ctx, app, place, opts)
}

func openTar(ctx context.Context, app *App, place string) (format.System, error) {
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
