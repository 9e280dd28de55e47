package cli

import (
	"context"
	"fmt"
	"maps"
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
	"borg":      {place: "PATH", open: openBorg, create: createBorg, cuts: borgCuts},
	"hardlinks": {place: "DIR", open: openHardlinks},
	"restic":    {place: "PATH", open: openRestic, create: createRestic, cuts: resticCuts},
	"tar":       {place: "FILE", open: openTar, create: createTar},
}

// foreignNames says in help what stands for another system: "tar:FILE ...".
func foreignNames() string {
	var names []string
	for scheme, system := range foreign {
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
	cuts   func(ctx context.Context, system format.System) (Cuts, error)
}

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

// SinkOptions are what every foreign sink is told.
type SinkOptions struct {
	Strict     bool     // refuse what cannot be held
	Held       bool     // refs may name what the target holds
	Chunker    []string // --chunker, as it was given
	Settings   []string // KEY=VALUE, of those that the system has
	OnProgress func(format.Progress)
}

// SourceFlags name a repository, or a place of another system, that is read.
type SourceFlags struct {
	RepoFlags `embed:""`

	Option   []string `group:"Other systems" short:"o" sep:"none" placeholder:"KEY=VALUE" help:"Something that only the source's system knows (repeatable). Of hardlinks: root=DIR, at=PATH, host=NAME, name=TEXT. Of borg: archives=NAME, with * and ?, which finds checkpoints too."`
	TimeZone string   `group:"Other systems" placeholder:"ZONE" help:"Of hardlinks: the zone of times in names, such as Europe/Berlin. Default: the local one."`
	Pattern  string   `group:"Other systems" placeholder:"PATTERN" help:"Of hardlinks: names of snapshots, with %Y %m %d %H %M %S %z, %s (seconds since 1970) or %N (a number), * and ?."`
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

// SinkFlags are the flags of programs that can write into foreign systems.
type SinkFlags struct {
	Option []string `short:"o" sep:"none" placeholder:"KEY=VALUE" help:"Something that only the target's system knows, such as version=1 for a new restic repository, or encryption=repokey for a new one of borg (repeatable)."`
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
	system, ok := foreign[scheme]
	if !ok && len(opts.Settings) > 0 {
		return nil, Usagef("-o %s: this is for other systems than bk", opts.Settings[0])
	}
	if !ok {
		return nil, nil
	}
	if system.create == nil {
		return nil, &Error{Code: ExitUsage, Op: "write into " + url, Err: fmt.Errorf("%s can be read, not written", scheme)}
	}
	return system.create(ctx, app, place, opts)
}

// ListImported returns what the foreign system that the flags name holds: for each
// snapshot its own id and those that it came under, oldest first. It reports
// false if that is a bk repository.
func (app *App) ListImported(ctx context.Context, f *RepoFlags) (held [][]format.HeldID, isForeign bool, err error) {
	url, err := f.location(RoleTarget.places...)
	if err != nil {
		return nil, false, err
	}
	scheme, place := store.SplitLocation(url)
	known, ok := foreign[scheme]
	switch {
	case !ok:
		return nil, false, nil
	case known.open == nil:
		return nil, true, Usagef("--list-imported: %s cannot be read", scheme)
	}
	system, err := known.open(ctx, app, place, SourceOptions{Role: RoleTarget})
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
