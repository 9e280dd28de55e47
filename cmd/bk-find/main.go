// Command bk-find looks for files in all snapshots.
package main

import (
	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/cmd/internal/find"
)

func main() {
	cli.Main("bk-find", "Find files in all snapshots, and when each version was there.", &find.Find{})
}
