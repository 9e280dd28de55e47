// Command bk-serve lets others reach repositories over HTTP, with rights that it
// keeps.
package main

import (
	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/cmd/internal/serve"
)

func main() {
	cli.Main("bk-serve", "Serve repositories to other machines; to some for adding backups only.", &serve.Serve{})
}
