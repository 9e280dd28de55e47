package borg

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"github.com/bk-backup/bk/format"
)

// Compression says how the content of objects is compressed. The zero value
// keeps payloads that come compressed, and compresses all else with zstd.
type Compression struct {
	again bool // compress what comes compressed, too
	codec codec
	level format.Level
}

// ParseCompression reads keep, none, lz4, zstd, or zstd and a level from 1 to 19
// behind a comma or a colon.
func ParseCompression(text string) (Compression, error) {
	name, rest, hasLevel := strings.Cut(strings.ReplaceAll(text, ":", ","), ",")
	c := Compression{again: true, codec: codecZstd}
	switch {
	case name == "keep" && !hasLevel, text == "":
		c.again = false
		return c, nil
	case name == "none" && !hasLevel:
		c.codec = codecNone
		return c, nil
	case name == "lz4" && !hasLevel:
		c.codec = codecLZ4
		return c, nil
	case name == "zstd" && !hasLevel:
		return c, nil
	case name == "zstd":
		if n, err := strconv.Atoi(rest); err == nil && n >= 1 && n <= int(format.LevelBest) {
			c.level = format.Level(n)
			return c, nil
		}
	}
	return Compression{}, fmt.Errorf("there is no compression %q of borg repositories: keep, none, lz4, zstd, or zstd,1 to zstd,19", text)
}

var lz4Compressors = sync.Pool{New: func() any { return new(lz4.Compressor) }}

// packContent compresses the plain content of an object, with the bytes in front
// that announce the codec. What does not become smaller stays as it is. It may
// be called from many goroutines.
func (c Compression) packContent(plain []byte) ([]byte, error) {
	used := c.codec
	if used == codecNone && !c.again {
		used = codecZstd
	}
	switch used {
	case codecLZ4:
		b := format.AllocPayload(codecSize + lz4.CompressBlockBound(len(plain)))
		compressor := lz4Compressors.Get().(*lz4.Compressor)
		n, err := compressor.CompressBlock(plain, b[codecSize:])
		lz4Compressors.Put(compressor)
		if err != nil {
			return nil, fmt.Errorf("compress with lz4: %w", err)
		}
		if n > 0 && n < len(plain) {
			b[0], b[1] = byte(codecLZ4), 0
			return b[:codecSize+n], nil
		}
		format.FreePayload(b)
	case codecZstd:
		b := format.AllocPayload(codecSize + format.PayloadSizeMax(len(plain)))
		coded, payload, err := format.EncodePayload(b[codecSize:codecSize], plain, c.level)
		if err != nil {
			return nil, err
		}
		if coded == format.CodecZstd && saysSize(payload) {
			if &payload[0] != &b[codecSize] {
				return nil, errors.New("compress with zstd: the frame is longer than it can be")
			}
			b[0], b[1] = byte(codecZstd), 0
			return b[:codecSize+len(payload)], nil
		}
		format.FreePayload(b)
	}
	b := format.AllocPayload(codecSize + len(plain))
	b[0], b[1] = byte(codecNone), 0
	copy(b[codecSize:], plain)
	return b, nil
}

// keepFrame returns the content of an object of a payload that came compressed.
func keepFrame(payload []byte) []byte {
	b := format.AllocPayload(codecSize + len(payload))
	b[0], b[1] = byte(codecZstd), 0
	copy(b[codecSize:], payload)
	return b
}

// saysSize reports whether a zstd frame says the size of its content, which borg
// needs.
func saysSize(frame []byte) bool {
	var h zstd.Header
	return h.Decode(frame) == nil && h.HasFCS
}
