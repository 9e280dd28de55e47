// Command widehistory writes a stream of many snapshots of many files, metadata
// alone, to standard output: what bench.py measures the memory and the cost of
// differences with. It is run from the source tree and not installed; nothing
// imports it.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"

	"github.com/bk-backup/bk/format"
)

// history says how much there is.
type history struct {
	snapshots, files, changes int
}

const (
	filesPerDir = 100
	epoch       = 1_700_000_000
)

func main() {
	var h history
	flag.IntVar(&h.snapshots, "snapshots", 1000, "number of snapshots")
	flag.IntVar(&h.files, "files", 1_000_000, "number of files in each, in directories of 100")
	flag.IntVar(&h.changes, "changes", 200, "files that change, and ten times fewer that come, between two snapshots")
	flag.Parse()
	out := bufio.NewWriterSize(os.Stdout, 1<<20)
	if err := h.write(out); err != nil {
		fmt.Fprintf(os.Stderr, "widehistory: write the stream: %v\n", err)
		os.Exit(1)
	}
}

// write writes the whole stream.
func (h history) write(out *bufio.Writer) error {
	w := format.NewWriter(out, format.WriterOptions{})
	if err := w.Write(&format.Header{Version: format.Version, Producer: "widehistory"}); err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(1, 2))
	var before format.ID
	for n := range h.snapshots {
		id := format.SumID(fmt.Append(nil, "widehistory ", h, n))
		snap := &format.Snapshot{
			ID: id, Parent: before, Host: "host", Roots: []string{"data"}, Tags: []string{"daily"},
			Time: &format.Time{Sec: epoch + int64(n)*86400},
		}
		if err := w.Write(snap); err != nil {
			return err
		}
		var err error
		if n == 0 {
			err = h.all(w)
		} else {
			err = h.difference(w, rng, n)
		}
		if err != nil {
			return err
		}
		if err := w.Write(&format.Commit{}); err != nil {
			return err
		}
		before = id
	}
	if err := w.Write(&format.End{}); err != nil {
		return err
	}
	return out.Flush()
}

// all sends every file, with the directories above.
func (h history) all(w *format.Writer) error {
	if err := w.Write(entry("data", format.TypeDir, 0)); err != nil {
		return err
	}
	for i := range h.files {
		if i%filesPerDir == 0 {
			d := i / filesPerDir
			if d%filesPerDir == 0 {
				if err := w.Write(entry(fmt.Sprintf("data/part%04d", d/filesPerDir), format.TypeDir, 0)); err != nil {
					return err
				}
			}
			if err := w.Write(entry(dirPath(i), format.TypeDir, 0)); err != nil {
				return err
			}
		}
		if err := file(w, filePath(i), 0); err != nil {
			return err
		}
	}
	return nil
}

// difference changes some files and adds some.
func (h history) difference(w *format.Writer, rng *rand.Rand, n int) error {
	changed := make([]int, h.changes)
	for i := range changed {
		changed[i] = rng.IntN(h.files)
	}
	slices.Sort(changed)
	for i, f := range slices.Compact(changed) {
		if err := file(w, filePath(f), n); err != nil {
			return err
		}
		if i%10 == 0 {
			if err := file(w, fmt.Sprintf("%s.new%d", filePath(f), n), n); err != nil {
				return err
			}
		}
	}
	return nil
}

func dirPath(file int) string {
	d := file / filesPerDir
	return fmt.Sprintf("data/part%04d/dir%06d", d/filesPerDir, d)
}

func filePath(n int) string { return fmt.Sprintf("%s/document-%08d.txt", dirPath(n), n) }

func entry(path string, typ format.Type, version int) *format.Entry {
	return &format.Entry{
		Path: path, Type: typ, Has: format.HasMode | format.HasMtime | format.HasUID | format.HasGID,
		Mode: 0o644, UID: 1000, GID: 1000, User: "user", Group: "group",
		Mtime: format.Time{Sec: epoch + int64(version)*86400, Nsec: uint32(len(path) * 1_234_567)},
	}
}

// file sends an empty file.
func file(w *format.Writer, path string, version int) error {
	if err := w.Write(entry(path, format.TypeFile, version)); err != nil {
		return err
	}
	return w.Write(&format.EOF{})
}
