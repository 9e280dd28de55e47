// Command bk-repair makes the best of a damaged repository.
package main

import (
	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/cmd/internal/repair"
)

func main() {
	cli.Main("bk-repair", "Make the best of a damaged repository.", &repair.Repair{})
}
