// Command runner shows the vectors of spec/vectors/stream to a program in any
// language and compares what it says. Start reading at run; nothing imports it.
//
//	go run ./spec/vectors/runner -- bk-show --vector
//	go run ./spec/vectors/runner -identity -- bk-filter
//
// Each vector's stream comes on the program's standard input. It must write the
// answer that spec/vectors/README.md describes and exit with 0 or 4. With
// -identity, the canonical good streams must come out as they went in.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"time"

	"github.com/bk-backup/bk/format/vectortest"
)

func main() {
	dir := flag.String("dir", "spec/vectors/stream", "where the vectors lie")
	only := flag.String("run", "", "show only vectors whose name contains this")
	identity := flag.Bool("identity", false, "the program must write canonical streams as they are")
	timeout := flag.Duration("timeout", 10*time.Second, "how long one vector may take")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: runner [flags] -- COMMAND [ARGUMENT ...]")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	r := runner{command: flag.Args(), identity: *identity, timeout: *timeout, only: *only}
	failed, err := r.run(ctx, os.Stdout, *dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, "runner:", err)
	}
	if err != nil || failed > 0 {
		os.Exit(1)
	}
}

type runner struct {
	command  []string
	identity bool
	timeout  time.Duration
	only     string
}

// run shows every vector in dir to the command and writes to out which fail.
func (r *runner) run(ctx context.Context, out io.Writer, dir string) (failed int, err error) {
	vectors, err := vectortest.Load(dir)
	if err != nil {
		return 0, err
	}
	shown := 0
	for _, v := range vectors {
		if !strings.Contains(v.Name, r.only) || r.identity && !v.Canonical {
			continue
		}
		shown++
		if err := r.show(ctx, v); err != nil {
			failed++
			fmt.Fprintf(out, "FAIL %s (%s)\n%s\n", v.Name, v.About, indent(err.Error()))
		}
		if ctx.Err() != nil {
			return failed, context.Cause(ctx)
		}
	}
	if shown == 0 {
		return 0, fmt.Errorf("no vector in %s is chosen", dir)
	}
	_, err = fmt.Fprintf(out, "%d of %d vectors passed\n", shown-failed, shown)
	return failed, err
}

// show runs the command with one vector and returns what was wrong.
func (r *runner) show(ctx context.Context, v *vectortest.Vector) error {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	want, wantCode := []byte(v.Answer()), v.ExitCode()
	if r.identity {
		want = v.Stream()
	}
	cmd := exec.CommandContext(ctx, r.command[0], r.command[1:]...)
	cmd.Stdin = bytes.NewReader(v.Stream())
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return fmt.Errorf("cannot run %s: %w", r.command[0], err)
	}
	code := cmd.ProcessState.ExitCode()
	if code == wantCode && bytes.Equal(stdout.Bytes(), want) {
		return nil
	}
	if r.identity {
		return fmt.Errorf("exit code %d; %d bytes came out of %d\nstandard error: %s", code, stdout.Len(), len(want), stderr.String())
	}
	return fmt.Errorf("exit code %d, expected %d\n%sstandard error: %s", code, wantCode, difference(stdout.String(), string(want)), stderr.String())
}

// difference shows the first line that differs.
func difference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		x, y := at(g, i), at(w, i)
		if x != y {
			return fmt.Sprintf("line %d is:       %.200s\nline %d should be: %.200s\n", i+1, x, i+1, y)
		}
	}
	return ""
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "(nothing)"
}

func indent(s string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n    ")
}
