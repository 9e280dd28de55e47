// Command bk-diff says what changed between two snapshots.
package main

import (
	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/cmd/internal/compare"
)

func main() {
	cli.Main("bk-diff", "Show what changed between two snapshots.", &compare.Diff{})
}
