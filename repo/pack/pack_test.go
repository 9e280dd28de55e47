package pack

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store/mem"
)

var (
	testKey        = seal.Key{1, 2, 3}
	testRepository = seal.RepositoryID{4, 5, 6}
	testGroup      = seal.GroupID{7, 8, 9}
	testClient     = seal.ClientID{10, 11, 12}
)

func testHeader(suite seal.Suite) seal.Header {
	return seal.Header{Kind: seal.KindDataPack, Suite: suite, Epoch: 3, Repository: testRepository, Owner: testGroup}
}

func testSecrets(group seal.GroupID, epoch uint32) (*seal.Key, error) {
	if group != testGroup || epoch != 3 {
		return nil, fmt.Errorf("no key of epoch %d of group %s", epoch, group)
	}
	return &testKey, nil
}

// chunk is what a test puts into a pack.
type chunk struct {
	label   seal.Label
	codec   Codec
	rawSize uint32
	payload []byte
}

func someChunks(sizes ...int) []chunk {
	var chunks []chunk
	for i, n := range sizes {
		c := chunk{label: seal.Label{byte(i), 0xff}, rawSize: uint32(n), payload: bytes.Repeat([]byte{byte(i + 1)}, n)}
		if i%2 == 1 {
			c.codec, c.rawSize = CodecZstd, uint32(3*n)
		}
		chunks = append(chunks, c)
	}
	return chunks
}

