package show

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/vectortest"
)

func TestSize(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1 << 20: "1.0 MiB", 1<<64 - 1: "16.0 EiB"} {
		if got := size(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

// TestEveryVector shows each vector in each mode: lines stay lines, JSON is
// JSON, the error of the stream comes through.
func TestEveryVector(t *testing.T) {
	vectors, err := vectortest.Load("../../../spec/vectors/stream")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range vectors {
		for mode := Text; mode <= Vector; mode++ {
			var out bytes.Buffer
			err := Run(t.Context(), &out, bytes.NewReader(v.Stream()), Options{Mode: mode, Verify: true})
			if class := string(format.ClassOf(err)); class != v.Expect && (class != "" || v.Expect != "ok") {
				t.Errorf("%s: %v", v.Name, err)
			}
			if strings.ContainsFunc(out.String(), func(r rune) bool { return r < ' ' && r != '\n' || r == 0x7f }) {
				t.Errorf("%s: control characters in %q", v.Name, out.String())
			}
			for line := range strings.Lines(out.String()) {
				if mode == JSON && !json.Valid([]byte(line)) {
					t.Errorf("%s: %s", v.Name, line)
				}
			}
		}
	}
}

func TestErrorsOfOut(t *testing.T) {
	broken := errors.New("disk full")
	var stream bytes.Buffer
	w := format.NewWriter(&stream, format.WriterOptions{})
	for _, rec := range []format.Record{&format.Header{Version: 1}, &format.Snapshot{ID: format.ID{1}}, &format.Commit{}, &format.End{}} {
		if err := w.Write(rec); err != nil {
			t.Fatal(err)
		}
	}
	for mode := Text; mode <= Vector; mode++ {
		err := Run(t.Context(), brokenWriter{broken}, bytes.NewReader(stream.Bytes()), Options{Mode: mode})
		if !errors.Is(err, broken) {
			t.Errorf("mode %d: %v", mode, err)
		}
	}
}

type brokenWriter struct{ err error }

func (w brokenWriter) Write([]byte) (int, error) { return 0, w.err }
