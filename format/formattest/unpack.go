package formattest

import (
	"archive/tar"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// Decompress returns the content of a file that zstd compressed.
func Decompress(t testing.TB, name string) (content []byte) {
	t.Helper()
	decompress(t, name, func(r io.Reader) {
		var err error
		if content, err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	})
	return content
}

func decompress(t testing.TB, name string, fn func(io.Reader)) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := zstd.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	fn(z)
}

// EachFile calls fn with the files of a compressed tar archive, one after
// another, until it returns false.
func EachFile(t testing.TB, name string, fn func(name string, content io.Reader) bool) {
	t.Helper()
	decompress(t, name, func(z io.Reader) {
		for r := tar.NewReader(z); ; {
			h, err := r.Next()
			if err == io.EOF {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if h.Typeflag == tar.TypeReg && !fn(strings.TrimPrefix(h.Name, "./"), r) {
				return
			}
		}
	})
}

// Unpack returns the files of a compressed tar archive.
func Unpack(t testing.TB, name string) map[string][]byte {
	t.Helper()
	files := make(map[string][]byte)
	EachFile(t, name, func(name string, content io.Reader) bool {
		b, err := io.ReadAll(content)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = b
		return true
	})
	return files
}
