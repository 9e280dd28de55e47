// Command bk-rewrite takes things out of the snapshots of a repository, or
// changes them, without moving content.
package main

import (
	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/cmd/internal/transfer"
)

func main() {
	cli.Main("bk-rewrite", "Take things out of snapshots, or change them, in place.", &transfer.Rewrite{})
}
