// Command bk-ls lists the entries of a snapshot.
package main

import (
	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/cmd/internal/listing"
)

func main() {
	cli.Main("bk-ls", "List the files of a snapshot.", &listing.List{})
}
