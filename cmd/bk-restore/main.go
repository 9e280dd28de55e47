// Command bk-restore restores a snapshot, or a stream, into a directory.
package main

import (
	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/cmd/internal/restore"
)

func main() {
	cli.Main("bk-restore", "Restore a snapshot, or a stream, into a directory.", &restore.Restore{})
}