// fill makes a pack; its object is a copy that the test may keep.
func fill(t testing.TB, suite seal.Suite, chunks []chunk) ([]byte, Listed) {
	t.Helper()
	w, err := NewWriter(&testKey, testHeader(suite), testClient, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Release()
	for _, c := range chunks {
		if err := w.Add(c.label, c.codec, c.rawSize, c.payload); err != nil {
			t.Fatal(err)
		}
	}
	length, count := w.Len(), w.Count()
	object, info, entries, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	whole := bytes.Join(object, nil)
	if int64(len(whole)) != seal.PaddedSize(int64(length)) || info.Size != int64(len(whole)) || int(info.Count) != count {
		t.Fatalf("a pack of %d bytes and %d chunks became an object of %d: %+v", length, count, len(whole), info)
	}
	return whole, Listed{info, entries}
}

func stored(t testing.TB, name string, object []byte) *mem.Store {
	t.Helper()
	st := mem.New()
	if err := st.Create(context.Background(), name, object); err != nil {
		t.Fatal(err)
	}
	return st
}

func TestRoundTrip(t *testing.T) {
	for _, suite := range seal.Suites() {
		for _, sizes := range [][]int{{1}, {100, 2000, 30}, make([]int, 3000), {5 << 20, 1, 20 << 20}} {
			for i := range sizes {
				sizes[i] = max(sizes[i], 1)
			}
			chunks := someChunks(sizes...)
			object, listed := fill(t, suite, chunks)
			name := listed.Info.ObjectName()
			if err := seal.Scrub(name, object); err != nil {
				t.Fatal(err)
			}
			st := stored(t, name, object)
			got, group, err := ReadDirectory(t.Context(), st, name, int64(len(object)), testRepository, testSecrets)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(listed, got); diff != "" || group != testGroup {
				t.Fatalf("group %s, directory differs: %s", group, diff)
			}
			o, err := NewOpener(&testKey, seal.Header{Repository: testRepository, Owner: testGroup}, &got.Info)
			if err != nil {
				t.Fatal(err)
			}
			for i, e := range got.Entries {
				sealed := object[e.Offset:][:e.StoredSize]
				payload, err := o.OpenChunk(nil, uint32(i), &e, sealed)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(payload, chunks[i].payload) {
					t.Fatalf("chunk %d came back as something else", i)
				}
			}
		}
	}
}

// TestFlips turns bits all over a pack and reads all of it again.
func TestFlips(t *testing.T) {
	for _, suite := range seal.Suites() {
		object, listed := fill(t, suite, someChunks(100, 2000))
		name := listed.Info.ObjectName()
		o, err := NewOpener(&testKey, testHeader(suite), &listed.Info)
		if err != nil {
			t.Fatal(err)
		}
		chunksEnd := int(listed.Entries[1].Offset + listed.Entries[1].StoredSize)
		for i := 0; i < len(object); i++ {
			if i > 3000 && i < len(object)-100 && i%397 != 0 {
				continue
			}
			bad := bytes.Clone(object)
			bad[i] ^= 1 << (i % 8)
			_, _, err := ReadDirectory(t.Context(), stored(t, name, bad), name, int64(len(bad)), testRepository, testSecrets)
			inChunks := i >= seal.HeaderSize && i < chunksEnd
			switch {
			case inChunks && err != nil:
				t.Fatalf("byte %d of the chunks kept the directory from being read: %v", i, err)
			case !inChunks && !errors.Is(err, seal.ErrDamaged) && !(i >= 48 && i < 64 || i >= 12 && i < 16):
				t.Fatalf("byte %d: %v", i, err)
			case !inChunks && err == nil: // group and epoch are what secrets was asked for
				t.Fatalf("byte %d was not missed", i)
			}
			for n, e := range listed.Entries {
				_, err := o.OpenChunk(nil, uint32(n), &e, bad[e.Offset:][:e.StoredSize])
				if hit := i >= int(e.Offset) && i < int(e.Offset+e.StoredSize); hit != errors.Is(err, seal.ErrDamaged) || !hit && err != nil {
					t.Fatalf("byte %d, chunk %d: %v", i, n, err)
				}
			}
		}
		for _, size := range []int{0, 1, 127, 128, 228, 1000, 65535, 65536 - 32} {
			_, _, err := ReadDirectory(t.Context(), stored(t, name, object[:size]), name, int64(size), testRepository, testSecrets)
			if !errors.Is(err, seal.ErrDamaged) {
				t.Fatalf("cut to %d: %v", size, err)
			}
		}
	}
}

// TestChunkConfusion passes one chunk for another, or for another kind of itself.
func TestChunkConfusion(t *testing.T) {
	object, listed := fill(t, seal.SuiteAES256GCM, someChunks(100, 100, 100))
	e := listed.Entries[0]
	sealed := object[e.Offset:][:e.StoredSize]
	for name, open := range map[string]func() (*Opener, uint32, Entry){
		"as it is": func() (*Opener, uint32, Entry) { return opener(t, listed.Info, testKey), 0, e },
		"another number": func() (*Opener, uint32, Entry) {
			return opener(t, listed.Info, testKey), 2, e
		},
		"another label": func() (*Opener, uint32, Entry) {
			e := e
			e.Label[19]++
			return opener(t, listed.Info, testKey), 0, e
		},
		"another codec": func() (*Opener, uint32, Entry) {
			e := e
			e.Codec = CodecZstd
			return opener(t, listed.Info, testKey), 0, e
		},
		"another size": func() (*Opener, uint32, Entry) {
			e := e
			e.RawSize++
			return opener(t, listed.Info, testKey), 0, e
		},
		"another kind": func() (*Opener, uint32, Entry) {
			info := listed.Info
			info.Kind = seal.KindMetaPack
			return opener(t, info, testKey), 0, e
		},
		"another epoch": func() (*Opener, uint32, Entry) {
			info := listed.Info
			info.Epoch++
			return opener(t, info, testKey), 0, e
		},
		"another salt": func() (*Opener, uint32, Entry) {
			info := listed.Info
			info.Salt[0]++
			return opener(t, info, testKey), 0, e
		},
		"another key": func() (*Opener, uint32, Entry) {
			return opener(t, listed.Info, seal.Key{9}), 0, e
		},
	} {
		o, i, e := open()
		_, err := o.OpenChunk(nil, i, &e, sealed)
		if name == "as it is" {
			if err != nil {
				t.Error(err)
			}
		} else if !errors.Is(err, seal.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := opener(t, listed.Info, testKey).OpenChunk(nil, 0, &e, sealed[1:]); !errors.Is(err, seal.ErrDamaged) {
		t.Errorf("cut: %v", err)
	}
}

func opener(t testing.TB, info Info, key seal.Key) *Opener {
	t.Helper()
	o, err := NewOpener(&key, testHeader(info.Suite), &info)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestReadDirectoryErrors(t *testing.T) {
	object, listed := fill(t, seal.SuiteAES256GCM, someChunks(100))
	name, size := listed.Info.ObjectName(), int64(len(object))
	noKey := errors.New("no such key")
	rename := func(b []byte) (string, []byte) {
		return seal.Name{Kind: seal.KindDataPack, Sum: sha256.Sum256(b)}.String(), b
	}
	newer := bytes.Clone(object)
	newer[8] = 2
	newerName, newer := rename(newer)
	for _, c := range []struct {
		what       string
		name       string
		object     []byte
		repository seal.RepositoryID
		secrets    Secrets
		want       error
	}{
		{"wrong key", name, object, testRepository, func(seal.GroupID, uint32) (*seal.Key, error) { return &seal.Key{9}, nil }, seal.ErrWrongKey},
		{"no key", name, object, testRepository, func(seal.GroupID, uint32) (*seal.Key, error) { return nil, noKey }, noKey},
		{"other repository", name, object, seal.RepositoryID{1}, testSecrets, seal.ErrDamaged},
		{"newer version", newerName, newer, testRepository, testSecrets, seal.ErrVersion},
		{"other name", seal.Name{Kind: seal.KindDataPack}.String(), newer, testRepository, testSecrets, seal.ErrDamaged},
		{"name of an index", "index/" + fmt.Sprintf("%x", listed.Info.Name), object, testRepository, testSecrets, nil},
	} {
		_, _, err := ReadDirectory(t.Context(), stored(t, c.name, c.object), c.name, size, c.repository, c.secrets)
		if err == nil || c.want != nil && !errors.Is(err, c.want) || !bytes.Contains([]byte(err.Error()), []byte(c.name)) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

func TestWriterRefuses(t *testing.T) {
	h := testHeader(seal.SuiteAES256GCM)
	for _, bad := range []func(h *seal.Header){
		func(h *seal.Header) { h.Kind = seal.KindIndex },
		func(h *seal.Header) { h.Epoch = 0 },
		func(h *seal.Header) { h.Suite = 9 },
	} {
		h := h
		bad(&h)
		if _, err := NewWriter(&testKey, h, testClient, rand.Reader); err == nil {
			t.Errorf("a pack was begun with %+v", h)
		}
	}
	if _, err := NewWriter(&testKey, h, testClient, bytes.NewReader(nil)); err == nil {
		t.Error("a pack was begun without randomness")
	}
	w, err := NewWriter(&testKey, h, testClient, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := w.Finish(); err == nil {
		t.Error("an empty pack was finished")
	}
	for _, c := range []chunk{
		{rawSize: 0, payload: nil},
		{rawSize: 2, payload: []byte{1}},
		{codec: CodecZstd, rawSize: 2, payload: nil},
		{codec: 2, rawSize: 1, payload: []byte{1}},
		{codec: CodecZstd, rawSize: 1, payload: make([]byte, format.PayloadSizeMax(1)+1)},
		{rawSize: format.ChunkSizeMax + 1, payload: make([]byte, format.ChunkSizeMax+1)},
	} {
		if err := w.Add(c.label, c.codec, c.rawSize, c.payload); err == nil {
			t.Errorf("a chunk of %d bytes with a payload of %d was taken", c.rawSize, len(c.payload))
		}
	}
	if w.Count() != 0 {
		t.Errorf("%d refused chunks stand in the pack", w.Count())
	}
	if err := w.Add(seal.Label{}, CodecNone, 1, []byte{1}); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	if err := w.Add(seal.Label{}, CodecNone, 1, []byte{1}); err == nil {
		t.Error("a chunk was added to a finished pack")
	}
	if _, _, _, err := w.Finish(); err == nil {
		t.Error("a pack was finished twice")
	}
	w.Release()
	w.Release()
}

// TestReuse fills packs with the memory of others, which must leave no trace.
func TestReuse(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		sizes := rapid.SliceOfN(rapid.IntRange(1, 40_000), 1, 20).Draw(r, "sizes")
		object, listed := fill(t, seal.SuiteXChaCha20Poly1305, someChunks(sizes...))
		name := listed.Info.ObjectName()
		got, _, err := ReadDirectory(t.Context(), stored(t, name, object), name, int64(len(object)), testRepository, testSecrets)
		if err != nil {
			r.Fatal(err)
		}
		if diff := cmp.Diff(listed, got); diff != "" {
			r.Fatal(diff)
		}
	})
}

// TestDirectoryPlaintext breaks the rules for a directory with the key in hand.
func TestDirectoryPlaintext(t *testing.T) {
	entry := func(e Entry) []byte { return e.append(nil) }
	good := entry(Entry{RawSize: 10, StoredSize: 26})
	dir := func(count uint32, parts ...[]byte) []byte {
		b := binary.BigEndian.AppendUint32(make([]byte, writerSize), count)
		return append(b, bytes.Join(parts, nil)...)
	}
	for name, c := range map[string]struct {
		plain []byte
		want  error
	}{
		"good":            {dir(1, good, make([]byte, 100)), nil},
		"short":           {make([]byte, 19), seal.ErrDamaged},
		"too many":        {dir(2, good), seal.ErrDamaged},
		"far too many":    {dir(1<<32-1, good), seal.ErrDamaged},
		"padding":         {dir(1, good, []byte{0, 1}), seal.ErrDamaged},
		"empty chunk":     {dir(1, entry(Entry{RawSize: 0, StoredSize: 16})), seal.ErrDamaged},
		"large chunk":     {dir(1, entry(Entry{RawSize: format.ChunkSizeMax + 1, StoredSize: format.ChunkSizeMax + 17})), seal.ErrDamaged},
		"stored too much": {dir(1, entry(Entry{Codec: CodecZstd, RawSize: 1, StoredSize: 64<<10 + 18})), seal.ErrDamaged},
		"no tag":          {dir(1, entry(Entry{Codec: CodecZstd, RawSize: 1, StoredSize: 15})), seal.ErrDamaged},
		"codec":           {dir(1, entry(Entry{Codec: 7, RawSize: 1, StoredSize: 17})), seal.ErrVersion},
		"over 4 GiB":      {dir(200, bytes.Repeat(entry(Entry{RawSize: format.ChunkSizeMax, StoredSize: format.ChunkSizeMax + 16}), 200)), seal.ErrDamaged},
	} {
		var l Listed
		_, err := parseDirectory(c.plain, &l)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func BenchmarkAdd(b *testing.B) {
	for _, suite := range seal.Suites() {
		b.Run(suite.String(), func(b *testing.B) {
			payload := make([]byte, 64<<10)
			b.SetBytes(int64(len(payload)))
			b.ReportAllocs()
			var w *Writer
			var err error
			for b.Loop() {
				if w == nil {
					if w, err = NewWriter(&testKey, testHeader(suite), testClient, rand.Reader); err != nil {
						b.Fatal(err)
					}
				}
				if err := w.Add(seal.Label{1}, CodecNone, uint32(len(payload)), payload); err != nil {
					b.Fatal(err)
				}
				if w.Len() >= 16<<20 {
					if _, _, _, err := w.Finish(); err != nil {
						b.Fatal(err)
					}
					w.Release()
					w = nil
				}
			}
		})
	}
}

func BenchmarkOpenChunk(b *testing.B) {
	object, listed := fill(b, seal.SuiteAES256GCM, someChunks(64<<10))
	o := opener(b, listed.Info, testKey)
	e := listed.Entries[0]
	dst := make([]byte, 0, e.StoredSize)
	b.SetBytes(int64(e.RawSize))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := o.OpenChunk(dst, 0, &e, object[e.Offset:][:e.StoredSize]); err != nil {
			b.Fatal(err)
		}
	}
}
