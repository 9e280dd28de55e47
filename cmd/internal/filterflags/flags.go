// Package filterflags is the command line of package format/filter: the same
// options for every program that drops, keeps or changes what passes through it.
//
// Start at Flags. Only the programs under cmd import it.
package filterflags

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/filter"
)

// PathFlags choose by path alone: what they drop need not even be read.
type PathFlags struct {
	Drop       Patterns `aliases:"exclude" placeholder:"PATTERN" group:"filter" help:"Drop what matches (--exclude is the same), as in a .gitignore at the root: without a slash a name anywhere, with one a path from / on, **/ before it for anywhere. One ordered list with --keep and --drop-from: the last pattern that matches a path, or a directory above it, decides."`
	Keep       Patterns `placeholder:"PATTERN" group:"filter" help:"Keep what matches. If this comes first, what matches nothing is dropped."`
	DropFrom   Patterns `aliases:"exclude-from,exclude-file" placeholder:"FILE" group:"filter" help:"Read patterns from a file written as a .gitignore; ! keeps (--exclude-from, --exclude-file)."`
	IgnoreCase bool     `group:"filter" help:"Let patterns match letters (ASCII) of either case."`
}

// Compile returns what the flags ask for, or nil if they ask for nothing.
func (f *PathFlags) Compile() (*filter.Patterns, error) {
	rules, err := f.rules()
	if err != nil || len(rules) == 0 {
		return nil, err
	}
	return filter.NewPatterns(rules, f.IgnoreCase)
}

// Flags are embedded in the flags of a program.
type Flags struct {
	PathFlags `embed:""`

	LargerThan  string   `placeholder:"SIZE" group:"filter" help:"Drop files larger than this, such as 10KiB, 5M, 1GB."`
	SmallerThan string   `placeholder:"SIZE" group:"filter" help:"Drop files smaller than this."`
	NewerThan   string   `placeholder:"TIME" group:"filter" help:"Drop what was changed after this: 2026-01-02, 2026-01-02T15:04:05Z, or an age such as 30d. Directories stay."`
	OlderThan   string   `placeholder:"TIME" group:"filter" help:"Drop what was changed before this. Directories stay."`
	Type        []string `placeholder:"TYPE" group:"filter" help:"Drop objects of this type: file, symlink, char, block, fifo or socket."`
	Owner       []string `sep:"none" placeholder:"USER" group:"filter" help:"Drop what belongs to this user, by name or number. Directories stay."`
	Magic       []string `placeholder:"TYPE" group:"filter" help:"Drop files whose first bytes are of this content type, such as image/jpeg or image/*."`
	DropIf      string   `placeholder:"COMMAND" group:"filter" help:"Run a shell command for every file, with the content on its standard input and BK_PATH, BK_SIZE and others set: 0 drops the file, 1 keeps it."`

	Snapshot []string `sep:"none" placeholder:"EXPR" group:"filter" help:"Keep only snapshots with host=NAME, tag=NAME, path=PATH, after=TIME, before=TIME, id=DIGITS. A comma means and; given again means or."`

	DropXattr   []string `sep:"none" placeholder:"PATTERN" group:"filter" help:"Drop extended attributes whose name matches, such as user.*."`
	Rename      []string `sep:"none" placeholder:"FROM=TO" group:"filter" help:"Move a path, and all below it."`
	StripPrefix string   `placeholder:"PATH" group:"filter" help:"Make this path the root, and drop what lies elsewhere."`
	SetHost     string   `placeholder:"NAME" group:"filter" help:"Set the host of snapshots."`
	AddTag      []string `sep:"none" placeholder:"TAG" group:"filter" help:"Add a tag to snapshots."`
	Chown       string   `placeholder:"USER[:GROUP]" group:"filter" help:"Set the owner of everything, by name or number."`
}

// Patterns is a flag that remembers where on the command line it stood, so that
// several of them make one list.
type Patterns []pattern

type pattern struct {
	text string
	left int // arguments that were left to parse behind it
}

// Decode takes one occurrence of the flag.
func (p *Patterns) Decode(ctx *kong.DecodeContext) error {
	var text string
	if err := ctx.Scan.PopValueInto("pattern", &text); err != nil {
		return err
	}
	*p = append(*p, pattern{text, ctx.Scan.Len()})
	return nil
}

