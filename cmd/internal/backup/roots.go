package backup

import (
	"bufio"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bk-backup/bk/cmd/internal/cli"
)

// roots are the paths on the command line and in lists.
func (c *Backup) roots(app *cli.App) ([]string, error) {
	if c.Stdin || c.StdinFromCommand {
		return nil, nil
	}
	roots := c.Paths
	for _, l := range []list{
		{"--files-from", c.FilesFrom, bufio.ScanLines, checkLine},
		{"--files-from0", c.FilesFrom0, splitZeros, checkWhole},
	} {
		for _, file := range l.files {
			paths, err := l.read(app, file)
			if err != nil {
				return nil, &cli.Error{Op: "read " + l.flag + " " + file, Err: err}
			}
			roots = append(roots, paths...)
		}
	}
	if len(roots) == 0 {
		return nil, cli.Usagef("what is to be backed up is read from a list, and the list names no paths")
	}
	return throughLinks(app, roots), nil
}

// throughLinks replaces a symbolic link that is named with a slash behind it by
// what it leads to, as a path means it everywhere else. Named without, it is
// itself what is backed up.
func throughLinks(app *cli.App, roots []string) []string {
	roots = slices.Clone(roots)
	for i, root := range roots {
		named := strings.TrimRight(strings.TrimSuffix(root, "/."), "/")
		if named == "" || named == root {
			continue
		}
		if info, err := os.Lstat(named); err != nil || info.Mode()&fs.ModeSymlink == 0 {
			continue
		}
		if real, err := filepath.EvalSymlinks(named); err == nil {
			app.Sayf("%s leads to %s, which is backed up", root, real)
			roots[i] = real
		}
	}
	return roots
}

// list is how paths are written one after another.
type list struct {
	flag  string
	files []string // which the flag names
	split bufio.SplitFunc
	check func(path []byte) (skip bool, err error)
}

// read reads the paths of a file, or of standard input.
func (l *list) read(app *cli.App, file string) (paths []string, err error) {
	in := app.Stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	scanner := bufio.NewScanner(in)
	scanner.Buffer(nil, 1<<20)
	scanner.Split(l.split)
	for scanner.Scan() {
		skip, err := l.check(scanner.Bytes())
		if err != nil {
			return nil, err
		}
		if !skip {
			paths = append(paths, scanner.Text())
		}
	}
	return paths, scanner.Err()
}

// checkLine passes over lines that are empty or a comment.
func checkLine(line []byte) (skip bool, err error) {
	if bytes.IndexByte(line, 0) >= 0 {
		return false, &cli.Error{Err: errors.New("there is a zero byte in a line"), Fix: "give --files-from0 if paths end with zero bytes there"}
	}
	return len(line) == 0 || line[0] == '#', nil
}

// splitZeros is a bufio.SplitFunc for paths that end with zero bytes. What the
// last zero byte does not end may be the beginning of a longer path: /home where
// /home/me/file was to come, had the program that writes the list not been
// killed.
func splitZeros(b []byte, atEOF bool) (advance int, path []byte, err error) {
	if end := bytes.IndexByte(b, 0); end >= 0 {
		return end + 1, b[:end], nil
	}
	if atEOF && len(b) > 0 {
		return 0, nil, &cli.Error{Err: errors.New("the last path does not end with a zero byte: the list was cut off, or is one of lines"), Fix: "look at what the program that writes the list said; give --files-from if it writes a path a line"}
	}
	return 0, nil, nil
}

// checkWhole refuses what would stand for the directory that the program runs
// in.
func checkWhole(path []byte) (skip bool, err error) {
	if len(path) == 0 {
		return false, &cli.Error{Err: errors.New("an empty path stands in it"), Fix: "look at the program that writes the list; the directory that bk-backup runs in is a dot"}
	}
	return false, nil
}
