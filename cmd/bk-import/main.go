// Command bk-import stores a stream in a repository.
package main

import (
	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/cmd/internal/transfer"
)

func main() {
	cli.Main("bk-import", "Store a stream in a repository.", &transfer.Import{})
}
