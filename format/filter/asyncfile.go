package filter

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// asyncFile is a file that buffers are appended to while its user fills the next
// one: a goroutine writes the last one, so that a stream does not wait while the
// kernel looks for pages or a disk is slow. One write is under way at most, so
// memory is bounded by two buffers, and a disk that is too slow is waited for.
//
// Its methods are for one goroutine at a time. The error of a write comes from
// the next method that is called, and from every later one but Close.
type asyncFile struct {
	file    *os.File
	size    int64      // bytes appended
	settled int64      // bytes of them that are known to be in the file
	done    chan error // what the write that is under way comes to; nil: there is none
	err     error      // of a write
}

// asyncBufferSize is how much is written at a time, in bytes. The kernel takes
// longer for the same bytes in pieces of 1 MiB, for which it has no pages at hand.
const asyncBufferSize = 256 << 10

// asyncBuffers are buffers that were written. They are not the files' own: there
// may be many files, of which one or two are being written.
var asyncBuffers = sync.Pool{New: func() any { return new([asyncBufferSize]byte) }}

// newAsyncBuffer returns an empty buffer for append, of asyncBufferSize.
func newAsyncBuffer() []byte { return asyncBuffers.Get().(*[asyncBufferSize]byte)[:0] }

// freeAsyncBuffer gives a buffer back that is not appended; nil is nothing.
func freeAsyncBuffer(buf []byte) {
	if buf != nil {
		asyncBuffers.Put((*[asyncBufferSize]byte)(buf[:asyncBufferSize]))
	}
}

// append writes a buffer of newAsyncBuffer, which is its own from now on, behind
// what was appended before. An error is that of an earlier buffer.
func (f *asyncFile) append(buf []byte) error {
	if err := f.wait(); err != nil {
		freeAsyncBuffer(buf)
		return err
	}
	file, at, done := f.file, f.size, make(chan error, 1)
	f.size += int64(len(buf))
	f.done = done
	go func() {
		_, err := file.WriteAt(buf, at)
		freeAsyncBuffer(buf)
		done <- err
	}()
	return nil
}

// wait returns when everything that was appended is in the file.
func (f *asyncFile) wait() error {
	if f.done == nil {
		return f.err
	}
	if err := <-f.done; err != nil {
		f.err = fmt.Errorf("write to the spool: %w", err)
	} else {
		f.settled = f.size
	}
	f.done = nil
	return f.err
}

// ReadAt fills p with what was appended at that position. It waits only for a
// write that p depends on.
func (f *asyncFile) ReadAt(p []byte, at int64) (int, error) {
	if at+int64(len(p)) > f.settled {
		if err := f.wait(); err != nil {
			return 0, err
		}
	}
	n, err := f.file.ReadAt(p, at)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("read from the spool: %w", err)
	}
	return n, err
}

// reset empties the file.
func (f *asyncFile) reset() error {
	if err := f.wait(); err != nil {
		return err
	}
	if f.size > 0 {
		if err := f.file.Truncate(0); err != nil {
			return fmt.Errorf("empty the spool: %w", err)
		}
	}
	f.size, f.settled = 0, 0
	return nil
}

// Close waits for the write that is under way, if any, and closes the file. The
// error of an earlier write was returned before.
func (f *asyncFile) Close() (err error) {
	if f.done != nil {
		err = f.wait()
	}
	return errors.Join(err, f.file.Close())
}
