package filter

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/bk-backup/bk/format"
)

// Options say what a filter takes out and changes. The zero value lets
// everything through as it is.
type Options struct {
	// Snapshots chooses snapshots: those that any rule matches. Empty: all. What
	// a dropped one changed comes with the next that passes, so a later stream
	// must have a snapshot that passed as its base: bk-export --have sees to it.
	Snapshots []SnapshotRule
	// Paths drops by path; nil: nothing.
	Paths *Patterns
	// Attributes drops by what entries say of themselves.
	Attributes Attributes
	// Magic drops files by the content type that their first bytes tell, such as
	// image/jpeg or image/*.
	Magic []string
	// Judge drops files by their content; nil: none. JudgeName says in the
	// canonical description what it does; equal names must mean equal judgement.
	Judge     Judge
	JudgeName string
	// Changes alters what passes.
	Changes Changes

	// KeepIDs leaves snapshots their ids and Via. It is for a source that makes
	// its snapshots only now, as a backup does: nothing was there before.
	KeepIDs bool

	// TempDir is where the spool's files are made; "": where the system puts
	// temporary files. Random is where keys come from; nil: the system's.
	TempDir string
	Random  io.Reader
	// OnDrop, if set, is called for everything that is dropped.
	OnDrop func(Dropped)
}

// TakesCopy reports whether a filter of these options works on streams with the
// feature copy: not if what is copied from could be dropped unseen.
func (o *Options) TakesCopy() bool {
	return len(o.Snapshots) == 0 && o.Attributes.empty() && o.TakesHeld()
}

// TakesHeld reports whether a filter of these options works on streams with the
// feature held: not if it has to see all content.
func (o *Options) TakesHeld() bool { return len(o.Magic) == 0 && o.Judge == nil }

// TakesNameless reports whether a filter of these options works on a stream some
// of whose chunks have no ids: not if it keeps chunks that come once, since it
// may yet send them.
func (o *Options) TakesNameless() bool { return len(o.Snapshots) == 0 && o.TakesHeld() }

// Reason says why something is dropped.
type Reason string

const (
	BySnapshot  Reason = "snapshot"
	ByPath      Reason = "path"
	ByAttribute Reason = "attributes"
	ByContent   Reason = "content"
)

// Dropped is a snapshot or an entry that does not pass. Size is that of a
// file's content.
type Dropped struct {
	Snapshot format.ID
	Path     string
	Type     format.Type // "" for a snapshot
	Size     uint64
	Why      Reason
}

// Summary counts what a filter did so far.
type Summary struct {
	Snapshots        uint64 // that passed
	DroppedSnapshots uint64
	Entries          uint64 // that passed
	DroppedEntries   uint64 // of snapshots that passed
	Bytes            uint64 // of content that passed, each time that a file has it
	DroppedBytes     uint64
	ResentChunks     uint64 // chunks of dropped content that other content needed
	SpoolBytes       uint64 // what the spool took on disk
}

// Filter is a format.Stage made of those parts that its options need. It is for
// one stream. Errors are sticky.
type Filter struct {
	stages      []format.Stage
	closers     []io.Closer
	spools      []*spool
	description string
	sum         Summary

	process func(format.Record) error
	emit    func(format.Record) error
	err     error
}

