// Command generate writes the vectors of spec/vectors/stream: every case is built
// here by hand, and the diagnostic text of its records is taken from package
// format's reader, so that a change of either shows as a difference in the files.
// Start reading at the cases in good.go and bad.go. Nothing imports it.
//
//	go run ./spec/vectors/generate spec/vectors/stream
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/vectortest"
)

// vector is a case: expect and record are what must be said of what build makes.
type vector struct {
	name, about, expect string
	record              int // -1: the last one
	build               func(s *stream)
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: generate DIR")
		os.Exit(2)
	}
	if err := writeAll(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

// writeAll replaces the vectors in dir.
func writeAll(dir string) error {
	files, err := files()
	if err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil {
		return fmt.Errorf("look for vectors in %s: %w", dir, err)
	}
	for _, name := range old {
		if _, ok := files[filepath.Base(name)]; !ok {
			if err := os.Remove(name); err != nil {
				return fmt.Errorf("remove a vector that is no case any more: %w", err)
			}
		}
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return fmt.Errorf("write a vector: %w", err)
		}
	}
	return nil
}

// files returns the content of every file by its name.
func files() (map[string][]byte, error) {
	all := map[string][]byte{}
	for _, c := range slices.Concat(goodVectors(), atLimits(), badEncodings(), badRecords(), badStreams(), overLimits(), refusedAtLimits()) {
		v, err := c.vector()
		if err != nil {
			return nil, fmt.Errorf("case %s: %w", c.name, err)
		}
		file := c.name + ".txt"
		if _, ok := all[file]; ok {
			return nil, fmt.Errorf("two cases have the name %s", c.name)
		}
		all[file] = v.Format()
	}
	return all, nil
}

// vector builds a case and holds the reader to what it expects.
func (c *vector) vector() (*vectortest.Vector, error) {
	s := newStream()
	c.build(s)
	v := &vectortest.Vector{Name: c.name, About: c.about, Expect: c.expect, Record: c.record, Chunks: s.chunks}
	if v.Record < 0 {
		v.Record = s.records - 1
	}
	b := v.Stream()
	var answer bytes.Buffer
	err := vectortest.Answer(context.Background(), &answer, bytes.NewReader(b))
	if e := new(format.Error); err != nil && !errors.As(err, &e) {
		return nil, err
	}
	lines := strings.Split(strings.TrimSuffix(answer.String(), "\n"), "\n")
	v.Text = lines[:len(lines)-1]
	if c.expect == "ok" {
		v.Record = -1
		v.Canonical, err = isCanonical(b)
		if err != nil {
			return nil, err
		}
	}
	if answer.String() != v.Answer() {
		return nil, fmt.Errorf("the reader says %q (%v), expected %s at record %d", lines[len(lines)-1], err, v.Expect, v.Record)
	}
	return v, nil
}

// isCanonical reports whether a stream comes out the same when it is written
// again.
func isCanonical(b []byte) (bool, error) {
	var out bytes.Buffer
	r := format.NewReader(bytes.NewReader(b), format.ReaderOptions{})
	if err := format.Copy(context.Background(), format.NewWriter(&out, format.WriterOptions{}), r); err != nil {
		return false, err
	}
	return bytes.Equal(out.Bytes(), b), nil
}
