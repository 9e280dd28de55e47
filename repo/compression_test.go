package repo

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/bk-backup/bk/format"
)

// payloadsOf returns the data records of an export by chunk.
func payloadsOf(t *testing.T, r *Repository) map[format.ID]format.Data {
	t.Helper()
	src, err := r.Export(context.Background(), format.ExportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	got := map[format.ID]format.Data{}
	for {
		rec, err := src.Next()
		if err != nil {
			return got
		}
		if d, ok := rec.(*format.Data); ok {
			c := *d
			c.Payload = bytes.Clone(d.Payload)
			got[d.ID] = c
		}
	}
}

func TestCompressionIsKeptOrMadeAnew(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 31))
	text := func() []byte {
		var b []byte
		for len(b) < 60_000 {
			b = fmt.Appendf(b, "line %d of %d\n", rng.IntN(50), rng.IntN(1000))
		}
		return b
	}
	packed, loose := text(), text()
	encode := func(plain []byte, level format.Level) []byte {
		_, payload, err := format.EncodePayload(nil, plain, level)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Clone(payload)
	}
	came := encode(packed, format.LevelBest)
	if bytes.Equal(came, encode(packed, format.LevelFastest)) {
		t.Fatal("the levels give equal payloads, so the test would see nothing")
	}
	for name, test := range map[string]struct {
		opts          ImportOptions
		packed, loose []byte
	}{
		"keep":              {ImportOptions{Compression: format.LevelFastest}, came, encode(loose, format.LevelFastest)},
		"keep, none":        {ImportOptions{Compression: format.LevelNone}, came, loose},
		"none":              {ImportOptions{Compression: format.LevelNone, Recompress: true}, packed, loose},
		"fastest":           {ImportOptions{Compression: format.LevelFastest, Recompress: true}, encode(packed, format.LevelFastest), encode(loose, format.LevelFastest)},
		"fastest, cut anew": {ImportOptions{Compression: format.LevelFastest}, encode(packed, format.LevelFastest), encode(loose, format.LevelFastest)},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRepo(t, 1)
			if strings.HasSuffix(name, "anew") {
				test.opts.ChunkerFor = chunkersOf(t, r, "fixed:1MiB")
			}
			sink, err := r.Import(context.Background(), test.opts)
			if err != nil {
				t.Fatal(err)
			}
			owned := func(b []byte) []byte { return append(format.AllocPayload(len(b))[:0], b...) }
			a, b := modelEntry("a", format.TypeFile), modelEntry("b", format.TypeFile)
			idPacked, idLoose := format.SumID(packed), format.SumID(loose)
			for _, rec := range []format.Record{
				&format.Header{Version: 1, Features: []format.Feature{format.FeatureZstd}}, &format.Snapshot{ID: format.ID{9}},
				&a, &format.Data{ID: idPacked, Size: uint32(len(packed)), Codec: format.CodecZstd, Payload: owned(came)}, &format.EOF{Size: uint64(len(packed))},
				&b, &format.Data{ID: idLoose, Size: uint32(len(loose)), Codec: format.CodecNone, Payload: owned(loose)}, &format.EOF{Size: uint64(len(loose))},
				&format.Commit{}, &format.End{},
			} {
				if err := sink.Write(rec); err != nil {
					t.Fatal(err)
				}
			}
			if err := sink.Close(); err != nil {
				t.Fatal(err)
			}
			got := payloadsOf(t, r)
			for _, want := range []struct {
				name           string
				id             format.ID
				plain, payload []byte
			}{{"packed", idPacked, packed, test.packed}, {"loose", idLoose, loose, test.loose}} {
				d, ok := got[want.id]
				codec := format.CodecZstd
				if bytes.Equal(want.payload, want.plain) {
					codec = format.CodecNone
				}
				if !ok || d.Codec != codec || !bytes.Equal(d.Payload, want.payload) {
					t.Errorf("%s: the payload has %d bytes (%s), not %d (%s)", want.name, len(d.Payload), d.Codec, len(want.payload), codec)
				}
			}
		})
	}
}
