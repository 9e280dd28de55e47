// Command bk-filter takes things out of a stream, or changes them on the way,
// from standard input to standard output.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"github.com/alecthomas/kong"
	"github.com/bk-backup/bk/cmd/internal/filterflags"
	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/filter"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// memoryMax is what the collector keeps the heap below where it can, in bytes.
const memoryMax = 40 << 20

// Exit codes.
const (
	exitFailed = 1
	exitUsage  = 2
	exitStream = 4
)

var errUsage = errors.New("wrong usage")

type command struct {
	filterflags.Flags
	DryRun bool `help:"Write no stream, but list on standard output what would go."`
	Quiet  bool `short:"q" help:"Say nothing but errors."`
	JSON   bool `name:"json" help:"Write the summary and the listing as JSON lines."`
}

func main() {
	debug.SetMemoryLimit(memoryMax)
	var cmd command
	parser := kong.Must(&cmd, kong.Name("bk-filter"), kong.Description("Take things out of a stream, or change them on the way."))
	_, err := parser.Parse(os.Args[1:])
	if err != nil {
		err = fmt.Errorf("%w: %w", errUsage, err)
	} else {
		err = cmd.run()
	}
	if err != nil {
		os.Exit(fail(err))
	}
}

func fail(err error) int {
	fmt.Fprintf(os.Stderr, "bk-filter: %v\n", err)
	if fix, ok := errors.AsType[interface {
		error
		FixText() string
	}](err); ok {
		fmt.Fprintf(os.Stderr, "to fix: %s\n", fix.FixText())
	}
	switch {
	case errors.Is(err, errUsage):
		return exitUsage
	case format.ClassOf(err) != "":
		return exitStream
	}
	return exitFailed
}

func (cmd *command) run() error {
	ctx := context.Background()
	opts, err := cmd.Options(ctx, filterflags.Surroundings{Now: time.Now(), Env: os.Environ(), Stderr: os.Stderr})
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if term.IsTerminal(0) || term.IsTerminal(1) && !cmd.DryRun {
		return fmt.Errorf("%w: a stream comes from standard input and goes to standard output, and neither may be a terminal", errUsage)
	}
	for fd := range uintptr(2) {
		// A pipe that is refused more room is only slower.
		_, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, 1<<20)
	}
	report := newReport(cmd)
	opts.OnDrop = report.onDrop()
	f, err := filter.New(opts)
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	err = format.Copy(ctx, report.sink(), format.NewReader(os.Stdin, format.ReaderOptions{}), f)
	if err := errors.Join(err, report.flush(), f.Close()); err != nil {
		return err
	}
	return report.summary(f.Summary())
}
