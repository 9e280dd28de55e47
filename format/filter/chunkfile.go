package filter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime/debug"

	"github.com/bk-backup/bk/format"
)

// chunkFile keeps chunks, encoded as they came, in an encrypted file without a
// name. A chunk is found again by the position that write returned.
type chunkFile struct{ *cryptFile }

// chunkHeadSize is the size of what stands before a chunk in the file: its plain
// size, the payload's and the unknown keys' sizes, codec, once, and id.
const chunkHeadSize = 14 + len(format.ID{})

func newChunkFile(dir string, random io.Reader) *chunkFile {
	return &chunkFile{newCryptFile(dir, random)}
}

// write appends a chunk. It does not keep the payload.
func (f *chunkFile) write(d *format.Data) (at int64, err error) {
	at = f.end()
	extra := appendFields(nil, d.Extra)
	var head [chunkHeadSize]byte
	binary.BigEndian.PutUint32(head[0:], d.Size)
	binary.BigEndian.PutUint32(head[4:], uint32(len(d.Payload)))
	binary.BigEndian.PutUint32(head[8:], uint32(len(extra)))
	if d.Codec == format.CodecZstd {
		head[12] = 1
	}
	if d.Once {
		head[13] = 1
	}
	copy(head[14:], d.ID[:])
	for _, part := range [][]byte{head[:], extra, d.Payload} {
		if _, err := f.Write(part); err != nil {
			return 0, err
		}
	}
	return at, nil
}

// head returns the chunk at a position without its payload, and where that is.
func (f *chunkFile) head(at int64) (d *format.Data, payloadAt, payloadSize int64, err error) {
	var head [chunkHeadSize]byte
	if _, err := f.ReadAt(head[:], at); err != nil {
		return nil, 0, 0, spoolError(err)
	}
	d = &format.Data{ID: format.ID(head[14:]), Size: binary.BigEndian.Uint32(head[0:]), Codec: format.CodecNone, Once: head[13] == 1}
	if head[12] == 1 {
		d.Codec = format.CodecZstd
	}
	at += int64(chunkHeadSize)
	if size := binary.BigEndian.Uint32(head[8:]); size > 0 {
		extra := make([]byte, size)
		if _, err := f.ReadAt(extra, at); err != nil {
			return nil, 0, 0, spoolError(err)
		}
		d.Extra = parseFields(extra)
		at += int64(size)
	}
	return d, at, int64(binary.BigEndian.Uint32(head[4:])), nil
}

// load returns the chunk at a position. Its payload is a buffer of
// format.AllocPayload, the caller's to free.
func (f *chunkFile) load(at int64) (*format.Data, error) {
	d, payloadAt, size, err := f.head(at)
	if err != nil {
		return nil, err
	}
	d.Payload = format.AllocPayload(int(size))
	if _, err := f.ReadAt(d.Payload, payloadAt); err != nil {
		format.FreePayload(d.Payload)
		return nil, spoolError(err)
	}
	return d, nil
}

// open returns the chunk at a position without its payload, and a reader of its
// plain bytes.
func (f *chunkFile) open(at int64) (*format.Data, io.ReadCloser, error) {
	d, payloadAt, size, err := f.head(at)
	if err != nil {
		return nil, nil, err
	}
	plain := format.NewPlainReader(d, io.NewSectionReader(f, payloadAt, size))
	if d.Size > largeChunk {
		makeRoom()
		plain = roomMaker{plain}
	}
	return d, plain, nil
}

// largeChunk is the size in bytes from which chunks are so large that what reads
// one from the file, which remembers a window of it, and the buffer of a payload
// are never in memory at a time.
const largeChunk = 8 << 20

// makeRoom has the collector do at once what it would do later.
func makeRoom() {
	format.FreeIdlePayloads()
	debug.FreeOSMemory()
}

type roomMaker struct{ io.ReadCloser }

func (r roomMaker) Close() error {
	err := r.ReadCloser.Close()
	makeRoom()
	return err
}

// spoolError keeps an end of file in the spool from passing for the end of a
// stream.
func spoolError(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("read from the spool: it is shorter than what was written")
	}
	return err
}

// appendFields and parseFields carry unknown keys through the spool.
func appendFields(dst []byte, fields []format.Field) []byte {
	for _, f := range fields {
		dst = append(binary.AppendUvarint(dst, uint64(len(f.Key))), f.Key...)
		dst = append(binary.AppendUvarint(dst, uint64(len(f.Raw))), f.Raw...)
	}
	return dst
}

func parseFields(b []byte) []format.Field {
	var fields []format.Field
	next := func() []byte {
		n, size := binary.Uvarint(b)
		part := b[size : size+int(n)]
		b = b[size+int(n):]
		return part
	}
	for len(b) > 0 {
		key := string(next())
		fields = append(fields, format.Field{Key: key, Raw: next()})
	}
	return fields
}
