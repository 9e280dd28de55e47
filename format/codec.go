package format

import (
	"fmt"
	"strconv"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// DecodePayload returns the plain bytes of a chunk, after checking that they
// are what d says: that the payload is exactly one frame of its codec, decodes
// to d.Size bytes, and that their SHA-256 is d.ID (not looked at where
// d.Checked says that it was computed from this payload). The errors are *Error
// of the class ClassChunk, or of another where d breaks a rule by itself.
//
// The plain bytes are put into dst's storage if its capacity is enough,
// otherwise into a buffer of AllocPayload; they never share memory with
// d.Payload. No more than d.Size bytes and a zstd block are ever decoded. It may
// be called from many goroutines at a time.
func DecodePayload(dst []byte, d *Data) ([]byte, error) {
	if e := first(checkChunk(&d.ID, d.Size), checkPayload(d)); e != nil {
		return nil, d.place.At(e)
	}
	size := int(d.Size)
	if cap(dst) < size {
		dst = AllocPayload(size)
	}
	plain := dst[:size]
	if d.Codec == CodecZstd {
		if err := decodeZstd(plain, d.Payload); err != nil {
			return nil, chunkError(d, err)
		}
	} else {
		copy(plain, d.Payload)
	}
	if err := checkContent(d, plain); err != nil {
		return nil, err
	}
	return plain, nil
}

// checkContent fails unless d's plain bytes are known to have its id, or have it.
func checkContent(d *Data, plain []byte) error {
	if d.Checked {
		return nil
	}
	if id := SumID(plain); id != d.ID {
		return chunkError(d, fmt.Errorf("its content has the id %s", id))
	}
	return nil
}

// DecodeTaken is DecodePayload for one who has taken the payload (Data.Take) into
// a buffer of AllocPayload: it hands over a payload that is plain as it is, also
// of a nameless chunk, and gives any other back, also when it fails.
func DecodeTaken(d *Data) (plain []byte, err error) {
	payload := d.Payload
	if d.Codec != CodecNone {
		plain, err = DecodePayload(nil, d)
	} else if e := first(checkChunkSize(d.Size), checkPayload(d)); e != nil {
		err = d.place.At(e)
	} else if e := checkID("id", &d.ID); e != nil && !d.Nameless() {
		err = d.place.At(e)
	} else if err = checkContent(d, payload); err == nil {
		return payload, nil
	}
	FreePayload(payload)
	return plain, err
}

// CheckPayload checks what can be seen of a chunk's payload without decoding it:
// its size and, with CodecZstd, that it is exactly one frame as the stream
// allows (spec/stream.md, "data"). A source that passes on what another program
// compressed asks it before, and encodes anew what does not fit. The errors are
// those of DecodePayload.
func CheckPayload(d *Data) error {
	if e := first(checkChunk(&d.ID, d.Size), checkPayload(d)); e != nil {
		return e
	}
	if d.Codec == CodecZstd {
		if err := checkFrame(d.Payload, int(d.Size)); err != nil {
			return chunkError(d, err)
		}
	}
	return nil
}

func chunkError(d *Data, err error) *Error {
	e := Errorf(ClassChunk, "the chunk %s cannot be decoded", d.ID)
	e.Err = err
	_ = d.place.At(e)
	return e
}

// zstdDecoder decodes for everybody in the process: DecodeAll may be called from
// many goroutines, of which as many run at a time as there are processors.
var zstdDecoder = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(0),
		zstd.WithDecodeAllCapLimit(true),
		zstd.WithDecoderMaxWindow(ZstdWindowMax),
		zstd.WithDecoderMaxMemory(ChunkSizeMax))
})

// decodeZstd decodes the one frame in payload, which must fill plain exactly.
func decodeZstd(plain, payload []byte) error {
	if err := checkFrame(payload, len(plain)); err != nil {
		return err
	}
	decoder, err := zstdDecoder()
	if err != nil {
		return err
	}
	// The capacity is what keeps a frame from decoding to more than it says.
	out, err := decoder.DecodeAll(payload, plain[:0:len(plain)])
	if err != nil {
		return fmt.Errorf("zstd: %w", err)
	}
	if len(out) != len(plain) {
		return fmt.Errorf("zstd: the frame decodes to %d bytes, not %d", len(out), len(plain))
	}
	return nil
}

// checkFrame checks that b is exactly one zstd frame without a dictionary that
// can decode to size bytes. It walks the blocks without decoding them.
func checkFrame(b []byte, size int) error {
	var h zstd.Header
	if err := h.Decode(b); err != nil {
		return fmt.Errorf("zstd: %w", err)
	}
	switch {
	case h.Skippable:
		return fmt.Errorf("zstd: a skippable frame holds nothing")
	case h.DictionaryID != 0:
		return fmt.Errorf("zstd: the frame needs the dictionary %d", h.DictionaryID)
	case h.HasFCS && h.FrameContentSize != uint64(size):
		return fmt.Errorf("zstd: the frame says it has %d bytes, not %d", h.FrameContentSize, size)
	case !h.SingleSegment && h.WindowSize > ZstdWindowMax:
		return fmt.Errorf("zstd: the frame's window of %d bytes is more than %d", h.WindowSize, ZstdWindowMax)
	}
	at := h.HeaderSize
	for last := false; !last; {
		if len(b)-at < 3 {
			return fmt.Errorf("zstd: the frame is cut off")
		}
		head := int(b[at]) | int(b[at+1])<<8 | int(b[at+2])<<16
		last = head&1 != 0
		n := head >> 3
		if kind := head >> 1 & 3; kind == 1 {
			n = 1 // one byte, repeated
		}
		at += 3 + n
		if at > len(b) {
			return fmt.Errorf("zstd: the frame is cut off")
		}
	}
	if h.HasCheckSum {
		at += 4
	}
	if at != len(b) {
		return fmt.Errorf("zstd: the payload has %d bytes, its frame %d", len(b), at)
	}
	return nil
}

// Level says how hard EncodePayload tries: the levels 1 to 19 of zstd, in the
// four steps that the encoder has. The zero value is LevelDefault.
type Level int

// The levels that have names.
const (
	LevelNone    Level = -1 // do not compress
	LevelDefault Level = 0  // as 3
	LevelFastest Level = 1
	LevelBetter  Level = 7
	LevelBest    Level = 19
)

// ParseLevel reads none, fastest, default, better, best, or a number from 1 to 19.
func ParseLevel(s string) (Level, error) {
	switch s {
	case "none":
		return LevelNone, nil
	case "fastest":
		return LevelFastest, nil
	case "default", "zstd":
		return LevelDefault, nil
	case "better":
		return LevelBetter, nil
	case "best":
		return LevelBest, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > int(LevelBest) {
		return 0, fmt.Errorf("there is no compression level %q: none, fastest, default, better, best, or 1 to 19", s)
	}
	return Level(n), nil
}

// encoderWindow is how far back an encoder looks, in bytes.
const encoderWindow = 1 << 20

// encoderPools hold idle encoders, which keep their tables, by the encoder's
// own levels.
var encoderPools [zstd.SpeedBestCompression + 1]sync.Pool

// EncodePayload compresses a chunk's plain bytes at the given level. The payload
// is a zstd frame in dst's storage, or a larger buffer of AllocPayload; or, where
// that would save less than a 32nd, plain itself with CodecNone. Content that
// does not compress costs little: the encoder notices early. It may be called
// from many goroutines at a time; each call uses one.
func EncodePayload(dst, plain []byte, level Level) (Codec, []byte, error) {
	if level < 0 || len(plain) < 64 {
		return CodecNone, plain, nil
	}
	if level == LevelDefault {
		level = 3
	}
	step := zstd.EncoderLevelFromZstd(int(level))
	pool := &encoderPools[step]
	encoder, _ := pool.Get().(*zstd.Encoder)
	if encoder == nil {
		var err error
		encoder, err = zstd.NewWriter(nil,
			zstd.WithEncoderLevel(step),
			zstd.WithEncoderConcurrency(1),
			// An encoder remembers a window, or twice as much: 16 MiB each, on
			// sixteen processors. Chunks are rarely longer than this one, whose
			// size costs them less than 0.2 percent.
			zstd.WithWindowSize(encoderWindow),
			zstd.WithLowerEncoderMem(true),
			// Words in ever new order have no matches but few letters: a quarter
			// of the size of small texts, for next to no time.
			zstd.WithAllLitEntropyCompression(true),
			zstd.WithEncoderCRC(false)) // the chunk's id covers its content
		if err != nil {
			return "", nil, fmt.Errorf("prepare compression: %w", err)
		}
	}
	own := dst
	if bound := PayloadSizeMax(len(plain)); cap(dst) < bound {
		own = AllocPayload(bound)
	}
	payload := encoder.EncodeAll(plain, own[:0])
	pool.Put(encoder)
	if len(payload) > len(plain)-len(plain)/32 {
		if cap(dst) != cap(own) {
			FreePayload(own)
		}
		return CodecNone, plain, nil
	}
	return CodecZstd, payload, nil
}
