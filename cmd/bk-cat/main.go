// Command bk-cat writes files of snapshots to standard output.
package main

import (
	"github.com/bk-backup/bk/cmd/internal/cat"
	"github.com/bk-backup/bk/cmd/internal/cli"
)

func main() {
	cli.Main("bk-cat", "Write files of snapshots to standard output.", &cat.Cat{})
}
