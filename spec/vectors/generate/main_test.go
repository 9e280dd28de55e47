package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestFilesAreCurrent compares the files with what the cases make: neither may
// change without the other.
func TestFilesAreCurrent(t *testing.T) {
	want, err := files()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join("..", "stream")
	there, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil {
		t.Fatal(err)
	}
	if len(there) != len(want) || len(want) < 80 {
		t.Errorf("%d files for %d cases", len(there), len(want))
	}
	for name, content := range want {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		} else if string(got) != string(content) {
			t.Errorf("%s is not what the cases make; run the generator and look at the difference", name)
		}
	}
}
