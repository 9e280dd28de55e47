package tar

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"

	"github.com/bk-backup/bk/format"
)

// archive is one archive that can be read.
type archive struct {
	name     string // for people
	path     string // "" for one that comes from a stream
	stream   io.Reader
	info     os.FileInfo // as it was first seen; nil for a stream
	input    *opened     // of a stream, once it was begun
	failed   error       // of beginning it
	snapshot *format.Snapshot
	spent    bool // a stream that has been handed out
}

// opened is an archive that is being read.
type opened struct {
	r     io.Reader         // without compression
	seek  *io.SectionReader // the archive, if it lies in a file without compression
	waits bool              // it is a stream: reading may block for as long as it likes
	close []func() error
}

// Close closes everything, the last opened first.
func (o *opened) Close() error {
	var err error
	for len(o.close) > 0 {
		last := len(o.close) - 1
		err = errors.Join(err, o.close[last]())
		o.close = o.close[:last]
	}
	return err
}

// from returns a reader that begins at an offset.
func (o *opened) from(at int64) (io.Reader, error) {
	again := io.NewSectionReader(o.seek, 0, o.seek.Size())
	if _, err := again.Seek(at, io.SeekStart); err != nil {
		return nil, err
	}
	return again, nil
}

// open opens the archive for reading from its beginning. A stream can be opened
// once.
func (a *archive) open() (*opened, error) {
	if a.path == "" {
		if a.spent {
			return nil, errors.New("it comes from a stream, which can be read only once")
		}
		a.spent = true
		return a.begin()
	}
	file, err := os.Open(a.path)
	if err != nil {
		return nil, err
	}
	o := &opened{close: []func() error{file.Close}}
	section := io.NewSectionReader(file, 0, a.info.Size())
	if err := o.decompress(section, section); err != nil {
		return nil, errors.Join(err, o.Close())
	}
	return o, nil
}

// begin looks at the first bytes of a stream.
func (a *archive) begin() (*opened, error) {
	if a.input == nil {
		a.input = &opened{waits: true}
		a.failed = a.input.decompress(a.stream, nil)
	}
	return a.input, a.failed
}

// windowMax bounds the memory that a zstd archive can ask for: zstd --long=27.
const windowMax = 128 << 20

// decompress finds out how the archive is compressed and makes o.r. seek is the
// archive itself, if it can be sought in.
func (o *opened) decompress(in io.Reader, seek *io.SectionReader) error {
	buffered := bufio.NewReaderSize(in, inputBufferSize)
	magic, err := buffered.Peek(6)
	if err != nil && err != io.EOF {
		return err
	}
	is := func(prefix string) bool { return bytes.HasPrefix(magic, []byte(prefix)) }
	switch {
	case len(magic) == 0:
		return errors.New("it is empty, not a tar archive")
	case is("\x1f\x8b"):
		z, err := newGunzip(buffered)
		if err != nil {
			return err
		}
		o.r = named{z, "gzip"}
	case is("\x28\xb5\x2f\xfd"), len(magic) >= 4 && magic[0]&0xf0 == 0x50 && bytes.Equal(magic[1:4], []byte("\x2a\x4d\x18")):
		z, err := zstd.NewReader(buffered, zstd.WithDecoderMaxWindow(windowMax), zstd.WithDecoderConcurrency(2))
		if err != nil {
			return fmt.Errorf("zstd: %w", err)
		}
		o.close = append(o.close, func() error { z.Close(); return nil })
		o.r = named{z, "zstd"}
	case is("BZh"):
		o.r = named{bzip2.NewReader(buffered), "bzip2"}
	case is("\xfd7zXZ\x00"):
		return errCompressed("xz", "xz")
	case is("LZIP"):
		return errCompressed("lzip", "lzip")
	case is("\x04\x22\x4d\x18"):
		return errCompressed("lz4", "lz4")
	case is("\x1f\x9d"):
		return errCompressed("compress", "uncompress")
	default:
		o.r, o.seek = buffered, seek
		if seek != nil {
			// What was peeked at is to come again.
			if _, err := seek.Seek(0, io.SeekStart); err != nil {
				return err
			}
			o.r = seek
		}
	}
	return nil
}