// Surroundings are what options need besides the command line.
type Surroundings struct {
	Now     time.Time // what ages count from
	Env     []string  // for --drop-if
	Stderr  io.Writer // for --drop-if
	TempDir string
}

// Options returns what the flags ask for. Errors name the flag.
func (f *Flags) Options(ctx context.Context, s Surroundings) (filter.Options, error) {
	opts := filter.Options{Magic: f.Magic, TempDir: s.TempDir}
	var err error
	opts.Paths, err = f.Compile()
	errs := []error{err, f.attributes(&opts.Attributes, s.Now), f.changes(&opts.Changes)}
	for _, text := range f.Snapshot {
		rule, err := filter.ParseSnapshotRule(text, s.Now)
		opts.Snapshots, errs = append(opts.Snapshots, rule), append(errs, named("snapshot", err))
	}
	if f.DropIf != "" {
		opts.JudgeName = f.DropIf
		opts.Judge = filter.JudgeByCommand(ctx, []string{"/bin/sh", "-c", f.DropIf}, filter.CommandOptions{Env: s.Env, Stderr: s.Stderr})
	}
	for _, err := range errs {
		if err != nil {
			return opts, err
		}
	}
	return opts, nil
}

func named(flag string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("--%s: %w", flag, err)
}

// rules joins the patterns in the order of the command line.
func (f *PathFlags) rules() ([]filter.Rule, error) {
	type item struct {
		pattern
		rules []filter.Rule
	}
	var items []item
	for _, p := range f.Drop {
		items = append(items, item{p, []filter.Rule{{Pattern: p.text}}})
	}
	for _, p := range f.Keep {
		items = append(items, item{p, []filter.Rule{{Pattern: p.text, Keep: true}}})
	}
	for _, p := range f.DropFrom {
		rules, err := readRules(p.text)
		if err != nil {
			return nil, named("drop-from", err)
		}
		items = append(items, item{p, rules})
	}
	slices.SortFunc(items, func(a, b item) int { return cmp.Compare(b.left, a.left) })
	var rules []filter.Rule
	for _, it := range items {
		rules = append(rules, it.rules...)
	}
	return rules, nil
}

func readRules(name string) ([]filter.Rule, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read patterns: %w", err)
	}
	rules, err := filter.ReadRules(file, name)
	return rules, errors.Join(err, file.Close())
}

func (f *Flags) attributes(a *filter.Attributes, now time.Time) error {
	for _, size := range []struct {
		flag, text string
		to         **uint64
	}{{"larger-than", f.LargerThan, &a.LargerThan}, {"smaller-than", f.SmallerThan, &a.SmallerThan}} {
		if size.text == "" {
			continue
		}
		n, err := filter.ParseSize(size.text)
		if err != nil {
			return named(size.flag, err)
		}
		*size.to = &n
	}
	for _, moment := range []struct {
		flag, text string
		to         **format.Time
	}{{"newer-than", f.NewerThan, &a.NewerThan}, {"older-than", f.OlderThan, &a.OlderThan}} {
		if moment.text == "" {
			continue
		}
		t, err := filter.ParseTime(moment.text, now)
		if err != nil {
			return named(moment.flag, err)
		}
		*moment.to = &t
	}
	for _, t := range f.Type {
		a.Types = append(a.Types, format.Type(t))
	}
	a.Owners = f.Owner
	return nil
}

func (f *Flags) changes(c *filter.Changes) error {
	*c = filter.Changes{DropXattrs: f.DropXattr, SetHost: f.SetHost, AddTags: f.AddTag, StripPrefix: strings.Trim(f.StripPrefix, "/")}
	if f.StripPrefix != "" && c.StripPrefix == "" {
		return fmt.Errorf("--strip-prefix: %q is the root already", f.StripPrefix)
	}
	for _, text := range f.Rename {
		from, to, ok := strings.Cut(text, "=")
		if !ok {
			return fmt.Errorf("--rename: %q has no =: write FROM=TO", text)
		}
		c.Renames = append(c.Renames, filter.Rename{From: strings.Trim(from, "/"), To: strings.Trim(to, "/")})
	}
	if f.Chown == "" {
		return nil
	}
	owner, err := filter.ParseOwner(f.Chown)
	c.Owner = owner
	return named("chown", err)
}
