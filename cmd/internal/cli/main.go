package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
)

// Version is what --version prints; the Makefile sets it from git.
var Version = "devel"

// Command is a program, or one of the commands of a program that has several: a
// struct of kong flags that can run.
type Command interface {
	Run(ctx context.Context, app *App) error
}

// App is what a running program has from its surroundings.
type App struct {
	Name   string // bk-ls
	Stdin  *os.File
	Stdout *os.File
	Stderr io.Writer
	Common

	lossy    bool              // something was lost or could not be read: exit code 3
	progress *progress         // the line on the terminal, if there is one
	answers  map[string]string // passphrases that were asked for, by what for

	toldNoCache bool // that there is no place for a cache
}

// Common are the flags of every program.
type Common struct {
	Quiet bool `short:"q" help:"Say nothing but errors."`
	JSON  bool `name:"json" help:"Write what is meant for people as JSON lines, for programs."`
}

// metaFlags are those that print something about the program and stop.
type metaFlags struct {
	Version    bool   `help:"Print the version and stop."`
	Man        bool   `help:"Print the manual page (for man -l -) and stop."`
	Completion string `placeholder:"SHELL" help:"Print completions for bash, zsh or fish and stop."`
}

// root joins what kong parses: the program's own flags first.
type root struct {
	Command any       `embed:""`
	Common  Common    `embed:"" group:"Common flags"`
	Meta    metaFlags `embed:"" group:"Common flags"`
}

// Main runs a program and exits. cmd is a Command, or a struct with fields that
// are Commands and have the tag cmd. summary is one line; a Help method of cmd
// (kong.HelpProvider) gives the longer text.
func Main(name, summary string, cmd any) {
	os.Exit(run(name, summary, cmd, os.Args[1:]))
}

func run(name, summary string, cmd any, args []string) (code int) {
	app := &App{Name: name, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	var grammar root
	grammar.Command = cmd
	exited := -1
	help := summary
	if h, ok := cmd.(kong.HelpProvider); ok {
		help += "\n\n" + strings.TrimSpace(h.Help())
	}
	parser, err := kong.New(&grammar,
		kong.Name(name),
		kong.Description(help),
		kong.Writers(app.Stdout, app.Stderr),
		kong.Exit(func(c int) { exited = c; panic(exitNow{}) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, Summary: false}),
		kong.Vars{"version": Version, "places": placesFor(cmd), "targets": foreignNames(foreignSystem.canBeWritten)},
	)
	if err != nil {
		panic(fmt.Sprintf("%s: flags: %v", name, err))
	}
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(exitNow); ok {
				code = exited
				return
			}
			panic(r)
		}
	}()
	if printed, code := meta(app, parser.Model, summary, args); printed {
		return code
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		return app.fail(usageError{err})
	}
	app.Common = grammar.Common

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal kills
	tune()

	err = chosen(cmd, parsed).Run(ctx, app)
	app.endProgress()
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		fmt.Fprintf(app.Stderr, "%s: interrupted; what was committed stays\n", name)
		return ExitInterrupted
	}
	return app.fail(err)
}

type exitNow struct{}

// chosen returns what is to run: the program, or the command of it that the
// arguments name.
func chosen(cmd any, parsed *kong.Context) Command {
	if node := parsed.Selected(); node != nil {
		cmd = node.Target.Addr().Interface()
	}
	return cmd.(Command)
}

// Limits of the Go heap: what a process holds beside it is some 15 MiB. Other
// systems' chunks are larger than ours, and each is held in several forms; with
// less than that, the collector would run all the time.
const (
	memoryMax        = 176 << 20
	memoryForeignMax = 216 << 20
)

// tune bounds the memory of the programs: under 200 MiB for repositories of bk.
func tune() {
	limitMemory(memoryMax)
	if os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) > 32 {
		runtime.GOMAXPROCS(32)
	}
}

// limitMemory bounds the heap unless the environment does.
func limitMemory(n int64) {
	if os.Getenv("GOGC") == "" && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(n)
	}
}

// meta serves --version, --man and --completion, which need no other argument.
func meta(app *App, model *kong.Application, summary string, args []string) (printed bool, code int) {
	for i, arg := range args {
		switch {
		case arg == "--":
			return false, 0
		case arg == "--version":
			fmt.Fprintf(app.Stdout, "%s %s\n", app.Name, Version)
			return true, ExitDone
		case arg == "--man":
			fmt.Fprint(app.Stdout, manPage(app.Name, summary, model))
			return true, ExitDone
		case arg == "--completion" && i+1 < len(args), strings.HasPrefix(arg, "--completion="):
			shell := strings.TrimPrefix(arg, "--completion=")
			if shell == arg {
				shell = args[i+1]
			}
			text, err := completion(shell, app.Name, model)
			if err != nil {
				return true, app.fail(usageError{err})
			}
			fmt.Fprint(app.Stdout, text)
			return true, ExitDone
		}
	}
	return false, 0
}
