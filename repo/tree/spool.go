package tree

import (
	"bufio"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"io"
	"os"
)

// spool is a temporary file without a name, whose bytes can be read only by this
// process: they are sealed under a key that is nowhere else.
type spool struct {
	file   *os.File
	aead   cipher.AEAD
	blocks int64
	sealed []byte
}

const (
	spoolBlockSize = 64 << 10        // bytes of a block in the file
	spoolPlainSize = 64<<10 - 16 - 4 // bytes that a block holds at most
)

// newSpool makes a spool in a directory; "" is the system's for such files.
func newSpool(dir string, random io.Reader) (*spool, error) {
	var key [16]byte
	if _, err := io.ReadFull(random, key[:]); err != nil {
		return nil, fmt.Errorf("draw the key of a temporary file: %w", err)
	}
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	s := &spool{}
	if s.aead, err = cipher.NewGCM(block); err != nil {
		return nil, err
	}
	if s.file, err = os.CreateTemp(dir, "bk-sort-*"); err != nil {
		return nil, fmt.Errorf("make a temporary file to sort a listing: %w", err)
	}
	if err := os.Remove(s.file.Name()); err != nil {
		s.file.Close()
		return nil, fmt.Errorf("unlink the temporary file %s: %w", s.file.Name(), err)
	}
	return s, nil
}

func (s *spool) close() error { return s.file.Close() }

func nonce(block int64) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 4, 12), uint64(block))
}

// writeBlock appends a block of at most spoolPlainSize bytes.
func (s *spool) writeBlock(plain []byte) error {
	buf := make([]byte, spoolBlockSize-16)
	binary.BigEndian.PutUint32(buf, uint32(len(plain)))
	copy(buf[4:], plain)
	s.sealed = s.aead.Seal(s.sealed[:0], nonce(s.blocks), buf, nil)
	if _, err := s.file.WriteAt(s.sealed, s.blocks*spoolBlockSize); err != nil {
		return fmt.Errorf("write a temporary file to sort a listing: %w", err)
	}
	s.blocks++
	return nil
}

// writeRun returns a writer of a run of blocks; flush it, then take the run.
func (s *spool) writeRun() *bufio.Writer {
	return bufio.NewWriterSize(writerFunc(func(p []byte) (int, error) {
		for rest := p; len(rest) > 0; {
			n := min(len(rest), spoolPlainSize)
			if err := s.writeBlock(rest[:n]); err != nil {
				return 0, err
			}
			rest = rest[n:]
		}
		return len(p), nil
	}), spoolPlainSize)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// runReader reads the blocks from next to end.
type runReader struct {
	s         *spool
	next, end int64
	sealed    []byte
	plain     []byte // of the current block, not yet handed out
}

func (s *spool) readRun(begin, end int64) *bufio.Reader {
	return bufio.NewReaderSize(&runReader{s: s, next: begin, end: end, sealed: make([]byte, spoolBlockSize)}, 4<<10)
}

func (r *runReader) Read(p []byte) (int, error) {
	for len(r.plain) == 0 {
		if r.next == r.end {
			return 0, io.EOF
		}
		if _, err := r.s.file.ReadAt(r.sealed, r.next*spoolBlockSize); err != nil {
			return 0, fmt.Errorf("read a temporary file to sort a listing: %w", err)
		}
		plain, err := r.s.aead.Open(r.sealed[:0], nonce(r.next), r.sealed, nil)
		if err != nil {
			return 0, fmt.Errorf("read a temporary file to sort a listing: %w", err)
		}
		r.next++
		r.plain = plain[4 : 4+binary.BigEndian.Uint32(plain)]
	}
	n := copy(p, r.plain)
	r.plain = r.plain[n:]
	return n, nil
}
