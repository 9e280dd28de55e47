package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/format/chunker"
	"github.com/bk-backup/bk/format/filter"
	"github.com/bk-backup/bk/repo/keyring"
)

// inPlace are names of files that are written in place, page by page: small
// chunks at fixed places keep a changed page from taking its surroundings along.
var inPlace = []string{
	"*.img", "*.raw", "*.vmdk", "*.vdi", "*.vhd", "*.vhdx", "*.qcow", "*.qcow2", "*.hdd",
	"*.db", "*.sqlite", "*.sqlite3", "*.mdb", "*.accdb", "*.ibd", "*.MYD", "*.fdb", "*.edb",
}

const inPlaceChunker = "fixed:64KiB"

// noRules stands for no rules.
const noRules = "-"

// chunkerRules reads PATTERN=SPEC, or gives the usual rules where there is none.
func chunkerRules(texts []string) ([]keyring.Rule, error) {
	var rules []keyring.Rule
	if len(texts) == 0 {
		for _, pattern := range inPlace {
			rules = append(rules, keyring.Rule{Pattern: pattern, Chunker: inPlaceChunker})
		}
		return rules, nil
	}
	for _, text := range texts {
		if text == noRules && len(texts) == 1 {
			return nil, nil
		}
		pattern, name, found := strings.Cut(text, "=")
		if !found {
			return nil, fmt.Errorf("%q is not PATTERN=SPEC", text)
		}
		spec, err := chunker.ParseSpec(name)
		if err != nil {
			return nil, err
		}
		if _, err := filter.NewPatterns([]filter.Rule{{Pattern: pattern}}, false); err != nil {
			return nil, err
		}
		rules = append(rules, keyring.Rule{Pattern: pattern, Chunker: spec.String()})
	}
	return rules, nil
}

// takeOver asks the repository that --chunker-from names how it cuts.
func (c *command) takeOver(ctx context.Context, app *cli.App) (keys keyring.ChunkerKeys, err error) {
	if c.ChunkerFrom == "" {
		return keys, nil
	}
	if c.Chunker != defaultChunker {
		return keys, cli.Usagef("--chunker-from says how files are cut: leave --chunker out")
	}
	cuts, err := app.CutsOf(ctx, c.ChunkerFrom)
	if err != nil {
		return keys, fmt.Errorf("--chunker-from: %w", err)
	}
	_, err = chunker.New(cuts.Spec, chunker.Keyed{Polynomial: cuts.Keys.Polynomial, Seed: cuts.Keys.Seed, HasSeed: cuts.Keys.HasSeed})
	if err != nil {
		return keys, fmt.Errorf("--chunker-from %s: %w", c.ChunkerFrom, err)
	}
	c.Chunker = cuts.Spec.String()
	if len(c.ChunkerRule) == 0 {
		c.ChunkerRule = []string{noRules}
	}
	return cuts.Keys, nil
}
