// Command bk-forget removes snapshots.
package main

import (
	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/cmd/internal/retain"
)

func main() {
	cli.Main("bk-forget", "Remove snapshots, by name or by a policy.", &retain.Forget{})
}
