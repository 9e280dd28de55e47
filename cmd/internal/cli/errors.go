package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/bk-backup/bk/format"
)

// Exit codes of every program.
const (
	ExitDone         = 0   // done
	ExitFailed       = 1   // failed; nothing more was committed
	ExitUsage        = 2   // wrong usage
	ExitLossy        = 3   // done, but some input could not be read or some fidelity was lost
	ExitStream       = 4   // the input stream is cut off or invalid
	ExitNoRepository = 10  // there is no repository
	ExitNoKey        = 12  // no key fits
	ExitInterrupted  = 130 // interrupted
)

// Error is a failure with the exit code and the advice that a program adds.
type Error struct {
	Code int    // exit code; 0 means ExitFailed
	Op   string // what was attempted, on what
	Err  error  // why it failed
	Fix  string // what to do about it; may be empty
}

// Error returns one line.
func (e *Error) Error() string {
	switch {
	case e.Op == "":
		return e.Err.Error()
	case e.Err == nil:
		return e.Op
	}
	return e.Op + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Usagef is an error in how the program was called.
func Usagef(msg string, args ...any) error { return usageError{fmt.Errorf(msg, args...)} }

type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// coded is implemented by errors of libraries that know what they mean to a
// program; see repo.go for the table.
func exitCode(err error) int {
	var own *Error
	var usage usageError
	switch {
	case err == nil:
		return ExitDone
	case errors.As(err, &usage):
		return ExitUsage
	case errors.Is(err, context.Canceled):
		return ExitInterrupted
	case errors.As(err, &own) && own.Code != 0:
		return own.Code
	case errors.Is(err, syscall.EPIPE):
		return ExitFailed
	case format.ClassOf(err) != "":
		return ExitStream
	}
	return repositoryExitCode(err)
}

// fail prints err as the last words of the program and returns its exit code.
func (app *App) fail(err error) int {
	code := exitCode(err)
	if err == nil {
		if app.lossy {
			return ExitLossy
		}
		return ExitDone
	}
	fmt.Fprintf(app.Stderr, "%s: %s\n", app.Name, oneLine(err.Error()))
	fix := fixOf(err)
	if code == ExitUsage && fix == "" {
		fix = "run " + app.Name + " --help"
	}
	if fix != "" {
		fmt.Fprintf(app.Stderr, "to fix: %s\n", fix)
	}
	return code
}

// advice returns the outermost advice in the chain, or "".
func advice(err error) string {
	if own, ok := err.(*Error); ok && own.Fix != "" {
		return own.Fix
	}
	if f, ok := err.(interface{ FixText() string }); ok && f.FixText() != "" {
		return f.FixText()
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return advice(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			if text := advice(one); text != "" {
				return text
			}
		}
	}
	return ""
}

// Fix returns what a program advises about an error; it may be empty.
func Fix(err error) string { return fixOf(err) }

// fixOf returns what to do about an error.
func fixOf(err error) string {
	if text := advice(err); text != "" {
		return text
	}
	if errors.Is(err, syscall.EPIPE) {
		return "look at what the program that reads the stream said"
	}
	if format.ClassOf(err) == format.ClassCut {
		return "look at what the program that writes the stream said; what had been committed stays, and running the pipeline again completes it"
	}
	return repositoryFix(err)
}

// Warnf tells people about something that does not stop the program.
func (app *App) Warnf(msg string, args ...any) {
	app.clearProgress()
	fmt.Fprintf(app.Stderr, "%s: %s\n", app.Name, oneLine(fmt.Sprintf(msg, args...)))
}

// Sayf tells people how it went; --quiet and --json silence it.
func (app *App) Sayf(msg string, args ...any) {
	if app.Quiet || app.JSON {
		return
	}
	app.clearProgress()
	fmt.Fprintf(app.Stderr, msg+"\n", args...)
}

// Lossy makes the program exit with ExitLossy if it does not fail otherwise.
func (app *App) Lossy() { app.lossy = true }

// ReportLosses names what was lost, each kind once with its first paths, and
// makes the exit code ExitLossy.
func (app *App) ReportLosses(losses []format.Loss) {
	for _, l := range losses {
		app.Lossy()
		paths := make([]string, 0, 3)
		for _, p := range l.Paths {
			if len(paths) == 3 {
				break
			}
			paths = append(paths, fmt.Sprintf("%q", "/"+p))
		}
		more := ""
		if l.Count > uint64(len(paths)) {
			more = " ..."
		}
		app.Warnf("lost: %s: %d (%s%s)", l.Kind, l.Count, strings.Join(paths, ", "), more)
	}
}

// Damaged names a file whose content cannot be read from a source, and makes the
// exit code ExitLossy. It is a format.ExportOptions.OnDamage.
func (app *App) Damaged(snapshot format.ID, path string, err error) {
	app.Lossy()
	app.Warnf("%s in snapshot %s: a part of its content is lost: %v", Printable("/"+path), snapshot.Short(), err)
}

// oneLine keeps hostile names from drawing on the terminal or faking lines.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if r < 0x20 || r == 0x7f || (r >= 0x80 && r < 0xa0) {
			return '?'
		}
		return r
	}, s)
}
