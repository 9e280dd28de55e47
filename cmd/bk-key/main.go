// Command bk-key lists, adds, removes and changes what opens a repository.
package main

import (
	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/cmd/internal/keys"
)

func main() {
	cli.Main("bk-key", "Add, remove and list the keys of a repository.", keys.New())
}
