// Command bk-tag changes the tags of snapshots.
package main

import (
	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/cmd/internal/tags"
)

func main() {
	cli.Main("bk-tag", "Change the tags of snapshots.", &tags.Tag{})
}
