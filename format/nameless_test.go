package format

import (
	"io"
	"testing"
)

// TestNameless keeps chunks without an id within a process.
func TestNameless(t *testing.T) {
	d := &Data{Size: 1, Codec: CodecNone, Once: true, Checked: true, Payload: []byte("x")}
	e := &Entry{Path: "a", Type: TypeFile}
	w := NewWriter(io.Discard, WriterOptions{})
	for _, rec := range []Record{&Header{Version: Version}, &Snapshot{ID: ID{1}}, e} {
		if err := w.Write(rec); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Write(d); ClassOf(err) != ClassField {
		t.Errorf("a chunk without an id was written: %v", err)
	}
	if plain, err := DecodeTaken(d); err != nil || string(plain) != "x" {
		t.Errorf("%q, %v", plain, err)
	}
}
