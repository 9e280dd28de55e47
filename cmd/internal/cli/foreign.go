package cli

import (
	"context"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/chunker"
	"github.com/bk-backup/bk/repo/keyring"
	"github.com/bk-backup/bk/repo/store"
)

// foreign are the systems beside bk, by the scheme before the place. Adding one
// is a package, a file here that gives it what it needs of a program, and its
// line here (spec/adding-a-system.md).
var foreign = map[string]foreignSystem{
	"borg":      {place: "PATH", open: openBorg, create: createBorg, options: borgSinkOptions, recuts: borgRecuts, cuts: borgCuts},
	"hardlinks": {place: "DIR", open: openHardlinks},
	"restic":    {place: "PATH", open: openRestic, create: createRestic, options: resticSinkOptions, recuts: resticRecuts, cuts: resticCuts},
	"tar":       {place: "FILE", open: openTar, create: createTar, flat: true},
}

// foreignNames says in help what stands for another system of some kind:
// "tar:FILE ...".
func foreignNames(chosen func(foreignSystem) bool) string {
	var names []string
	for scheme, system := range foreign {
		if !chosen(system) {
			continue
		}
		names = append(names, scheme+":"+system.place)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// foreignSystem is how another system is read and written; nil where it cannot be.
type foreignSystem struct {
	place  string // what stands behind the scheme, for people
	open   func(ctx context.Context, app *App, place string, opts SourceOptions) (format.System, error)
	create func(ctx context.Context, app *App, place string, opts SinkOptions) (ForeignSink, error)
	// options are the keys that create knows, and flat that it takes flat streams
	// alone.
	options []string
	flat    bool
	// recuts reports whether create with this --chunker cuts all content anew;
	// nil where there are no chunks.
	recuts func(chunker []string) (bool, error)
	// cuts says how the system's own program cuts files; nil where there is none.
	cuts func(ctx context.Context, system format.System) (Cuts, error)
}

func (s foreignSystem) canBeRead() bool    { return s.open != nil }
func (s foreignSystem) canBeWritten() bool { return s.create != nil }

// Cuts is how another system's own program cuts files in one of its
// repositories, secrets included.
type Cuts struct {
	Spec chunker.Spec
	Keys keyring.ChunkerKeys
}

// CutsOf asks the repository of another system at a URL how its own program cuts
// files, so that a repository of bk can go on with its chunks.
func (app *App) CutsOf(ctx context.Context, url string) (Cuts, error) {
	scheme, place := store.SplitLocation(url)
	known := foreign[scheme]
	if known.cuts == nil {
		return Cuts{}, Usagef("a splitter is taken over from a repository of another system, restic:PATH or borg:PATH, not from %q", url)
	}
	system, err := known.open(ctx, app, place, SourceOptions{Role: RoleSource})
	if err != nil {
		return Cuts{}, err
	}
	defer system.Close()
	return known.cuts(ctx, system)
}

// SourceOptions are what every foreign system is told that is read.
type SourceOptions struct {
	Settings []string // KEY=VALUE, of those that the system has
	Role     Role     // what it is read for
}

// SourceFlags name a repository, or a place of another system, that is read.
type SourceFlags struct {
	RepoFlags `embed:""`

	Option   []string `group:"Other systems" short:"o" sep:"none" placeholder:"KEY=VALUE" help:"Something that only the source's system knows (repeatable). Of hardlinks: root=DIR, at=PATH, host=NAME, name=TEXT. Of borg: archives=NAME, with * and ?, which finds checkpoints too."`
	TimeZone string   `group:"Other systems" placeholder:"ZONE" help:"Of hardlinks: the zone of times in names, such as Europe/Berlin. Default: the local one."`
	Pattern  string   `group:"Other systems" placeholder:"PATTERN" help:"Of hardlinks: names of snapshots, with %Y %m %d %H %M %S %z, %s (seconds since 1970) or %N (a number), * and ?."`
}

// ForeignWriter is a program whose repository may be another system's, to be
// written.
type ForeignWriter interface{ WritesForeign() }

// placesFor says in the help of a program what its repository can be.
func placesFor(cmd any) string {
	places := "a path, or the URL of a bk-serve"
	names := ""
	if _, ok := cmd.(ForeignWriter); ok {
		names = foreignNames(foreignSystem.canBeWritten)
	} else if embeds(reflect.TypeOf(cmd), reflect.TypeFor[SourceFlags]()) {
		names = foreignNames(foreignSystem.canBeRead)
	}
	if names == "" {
		return places
	}
	return "a path, the URL of a bk-serve, or of another system " + names
}

// embeds reports whether the flags of a program have these among them.
func embeds(in, flags reflect.Type) bool {
	if in.Kind() == reflect.Pointer {
		in = in.Elem()
	}
	if in == flags {
		return true
	}
	if in.Kind() != reflect.Struct {
		return false
	}
	for i := range in.NumField() {
		if f := in.Field(i); f.IsExported() && f.Type.Kind() == reflect.Struct && embeds(f.Type, flags) {
			return true
		}
	}
	return false
}

// settings are all of them as pairs.
func (f *SourceFlags) settings() []string {
	pairs := slices.Clone(f.Option)
	for key, value := range map[string]string{"time-zone": f.TimeZone, "pattern": f.Pattern} {
		if value != "" {
			pairs = append(pairs, key+"="+value)
		}
	}
	return pairs
}

// keysOf joins keys with the variables for their values.
func keysOf(keys []string, values ...*string) map[string]*string {
	known := make(map[string]*string, len(keys))
	for i, key := range keys {
		known[key] = values[i]
	}
	return known
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
