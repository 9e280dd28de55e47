// Package chunkers is what --chunker and a repository's rules say: which splitter
// cuts which file. Only programs import it.
package chunkers

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/format/chunker"
	"github.com/bk-backup/bk/format/filter"
	"github.com/bk-backup/bk/repo"
	"github.com/bk-backup/bk/repo/keyring"
)

// For returns the splitter of a path, whose size is given, and that splitter's
// name.
type For func(path string, size uint64) (splitter func() chunker.Splitter, name string)

// rule is a splitter and its name.
type rule struct {
	factory *chunker.Factory
	name    string
}

// New puts together who cuts which file: the fallback, then the repository's
// rules, then the flags, each SPLITTER or PATTERN=SPLITTER; the last that matches
// wins. newFactory adds the secret.
func New(newFactory func(chunker.Spec) (*chunker.Factory, error), fallback string, rules []keyring.Rule, flags []string) (For, error) {
	texts := []keyring.Rule{{Chunker: fallback}}
	texts = append(texts, rules...)
	for _, text := range flags {
		pattern, spec, found := strings.Cut(text, "=")
		if !found {
			pattern, spec = "", text
		}
		texts = append(texts, keyring.Rule{Pattern: pattern, Chunker: spec})
	}
	// The splitter for all paths that no later pattern matches, and after it those of
	// the patterns: the rule with number n is list[n].
	list := make([]rule, 1, len(texts))
	var patterns []filter.Rule
	for _, text := range texts {
		spec, err := chunker.ParseSpec(text.Chunker)
		if err != nil {
			return nil, cli.Usagef("--chunker: %w", err)
		}
		one := rule{name: spec.String()}
		if one.factory, err = newFactory(spec); err != nil {
			return nil, fmt.Errorf("chunker %s: %w", spec, err)
		}
		if text.Pattern == "" {
			list, patterns = append(list[:0], one), nil
			continue
		}
		if _, err := filter.NewPatterns([]filter.Rule{{Pattern: text.Pattern}}, false); err != nil {
			return nil, cli.Usagef("--chunker: %w", err)
		}
		list, patterns = append(list, one), append(patterns, filter.Rule{Pattern: text.Pattern})
	}
	all, err := filter.NewPatterns(patterns, false)
	if err != nil {
		return nil, cli.Usagef("--chunker: %w", err)
	}
	return func(path string, _ uint64) (func() chunker.Splitter, string) {
		one := &list[all.Last(path)]
		return one.factory.Splitter, one.name
	}, nil
}

// Words that --chunker of a conversion takes besides splitters.
const (
	keep   = "keep"   // leave cuts as they come
	target = "target" // the target's own setting
)

// Flag is --chunker of programs that store what others have cut.
type Flag struct {
	Chunker []string `sep:"none" placeholder:"SPLITTER" help:"Cut content anew, wherever it was cut before: with a splitter such as gear:64KiB, fixed:1MiB or rabin, PATTERN=SPLITTER for some paths (repeatable), or target for what the repository is set to. Default, keep: cuts stay as they come."`
}

// For returns who cuts anew what goes into a repository; nil if cuts are kept.
func (f *Flag) For(r *repo.Repository) (For, error) {
	if len(f.Chunker) == 0 || slices.Equal(f.Chunker, []string{keep}) {
		return nil, nil
	}
	if slices.Contains(f.Chunker, keep) {
		return nil, cli.Usagef("--chunker keep leaves all cuts as they are, and cannot be joined with others")
	}
	own := r.Keyring().Own()
	flags := slices.DeleteFunc(slices.Clone(f.Chunker), func(text string) bool { return text == target })
	return New(r.Splitters, own.Chunker, own.Rules, flags)
}
