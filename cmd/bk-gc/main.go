// Command bk-gc frees the space of what no snapshot needs.
package main

import (
	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/cmd/internal/collect"
)

func main() {
	cli.Main("bk-gc", "Free the space of what no snapshot needs.", &collect.Collect{})
}
