// Command bk-backup backs up files into a repository, or writes them as a
// stream.
package main

import (
	"github.com/bk-backup/bk/cmd/internal/backup"
	"github.com/bk-backup/bk/cmd/internal/cli"
)

func main() {
	cli.Main("bk-backup", "Back up files into a repository, or onto standard output as a stream.", &backup.Backup{})
}
