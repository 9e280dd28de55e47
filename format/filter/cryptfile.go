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
	file   *asyncFile // nil as long as nothing was written
	block  cipher.Block
	stream cipher.Stream // at the end of what was written
	size   int64         // bytes written
	buf    []byte        // the last of them, encrypted, that are not file's; nil: none
}

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
	if f.file != nil {
		return nil
	}
	file, err := unlinkedFile(f.dir)
	if err != nil {
		return err
	}
	f.file = &asyncFile{file: file}
	return nil
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
		if f.buf == nil {
			f.buf = newAsyncBuffer()
		}
		n := min(len(p), cap(f.buf)-len(f.buf))
		f.buf = f.buf[:len(f.buf)+n]
		f.stream.XORKeyStream(f.buf[len(f.buf)-n:], p[:n])
		p = p[n:]
		f.size += int64(n)
		written += n
		if len(f.buf) == cap(f.buf) {
			buf := f.buf
			f.buf = nil
			if err := f.file.append(buf); err != nil {
				return written, err
			}
		}
	}
	return written, nil
}

// end returns the position where the next byte will be written.
func (f *cryptFile) end() int64 { return f.size }

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

// ReadAt fills p with what was written at that position. What is not in the file
// yet comes from memory.
func (f *cryptFile) ReadAt(p []byte, at int64) (n int, err error) {
	if f.file == nil {
		return 0, io.EOF
	}
	if at < f.file.size {
		n = int(min(int64(len(p)), f.file.size-at))
		if n, err = f.file.ReadAt(p[:n], at); err != nil {
			f.decrypt(p[:n], at)
			return n, err
		}
	}
	if from := at + int64(n) - f.file.size; n < len(p) && from < int64(len(f.buf)) {
		n += copy(p[n:], f.buf[from:])
	}
	f.decrypt(p[:n], at)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// reset empties the file for another use, under another key.
func (f *cryptFile) reset() error {
	if f.file == nil {
		return nil
	}
	if err := f.file.reset(); err != nil {
		return err
	}
	f.size = 0
	f.dropBuffer()
	return f.begin()
}

func (f *cryptFile) Close() error {
	if f == nil || f.file == nil {
		return nil
	}
	f.dropBuffer()
	return f.file.Close()
}

func (f *cryptFile) dropBuffer() {
	freeAsyncBuffer(f.buf)
	f.buf = nil
}