func errCompressed(how, program string) error {
	return fmt.Errorf("it is compressed with %s, which bk cannot read: pipe it in with %s -dc FILE | ... tar:-", how, program)
}

// named puts the name of a compression before what is wrong with it.
type named struct {
	r    io.Reader
	name string
}

func (n named) Read(p []byte) (int, error) {
	k, err := n.r.Read(p)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		err = fmt.Errorf("%s: %w", n.name, err)
	}
	return k, err
}

// unchanged reports that a file is not what it was when its identity was found.
func (a *archive) unchanged() error {
	if a.info == nil {
		return nil
	}
	now, err := os.Stat(a.path)
	if err != nil {
		return fmt.Errorf("look at it again: %w", err)
	}
	if now.Size() != a.info.Size() || !now.ModTime().Equal(a.info.ModTime()) {
		return errors.New("it was written to while it was read: run the same again")
	}
	return nil
}

// identify fills in the snapshot: what the archive itself says, if bk wrote it,
// what options say, and an id that is made of its content.
func (a *archive) identify(ctx context.Context, opts *Options) error {
	s := &format.Snapshot{}
	sum, err := a.digest(ctx)
	if err != nil {
		return err
	}
	if own := a.ownSnapshot(); own != nil {
		s = own
	}
	s.Parent, s.Via, s.Estimate, s.Unsorted, s.Unstable = format.ID{}, nil, nil, true, false
	if a.info == nil {
		s.Unstable = true
		if _, err := io.ReadFull(opts.Random, s.ID[:]); err != nil {
			return fmt.Errorf("draw an id: %w", err)
		}
	} else {
		s.ID = format.ID(sha256.Sum256(append([]byte("tar\x00"), sum...)))
	}
	if s.Origin == nil {
		s.Origin = &format.Origin{System: "tar", ID: string(sum)}
	}
	switch {
	case opts.Time != nil:
		s.Time = opts.Time
	case s.Time == nil && a.info != nil:
		t := format.TimeOf(a.info.ModTime())
		s.Time = &t
	}
	if opts.Host != "" {
		s.Host = opts.Host
	}
	a.snapshot = s
	return nil
}

// digest returns the SHA-256 of a file as it lies there; nil for a stream.
func (a *archive) digest(ctx context.Context) ([]byte, error) {
	if a.info == nil {
		return nil, nil
	}
	file, err := os.Open(a.path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	h, buf := sha256.New(), make([]byte, 1<<20)
	for {
		n, err := file.Read(buf)
		h.Write(buf[:n])
		if err == io.EOF {
			return h.Sum(nil), nil
		}
		if err != nil {
			return nil, err
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
}

// ownSnapshot returns the snapshot record in an archive that bk wrote, or nil.
// What is wrong with an archive is said when it is read.
func (a *archive) ownSnapshot() *format.Snapshot {
	var in *bufio.Reader
	if a.path == "" {
		o, err := a.begin()
		if err != nil {
			return nil
		}
		// The stream stays where it is: it is only peeked at.
		in = bufio.NewReaderSize(o.r, inputBufferSize)
		o.r = in
	} else {
		o, err := a.open()
		if err != nil {
			return nil
		}
		defer o.Close()
		in = bufio.NewReaderSize(o.r, inputBufferSize)
	}
	ahead, _ := in.Peek(inputBufferSize)
	r := newMembers(newBlocks(bytes.NewReader(ahead), 0))
	var h block
	if r.blocks.next(&h) != nil || !h.checks() || h.typ() != typePaxGlobal {
		return nil
	}
	records, err := r.extended(&h)
	if err != nil {
		return nil
	}
	for _, p := range records {
		if p.key != keySnapshot {
			continue
		}
		body, err := base64.StdEncoding.DecodeString(p.value)
		var s format.Snapshot
		if err != nil {
			return nil
		}
		if rest, err := s.ParseBody(body); err != nil || len(rest) > 0 {
			return nil
		}
		return &s
	}
	return nil
}
