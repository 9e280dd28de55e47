package format

import (
	"bytes"
	"fmt"
	"io"
)

// ReaderOptions are the choices of a Reader. The zero value is good.
type ReaderOptions struct {
	// BufferSize is how much is read at a time, in bytes: 64 KiB if zero, which
	// is what a pipe holds. Payloads longer than what is buffered are read
	// straight into their own buffer.
	BufferSize int
}

const (
	bufferSizeMin     = 4 << 10
	bufferSizeDefault = 64 << 10
)

// Reader reads a stream of bytes as records. It is a Source.
//
// It accepts any valid msgpack encoding and checks everything that needs no
// table (see Checker); payloads are not decoded. Memory is bounded by
// BodySizeMax and PayloadSizeMax whatever the bytes say, and its buffer grows
// only as bytes really arrive.
//
// What is wrong is found record by record: first the record's shape and end,
// then its keys and values, then its place in the stream, then its payload. So
// the class of an error does not depend on how the bytes arrive.
type Reader struct {
	src    io.Reader
	parser parser
	check  Checker

	buf     []byte
	lo, hi  int   // buf[lo:hi] was read and not yet consumed
	pos     int64 // offset in the stream of buf[lo]
	readErr error // what src said after buf[lo:hi]

	record int64 // number of the record that the next call of Next begins
	start  int64 // offset of that record, and of the last one after Next returned
	ended  bool
	err    error
}

// NewReader returns a Reader of the stream that src carries. It reads nothing
// yet, and closes nothing later.
func NewReader(src io.Reader, opts ReaderOptions) *Reader {
	size := opts.BufferSize
	if size == 0 {
		size = bufferSizeDefault
	}
	return &Reader{src: src, buf: make([]byte, max(size, bufferSizeMin))}
}

// Next returns the next record, which is valid until the next call. After the
// end record, io.EOF follows if nothing but the end of src does. Any other error
// is an *Error. Errors are sticky.
func (r *Reader) Next() (Record, error) {
	if r.err != nil {
		return nil, r.err
	}
	rec, err := r.next()
	if err != nil {
		r.err = err
		r.releasePayload()
		return nil, err
	}
	r.record++
	return rec, nil
}

// Position returns the number and the byte offset of the record that the last
// call of Next returned, or failed to.
func (r *Reader) Position() (record, offset int64) {
	if r.err != nil || r.record == 0 {
		return r.record, r.start
	}
	return r.record - 1, r.start
}

func (r *Reader) next() (Record, error) {
	r.releasePayload()
	r.start = r.pos
	if r.ended {
		return nil, r.trailing()
	}
	head, err := r.head()
	if err != nil {
		return nil, r.fail(err, "", nil)
	}
	rec, size, err := r.body(head)
	if err != nil {
		return nil, r.fail(err, head.kind, rec)
	}
	wire := r.buf[r.lo : r.lo+head.size+size]
	if e := r.check.step(rec, wire); e != nil {
		return nil, r.fail(e, head.kind, rec)
	}
	r.consume(len(wire))
	switch rec := rec.(type) {
	case *Data:
		if err := r.readPayload(rec); err != nil {
			return nil, r.fail(err, head.kind, rec)
		}
	case *End:
		r.ended = true
	}
	return rec, nil
}

// head reads the record's head without consuming it.
func (r *Reader) head() (recordHead, error) {
	for {
		h, err := parseHead(r.buf[r.lo:r.hi])
		if err == errShort {
			if err = r.fill(); err == nil {
				continue
			}
			err = r.cut(err, "before its end record")
		} else if err != nil && r.record == 0 {
			err = notStream(r.buf[r.lo:r.hi], err)
		}
		return h, err
	}
}

// body parses the body without consuming it. If it is not all there, or wrong,
// its end is looked for first: so that a long body that comes in small pieces is
// not parsed again for each, and a broken encoding is reported before a broken
// value in it.
func (r *Reader) body(h recordHead) (Record, int, error) {
	for r.lo+h.size == r.hi {
		if err := r.fill(); err != nil {
			return nil, 0, r.cut(err, "inside a record")
		}
	}
	if b := r.buf[r.lo+h.size]; !isMapHead(b) {
		return nil, 0, Errorf(ClassSyntax, "not a record: the body is %s, not a map", typeName(b))
	}
	rec, size, err := r.parser.parseBody(h, r.buf[r.lo+h.size:r.hi], r.check.pathLast)
	if err == nil {
		return rec, size, nil
	}
	s := scanner{depthMax: scanDepthMax, sizeMax: BodySizeMax}
	for {
		_, err := s.scan(r.buf[r.lo+h.size : r.hi])
		if err == nil {
			break
		}
		if err == errShort {
			if err = r.fill(); err == nil {
				continue
			}
			err = r.cut(err, "inside a record")
		}
		return nil, 0, err
	}
	return r.parser.parseBody(h, r.buf[r.lo+h.size:r.hi], r.check.pathLast)
}

