package pack

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/seal"
)

// drawListed makes a pack as an index can list it.
func drawListed(t *rapid.T) Listed {
	var l Listed
	copy(l.Info.Name[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "name"))
	copy(l.Info.Salt[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "salt"))
	copy(l.Info.Writer[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "writer"))
	l.Info.Kind = rapid.SampledFrom([]seal.Kind{seal.KindDataPack, seal.KindMetaPack}).Draw(t, "kind")
	l.Info.Suite = rapid.SampledFrom(seal.Suites()).Draw(t, "suite")
	l.Info.Epoch = rapid.Uint32Min(1).Draw(t, "epoch")
	offset := uint32(seal.HeaderSize)
	for range rapid.IntRange(0, 20).Draw(t, "count") {
		e := Entry{Codec: rapid.SampledFrom([]Codec{CodecNone, CodecZstd}).Draw(t, "codec"), Offset: offset}
		e.RawSize = rapid.Uint32Range(1, format.ChunkSizeMax).Draw(t, "raw")
		e.StoredSize = e.RawSize + seal.Overhead
		if e.Codec == CodecZstd {
			e.StoredSize = uint32(rapid.IntRange(1, format.PayloadSizeMax(int(e.RawSize))).Draw(t, "stored")) + seal.Overhead
		}
		e.Label[3] = rapid.Byte().Draw(t, "label")
		offset += e.StoredSize
		l.Entries = append(l.Entries, e)
	}
	l.Info.Count = uint32(len(l.Entries))
	l.Info.Size = seal.PaddedSize(int64(offset) + directorySizeMin + int64(len(l.Entries))*entrySize + seal.Overhead + trailerSize)
	return l
}

func collect(body []byte) ([]Listed, error) {
	var packs []Listed
	err := ParseIndex(body, func(info Info, entries []Entry) error {
		packs = append(packs, Listed{info, slices.Clone(entries)})
		return nil
	})
	return packs, err
}

func TestIndexRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		superseded := make([][32]byte, rapid.IntRange(0, 5).Draw(t, "superseded"))
		for i := range superseded {
			superseded[i][0] = byte(i)
		}
		packs := rapid.SliceOfN(rapid.Custom(drawListed), 0, 5).Draw(t, "packs")
		body := AppendIndex(nil, superseded, packs)
		if int64(len(body)) != IndexSize(superseded, packs) {
			t.Fatalf("%d bytes, IndexSize says %d", len(body), IndexSize(superseded, packs))
		}
		got, err := collect(body)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(packs, got, cmp.Transformer("nil", func(e []Entry) []Entry { return append([]Entry{}, e...) })); diff != "" && len(packs)+len(got) > 0 {
			t.Fatal(diff)
		}
		if names, err := Superseded(body); err != nil || !slices.Equal(names, superseded) {
			t.Fatalf("superseded: %v, %v", names, err)
		}
		for cut := range body {
			if _, err := collect(body[:cut]); !errors.Is(err, seal.ErrDamaged) {
				t.Fatalf("cut to %d of %d: %v", cut, len(body), err)
			}
		}
		if _, err := collect(append(slices.Clone(body), 0)); !errors.Is(err, seal.ErrDamaged) {
			t.Fatalf("longer: %v", err)
		}
	})
}

func TestIndexRefuses(t *testing.T) {
	good := Listed{
		Info:    Info{Kind: seal.KindDataPack, Suite: seal.SuiteAES256GCM, Epoch: 1, Size: 64 << 10},
		Entries: []Entry{{RawSize: 10, StoredSize: 26}},
	}
	for name, c := range map[string]struct {
		change func(l *Listed)
		want   error
	}{
		"nothing":            {func(*Listed) {}, nil},
		"a suite to come":    {func(l *Listed) { l.Info.Suite = 9 }, nil}, // other packs of the index can be read
		"an index":           {func(l *Listed) { l.Info.Kind = seal.KindIndex }, seal.ErrDamaged},
		"epoch 0":            {func(l *Listed) { l.Info.Epoch = 0 }, seal.ErrDamaged},
		"size over 4 GiB":    {func(l *Listed) { l.Info.Size = SizeMax + 1 }, seal.ErrDamaged},
		"negative size":      {func(l *Listed) { l.Info.Size = -1 }, seal.ErrDamaged},
		"smaller than chunk": {func(l *Listed) { l.Info.Size = 150 }, seal.ErrDamaged},
		"a chunk of nothing": {func(l *Listed) { l.Entries[0].RawSize = 0 }, seal.ErrDamaged},
		"a codec to come":    {func(l *Listed) { l.Entries[0].Codec = 2 }, seal.ErrVersion},
	} {
		l := Listed{good.Info, slices.Clone(good.Entries)}
		c.change(&l)
		if _, err := collect(AppendIndex(nil, nil, []Listed{l})); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	stop := errors.New("stop")
	err := ParseIndex(AppendIndex(nil, nil, []Listed{good, good}), func(Info, []Entry) error { return stop })
	if err != stop {
		t.Errorf("an error of fn became %v", err)
	}
}

func FuzzParseIndex(f *testing.F) {
	f.Add(AppendIndex(nil, nil, nil))
	f.Add(AppendIndex(nil, make([][32]byte, 2), []Listed{{Info{Kind: seal.KindMetaPack, Suite: 1, Epoch: 1, Size: 64 << 10}, []Entry{{RawSize: 1, StoredSize: 17}}}}))
	f.Fuzz(func(t *testing.T, body []byte) {
		packs, err := collect(body)
		if err != nil {
			if !errors.Is(err, seal.ErrDamaged) && !errors.Is(err, seal.ErrVersion) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		superseded, err := Superseded(body)
		if err != nil {
			t.Fatal(err)
		}
		if again := AppendIndex(nil, superseded, packs); !slices.Equal(again, body) {
			t.Fatalf("%x came back as %x", body, again)
		}
	})
}

func FuzzParseDirectory(f *testing.F) {
	_, listed := fill(f, seal.SuiteAES256GCM, someChunks(10, 20))
	plain := append(testClient[:], 0, 0, 0, 2)
	for i := range listed.Entries {
		plain = listed.Entries[i].append(plain)
	}
	f.Add(append(plain, make([]byte, 40)...))
	f.Fuzz(func(t *testing.T, plain []byte) {
		var l Listed
		end, err := parseDirectory(plain, &l)
		if err != nil {
			if !errors.Is(err, seal.ErrDamaged) && !errors.Is(err, seal.ErrVersion) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		if end > SizeMax || int(l.Info.Count) != len(l.Entries) {
			t.Fatalf("chunks end at %d, %d entries of %d", end, len(l.Entries), l.Info.Count)
		}
	})
}

func BenchmarkParseIndex(b *testing.B) {
	_, listed := fill(b, seal.SuiteAES256GCM, someChunks(slices.Repeat([]int{10}, 1000)...))
	body := AppendIndex(nil, nil, slices.Repeat([]Listed{listed}, 100))
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		chunks := 0
		err := ParseIndex(body, func(_ Info, entries []Entry) error { chunks += len(entries); return nil })
		if err != nil || chunks != 100_000 {
			b.Fatal(chunks, err)
		}
	}
}