// New makes a filter. It must be closed.
func New(opts Options) (*Filter, error) {
	f := &Filter{description: opts.Description()}
	if opts.Random == nil {
		opts.Random = rand.Reader
	}
	f.addSnapshots(&opts)
	for _, add := range []func(*Options) error{f.addDrops, f.addChanges, f.addMoves} {
		if err := add(&opts); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	if f.description != "" && !opts.KeepIDs {
		f.stages = append(f.stages, &identityStage{description: f.description})
	}
	f.stages = append(f.stages, &countStage{sum: &f.sum})
	f.process = func(rec format.Record) error { return f.emit(rec) }
	for i := len(f.stages) - 1; i >= 0; i-- {
		stage, next := f.stages[i], f.process
		f.process = func(rec format.Record) error { return stage.Process(rec, next) }
	}
	return f, nil
}

func (f *Filter) newSpool(opts *Options) *spool {
	s := newSpool(opts.TempDir, opts.Random)
	f.spools = append(f.spools, s)
	return s
}

func (f *Filter) addSnapshots(opts *Options) {
	if len(opts.Snapshots) == 0 {
		return
	}
	s := &foldStage{rules: opts.Snapshots, dir: opts.TempDir, random: opts.Random,
		spool: f.newSpool(opts), sum: &f.sum, onDrop: opts.OnDrop}
	f.stages, f.closers = append(f.stages, s), append(f.closers, s)
}

func (f *Filter) addDrops(opts *Options) error {
	if err := errors.Join(opts.Attributes.check(), checkMagic(opts.Magic)); err != nil {
		return err
	}
	content := contentRules{magic: opts.Magic, ask: opts.Judge}
	var lists []*Patterns
	if !opts.Paths.Empty() {
		lists = append(lists, opts.Paths)
	}
	if prefix := opts.Changes.StripPrefix; prefix != "" {
		below, err := NewPatterns([]Rule{{Pattern: literalPattern(prefix), Keep: true}}, false)
		if err != nil {
			return fmt.Errorf("strip prefix %q: %w", prefix, err)
		}
		lists = append(lists, below)
	}
	if len(lists) == 0 && opts.Attributes.empty() && content.empty() {
		return nil
	}
	spool := f.newSpool(opts)
	s := &dropStage{attributes: opts.Attributes, content: content, sum: &f.sum, onDrop: opts.OnDrop,
		spool: spool, passed: newPassedPaths(opts.TempDir, opts.Random), hold: newHold(opts.TempDir, opts.Random, spool)}
	for _, list := range lists {
		s.paths = append(s.paths, &matcher{patterns: list})
	}
	f.stages, f.closers = append(f.stages, s), append(f.closers, s)
	return nil
}

// literalPattern returns a pattern that matches just that path.
func literalPattern(path string) string {
	var b strings.Builder
	b.WriteByte('/')
	for i := range len(path) {
		if strings.IndexByte(`*?[\`, path[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(path[i])
	}
	return b.String()
}

func (f *Filter) addChanges(opts *Options) error {
	c := &opts.Changes
	if len(c.DropXattrs) == 0 && c.SetHost == "" && len(c.AddTags) == 0 && c.Owner == nil {
		return nil
	}
	s, err := newChangeStage(c)
	f.stages = append(f.stages, s)
	return err
}

func (f *Filter) addMoves(opts *Options) error {
	if opts.Changes.StripPrefix != "" {
		strip, err := newStrip(opts.Changes.StripPrefix)
		if err != nil {
			return err
		}
		f.stages = append(f.stages, &moveStage{moves: strip})
	}
	if len(opts.Changes.Renames) == 0 {
		return nil
	}
	moves, err := newRenames(opts.Changes.Renames)
	if err != nil {
		return err
	}
	f.stages = append(f.stages, &moveStage{moves: moves})
	return nil
}

// Process takes one record. After an error it returns that error for every
// other record.
func (f *Filter) Process(rec format.Record, emit func(format.Record) error) error {
	if f.err == nil {
		f.emit = emit
		f.err = f.process(rec)
	}
	return f.err
}

// Description is Options.Description of what the filter was made of.
func (f *Filter) Description() string { return f.description }

// Summary returns the counts so far.
func (f *Filter) Summary() Summary {
	sum := f.sum
	for _, s := range f.spools {
		sum.SpoolBytes += uint64(s.Size())
	}
	return sum
}

// Close gives the spool back. The filter is of no use afterwards.
func (f *Filter) Close() error {
	var errs []error
	for _, c := range f.closers {
		errs = append(errs, c.Close())
	}
	f.closers = nil
	return errors.Join(errs...)
}