// readPayload reads the third element of a data record.
func (r *Reader) readPayload(d *Data) error {
	var size int
	for {
		c := cursor{b: r.buf[r.lo:r.hi]}
		n, err := c.binHead()
		if err == nil {
			if e := checkPayloadSize(d, n); e != nil {
				return e
			}
			size = int(n)
			r.consume(c.i)
			break
		}
		if err == errShort {
			if err = r.fill(); err == nil {
				continue
			}
			err = r.cut(err, "before a payload")
		}
		return err
	}
	d.own = AllocPayload(size)
	n := copy(d.own, r.buf[r.lo:r.hi])
	r.consume(n)
	if n < size && r.readErr != nil {
		return r.cut(r.readErr, "inside a payload")
	}
	if n < size {
		read, err := io.ReadFull(r.src, d.own[n:])
		r.pos += int64(read)
		if err != nil {
			return r.cut(err, "inside a payload")
		}
	}
	d.Payload, d.place = d.own, Place{r.record, r.start}
	return nil
}

// releasePayload gives the payload of the last record back, unless it was taken.
func (r *Reader) releasePayload() {
	d := &r.parser.data
	if d.own != nil {
		FreePayload(d.own)
	}
	d.own, d.Payload = nil, nil
}

// fill reads more bytes behind buf[:hi], for which it makes room.
func (r *Reader) fill() error {
	if r.readErr != nil {
		return r.readErr
	}
	if r.lo > 0 {
		r.hi = copy(r.buf, r.buf[r.lo:r.hi])
		r.lo = 0
	}
	if r.hi == len(r.buf) {
		r.buf = append(r.buf, make([]byte, len(r.buf))...)
	}
	for range 100 {
		n, err := r.src.Read(r.buf[r.hi:])
		if n < 0 || n > len(r.buf)-r.hi {
			r.readErr = fmt.Errorf("read returned an impossible count, %d", n)
			return r.readErr
		}
		r.hi += n
		r.readErr = err
		if n > 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
	r.readErr = io.ErrNoProgress
	return r.readErr
}

func (r *Reader) consume(n int) {
	r.lo += n
	r.pos += int64(n)
}

// trailing looks for bytes behind the end record.
func (r *Reader) trailing() error {
	if r.lo == r.hi {
		if err := r.fill(); err == io.EOF {
			return io.EOF
		} else if err != nil {
			return r.fail(r.cut(err, "behind its end record"), "", nil)
		}
	}
	return r.fail(Errorf(ClassTrailing, "bytes follow the end record"), "", nil)
}

// cut turns what src said into an error of the class ClassCut.
func (r *Reader) cut(err error, where string) error {
	if err != io.EOF && err != io.ErrUnexpectedEOF {
		e := Errorf(ClassCut, "the stream cannot be read %s", where)
		e.Err = err
		return e
	}
	if r.record == 0 && r.pos == 0 && r.hi == 0 {
		return Errorf(ClassCut, "the stream is empty; did the program before this one fail?")
	}
	return Errorf(ClassCut, "the stream ends %s", where)
}

// fail puts the place into an error.
func (r *Reader) fail(err error, kind Kind, rec Record) error {
	e, ok := err.(*Error)
	if !ok {
		return err
	}
	e.Record, e.Offset, e.Kind = r.record, r.start, string(kind)
	if e.Path == "" {
		e.Path = recordPath(rec, &r.check)
	}
	return e
}

// recordPath returns the path that a record is about.
func recordPath(rec Record, c *Checker) string {
	switch rec := rec.(type) {
	case *Entry:
		return rec.Path
	case *Remove:
		return rec.Path
	case *Data, *Refs, *CopyRange, *Hole, *EOF:
		return c.Path()
	}
	return ""
}

// notStream says what the first bytes look like if they are no stream.
func notStream(b []byte, err error) error {
	e, ok := err.(*Error)
	if !ok {
		return err
	}
	for _, m := range []struct{ magic, what string }{
		{"\x28\xb5\x2f\xfd", "compressed by zstd: put `zstd -d` before this program"},
		{"\x1f\x8b", "compressed by gzip: put `gzip -d` before this program"},
		{"\xfd7zXZ\x00", "compressed by xz: put `xz -d` before this program"},
		{"BZh", "compressed by bzip2: put `bzip2 -d` before this program"},
		{"age-encryption.org/", "encrypted by age: put `age -d` before this program"},
		{"-----BEGIN AGE", "encrypted by age: put `age -d` before this program"},
		{"-----BEGIN PGP", "encrypted by OpenPGP: put `gpg -d` before this program"},
	} {
		if bytes.HasPrefix(b, []byte(m.magic)) {
			return Errorf(ClassSyntax, "this is not a stream, it looks %s", m.what)
		}
	}
	line := b[:min(len(b), 60)]
	if i := bytes.IndexByte(line, '\n'); i >= 0 {
		line = line[:i]
	}
	for _, x := range line {
		if (x < ' ' || x > '~') && x != '\t' && x != '\r' {
			return e
		}
	}
	return Errorf(ClassSyntax, "this is not a stream but text: %s", fmt.Sprintf("%q", line))
}
