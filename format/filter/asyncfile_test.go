package filter

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fullDisk returns a file that takes nothing.
func fullDisk(t *testing.T) *os.File {
	t.Helper()
	file, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no /dev/full:", err)
	}
	return file
}

func filledBuffer(b byte) []byte {
	buf := newAsyncBuffer()
	return append(buf, bytes.Repeat([]byte{b}, cap(buf))...)
}

// TestAsyncFileReadsWhatItWrites reads what was appended a moment ago, and the
// file after it was emptied while a write was under way.
func TestAsyncFileReadsWhatItWrites(t *testing.T) {
	file, err := unlinkedFile(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	f := &asyncFile{file: file}
	for round := range byte(3) {
		for i := range byte(20) {
			if err := f.append(filledBuffer(round ^ i)); err != nil {
				t.Fatal(err)
			}
			for _, at := range []int64{f.size - 5, max(0, f.size-asyncBufferSize-5)} {
				got := make([]byte, 5)
				if _, err := f.ReadAt(got, at); err != nil {
					t.Fatal(err)
				}
				if want := round ^ byte(at/asyncBufferSize); got[0] != want || got[4] != want {
					t.Fatalf("round %d, position %d: %v instead of %d", round, at, got, want)
				}
			}
		}
		if err := f.append(filledBuffer(0xff)); err != nil {
			t.Fatal(err)
		}
		if err := f.reset(); err != nil {
			t.Fatal(err)
		}
		if info, err := file.Stat(); err != nil || info.Size() != 0 || f.size != 0 {
			t.Fatalf("not empty: %v, %v, %d", info.Size(), err, f.size)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestAsyncFileFull has every method report a write that failed, in the words
// that it had when the stream still waited for it.
func TestAsyncFileFull(t *testing.T) {
	for name, call := range map[string]func(*asyncFile) error{
		"append": func(f *asyncFile) error { return f.append(filledBuffer(2)) },
		"wait":   (*asyncFile).wait,
		"read":   func(f *asyncFile) error { _, err := f.ReadAt(make([]byte, 5), 7); return err },
		"reset":  (*asyncFile).reset,
		"close":  (*asyncFile).Close,
	} {
		t.Run(name, func(t *testing.T) {
			f := &asyncFile{file: fullDisk(t)}
			if err := f.append(filledBuffer(1)); err != nil {
				t.Fatal("reported before it was known:", err)
			}
			for range 2 {
				err := call(f)
				if !errors.Is(err, syscall.ENOSPC) || !strings.HasPrefix(err.Error(), "write to the spool: ") {
					t.Errorf("%v", err)
				}
				if name == "close" {
					return
				}
			}
			if err := f.Close(); err != nil {
				t.Errorf("Close says again: %v", err)
			}
		})
	}
}

// TestAsyncFileCloseWaits has Close leave no goroutine behind, and no write into
// a descriptor that may be another file's by then.
func TestAsyncFileCloseWaits(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	f := &asyncFile{file: write, done: make(chan error, 1)}
	closed := make(chan error)
	go func() { closed <- f.Close() }()
	select {
	case err := <-closed:
		t.Fatal("closed during a write:", err)
	case <-time.After(20 * time.Millisecond):
	}
	if _, err := write.Write([]byte{1}); err != nil {
		t.Fatal("the file is closed already:", err)
	}
	f.done <- nil
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
}

// TestCryptFileFull has a chunk file report a full disk from whatever is called
// next, and not hand out what never reached the disk.
func TestCryptFileFull(t *testing.T) {
	f := newCryptFile("", rand.Reader)
	f.file = &asyncFile{file: fullDisk(t)}
	if err := f.begin(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(make([]byte, asyncBufferSize+10)); err != nil {
		t.Fatal("reported before it was known:", err)
	}
	if _, err := f.ReadAt(make([]byte, 10), 5); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("ReadAt: %v", err)
	}
	if _, err := f.Write(make([]byte, asyncBufferSize)); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Write: %v", err)
	}
	if err := f.reset(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("reset: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Errorf("Close says again: %v", err)
	}
}
