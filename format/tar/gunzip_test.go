package tar

import (
	"bufio"
	"bytes"
	"io"
	"testing"

	"github.com/klauspost/compress/gzip"
)

func TestGunzip(t *testing.T) {
	member := func(text string) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if _, err := z.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	for _, c := range []struct {
		why, want string
		parts     [][]byte
		fails     bool
	}{
		{"one member", "a", [][]byte{member("a")}, false},
		{"two, one of them empty", "ab", [][]byte{member("a"), member(""), member("b")}, false},
		{"zeros behind", "a", [][]byte{member("a"), make([]byte, 10000)}, false},
		{"garbage behind", "a", [][]byte{member("a"), []byte("garbage of some length")}, true},
		{"cut off", "", [][]byte{member("a")[:12]}, true},
	} {
		g, err := newGunzip(bufio.NewReader(bytes.NewReader(bytes.Join(c.parts, nil))))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(g)
		if string(got) != c.want || (err != nil) != c.fails {
			t.Errorf("%s: %q, %v", c.why, got, err)
		}
	}
}
