// Command bk-init makes a repository.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/chunker"
	"github.com/bk-backup/bk/repo/keyring"
	"github.com/bk-backup/bk/repo/seal"
)

func main() {
	cli.Main("bk-init", "Make a repository.", &command{})
}

// defaultChunker is that of the flag.
const defaultChunker = "gear:1MiB"

type command struct {
	cli.RepoFlags `embed:""`
	Cipher        string   `default:"aes-256-gcm" enum:"aes-256-gcm,xchacha20-poly1305" help:"Cipher: ${enum}."`
	Chunker       string   `default:"gear:1MiB" help:"How files are cut: gear:AVERAGE, gear:MIN,AVERAGE,MAX, rabin (as restic cuts), or fixed:SIZE."`
	ChunkerFrom   string   `placeholder:"SYSTEM:PATH" help:"Cut files as restic or borg does in that repository, restic:PATH or borg:PATH, so that what is imported from it and changes later is found again. Without --chunker-rule there are then no rules."`
	ChunkerRule   []string `sep:"none" placeholder:"PATTERN=SPEC" help:"Cut files that match PATTERN by SPEC (repeatable, the last that matches wins). Default: images of disks and databases, which change in small places, by fixed:64KiB; '-' for no rules."`
	Compression   string   `default:"default" help:"Default compression: none, fastest, default, better, best, or zstd:LEVEL."`
	Client        string   `placeholder:"NAME" help:"What this client is called. Default: the host's name."`
}

// Help is the longer text.
func (*command) Help() string {
	return `The repository is made in an empty or missing directory, or one that holds other things under other names. Its passphrase comes from BK_PASSPHRASE, BK_PASSPHRASE_FILE or BK_PASSPHRASE_COMMAND, or is asked for on the terminal. There is no way to read the repository without it.

What is chosen here are defaults: bk-backup and bk-import can be told otherwise, and a repository can be converted at any time by exporting it and importing it into another.`
}

// Run makes the repository.
func (c *command) Run(ctx context.Context, app *cli.App) error {
	suite, err := seal.ParseSuite(c.Cipher)
	if err != nil {
		return cli.Usagef("--cipher: %w", err)
	}
	keys, err := c.takeOver(ctx, app)
	if err != nil {
		return err
	}
	spec, err := chunker.ParseSpec(c.Chunker)
	if err != nil {
		return cli.Usagef("--chunker: %w", err)
	}
	if _, err := format.ParseLevel(cli.LevelText(c.Compression)); err != nil {
		return cli.Usagef("--compression: %w", err)
	}
	rules, err := chunkerRules(c.ChunkerRule)
	if err != nil {
		return cli.Usagef("--chunker-rule: %w", err)
	}
	if c.Client == "" {
		c.Client, _ = os.Hostname()
	}
	r, err := app.InitRepo(ctx, &c.RepoFlags, keyring.InitOptions{
		Suite: suite, ClientName: c.Client, Chunker: spec.String(), ChunkerKeys: keys, Rules: rules, Compression: c.Compression,
	})
	if err != nil {
		return err
	}
	defer r.Close()
	id := r.Keyring().Repository()
	if app.JSON {
		fmt.Fprintf(app.Stdout, "{\"repository\":%q,\"id\":%q,\"cipher\":%q,\"chunker\":%q}\n", r, id, suite, spec)
		return nil
	}
	app.Sayf("made repository %x in %s: %s, %s", id[:4], r, suite, spec)
	app.Sayf("keep its passphrase safe: without it nothing in there can be read")
	return nil
}
