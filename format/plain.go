package format

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/klauspost/compress/zstd"
)

// plainWholeMax is the size in bytes up to which a chunk is decoded as a whole.
const plainWholeMax = 1 << 20

// NewPlainReader returns a reader of the plain bytes of the chunk that d names,
// whose payload is read from payload (d.Payload is not looked at). It is for a
// payload that is on disk: of a large chunk neither the payload nor more of the
// plain bytes than the codec's window is ever in memory.
//
// Reading ends with io.EOF only if the bytes were what d says; otherwise with an
// *Error of the class ClassChunk, and then those that came before it are not to
// be trusted. An error of payload is returned as it is. Close gives memory back;
// the reader is of no use afterwards.
func NewPlainReader(d *Data, payload io.Reader) io.ReadCloser {
	return &plainReader{d: Data{ID: d.ID, Size: d.Size, Codec: d.Codec}, payload: payload}
}

type plainReader struct {
	d       Data
	payload io.Reader
	whole   []byte        // the plain bytes, of a small chunk
	decoder *zstd.Decoder // of a large one with CodecZstd
	plain   io.Reader     // nil until something is read
	sum     hash.Hash     // of a large chunk
	left    int           // bytes that are still to come
	err     error
}

// Read implements io.Reader.
func (r *plainReader) Read(p []byte) (int, error) {
	if r.err == nil && r.plain == nil {
		r.err = r.begin()
	}
	if r.err != nil || len(p) == 0 {
		return 0, r.err
	}
	n, err := r.plain.Read(p[:min(len(p), max(r.left, 1))])
	if n > r.left {
		return 0, r.fail(fmt.Errorf("it has more than %d bytes", r.d.Size))
	}
	r.left -= n
	if r.sum != nil {
		r.sum.Write(p[:n])
	}
	switch {
	case err == nil:
	case err != io.EOF:
		r.fail(err)
	case r.left > 0:
		r.fail(fmt.Errorf("it decodes to %d bytes, not %d", int(r.d.Size)-r.left, r.d.Size))
	case r.sum != nil && ID(r.sum.Sum(nil)) != r.d.ID:
		r.fail(fmt.Errorf("its content has the id %s", ID(r.sum.Sum(nil))))
	default:
		r.err = io.EOF
	}
	return n, r.err
}

// fail makes an error sticky, and one of the chunk if it came from decoding.
func (r *plainReader) fail(err error) error {
	var source *sourceError
	if errors.As(err, &source) {
		r.err = source.err
	} else {
		r.err = chunkError(&r.d, err)
	}
	return r.err
}

func (r *plainReader) begin() error {
	if e := checkChunk(&r.d.ID, r.d.Size); e != nil {
		return e
	}
	r.left = int(r.d.Size)
	if r.left <= plainWholeMax {
		return r.decodeWhole()
	}
	r.sum, r.plain = sha256.New(), sourceReader{r.payload}
	if r.d.Codec != CodecZstd {
		return nil
	}
	var err error
	r.decoder, err = zstd.NewReader(r.plain,
		zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(ZstdWindowMax),
		zstd.WithDecoderMaxMemory(ChunkSizeMax))
	if err != nil {
		return r.fail(err)
	}
	r.plain = r.decoder
	return nil
}

func (r *plainReader) decodeWhole() error {
	limit := PayloadSizeMax(r.left)
	payload := AllocPayload(limit + 1)
	defer FreePayload(payload)
	n, err := io.ReadFull(r.payload, payload)
	if err != io.EOF && err != io.ErrUnexpectedEOF && err != nil {
		return err
	}
	r.d.Payload = payload[:n]
	r.whole, err = DecodePayload(nil, &r.d)
	r.d.Payload = nil
	if err != nil {
		return err
	}
	r.plain = bytes.NewReader(r.whole)
	return nil
}

// Close implements io.Closer.
func (r *plainReader) Close() error {
	if r.decoder != nil {
		r.decoder.Close()
	}
	FreePayload(r.whole)
	r.whole, r.decoder, r.err = nil, nil, errors.New("read from a chunk that was closed")
	return nil
}

// sourceReader marks errors of what it reads from, which decoders pass on.
type sourceReader struct{ from io.Reader }

func (r sourceReader) Read(p []byte) (int, error) {
	n, err := r.from.Read(p)
	if err != nil && err != io.EOF {
		err = &sourceError{err}
	}
	return n, err
}

type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }
