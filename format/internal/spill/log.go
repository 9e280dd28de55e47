package spill

import (
	"errors"
	"fmt"
	"os"
)

// logMemory is how many bytes at a log's end are in memory.
const logMemory = 2 << 20

// Log is a sequence of bytes that grows at its end, can be read anywhere, and
// overwritten where it has bytes already. The first bytes are in memory only as
// long as there are at most 2 MiB. It is for one goroutine.
type Log struct {
	dir    string
	file   *os.File
	stored int64 // bytes in the file
	buf    []byte
}

// NewLog returns an empty log. Temporary files are made in dir, or where the
// system puts them if it is "".
func NewLog(dir string) *Log { return &Log{dir: dir} }

// Size returns how many bytes the log has: where the next Write begins.
func (l *Log) Size() int64 { return l.stored + int64(len(l.buf)) }

// Write appends.
func (l *Log) Write(p []byte) (int, error) {
	if len(l.buf)+len(p) > logMemory && len(l.buf) > 0 {
		if err := l.flush(); err != nil {
			return 0, err
		}
	}
	l.buf = append(l.buf, p...)
	return len(p), nil
}

func (l *Log) flush() error {
	if l.file == nil {
		file, err := unlinked(l.dir)
		if err != nil {
			return err
		}
		l.file = file
	}
	n, err := l.file.WriteAt(l.buf, l.stored)
	if err != nil {
		return fmt.Errorf("write to a temporary file: %w", err)
	}
	l.stored += int64(n)
	l.buf = l.buf[:0]
	return nil
}

// ReadAt reads as io.ReaderAt; all of p must have been written.
func (l *Log) ReadAt(p []byte, at int64) (int, error) {
	if err := l.check(len(p), at); err != nil {
		return 0, err
	}
	n := 0
	if at < l.stored {
		n = int(min(int64(len(p)), l.stored-at))
		if got, err := l.file.ReadAt(p[:n], at); err != nil {
			return got, fmt.Errorf("read a temporary file: %w", err)
		}
	}
	if n < len(p) {
		copy(p[n:], l.buf[at+int64(n)-l.stored:])
	}
	return len(p), nil
}

// WriteAt overwrites bytes that the log has.
func (l *Log) WriteAt(p []byte, at int64) (int, error) {
	if err := l.check(len(p), at); err != nil {
		return 0, err
	}
	n := 0
	if at < l.stored {
		n = int(min(int64(len(p)), l.stored-at))
		if got, err := l.file.WriteAt(p[:n], at); err != nil {
			return got, fmt.Errorf("write to a temporary file: %w", err)
		}
	}
	if n < len(p) {
		copy(l.buf[at+int64(n)-l.stored:], p[n:])
	}
	return len(p), nil
}

// check refuses a place that the log does not have.
func (l *Log) check(n int, at int64) error {
	if at < 0 || at > l.Size()-int64(n) {
		return errors.New("spilled bytes are looked for where none were written")
	}
	return nil
}

// Reset empties the log.
func (l *Log) Reset() error {
	err := l.Close()
	l.buf = l.buf[:0]
	return err
}

// Close gives the temporary file back.
func (l *Log) Close() error {
	file := l.file
	l.file, l.stored = nil, 0
	if file == nil {
		return nil
	}
	return file.Close()
}

// unlinked makes a temporary file without a name.
func unlinked(dir string) (*os.File, error) {
	file, err := os.CreateTemp(dir, "bk-spill-*")
	if err != nil {
		return nil, fmt.Errorf("make a temporary file: %w", err)
	}
	if err := os.Remove(file.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("unlink a temporary file: %w", err), file.Close())
	}
	return file, nil
}
