package tar

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// offsetError is what is wrong with an archive, and where.
type offsetError struct {
	at  int64 // in the archive as it is without compression
	err error
}

func (e *offsetError) Error() string { return fmt.Sprintf("at byte %d: %v", e.at, e.err) }
func (e *offsetError) Unwrap() error { return e.err }

// errCut is an archive that ends where it must not.
var errCut = errors.New("the archive is cut off")

// inputBufferSize is how much is read at a time, in bytes.
const inputBufferSize = 256 << 10

// blocks reads an archive from its beginning to its end and knows where it
// stands. Errors are *offsetError, but io.EOF at the end of the input.
type blocks struct {
	in     *bufio.Reader
	seek   *io.SectionReader // what in reads, if that can be sought in
	offset int64
}

// newBlocks begins at the given offset, which is where in stands.
func newBlocks(in io.Reader, offset int64) *blocks {
	seek, _ := in.(*io.SectionReader)
	return &blocks{in: bufio.NewReaderSize(in, inputBufferSize), seek: seek, offset: offset}
}

// next reads a block into b.
func (r *blocks) next(b *block) error {
	n, err := io.ReadFull(r.in, b[:])
	if err == io.EOF {
		return io.EOF
	}
	r.offset += int64(n)
	return r.wrap(err)
}

// peek copies the next block into b without taking it.
func (r *blocks) peek(b *block) error {
	ahead, err := r.in.Peek(blockSize)
	if len(ahead) == 0 && err == io.EOF {
		return io.EOF
	}
	copy(b[:], ahead)
	return r.wrap(err)
}

// read fills p.
func (r *blocks) read(p []byte) error {
	n, err := io.ReadFull(r.in, p)
	r.offset += int64(n)
	return r.wrap(err)
}

// skip passes over n bytes.
func (r *blocks) skip(n int64) error {
	if r.seek != nil && n > int64(r.in.Buffered()) {
		at, err := r.seek.Seek(0, io.SeekCurrent)
		if err != nil {
			return r.wrap(err)
		}
		at += n - int64(r.in.Buffered())
		if at > r.seek.Size() {
			r.offset += r.seek.Size() - at + n
			return r.wrap(io.EOF)
		}
		if _, err := r.seek.Seek(at, io.SeekStart); err != nil {
			return r.wrap(err)
		}
		r.in.Reset(r.seek)
		r.offset += n
		return nil
	}
	for n > 0 {
		k, err := r.in.Discard(int(min(n, 1<<30)))
		r.offset += int64(k)
		n -= int64(k)
		if err != nil {
			return r.wrap(err)
		}
	}
	return nil
}

// pad passes over what fills up the last block of n bytes of data, which may be
// missing behind the last member.
func (r *blocks) pad(n int64) error {
	err := r.skip(padded(n) - n)
	if errors.Is(err, errCut) {
		return nil
	}
	return err
}

func (r *blocks) wrap(err error) error {
	if err == nil {
		return nil
	}
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = errCut
	}
	return r.errorf("%w", err)
}

func (r *blocks) errorf(text string, args ...any) error {
	return &offsetError{r.offset, fmt.Errorf(text, args...)}
}
