package borg

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz/lzma"

	"github.com/bk-backup/bk/format"
)

// codec is how the content of an object is compressed: its first byte, the
// second one being zero. zlib has no such bytes and is known by its own.
type codec byte

const (
	codecNone      codec = 0x00
	codecLZ4       codec = 0x01
	codecLZMA      codec = 0x02
	codecZstd      codec = 0x03
	codecObfuscate codec = 0x04 // what has another codec's bytes inside, and padding
	codecZlib      codec = 0xff // ours: not on storage
)

var codecNames = map[codec]string{codecNone: "none", codecLZ4: "lz4", codecLZMA: "lzma", codecZstd: "zstd", codecZlib: "zlib"}

// String returns borg's name of a codec.
func (c codec) String() string { return codecNames[c] }

const codecSize = 2 // bytes in front of what is compressed

// plainSizeMax is the most bytes that an object may decompress to. borg itself
// makes no object whose stored bytes are more than 20 MiB.
const plainSizeMax = 64 << 20

// splitCodec divides what an object holds, after it was decrypted, into the
// codec and the compressed bytes.
func splitCodec(content []byte) (codec, []byte, error) {
	c, rest, err := splitOnce(content)
	if err != nil || c != codecObfuscate {
		return c, rest, err
	}
	if len(rest) < 4 {
		return 0, nil, fmt.Errorf("its obfuscation is cut off: %w", ErrDamaged)
	}
	n := binary.BigEndian.Uint32(rest)
	if uint64(n) > uint64(len(rest)-4) {
		return 0, nil, fmt.Errorf("its obfuscation says %d bytes, and there are %d: %w", n, len(rest)-4, ErrDamaged)
	}
	c, rest, err = splitOnce(rest[4:][:n])
	if c == codecObfuscate && err == nil {
		err = fmt.Errorf("it is obfuscated twice: %w", ErrDamaged)
	}
	return c, rest, err
}

func splitOnce(content []byte) (codec, []byte, error) {
	if len(content) < codecSize {
		return 0, nil, fmt.Errorf("it has no codec, and %d bytes: %w", len(content), ErrDamaged)
	}
	if content[1] == 0 && content[0] <= byte(codecObfuscate) {
		return codec(content[0]), content[codecSize:], nil
	}
	if content[0]&0x0f == 8 && binary.BigEndian.Uint16(content)%31 == 0 {
		return codecZlib, content, nil
	}
	return 0, nil, fmt.Errorf("its codec %#02x %#02x is not known: %w", content[0], content[1], ErrVersion)
}

// appendCodec appends the bytes that announce a codec, which zlib has not.
func appendCodec(dst []byte, c codec) []byte {
	if c == codecZlib {
		return dst
	}
	return append(dst, byte(c), 0)
}

// errSize says that something decompresses to another size than it should.
var errSize = errors.New("it decompresses to another size")

// decompressTo decompresses into plain, which it must fill exactly.
func decompressTo(plain []byte, c codec, b []byte) error {
	n, err := 0, error(nil)
	switch c {
	case codecNone:
		if n = len(b); n == len(plain) {
			copy(plain, b)
		}
	case codecLZ4:
		n, err = lz4.UncompressBlock(b, plain)
	case codecZlib:
		n, err = readZlib(plain, b)
	case codecLZMA:
		n, err = readLZMA(plain, b, len(plain))
	case codecZstd:
		n, err = readZstd(plain, b)
	default:
		err = fmt.Errorf("codec %d: %w", c, ErrVersion)
	}
	if err == nil && n != len(plain) {
		err = errSize
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %w", c, err, ErrDamaged)
	}
	return nil
}

// decompress returns the plain bytes of something whose size is not known, at
// most sizeMax, in memory of its own.
func decompress(c codec, b []byte, sizeMax int) ([]byte, error) {
	if c == codecNone {
		return bytes.Clone(b), nil
	}
	// Codecs that do not tell the size are tried with more and more room.
	size := min(max(4*len(b), 64<<10), sizeMax)
	if c == codecZstd {
		var h zstd.Header
		if err := h.Decode(b); err == nil && h.HasFCS {
			if h.FrameContentSize > uint64(sizeMax) {
				return nil, fmt.Errorf("zstd: it decompresses to %d bytes, more than %d: %w", h.FrameContentSize, sizeMax, ErrDamaged)
			}
			size = int(h.FrameContentSize)
		}
	}
	for {
		plain := make([]byte, size)
		n, err := 0, error(nil)
		switch c {
		case codecLZ4:
			n, err = lz4.UncompressBlock(b, plain)
		case codecZlib:
			n, err = readZlib(plain, b)
		case codecLZMA:
			n, err = readLZMA(plain, b, size)
		case codecZstd:
			n, err = readZstd(plain, b)
		default:
			return nil, fmt.Errorf("codec %d: %w", c, ErrVersion)
		}
		if err == nil {
			return plain[:n], nil
		}
		if size == sizeMax {
			return nil, fmt.Errorf("%s: %w: %w", c, err, ErrDamaged)
		}
		size = min(max(8*size, 64<<10), sizeMax)
	}
}

// zlibReaders hold idle readers, which keep their tables.
var zlibReaders sync.Pool

