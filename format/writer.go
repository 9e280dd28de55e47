package format

import (
	"fmt"
	"io"
)

// WriterOptions are the choices of a Writer. The zero value is good.
type WriterOptions struct {
	// BufferSize is how much is gathered before it is written, in bytes: 64 KiB
	// if zero. Payloads of at least half of it go out without being copied.
	BufferSize int
}

// Writer writes records as a stream of bytes, canonically encoded. It is a Sink.
//
// It counts and digests what it writes: the counts and digests of commits and of
// the end that it is given are ignored. It writes only valid streams: a record
// that Checker refuses is not written, and no other after it.
//
// Bytes go out when the buffer is full, after the header (so that the next
// program knows at once what comes), after every commit and after the end.
type Writer struct {
	dst    io.Writer
	check  Checker
	buf    []byte
	size   int
	record int64
	offset int64 // of the next record
	err    error
}

// NewWriter returns a Writer to dst. It writes nothing yet, and closes nothing
// later.
func NewWriter(dst io.Writer, opts WriterOptions) *Writer {
	size := opts.BufferSize
	if size == 0 {
		size = bufferSizeDefault
	}
	size = max(size, bufferSizeMin)
	return &Writer{dst: dst, size: size, buf: make([]byte, 0, size+bufferSizeMin)}
}

// Write writes one record. What it is given it neither keeps nor changes. An
// error is sticky: an *Error with the place in the output if the record breaks a
// rule, otherwise what dst said, wrapped.
func (w *Writer) Write(rec Record) error {
	if w.err != nil {
		return w.err
	}
	switch r := rec.(type) {
	case *Commit:
		m := *r
		w.check.fillCommit(&m)
		rec = &m
	case *End:
		e := *r
		w.check.fillEnd(&e)
		rec = &e
	}
	if e := w.write(rec); e != nil {
		e.Record, e.Offset = w.record, w.offset
		if rec != nil {
			e.Kind = string(rec.Kind())
		}
		if e.Path == "" {
			e.Path = recordPath(rec, &w.check)
		}
		w.err = fmt.Errorf("write the stream: %w", e)
	}
	return w.err
}

// write encodes a record into the buffer and sends what is due. Errors of dst
// are put into w.err.
func (w *Writer) write(rec Record) *Error {
	if e := checkRecordAfter(rec, w.check.pathLast); e != nil {
		return e
	}
	data, isData := rec.(*Data)
	if isData {
		if e := checkPayload(data); e != nil {
			return e
		}
	}
	start := len(w.buf)
	w.buf = appendRecord(w.buf, rec)
	wire := w.buf[start:]
	e := checkBodySize(rec, len(wire))
	if e == nil {
		e = w.check.step(rec, wire)
	}
	if e != nil {
		w.buf = w.buf[:start]
		return e
	}
	w.record++
	w.offset += int64(len(wire))
	flush := len(w.buf) >= w.size
	switch rec.(type) {
	case *Data:
		w.payload(data.Payload)
		return nil
	case *Header, *Commit, *End:
		flush = true
	}
	if flush {
		w.flush()
	}
	return nil
}

// payload writes the third element of a data record.
func (w *Writer) payload(b []byte) {
	head := len(w.buf)
	w.buf = appendBinHead(w.buf, len(b))
	w.offset += int64(len(w.buf) - head + len(b))
	if len(b) < w.size/2 {
		w.buf = append(w.buf, b...)
		if len(w.buf) >= w.size {
			w.flush()
		}
		return
	}
	w.flush()
	w.send(b)
}

// Flush sends what is in the buffer. An error is sticky.
func (w *Writer) Flush() error {
	w.flush()
	return w.err
}

func (w *Writer) flush() {
	w.send(w.buf)
	w.buf = w.buf[:0]
}

func (w *Writer) send(b []byte) {
	if w.err != nil || len(b) == 0 {
		return
	}
	n, err := w.dst.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if err != nil {
		w.err = fmt.Errorf("write the stream: %w", err)
	}
}

// checkBodySize checks the limit on a body, given the size of the record.
func checkBodySize(rec Record, size int) *Error {
	if size <= BodySizeMax {
		return nil
	}
	size -= 1 + len(appendStr(nil, string(rec.Kind())))
	if size > BodySizeMax {
		return Errorf(ClassLimit, "a record's body has %d bytes, more than %d", size, BodySizeMax)
	}
	return nil
}
