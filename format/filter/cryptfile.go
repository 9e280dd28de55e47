package filter

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// cryptFile is a temporary file that is written from beginning to end and read
// anywhere. It has no name any more when it is made, and its bytes are encrypted
// under a random key that is only in memory, so what was dropped from a stream
// is not left behind on a disk. The cipher is AES-256 in counter mode, with the
// position in the file as the counter: no counter is used twice under a key.
// Integrity is not its concern: whoever receives a chunk checks its id.
type cryptFile struct {
	dir    string // where the file is made; "": where the system puts temporary files
	random io.Reader
	file   *os.File // nil as long as nothing was written
	block  cipher.Block
	stream cipher.Stream // at the end of what was written
	size   int64         // bytes in the file
	buf    []byte        // what follows them, encrypted
}

// cryptBufferSize is how much is written at a time, in bytes.
const cryptBufferSize = 256 << 10

// newCryptFile returns an empty file, which is made when something is written.
func newCryptFile(dir string, random io.Reader) *cryptFile {
	return &cryptFile{dir: dir, random: random}
}

// begin makes the file, and in any case draws a key.
func (f *cryptFile) begin() (err error) {
	if f.block, err = newBlock(f.random); err != nil {
		return err
	}
	f.stream = cipher.NewCTR(f.block, make([]byte, aes.BlockSize))
	if f.file == nil {
		f.buf = make([]byte, 0, cryptBufferSize)
		f.file, err = unlinkedFile(f.dir)
	}
	return err
}

func unlinkedFile(dir string) (*os.File, error) {
	file, err := os.CreateTemp(dir, "bk-spool-*")
	if err != nil {
		return nil, fmt.Errorf("make a temporary file for the spool: %w", err)
	}
	if err := os.Remove(file.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("unlink a temporary file of the spool: %w", err), file.Close())
	}
	return file, nil
}

func newBlock(random io.Reader) (cipher.Block, error) {
	var key [32]byte
	if _, err := io.ReadFull(random, key[:]); err != nil {
		return nil, fmt.Errorf("draw a key for the spool: %w", err)
	}
	return aes.NewCipher(key[:])
}

// Write appends.
func (f *cryptFile) Write(p []byte) (int, error) {
	if f.file == nil {
		if err := f.begin(); err != nil {
			return 0, err
		}
	}
	written := 0
	for len(p) > 0 {
		n := min(len(p), cap(f.buf)-len(f.buf))
		f.buf = f.buf[:len(f.buf)+n]
		f.stream.XORKeyStream(f.buf[len(f.buf)-n:], p[:n])
		p = p[n:]
		written += n
		if len(f.buf) == cap(f.buf) {
			if err := f.flush(); err != nil {
				return written, err
			}
		}
	}
	return written, nil
}

// end returns the position where the next byte will be written.
func (f *cryptFile) end() int64 { return f.size + int64(len(f.buf)) }

func (f *cryptFile) flush() error {
	if len(f.buf) == 0 {
		return nil
	}
	n, err := f.file.WriteAt(f.buf, f.size)
	f.size += int64(n)
	f.buf = f.buf[:0]
	if err != nil {
		return fmt.Errorf("write to the spool: %w", err)
	}
	return nil
}

// decrypt decrypts b in place, which lies at that position.
func (f *cryptFile) decrypt(b []byte, at int64) {
	var counter [aes.BlockSize]byte
	binary.BigEndian.PutUint64(counter[8:], uint64(at/aes.BlockSize))
	stream := cipher.NewCTR(f.block, counter[:])
	if skip := at % aes.BlockSize; skip != 0 {
		var waste [aes.BlockSize]byte
		stream.XORKeyStream(waste[:skip], waste[:skip])
	}
	stream.XORKeyStream(b, b)
}

// ReadAt fills p with what was written at that position.
func (f *cryptFile) ReadAt(p []byte, at int64) (int, error) {
	if at+int64(len(p)) > f.size && len(f.buf) > 0 {
		if err := f.flush(); err != nil {
			return 0, err
		}
	}
	if f.file == nil {
		return 0, io.EOF
	}
	n, err := f.file.ReadAt(p, at)
	f.decrypt(p[:n], at)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("read from the spool: %w", err)
	}
	return n, err
}

// reset empties the file for another use, under another key.
func (f *cryptFile) reset() error {
	if f.file == nil {
		return nil
	}
	if f.size > 0 {
		if err := f.file.Truncate(0); err != nil {
			return fmt.Errorf("empty the spool: %w", err)
		}
	}
	f.size, f.buf = 0, f.buf[:0]
	return f.begin()
}

func (f *cryptFile) Close() error {
	if f == nil || f.file == nil {
		return nil
	}
	return f.file.Close()
}
