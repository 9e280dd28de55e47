// Command bk-check looks for everything that could keep a snapshot from being
// restored.
package main

import (
	"github.com/bk-backup/bk/cmd/internal/check"
	"github.com/bk-backup/bk/cmd/internal/cli"
)

func main() {
	cli.Main("bk-check", "Look for everything that could keep a snapshot from being restored.", &check.Check{})
}
