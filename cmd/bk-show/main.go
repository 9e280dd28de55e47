// Command bk-show shows a stream: as text, as JSON, as a listing, as a summary,
// and checks it. Package cmd/internal/show does the work.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/term"

	"github.com/bk-backup/bk/cmd/internal/show"
	"github.com/bk-backup/bk/format"
)

type flags struct {
	Text    bool `xor:"mode" help:"A line a record, with everything in it. This is the default."`
	JSON    bool `xor:"mode" name:"json" help:"A JSON object a record, a line each."`
	List    bool `xor:"mode" short:"l" help:"List the entries like tar tv."`
	Summary bool `xor:"mode" short:"s" help:"Snapshots, files, bytes, unique bytes, compression."`
	Vector  bool `xor:"mode" hidden:"" help:"Answer as spec/vectors/README.md says."`
	Verify  bool `help:"Decode and check every payload and every reference. Alone, it shows the summary."`

	File string `arg:"" optional:"" help:"The file that holds the stream. Standard input if not given."`
}

// mode returns what the flags choose.
func (f *flags) mode() show.Mode {
	switch {
	case f.JSON:
		return show.JSON
	case f.List:
		return show.List
	case f.Vector:
		return show.Vector
	case f.Summary, f.Verify && !f.Text:
		return show.Summary
	}
	return show.Text
}

func main() { os.Exit(run()) }

// run returns the exit code: 0 done, 1 failed, 2 wrong usage, 4 a bad stream.
func run() int {
	var f flags
	code := -1
	parser, err := kong.New(&f,
		kong.Name("bk-show"),
		kong.Description("Shows a stream of backups. The exit code is 4 if the stream is cut off or wrong."),
		kong.Exit(func(c int) { code = c }))
	if err != nil {
		return fail(err, 1)
	}
	_, err = parser.Parse(os.Args[1:])
	switch {
	case code >= 0:
		return code
	case err != nil:
		return fail(err, 2)
	}
	var in io.Reader = os.Stdin
	if f.File != "" {
		file, err := os.Open(f.File)
		if err != nil {
			return fail(fmt.Errorf("open the stream: %w", err), 1)
		}
		defer file.Close()
		in = file
	} else if term.IsTerminal(int(os.Stdin.Fd())) {
		return fail(fmt.Errorf("standard input is a terminal: give a FILE, or put a program that writes a stream before a pipe"), 2)
	}
	err = show.Run(context.Background(), os.Stdout, in, show.Options{Mode: f.mode(), Verify: f.Verify, Location: time.Local})
	switch {
	case format.ClassOf(err) != "":
		return fail(err, 4)
	case err != nil:
		return fail(err, 1)
	}
	return 0
}

func fail(err error, code int) int {
	fmt.Fprintln(os.Stderr, "bk-show:", err)
	return code
}
