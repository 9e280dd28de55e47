package scripttest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// pipe runs a pipeline of its arguments, which "|" divides. All programs run at
// once, joined by pipes of the kernel.
func pipe() {
	var stages []*exec.Cmd
	for _, args := range split(os.Args[1:]) {
		stages = append(stages, exec.Command(args[0], args[1:]...))
	}
	var ends []*os.File // of pipes, which only the programs shall hold
	for i, cmd := range stages {
		cmd.Stderr = os.Stderr
		if i == 0 {
			cmd.Stdin = os.Stdin
		}
		if i == len(stages)-1 {
			cmd.Stdout = os.Stdout
			break
		}
		r, w, err := os.Pipe()
		if err != nil {
			fatal("make a pipe: %v", err)
		}
		cmd.Stdout, stages[i+1].Stdin = w, r
		ends = append(ends, r, w)
	}
	for _, cmd := range stages {
		if err := cmd.Start(); err != nil {
			fatal("start %s: %v", cmd.Path, err)
		}
	}
	for _, end := range ends {
		end.Close()
	}
	failed := false
	codes := make([]string, len(stages))
	for i, cmd := range stages {
		n := exitCode(cmd.Wait())
		failed = failed || n != 0
		codes[i] = strconv.Itoa(n)
	}
	fmt.Fprintf(os.Stderr, "exit codes: %s\n", strings.Join(codes, " "))
	if failed {
		os.Exit(1)
	}
}

func split(args []string) (stages [][]string) {
	stages = [][]string{nil}
	for _, arg := range args {
		if arg == "|" {
			stages = append(stages, nil)
			continue
		}
		last := len(stages) - 1
		stages[last] = append(stages[last], arg)
	}
	return stages
}

// exitCode is as in a shell: 128 and the signal for a program that was killed.
func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case !errors.As(err, &exit):
		fatal("wait for a program: %v", err)
	}
	if status := exit.Sys().(syscall.WaitStatus); status.Signaled() {
		return 128 + int(status.Signal())
	}
	return exit.ExitCode()
}

// code runs a program and compares its exit code.
func code() {
	want, err := strconv.Atoi(os.Args[1])
	if err != nil {
		fatal("%q is not an exit code", os.Args[1])
	}
	cmd := exec.Command(os.Args[2], os.Args[3:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if got := exitCode(cmd.Run()); got != want {
		fatal("exit code %d, want %d", got, want)
	}
}

// damage flips a bit in the middle of a pack, or cuts the pack there.
func damage() {
	how, kind, repo := os.Args[1], os.Args[2], os.Args[3]
	kinds := map[string]byte{"data": 4, "meta": 5} // as spec/repository.md numbers them
	packs, err := filepath.Glob(filepath.Join(repo, "packs", "*", "*"))
	if err != nil {
		fatal("%v", err)
	}
	newest, newestTime := "", time.Time{}
	var content []byte
	for _, name := range packs {
		info, err := os.Stat(name)
		if err != nil {
			fatal("%v", err)
		}
		b, err := os.ReadFile(name)
		if err != nil {
			fatal("%v", err)
		}
		if b[9] == kinds[kind] && info.ModTime().After(newestTime) {
			newest, newestTime, content = name, info.ModTime(), b
		}
	}
	if newest == "" {
		fatal("there is no %s pack in %s", kind, repo)
	}
	// Chunks lie from byte 128 on, and padding at the end: early is in a chunk.
	const at = 200
	if how == "cut" {
		content = content[:at]
	} else {
		content[at] ^= 1
	}
	if err := os.Chmod(newest, 0o600); err != nil {
		fatal("%v", err)
	}
	if err := os.WriteFile(newest, content, 0o600); err != nil {
		fatal("%v", err)
	}
	fmt.Println("damaged", filepath.Base(newest))
}

func fatal(msg string, args ...any) {
	fmt.Fprintf(os.Stderr, msg+"\n", args...)
	os.Exit(125)
}
