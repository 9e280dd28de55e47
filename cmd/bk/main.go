// Command bk lists the programs of the family, and runs bk-NAME as "bk NAME".
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"syscall"

	"github.com/bk-backup/bk/cmd/internal/cli"
)

func main() {
	args := os.Args[1:]
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") && args[0] != "help" {
		run(args[0], args[1:])
	}
	if len(args) == 2 && args[0] == "help" {
		run(args[1], []string{"--help"})
	}
	if len(args) == 1 && args[0] == "help" {
		os.Args[1] = "--help"
	}
	cli.Main("bk", "Backups that can be moved: small programs that share one stream.", &command{})
}

// run becomes the program bk-NAME: the one beside this program, or in PATH.
func run(name string, args []string) {
	name = strings.TrimPrefix(name, "bk-")
	program := "bk-" + name
	path := ""
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), program)
		if fi, err := os.Stat(beside); err == nil && fi.Mode()&0o111 != 0 {
			path = beside
		}
	}
	if path == "" {
		found, err := exec.LookPath(program)
		if err != nil {
			meant := ""
			if near := nearest(name, family()); near != "" {
				meant = fmt.Sprintf(", did you mean %q?", near)
			}
			fmt.Fprintf(os.Stderr, "bk: there is no program %s beside bk or in PATH%s\nto fix: run bk for the list\n", program, meant)
			os.Exit(cli.ExitUsage)
		}
		path = found
	}
	err := syscall.Exec(path, append([]string{program}, args...), os.Environ())
	fmt.Fprintf(os.Stderr, "bk: run %s: %v\n", path, err)
	os.Exit(cli.ExitFailed)
}

// family lists the programs that are installed beside bk and in PATH.
func family() []string {
	dirs := filepath.SplitList(os.Getenv("PATH"))
	if self, err := os.Executable(); err == nil {
		dirs = append(dirs, filepath.Dir(self))
	}
	seen := make(map[string]bool)
	for _, dir := range dirs {
		matches, _ := filepath.Glob(filepath.Join(dir, "bk-*"))
		for _, m := range matches {
			if fi, err := os.Stat(m); err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0 {
				seen[strings.TrimPrefix(filepath.Base(m), "bk-")] = true
			}
		}
	}
	var names []string
	for name := range seen {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}
