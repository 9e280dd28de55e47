package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/term"
)

// SecretSource finds a passphrase: in a variable, a file, the output of a
// command, or by asking on the terminal, in that order.
type SecretSource struct {
	// Prefixes of the variables, in order: with "BK_IMPORT" and "BK" the
	// variables BK_IMPORT_PASSPHRASE, BK_IMPORT_PASSPHRASE_FILE,
	// BK_IMPORT_PASSPHRASE_COMMAND, then the same with BK.
	Variables []string
	Prompt    string // what the question on the terminal says
	Twice     bool   // ask twice: a new passphrase
}

// Passphrase finds it, for a key that is derived from it next. Without any source
// it fails with advice.
func (app *App) Passphrase(ctx context.Context, src SecretSource) (string, error) {
	text, err := app.findPassphrase(ctx, src)
	if err == nil {
		easeDerivation()
	}
	return text, err
}

func (app *App) findPassphrase(ctx context.Context, src SecretSource) (string, error) {
	text, found, err := fromEnvironment(ctx, "passphrase", src.Variables)
	if found || err != nil {
		return text, err
	}
	return app.ask(src)
}

// fromEnvironment finds a secret in a variable, a file that another one names, or
// the output of a command. what says in errors what is looked for.
func fromEnvironment(ctx context.Context, what string, variables []string) (text string, found bool, err error) {
	for _, v := range variables {
		if p, ok := os.LookupEnv(v); ok {
			return p, true, nil
		}
		if file, ok := os.LookupEnv(v + "_FILE"); ok {
			b, err := os.ReadFile(file)
			if err != nil {
				return "", false, &Error{Op: "read the " + what + " file named by " + v + "_FILE", Err: err}
			}
			return firstLine(b), true, nil
		}
		if command, ok := os.LookupEnv(v + "_COMMAND"); ok {
			cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			if err != nil {
				return "", false, &Error{Op: "run the " + what + " command named by " + v + "_COMMAND", Err: err}
			}
			return firstLine(out), true, nil
		}
	}
	return "", false, nil
}

// HasPassphrase reports whether the environment has the passphrase of a role, so
// that nobody is asked for it: not by a command either.
func (app *App) HasPassphrase(role Role) bool {
	for _, v := range role.secrets {
		_, text := os.LookupEnv(v)
		_, file := os.LookupEnv(v + "_FILE")
		_, command := os.LookupEnv(v + "_COMMAND")
		if text || file || command {
			return text || file
		}
	}
	return false
}

func firstLine(b []byte) string {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	return strings.TrimSuffix(string(line), "\r")
}

// newSecret is how the question for a new passphrase begins.
const newSecret = "new "

// ask reads from the terminal itself: standard input may be a stream. What was
// answered is not asked for again.
func (app *App) ask(src SecretSource) (string, error) {
	about := strings.TrimPrefix(src.Prompt, newSecret)
	if p, ok := app.answers[about]; ok && !src.Twice {
		return p, nil
	}
	p, err := app.askNow(src)
	if err != nil {
		return "", err
	}
	if app.answers == nil {
		app.answers = make(map[string]string)
	}
	app.answers[about] = p
	return p, nil
}

func (app *App) askNow(src SecretSource) (string, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return "", &Error{Code: ExitNoKey, Op: "find a passphrase",
			Err: errors.New("none in the environment, and no terminal to ask on"),
			Fix: "set " + src.Variables[0] + ", " + src.Variables[0] + "_FILE or " + src.Variables[0] + "_COMMAND"}
	}
	defer tty.Close()
	app.clearProgress()
	read := func(prompt string) (string, error) {
		fmt.Fprintf(tty, "%s: %s: ", app.Name, prompt)
		b, err := term.ReadPassword(int(tty.Fd()))
		fmt.Fprintln(tty)
		return string(b), err
	}
	p, err := read(src.Prompt)
	if err != nil {
		return "", &Error{Code: ExitNoKey, Op: "read the passphrase from the terminal", Err: err}
	}
	if !src.Twice {
		return p, nil
	}
	again, err := read("the same again")
	if err != nil {
		return "", &Error{Code: ExitNoKey, Op: "read the passphrase from the terminal", Err: err}
	}
	if p != again {
		return "", &Error{Op: "read the passphrase from the terminal", Err: errors.New("the two differ")}
	}
	return p, nil
}
