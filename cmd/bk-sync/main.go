// Command bk-sync brings a repository up to date with another repository or
// backup system.
package main

import (
	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/cmd/internal/transfer"
)

func main() {
	cli.Main("bk-sync", "Bring a repository up to date with another one.", &transfer.Sync{})
}
