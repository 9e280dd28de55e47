package main

import (
	"context"
	"fmt"

	"github.com/bk-backup/bk/cmd/internal/cli"
)

type command struct{}

// Help is the longer text.
func (*command) Help() string {
	return `"bk NAME ARGS" runs the program bk-NAME. "bk help NAME" shows its help. Without arguments bk lists the programs it finds.

Programs that write a stream and programs that read one are joined by pipes:

  bk-export --all | bk-filter --drop '*.cat.jpg' | bk-import`
}

// order is how the family is presented; others that are installed come last.
var order = []struct{ name, text string }{
	{"init", "make a repository"},
	{"backup", "back up files into a repository, or onto standard output"},
	{"restore", "restore a snapshot, or a stream, into a directory"},
	{"snapshots", "list snapshots"},
	{"ls", "list the files of a snapshot"},
	{"find", "find files in all snapshots"},
	{"cat", "write a file of a snapshot to standard output"},
	{"diff", "compare two snapshots"},
	{"tag", "change the tags of snapshots"},
	{"forget", "remove snapshots"},
	{"gc", "free the space of what no snapshot needs"},
	{"check", "look for damage in a repository"},
	{"repair", "mend a damaged repository, from its own packs or from elsewhere"},
	{"key", "add, remove and list the keys of a repository"},
	{"export", "write snapshots as a stream"},
	{"filter", "drop, rename and change what is in a stream"},
	{"import", "store a stream in a repository"},
	{"serve", "let other machines reach repositories, with rights that it keeps"},
	{"sync", "bring another repository up to date in one process"},
	{"rewrite", "drop or change what is in snapshots, in place"},
	{"show", "look into a stream"},
}

// Run lists the family.
func (*command) Run(_ context.Context, app *cli.App) error {
	texts := make(map[string]string)
	var rows [][]string
	found := make(map[string]bool)
	for _, name := range family() {
		found[name] = true
	}
	for _, o := range order {
		texts[o.name] = o.text
		if found[o.name] {
			rows = append(rows, []string{"  bk-" + o.name, o.text})
		}
	}
	for _, name := range family() {
		if texts[name] == "" {
			rows = append(rows, []string{"  bk-" + name, ""})
		}
	}
	fmt.Fprintln(app.Stdout, "Backups that can be moved. The programs (\"bk NAME\" runs bk-NAME, --help tells more):")
	for _, row := range rows {
		fmt.Fprintf(app.Stdout, "%-16s %s\n", row[0], row[1])
	}
	return nil
}
