// Command bk-export writes snapshots as a stream.
package main

import (
	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/cmd/internal/transfer"
)

func main() {
	cli.Main("bk-export", "Write snapshots as a stream to standard output.", &transfer.Export{})
}
