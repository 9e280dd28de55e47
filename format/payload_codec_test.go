package format

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"
)

func TestPayloadRoundTrip(t *testing.T) {
	levels := []Level{LevelNone, LevelDefault, LevelFastest, 5, LevelBetter, LevelBest}
	rapid.Check(t, func(t *rapid.T) {
		unit := rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(t, "unit")
		plain := bytes.Repeat(unit, rapid.IntRange(1, 500).Draw(t, "times"))
		level := rapid.SampledFrom(levels).Draw(t, "level")
		codec, payload, err := EncodePayload(nil, plain, level)
		if err != nil {
			t.Fatal(err)
		}
		d := &Data{ID: SumID(plain), Size: uint32(len(plain)), Codec: codec, Payload: payload}
		got, err := DecodePayload(nil, d)
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatal(err)
		}
		if level == LevelNone && codec != CodecNone {
			t.Fatal(codec)
		}
	})
}

func TestDecodePayloadRefuses(t *testing.T) {
	plain := bytes.Repeat([]byte("abcdefgh"), 1000)
	encode := func(b []byte, opts ...zstd.EOption) []byte {
		e, err := zstd.NewWriter(nil, opts...)
		if err != nil {
			t.Fatal(err)
		}
		return e.EncodeAll(b, nil)
	}
	frame := encode(plain)
	id, size := SumID(plain), uint32(len(plain))
	skippable := []byte{0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 'x'}
	streamed := func(b []byte, window int) []byte {
		var buf bytes.Buffer
		e, err := zstd.NewWriter(&buf, zstd.WithWindowSize(window))
		if err != nil {
			t.Fatal(err)
		}
		for len(b) > 0 { // several writes, so that the size is not known beforehand
			n, err := e.Write(b[:min(len(b), 1000)])
			if err != nil {
				t.Fatal(err)
			}
			b = b[n:]
			if err := e.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		return buf.Bytes()
	}
	for name, c := range map[string]struct {
		d    *Data
		want Class
	}{
		"good":                              {&Data{ID: id, Size: size, Codec: CodecZstd, Payload: frame}, ""},
		"good, no size":                     {&Data{ID: id, Size: size, Codec: CodecZstd, Payload: streamed(plain, 1<<20)}, ""},
		"good, no checksum":                 {&Data{ID: id, Size: size, Codec: CodecZstd, Payload: encode(plain, zstd.WithEncoderCRC(false))}, ""},
		"large window":                      {&Data{ID: id, Size: size, Codec: CodecZstd, Payload: streamed(plain, 64<<20)}, ClassChunk},
		"wrong id":                          {&Data{ID: ID{1}, Size: size, Codec: CodecZstd, Payload: frame}, ClassChunk},
		"wrong size":                        {&Data{ID: id, Size: size - 1, Codec: CodecZstd, Payload: frame}, ClassChunk},
		"wrong size, no size in the frame":  {&Data{ID: id, Size: size - 1, Codec: CodecZstd, Payload: streamed(plain, 1<<20)}, ClassChunk},
		"larger size, no size in the frame": {&Data{ID: id, Size: size + 1, Codec: CodecZstd, Payload: streamed(plain, 1<<20)}, ClassChunk},
		"bomb":                              {&Data{ID: id, Size: 1 << 20, Codec: CodecZstd, Payload: streamed(make([]byte, 32<<20), 1<<20)}, ClassChunk},
		"two frames":                        {&Data{ID: id, Size: size, Codec: CodecZstd, Payload: append(bytes.Clone(encode(plain[:8])), encode(plain[8:])...)}, ClassChunk},
		"skippable":                         {&Data{ID: id, Size: size, Codec: CodecZstd, Payload: append(bytes.Clone(skippable), frame...)}, ClassChunk},
		"skippable last":                    {&Data{ID: id, Size: size, Codec: CodecZstd, Payload: append(bytes.Clone(frame), skippable...)}, ClassChunk},
		"trailing":                          {&Data{ID: id, Size: size, Codec: CodecZstd, Payload: append(bytes.Clone(frame), 0)}, ClassChunk},
		"cut":                               {&Data{ID: id, Size: size, Codec: CodecZstd, Payload: frame[:len(frame)-1]}, ClassChunk},
		"empty":                             {&Data{ID: id, Size: size, Codec: CodecZstd}, ClassChunk},
		"dictionary":                        {&Data{ID: id, Size: size, Codec: CodecZstd, Payload: encode(plain, zstd.WithEncoderDictRaw(7, plain[:64]))}, ClassChunk},
		"plain":                             {&Data{ID: id, Size: size, Payload: plain}, ""},
		"plain, wrong":                      {&Data{ID: ID{1}, Size: size, Payload: plain}, ClassChunk},
		"plain, checked":                    {&Data{ID: ID{1}, Size: size, Payload: plain, Checked: true}, ""},
		"plain, longer":                     {&Data{ID: id, Size: size - 1, Payload: plain}, ClassChunk},
		"no size":                           {&Data{ID: id, Payload: nil}, ClassField},
	} {
		got, err := DecodePayload(nil, c.d)
		if ClassOf(err) != c.want {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if err == nil && !bytes.Equal(got, plain) {
			t.Errorf("%s: other bytes", name)
		}
		taken := *c.d
		taken.Payload = append(AllocPayload(len(c.d.Payload))[:0], c.d.Payload...)
		if got, err := DecodeTaken(&taken); ClassOf(err) != c.want || err == nil && !bytes.Equal(got, plain) {
			t.Errorf("%s: taken: %v, want %q", name, err, c.want)
		}
		// What shows only when the payload is decoded passes CheckPayload.
		hidden := map[string]bool{
			"wrong id": true, "plain, wrong": true, "bomb": true,
			"wrong size, no size in the frame": true, "larger size, no size in the frame": true,
		}
		if got := ClassOf(CheckPayload(c.d)); got != c.want && !hidden[name] || hidden[name] && got != "" {
			t.Errorf("%s: CheckPayload: %q, want %q", name, got, c.want)
		}
	}
}

func TestDecodePayloadInParallel(t *testing.T) {
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			var buf []byte
			for j := range 50 {
				plain := bytes.Repeat(noise(100, uint64(i)), 10+j)
				codec, payload, err := EncodePayload(nil, plain, LevelFastest)
				if err != nil {
					t.Error(err)
					return
				}
				d := &Data{ID: SumID(plain), Size: uint32(len(plain)), Codec: codec, Payload: payload}
				if buf, err = DecodePayload(buf, d); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestParseLevel(t *testing.T) {
	for in, want := range map[string]Level{"none": -1, "default": 0, "fastest": 1, "1": 1, "19": 19, "better": 7, "best": 19} {
		if got, err := ParseLevel(in); err != nil || got != want {
			t.Errorf("%q: %d, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "0", "20", "-1", "fast"} {
		if _, err := ParseLevel(in); err == nil {
			t.Errorf("%q passed", in)
		}
	}
}

// TestPayloadOfFewLetters: text without a repeated word is no match for a
// dictionary coder, and still has few letters.
func TestPayloadOfFewLetters(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	plain := make([]byte, 2000)
	for i := range plain {
		plain[i] = "abcdefghijklmnop"[rng.IntN(16)]
	}
	codec, payload, err := EncodePayload(nil, plain, LevelDefault)
	if err != nil {
		t.Fatal(err)
	}
	if codec != CodecZstd || len(payload) > 1200 {
		t.Errorf("%d bytes of 4 bits each became %d, codec %q", len(plain), len(payload), codec)
	}
}
