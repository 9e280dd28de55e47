package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/store"
)

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
	Option []string `short:"o" sep:"none" placeholder:"KEY=VALUE" help:"Something that only the target's system knows, such as version=1 for a new restic repository, or encryption=repokey for a new one of borg (repeatable)."`
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

// Add adds up what two sinks did.
func (s *ForeignSums) Add(other ForeignSums) {
	s.Snapshots += other.Snapshots
	s.Held += other.Held
	s.Entries += other.Entries
	s.Bytes += other.Bytes
	s.New += other.New
	s.Stored += other.Stored
	s.Losses = append(s.Losses, other.Losses...)
}

// ForeignTarget is a place in another system that snapshots are to go to. Nothing
// is opened or made before a method says so.
type ForeignTarget struct {
	app    *App
	scheme string
	place  string
	system foreignSystem
}

// ForeignTarget returns the foreign system that the flags name as a target, or
// nil if that is a bk repository.
func (app *App) ForeignTarget(f *RepoFlags) (*ForeignTarget, error) {
	url, err := f.location(RoleTarget.places...)
	if err != nil {
		return nil, err
	}
	scheme, place := store.SplitLocation(url)
	system, ok := foreign[scheme]
	if !ok {
		return nil, nil
	}
	if system.create == nil {
		return nil, &Error{Code: ExitUsage, Op: "write into " + url, Err: fmt.Errorf("%s can be read, not written", scheme)}
	}
	return &ForeignTarget{app, scheme, place, system}, nil
}

// String is the target's URL.
func (t *ForeignTarget) String() string { return t.scheme + ":" + t.place }

// Flat reports whether the target takes flat streams alone.
func (t *ForeignTarget) Flat() bool { return t.system.flat }

// Recuts reports whether all content is cut anew there with this --chunker.
func (t *ForeignTarget) Recuts(chunker []string) bool {
	if t.system.recuts == nil {
		return false
	}
	anew, err := t.system.recuts(chunker)
	return anew && err == nil // Open says what is wrong with it
}

// Open prepares writing a stream. A target that is not there is made.
func (t *ForeignTarget) Open(ctx context.Context, opts SinkOptions) (ForeignSink, error) {
	limitMemory(memoryForeignMax)
	return t.system.create(ctx, t.app, t.place, opts)
}

// Imported returns for each snapshot that the target holds the ids that it goes by
// there, its own first, and the oldest snapshot first.
func (t *ForeignTarget) Imported(ctx context.Context) ([][]format.HeldID, error) {
	if t.system.open == nil {
		return nil, Usagef("%s cannot be read, so that it does not tell what it holds", t.scheme)
	}
	system, err := t.system.open(ctx, t.app, t.place, SourceOptions{Role: RoleTarget})
	if err != nil {
		return nil, err
	}
	defer system.Close()
	lister, ok := system.(interface {
		Imported(ctx context.Context) ([][]format.HeldID, error)
	})
	if !ok {
		return nil, Usagef("%s does not know under which ids its snapshots came", t.scheme)
	}
	return lister.Imported(ctx)
}

// ImportedSoFar is Imported for a target that is made when it is written: what is
// not there, or a pipe, holds nothing.
func (t *ForeignTarget) ImportedSoFar(ctx context.Context) ([][]format.HeldID, error) {
	if t.place == "-" {
		return nil, nil
	}
	held, err := t.Imported(ctx)
	if told := (*Error)(nil); isNoStorage(err) || errors.As(err, &told) && told.Code == ExitNoRepository {
		return nil, nil
	}
	return held, err
}

// IsSource reports whether the flags of the source name the same place.
func (t *ForeignTarget) IsSource(source *RepoFlags) (bool, error) {
	url, err := source.location(RoleSource.places...)
	if err != nil {
		return false, err
	}
	scheme, place := store.SplitLocation(url)
	if scheme != t.scheme || place == "-" {
		return false, nil
	}
	from, err := filepath.Abs(place)
	if err != nil {
		return false, fmt.Errorf("find %s: %w", url, err)
	}
	to, err := filepath.Abs(t.place)
	if err != nil {
		return false, fmt.Errorf("find %s: %w", t, err)
	}
	return from == to, nil
}

// Options divides -o of a program that has both a source and this target: what the
// target knows is for it, and so is all if the source is not a foreign system.
func (t *ForeignTarget) Options(source *RepoFlags, pairs []string) (ofSource, ofTarget []string) {
	url, _ := source.location(RoleSource.places...)
	scheme, _ := store.SplitLocation(url)
	_, isForeign := foreign[scheme]
	for _, pair := range pairs {
		key, _, _ := strings.Cut(pair, "=")
		if !isForeign || slices.Contains(t.system.options, key) {
			ofTarget = append(ofTarget, pair)
		} else {
			ofSource = append(ofSource, pair)
		}
	}
	return ofSource, ofTarget
}
