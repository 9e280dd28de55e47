package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/bk-backup/bk/format"
)

// TestWrite reads the stream as anybody would, and counts.
func TestWrite(t *testing.T) {
	var stream bytes.Buffer
	if err := (history{snapshots: 5, files: 1234, changes: 30}).write(bufio.NewWriter(&stream)); err != nil {
		t.Fatal(err)
	}
	rd := format.NewReader(&stream, format.ReaderOptions{})
	var counts []uint64
	for {
		rec, err := rd.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if c, ok := rec.(*format.Commit); ok {
			counts = append(counts, c.Entries)
		}
	}
	if len(counts) != 5 || counts[0] != 1+1+13+1234 {
		t.Fatalf("entries: %d", counts)
	}
	for _, n := range counts[1:] {
		if n < 25 || n > 35 {
			t.Errorf("entries: %d", counts)
		}
	}
}
