// Package vectortest reads and writes the vectors of spec/vectors, small streams
// with what a reader must say about them, and compares a reader's answer.
//
// Start reading at Vector; spec/vectors/README.md is the description for
// implementers in any language. Tests and the programs below spec/vectors import
// this package.
package vectortest

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Vector is one case.
type Vector struct {
	Name      string // the file's name without .txt
	About     string // one line for people
	Expect    string // "ok" or the class of the error
	Record    int    // number of the record that is wrong; -1 with ok
	Canonical bool   // the stream is canonically encoded: an identity filter must give it back
	Chunks    []Chunk
	Text      []string // diagnostic text of the records before the end or the error
}

// Chunk is a run of bytes of the stream as the file has it: with a remark, and
// written once where it is repeated.
type Chunk struct {
	Remark string
	Bytes  []byte
	Times  int
}

// Stream returns the bytes of the stream.
func (v *Vector) Stream() []byte {
	var b []byte
	for _, c := range v.Chunks {
		b = append(b, bytes.Repeat(c.Bytes, c.Times)...)
	}
	return b
}

// Answer returns what a program must write about the stream, line by line: the
// diagnostic text of every record, then "ok", or "error", the class and the
// record's number.
func (v *Vector) Answer() string {
	var b strings.Builder
	for _, line := range v.Text {
		b.WriteString(line + "\n")
	}
	if v.Expect == "ok" {
		b.WriteString("ok\n")
	} else {
		fmt.Fprintf(&b, "error %s %d\n", v.Expect, v.Record)
	}
	return b.String()
}

// ExitCode returns the exit code that goes with the answer.
func (v *Vector) ExitCode() int {
	if v.Expect == "ok" {
		return 0
	}
	return 4
}

// lineBytesMax is how many bytes of a stream a line of the file has at most.
const lineBytesMax = 64

// Format returns the file's content.
func (v *Vector) Format() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "name: %s\nabout: %s\nexpect: %s\n", v.Name, v.About, v.Expect)
	if v.Expect != "ok" {
		fmt.Fprintf(&b, "record: %d\n", v.Record)
	} else if v.Canonical {
		b.WriteString("canonical: yes\n")
	}
	b.WriteString("stream:\n")
	for _, c := range v.Chunks {
		if c.Remark != "" {
			fmt.Fprintf(&b, "# %s\n", c.Remark)
		}
		if c.Times != 1 {
			fmt.Fprintf(&b, "%x *%d\n", c.Bytes, c.Times)
			continue
		}
		for rest := c.Bytes; len(rest) > 0; {
			n := min(len(rest), lineBytesMax)
			fmt.Fprintf(&b, "%x\n", rest[:n])
			rest = rest[n:]
		}
	}
	b.WriteString("text:\n")
	for _, line := range v.Text {
		b.WriteString(line + "\n")
	}
	return b.Bytes()
}

// Parse reads the content of a file.
func Parse(content []byte) (*Vector, error) {
	v := &Vector{Record: -1}
	lines := strings.Split(strings.TrimSuffix(string(content), "\n"), "\n")
	section := "head"
	for i, line := range lines {
		var err error
		switch {
		case section == "head" && line == "stream:", section == "stream" && line == "text:":
			section = strings.TrimSuffix(line, ":")
		case section == "head":
			err = v.parseHead(line)
		case section == "stream":
			err = v.parseStream(line)
		default:
			v.Text = append(v.Text, line)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	if section != "text" || v.Name == "" || v.Expect == "" || (v.Expect == "ok") != (v.Record < 0) {
		return nil, fmt.Errorf("the head, the stream or the text is missing or incomplete")
	}
	return v, nil
}

func (v *Vector) parseHead(line string) error {
	key, value, ok := strings.Cut(line, ": ")
	if !ok {
		return fmt.Errorf("%q is not key: value", line)
	}
	switch key {
	case "name":
		v.Name = value
	case "about":
		v.About = value
	case "expect":
		v.Expect = value
	case "canonical":
		v.Canonical = value == "yes"
	case "record":
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 {
			return fmt.Errorf("%q is not the number of a record", value)
		}
		v.Record = n
	default:
		return fmt.Errorf("there is no key %q", key)
	}
	return nil
}

// parseStream reads a line of the stream. Lines of bytes after each other belong
// to one chunk if no remark stands between them.
func (v *Vector) parseStream(line string) error {
	if remark, ok := strings.CutPrefix(line, "# "); ok {
		v.Chunks = append(v.Chunks, Chunk{Remark: remark, Times: 1})
		return nil
	}
	digits, times, repeated := strings.Cut(line, " *")
	b, err := hex.DecodeString(digits)
	if err != nil {
		return err
	}
	n := 1
	if repeated {
		if n, err = strconv.Atoi(times); err != nil || n < 0 || n > 1<<28 {
			return fmt.Errorf("%q is not a number of repetitions", times)
		}
	}
	last := len(v.Chunks) - 1
	if !repeated && last >= 0 && v.Chunks[last].Times == 1 {
		v.Chunks[last].Bytes = append(v.Chunks[last].Bytes, b...)
		return nil
	}
	if repeated && last >= 0 && len(v.Chunks[last].Bytes) == 0 {
		v.Chunks[last].Bytes, v.Chunks[last].Times = b, n
		return nil
	}
	v.Chunks = append(v.Chunks, Chunk{Bytes: b, Times: n})
	return nil
}

// Load reads every vector in a directory, in the order of their names.
func Load(dir string) ([]*Vector, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil {
		return nil, fmt.Errorf("look for vectors in %s: %w", dir, err)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("there are no vectors (*.txt) in %s", dir)
	}
	var all []*Vector
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read a vector: %w", err)
		}
		v, err := Parse(content)
		if err != nil {
			return nil, fmt.Errorf("read the vector %s: %w", file, err)
		}
		if v.Name != strings.TrimSuffix(filepath.Base(file), ".txt") {
			return nil, fmt.Errorf("the vector %s has the name %s", file, v.Name)
		}
		all = append(all, v)
	}
	return all, nil
}
