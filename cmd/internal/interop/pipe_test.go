//go:build interop

package interop

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const python = "/usr/bin/python3"

// example returns one of the specification's examples as a command.
func example(name string, args ...string) *exec.Cmd {
	return exec.Command(python, append([]string{"../../../spec/examples/" + name}, args...)...)
}

// program returns one of bk's programs as a command. A program that was not built
// skips the test, unless BK_BIN says where it must be.
func program(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	dir, required := os.LookupEnv("BK_BIN")
	if !required {
		dir = "../../../bin"
	}
	path, err := filepath.Abs(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		if required {
			t.Fatalf("BK_BIN lacks %s: %v", name, err)
		}
		t.Skipf("%s is not built: run make build", name)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir(), "XDG_CACHE_HOME="+t.TempDir())
	return cmd
}

// result is what became of a pipe: the exit code and messages of each program.
type result struct {
	codes  []int
	stderr []string
	stdout []byte // of the last one
}

// pipe runs the commands at the same time, each one's output going to the next.
func pipe(t *testing.T, stdin io.Reader, cmds ...*exec.Cmd) result {
	t.Helper()
	res := result{codes: make([]int, len(cmds)), stderr: make([]string, len(cmds))}
	messages := make([]bytes.Buffer, len(cmds))
	var out bytes.Buffer
	var ends []*os.File // ours, to be closed once the programs have them
	cmds[0].Stdin = stdin
	for i, cmd := range cmds {
		cmd.Stderr = &messages[i]
		if i == len(cmds)-1 {
			cmd.Stdout = &out
			break
		}
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stdout, cmds[i+1].Stdin = w, r
		ends = append(ends, r, w)
	}
	for _, cmd := range cmds {
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range ends {
		f.Close()
	}
	for i, cmd := range cmds {
		err := cmd.Wait()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) && i > 0 {
			t.Fatalf("%s: %v", cmd, err)
		}
		res.codes[i], res.stderr[i] = cmd.ProcessState.ExitCode(), messages[i].String()
	}
	res.stdout = out.Bytes()
	return res
}

// mustPipe is pipe where every program has to end with 0. It returns the output
// of the last one.
func mustPipe(t *testing.T, stdin io.Reader, cmds ...*exec.Cmd) []byte {
	t.Helper()
	res := pipe(t, stdin, cmds...)
	for i, code := range res.codes {
		if code != 0 {
			t.Fatalf("%s ended with %d: %s", cmds[i], code, res.stderr[i])
		}
	}
	return res.stdout
}

func TestMain(m *testing.M) {
	out, err := exec.Command(python, "-c", "import cryptography, msgpack, zstandard").CombinedOutput()
	if err != nil {
		os.Stderr.WriteString("interop: " + python + " needs the modules cryptography, msgpack and zstandard: " +
			strings.TrimSpace(string(out)) + " " + err.Error() + "\n")
		os.Exit(1)
	}
	os.Exit(m.Run())
}
