package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// StreamIn returns standard input for a program that reads a stream, and
// refuses a terminal.
func (app *App) StreamIn() (io.Reader, error) {
	if term.IsTerminal(int(app.Stdin.Fd())) {
		return nil, Usagef("a stream is read from standard input, which is a terminal: pipe one in, as in bk-export --all | %s", app.Name)
	}
	widenPipe(app.Stdin)
	return app.Stdin, nil
}

// StreamOut returns standard output for a program that writes a stream, and
// refuses a terminal.
func (app *App) StreamOut() (io.Writer, error) {
	if term.IsTerminal(int(app.Stdout.Fd())) {
		return nil, Usagef("a stream is written to standard output, which is a terminal: pipe it on, or into a file")
	}
	widenPipe(app.Stdout)
	return app.Stdout, nil
}

// widenPipe asks for a pipe buffer of 1 MiB, which saves most of the switches
// between programs; where that is refused, nothing is lost.
func widenPipe(f *os.File) {
	if isPipe(f) {
		_, _ = unix.FcntlInt(f.Fd(), unix.F_SETPIPE_SZ, 1<<20)
	}
}

// JSONEvent writes one JSON line about what happens to standard error.
func (app *App) JSONEvent(kind string, fields map[string]any) {
	fields["event"] = kind
	b, err := json.Marshal(fields)
	if err != nil {
		b = fmt.Appendf(nil, `{"event":"error","message":%q}`, err)
	}
	fmt.Fprintf(app.Stderr, "%s\n", b)
}

// JSONName puts a name that may not be UTF-8 into a JSON object: under key, or
// under key_hex in hexadecimal where text cannot hold it.
func JSONName(object map[string]any, key, name string) {
	if utf8.ValidString(name) {
		object[key] = name
	} else {
		object[key+"_hex"] = fmt.Sprintf("%x", name)
	}
}

// Table prints rows in aligned columns; numbers are aligned by right[column].
func Table(w io.Writer, header []string, rows [][]string, right map[int]bool) error {
	width := make([]int, len(header))
	for _, row := range append([][]string{header}, rows...) {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range append([][]string{header}, rows...) {
		var b strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if i > 0 {
				b.WriteString("  ")
			}
			if right[i] {
				b.WriteString(pad + cell)
			} else {
				b.WriteString(cell + pad)
			}
		}
		if _, err := fmt.Fprintln(w, strings.TrimRight(b.String(), " ")); err != nil {
			return err
		}
	}
	return nil
}

// Printable returns a name so that no byte of it can move a terminal's cursor,
// turn the direction of writing or break a line: the bytes of what is not a
// printable character are written as \xNN, a backslash as two.
func Printable(name string) string {
	clean := true
	for _, r := range name {
		clean = clean && r != '\\' && r != utf8.RuneError && unicode.IsPrint(r)
	}
	if clean {
		return name
	}
	var b strings.Builder
	for rest := name; rest != ""; {
		r, n := utf8.DecodeRuneInString(rest)
		switch {
		case r == '\\':
			b.WriteString(`\\`)
		case r == utf8.RuneError && n <= 1, !unicode.IsPrint(r):
			for _, x := range []byte(rest[:n]) {
				fmt.Fprintf(&b, `\x%02x`, x)
			}
		default:
			b.WriteString(rest[:n])
		}
		rest = rest[n:]
	}
	return b.String()
}
