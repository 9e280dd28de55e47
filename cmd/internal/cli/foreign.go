package cli

import (
	"context"
	"errors"
	"maps"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/tar"
	"github.com/bk-backup/bk/repo/store"
)

// systems are the foreign systems that can be read, by the scheme before the
// place. Adding one is a package and a line here.
var systems = map[string]func(ctx context.Context, app *App, place string) (format.System, error){
	"restic": openRestic,
	"tar":    openTar,
}

// sinks are the foreign systems that can be written, likewise.
var sinks = map[string]func(ctx context.Context, app *App, place string, opts SinkOptions) (ForeignSink, error){
	"restic": createRestic,
	"tar":    createTar,
}

// SinkOptions are what every foreign sink is told.
type SinkOptions struct {
	Strict     bool     // refuse what cannot be held
	Held       bool     // refs may name what the target holds
	Chunker    []string // --chunker, as it was given
	Settings   []string // KEY=VALUE, of those that the system has
	OnProgress func(format.Progress)
}

// SinkFlags are the flags of programs that can write into foreign systems.
type SinkFlags struct {
	Option []string `short:"o" sep:"none" placeholder:"KEY=VALUE" help:"Something that only the target's system knows, such as version=1 for a new restic repository (repeatable)."`
}

// settings divides KEY=VALUE pairs into the variables that a system has for its
// keys. A key that is not among them is wrong usage.
func settings(system string, pairs []string, known map[string]*string) error {
	for _, pair := range pairs {
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			return Usagef("-o %s: it has the form KEY=VALUE", pair)
		}
		into := known[key]
		switch {
		case into == nil && len(known) == 0:
			return Usagef("-o %s: %s has no such options", pair, system)
		case into == nil:
			return Usagef("-o %s: %s has the options %s", pair, system, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		}
		*into = value
	}
	return nil
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
	New             uint64 // plain bytes of content that the target did not have; 0 where it keeps no chunks
	Stored          int64  // bytes written for it
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
	if !ok && len(opts.Settings) > 0 {
		return nil, Usagef("-o %s: this is for other systems than bk", opts.Settings[0])
	}
	if !ok {
		return nil, nil
	}
	return create(ctx, app, place, opts)
}

// ListImported returns what the foreign system that the flags name holds: for each
// snapshot its own id and those that it came under, oldest first. It reports
// false if that is a bk repository.
func (app *App) ListImported(ctx context.Context, f *RepoFlags) (held [][]format.HeldID, foreign bool, err error) {
	url, err := f.location(RoleTarget.places...)
	if err != nil {
		return nil, false, err
	}
	scheme, _ := store.SplitLocation(url)
	if _, ok := sinks[scheme]; !ok {
		return nil, false, nil
	}
	system, err := app.OpenSystemAs(ctx, f, RoleTarget)
	if err != nil {
		return nil, true, err
	}
	defer system.Close()
	lister, ok := system.(interface {
		Imported(ctx context.Context) ([][]format.HeldID, error)
	})
	if !ok {
		return nil, true, Usagef("--list-imported: %s does not know under which ids its snapshots came", scheme)
	}
	held, err = lister.Imported(ctx)
	return held, true, err
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