func readZlib(plain, b []byte) (n int, err error) {
	in := bytes.NewReader(b)
	r, _ := zlibReaders.Get().(io.ReadCloser)
	if r == nil {
		r, err = zlib.NewReader(in)
	} else {
		err = r.(zlib.Resetter).Reset(in, nil)
	}
	if err != nil {
		return 0, err
	}
	defer zlibReaders.Put(r)
	return readWhole(r, plain)
}

// readWhole reads until the end, which must come when plain is full at the
// latest.
func readWhole(r io.Reader, plain []byte) (n int, err error) {
	n, err = io.ReadFull(r, plain)
	switch {
	case err == io.EOF || err == io.ErrUnexpectedEOF && n < len(plain):
		// A reader that is cut off says so itself, in another error below; here it
		// ended early or was cut, which the caller sees by the size or the id.
		return n, nil
	case err != nil:
		return n, err
	}
	var more [1]byte
	switch m, err := r.Read(more[:]); {
	case m > 0:
		return n, errSize
	case err != nil && err != io.EOF:
		return n, err
	}
	return n, nil
}

// The parts of an .xz file that are looked at.
const (
	xzHeadSize   = 12
	xzFilterLZMA = 0x21
	lzmaDictMin  = 1 << 12
)

// readLZMA decompresses the first block of an .xz file. A dictionary needs no
// more room than there is content, whatever the file asks for; checks at its end
// are not looked at, since the object's id says more.
func readLZMA(plain, b []byte, size int) (int, error) {
	if len(b) < xzHeadSize+8 || string(b[:6]) != "\xfd7zXZ\x00" {
		return 0, errors.New("it does not begin as a file of xz")
	}
	b = b[xzHeadSize:]
	headSize := 4 * (int(b[0]) + 1)
	flags := b[1]
	if b[0] == 0 { // the index comes at once: there is no content
		return 0, nil
	}
	if headSize > len(b) || flags&0x3f != 0 {
		return 0, errors.New("its block has a header that is not known")
	}
	at := 2
	for _, bit := range []byte{0x40, 0x80} { // sizes that may be there
		if flags&bit == 0 {
			continue
		}
		_, n := binary.Uvarint(b[at:headSize])
		if n <= 0 {
			return 0, errors.New("its block has a header that is not known")
		}
		at += n
	}
	if at+3 > headSize || b[at] != xzFilterLZMA || b[at+1] != 1 {
		return 0, errors.New("its filter is not known")
	}
	r, err := lzma.Reader2Config{DictCap: max(size, lzmaDictMin)}.NewReader2(bytes.NewReader(b[headSize:]))
	if err != nil {
		return 0, err
	}
	return readWhole(r, plain)
}

// zstdDecoder decodes for everybody in the process.
var zstdDecoder = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(0),
		zstd.WithDecodeAllCapLimit(true),
		zstd.WithDecoderMaxWindow(plainSizeMax),
		zstd.WithDecoderMaxMemory(plainSizeMax))
})

func readZstd(plain, b []byte) (int, error) {
	d, err := zstdDecoder()
	if err != nil {
		return 0, err
	}
	out, err := d.DecodeAll(b, plain[:0:len(plain)])
	return len(out), err
}

// openManifest returns the plain content of the manifest, whose id says nothing.
func (k *keys) openManifest(object []byte) ([]byte, error) {
	content, err := k.open(object)
	if err != nil {
		return nil, err
	}
	c, packed, err := splitCodec(content)
	if err != nil {
		return nil, err
	}
	return decompress(c, packed, plainSizeMax)
}

// openPlain returns the plain content of an object whose size is not known, and
// checks that it is the object of this id.
func (k *keys) openPlain(id objectID, object []byte) (plain []byte, err error) {
	content, err := k.decrypt(object)
	if err != nil {
		return nil, err
	}
	c, packed, err := splitCodec(content)
	if err == nil {
		plain, err = decompress(c, packed, plainSizeMax)
	}
	if err == nil {
		err = k.isOf(id, plain)
	}
	if err != nil {
		return nil, k.cause(object, err)
	}
	return plain, nil
}

// openChunk returns the plain content of a chunk, in a buffer of
// format.AllocPayload, after checking its id and its size. If it was compressed
// with zstd, frame is the frame, in the object's storage.
func (k *keys) openChunk(id objectID, size uint32, object []byte) (plain, frame []byte, err error) {
	content, err := k.decrypt(object)
	if err != nil {
		return nil, nil, err
	}
	c, packed, err := splitCodec(content)
	if err != nil {
		return nil, nil, k.cause(object, err)
	}
	plain = format.AllocPayload(int(size))
	if err = decompressTo(plain, c, packed); err == nil {
		err = k.isOf(id, plain)
	}
	if err != nil {
		format.FreePayload(plain)
		return nil, nil, k.cause(object, err)
	}
	if c == codecZstd {
		frame = packed
	}
	return plain, frame, nil
}

// isOf checks that the object of this id has this plain content.
func (k *keys) isOf(id objectID, plain []byte) error {
	if got := k.id(plain); got != id {
		return fmt.Errorf("its content has the id %s: %w", got, ErrDamaged)
	}
	return nil
}
