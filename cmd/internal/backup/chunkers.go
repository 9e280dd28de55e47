package backup

import (
	"fmt"
	"strings"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/format/chunker"
	"github.com/bk-backup/bk/format/filter"
	"github.com/bk-backup/bk/repo/keyring"
)

// streamChunker cuts what is written to standard output without a repository.
const streamChunker = "gear:64KiB"

// publicSplitters cut in a way that anybody can repeat.
func publicSplitters(spec chunker.Spec) (*chunker.Factory, error) {
	return chunker.New(spec, chunker.Public())
}

// chunkerRule is a splitter for the paths that a pattern matches; nil: all.
type chunkerRule struct {
	pattern *filter.Patterns
	factory *chunker.Factory
	name    string
}

// chunkers puts together who cuts which file: the default, then the
// repository's rules, then the flags; the last that matches wins.
func (c *Backup) chunkers(make func(chunker.Spec) (*chunker.Factory, error), fallback string, rules []keyring.Rule) (func(string, uint64) (func() chunker.Splitter, string), error) {
	texts := []keyring.Rule{{Chunker: fallback}}
	texts = append(texts, rules...)
	for _, text := range c.Chunker {
		pattern, spec, found := strings.Cut(text, "=")
		if !found {
			pattern, spec = "", text
		}
		texts = append(texts, keyring.Rule{Pattern: pattern, Chunker: spec})
	}
	var list []chunkerRule
	for _, text := range texts {
		spec, err := chunker.ParseSpec(text.Chunker)
		if err != nil {
			return nil, cli.Usagef("--chunker: %w", err)
		}
		rule := chunkerRule{name: spec.String()}
		if text.Pattern != "" {
			if rule.pattern, err = filter.NewPatterns([]filter.Rule{{Pattern: text.Pattern}}, false); err != nil {
				return nil, cli.Usagef("--chunker: %w", err)
			}
		}
		if rule.factory, err = make(spec); err != nil {
			return nil, fmt.Errorf("chunker %s: %w", spec, err)
		}
		list = append(list, rule)
	}
	return func(path string, _ uint64) (func() chunker.Splitter, string) {
		for i := len(list) - 1; ; i-- {
			rule := &list[i]
			if rule.pattern != nil {
				if matches, _ := rule.pattern.Match(path, false); !matches {
					continue
				}
			}
			return rule.factory.Splitter, rule.name
		}
	}, nil
}
