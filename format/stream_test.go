package format

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// noise returns n bytes that do not compress, the same for the same seed.
func noise(n int, seed uint64) []byte {
	b := make([]byte, n)
	x := seed*2654435761 + 88172645463325252
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x >> 32)
	}
	return b
}

func plainData(b []byte) *Data {
	return &Data{ID: SumID(b), Size: uint32(len(b)), Codec: CodecNone, Payload: b}
}

// sampleRecords is a stream that has every kind of record in it.
func sampleRecords() []Record {
	small, big := []byte("hello, world\n"), noise(70_000, 1)
	text := bytes.Repeat([]byte("all work and no play "), 1000)
	codec, packed, err := EncodePayload(nil, text, LevelDefault)
	if err != nil || codec != CodecZstd {
		panic("the text does not compress")
	}
	extra := []Field{{"zz", []byte{0x93, 1, 2, 3}}}
	file := func(path string) *Entry { return &Entry{Path: path, Type: TypeFile, Has: HasMode, Mode: 0o644} }
	return []Record{
		&Header{Version: 1, Producer: "test", Features: []Feature{FeatureCopy, FeatureZstd}, Extra: extra},
		&Extension{Name: "x-head", Body: extra},
		&Snapshot{ID: ID{1}, Host: "h", Extra: extra},
		&Extension{Name: "x-snap"},
		&Entry{Path: "", Type: TypeDir},
		file("a"), plainData(small), plainData(big), &Hole{Size: 5}, &EOF{Size: uint64(len(small) + len(big) + 5)},
		&Entry{Path: "d", Type: TypeDir, Extra: extra},
		file("d/b"), &Data{ID: SumID(text), Size: uint32(len(text)), Codec: CodecZstd, Payload: packed, Extra: extra},
		&Extension{Name: "x-data", Body: extra},
		&Refs{Chunks: []ChunkRef{{SumID(small), uint32(len(small))}}}, &EOF{Size: uint64(len(text) + len(small))},
		&Entry{Path: "d/c", Type: TypeSymlink, Target: "../a"},
		&Commit{Losses: []Loss{{Kind: "unreadable", Count: 3, Paths: []string{"x"}}}},
		&Extension{Name: "x-commit"},
		&Snapshot{ID: ID{2}, Parent: ID{1}},
		file("a"), &CopyRange{Offset: 3, Size: 10}, &EOF{Size: 10},
		&Remove{Path: "d"},
		&Commit{},
		&End{},
	}
}

func encodeStream(t testing.TB, recs []Record) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := NewWriter(&buf, WriterOptions{})
	for i, rec := range recs {
		if err := w.Write(rec); err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
	}
	return buf.Bytes()
}

// readAll reads to the end. Its records are copies.
func readAll(r *Reader) (recs []Record, err error) {
	for {
		rec, err := r.Next()
		if err == io.EOF {
			return recs, nil
		}
		if err != nil {
			return recs, err
		}
		recs = append(recs, Clone(rec))
	}
}

func readBytes(b []byte) ([]Record, error) {
	return readAll(NewReader(bytes.NewReader(b), ReaderOptions{}))
}

func TestStreamRoundTrip(t *testing.T) {
	want := sampleRecords()
	stream := encodeStream(t, want)
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"whole": func(r io.Reader) io.Reader { return r },
		"bytes": iotest.OneByteReader, "halves": iotest.HalfReader, "data with error": iotest.DataErrReader,
	} {
		r := NewReader(wrap(bytes.NewReader(stream)), ReaderOptions{BufferSize: 1})
		got, err := readAll(r)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		ignoreFilled := cmp.FilterPath(func(p cmp.Path) bool {
			s := p.Last().String()
			return s == ".Digest" || s == ".Entries" || s == ".Data" || s == ".Bytes" || s == ".Removes" || s == ".Snapshots"
		}, cmp.Ignore())
		if diff := cmp.Diff(want, got, sameRecord, ignoreFilled); diff != "" {
			t.Fatalf("%s: %s", name, diff)
		}
		if again := encodeStream(t, got); !bytes.Equal(again, stream) {
			t.Fatalf("%s: written again, the stream differs", name)
		}
		if _, err := r.Next(); err != io.EOF {
			t.Fatalf("%s: after the end: %v", name, err)
		}
	}
}

// TestCopyIsIdentity also has a stage in the middle and a pipe below.
func TestCopyIsIdentity(t *testing.T) {
	stream := encodeStream(t, sampleRecords())
	pr, pw := io.Pipe()
	go func() {
		_, err := pw.Write(stream)
		pw.CloseWithError(err)
	}()
	var out bytes.Buffer
	err := Copy(t.Context(), NewWriter(&out, WriterOptions{BufferSize: 1}), NewReader(pr, ReaderOptions{}), passStage{})
	if err != nil || !bytes.Equal(out.Bytes(), stream) {
		t.Fatal(err, out.Len(), len(stream))
	}
}

type passStage struct{}

func (passStage) Process(rec Record, emit func(Record) error) error { return emit(rec) }

func TestEveryTruncation(t *testing.T) {
	stream := encodeStream(t, sampleRecords())
	for n := range stream {
		if n > 3000 && n < len(stream)-3000 && n%997 != 0 {
			continue // inside the large payload
		}
		_, err := readBytes(stream[:n])
		if ClassOf(err) != ClassCut {
			t.Fatalf("%d bytes of %d: %v", n, len(stream), err)
		}
		if n > 3000 && n%11 != 0 {
			continue
		}
		_, slow := readAll(NewReader(iotest.OneByteReader(bytes.NewReader(stream[:n])), ReaderOptions{}))
		if slow == nil || slow.Error() != err.Error() {
			t.Fatalf("%d bytes: %v, but byte by byte: %v", n, err, slow)
		}
	}
}

// TestBitFlips flips bits: the reader must never accept other records, though a
// payload may differ, which its id covers. The class may not depend on how the
// bytes arrive.
func TestBitFlips(t *testing.T) {
	recs := sampleRecords()
	for i, rec := range recs {
		if d, ok := rec.(*Data); ok && d.Size > 50_000 {
			recs = append(recs[:i], recs[i+1:]...)
			recs[i+1].(*EOF).Size -= uint64(d.Size)
			break
		}
	}
	stream := encodeStream(t, recs)
	want, err := readBytes(stream)
	if err != nil {
		t.Fatal(err)
	}
	ignorePayload := cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Payload" }, cmp.Ignore())
	b := make([]byte, len(stream))
	for i := range 8 * len(stream) {
		copy(b, stream)
		b[i/8] ^= 1 << (i % 8)
		got, err := readBytes(b)
		if err == nil {
			if diff := cmp.Diff(want, got, sameRecord, ignorePayload); diff != "" {
				t.Fatalf("bit %d of byte %d was flipped and nobody noticed: %s", i%8, i/8, diff)
			}
			continue
		}
		if i%7 != 0 {
			continue
		}
		_, slow := readAll(NewReader(iotest.OneByteReader(bytes.NewReader(b)), ReaderOptions{}))
		if ClassOf(slow) != ClassOf(err) || ClassOf(err) == "" {
			t.Fatalf("bit %d of byte %d: %v, but byte by byte: %v", i%8, i/8, err, slow)
		}
	}
}

func TestErrorsAreSticky(t *testing.T) {
	stream := encodeStream(t, sampleRecords())
	r := NewReader(bytes.NewReader(stream[:len(stream)-1]), ReaderOptions{})
	_, err := readAll(r)
	_, again := r.Next()
	if err == nil || err != again {
		t.Fatal(err, again)
	}
	w := NewWriter(io.Discard, WriterOptions{})
	err = w.Write(&End{})
	if ClassOf(err) != ClassGrammar || w.Write(&Header{Version: 1}) != err {
		t.Fatal(err)
	}
}

func TestPlaceOfErrors(t *testing.T) {
	recs := sampleRecords()[:7]
	w := new(bytes.Buffer)
	wr := NewWriter(w, WriterOptions{})
	for _, rec := range recs {
		if err := wr.Write(rec); err != nil {
			t.Fatal(err)
		}
	}
	if err := wr.Flush(); err != nil {
		t.Fatal(err)
	}
	stream := w.Bytes()
	bad, err := AppendRecord(bytes.Clone(stream), &EOF{Size: 77})
	if err != nil {
		t.Fatal(err)
	}
	_, err = readBytes(bad)
	var e *Error
	if !errors.As(err, &e) || e.Class != ClassCount || e.Record != 7 || e.Offset != int64(len(stream)) || e.Kind != "eof" || e.Path != "a" {
		t.Fatalf("%+v", e)
	}
	err = wr.Write(&EOF{Size: 77})
	var we *Error
	if !errors.As(err, &we) || we.Class != ClassCount || we.Record != 7 || we.Offset != int64(len(stream)) || we.Path != "a" {
		t.Fatalf("%+v", we)
	}

	// A sink that does not know its place is told.
	sink := sinkFunc(func(rec Record) error {
		if rec.Kind() == KindData {
			return fmt.Errorf("store: %w", Errorf(ClassChunk, "bad"))
		}
		return nil
	})
	r := NewReader(bytes.NewReader(stream), ReaderOptions{})
	err = Copy(context.Background(), sink, r)
	if !errors.As(err, &e) || e.Record != 6 || e.Kind != "data" || e.Offset == 0 {
		t.Fatalf("%+v", err)
	}
}

type sinkFunc func(Record) error

func (f sinkFunc) Write(rec Record) error { return f(rec) }

func TestNotAStream(t *testing.T) {
	for in, want := range map[string]Class{
		"":                              ClassCut,
		"\x92":                          ClassCut,
		"hello\n":                       ClassSyntax,
		"\x1f\x8b\x08\x00":              ClassSyntax,
		"\x28\xb5\x2f\xfd":              ClassSyntax,
		"{\"kind\": \"bk\"}":            ClassSyntax,
		"\x92\xa3end\x80":               ClassField,
		"\x92\xa4hole\x81\xa4size":      ClassCut,
		"\x92\xa2bk\x81\xa7version\x02": ClassVersion,
		"\x92\xa2bk\x82\xa8producer\xc0\xa7version\x02": ClassVersion,
		"\x92\xa2bk\x82\xa8producer\xc0\xa7version\x01": ClassField,
		"\x92\xa2bk\xc0": ClassSyntax,
		"\x92\xa2bx\x80": ClassKind,
	} {
		_, err := readBytes([]byte(in))
		if ClassOf(err) != want {
			t.Errorf("%q: %v, want %s", in, err, want)
		}
		t.Logf("%q: %v", in, err)
	}
	_, err := readAll(NewReader(iotest.ErrReader(io.ErrClosedPipe), ReaderOptions{}))
	if ClassOf(err) != ClassCut || !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
	_, err = readBytes(append(encodeStream(t, sampleRecords()), 0))
	if ClassOf(err) != ClassTrailing {
		t.Error(err)
	}
}

// TestOwnership lets goroutines look at payloads that they took while the reader
// goes on; the race detector watches.
func TestOwnership(t *testing.T) {
	recs := []Record{&Header{Version: 1}, &Snapshot{ID: ID{1}}, &Entry{Path: "f", Type: TypeFile}}
	size := uint64(0)
	for i := range 300 {
		d := plainData(noise(1000+i*500, uint64(i)))
		size += uint64(d.Size)
		recs = append(recs, d)
	}
	recs = append(recs, &EOF{Size: size}, &Commit{}, &End{})
	r := NewReader(bytes.NewReader(encodeStream(t, recs)), ReaderOptions{})
	var wg sync.WaitGroup
	slots := make(chan struct{}, 8)
	for n := 0; ; n++ {
		rec, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		d, ok := rec.(*Data)
		if !ok {
			continue
		}
		if n%3 == 0 {
			if SumID(d.Payload) != d.ID {
				t.Error("a payload that was not taken differs")
			}
			continue
		}
		id, payload := d.ID, d.Take()
		slots <- struct{}{}
		wg.Go(func() {
			runtime.Gosched()
			if SumID(payload) != id {
				t.Error("a payload that was taken changed")
			}
			clear(payload) // it is ours
			FreePayload(payload)
			<-slots
		})
	}
	wg.Wait()
}

func TestPayloadPool(t *testing.T) {
	for _, n := range []int{0, 1, 4096, 4097, 1 << 20, 1<<20 + 1, PayloadSizeMax(ChunkSizeMax), 1<<26 + 1} {
		b := AllocPayload(n)
		if len(b) != n {
			t.Errorf("%d bytes, want %d", len(b), n)
		}
		FreePayload(b)
	}
	FreePayload(nil)
	FreePayload(make([]byte, 100))
	allocs := testing.AllocsPerRun(100, func() { FreePayload(AllocPayload(100_000)) })
	if allocs > 0.5 && !raceEnabled {
		t.Errorf("%v allocations", allocs)
	}
}

// TestWriterPassesErrors has a destination that fails at the n-th write.
func TestWriterPassesErrors(t *testing.T) {
	broken := errors.New("broken pipe")
	recs := sampleRecords()
	for n := 0; ; n++ {
		dst := &failingWriter{after: n, err: broken}
		w := NewWriter(dst, WriterOptions{BufferSize: 1})
		var err error
		for _, rec := range recs {
			if err = w.Write(rec); err != nil {
				break
			}
		}
		if err == nil {
			if n < 3 {
				t.Fatal("no write failed")
			}
			return
		}
		if !errors.Is(err, broken) || w.Write(recs[0]) != err || w.Flush() != err {
			t.Fatal(err)
		}
	}
}

type failingWriter struct {
	after int
	err   error
}

func (w *failingWriter) Write(b []byte) (int, error) {
	if w.after--; w.after < 0 {
		return 0, w.err
	}
	return len(b), nil
}

// TestErrorsAreShort: a path of the greatest length does not fill the screen.
func TestErrorsAreShort(t *testing.T) {
	long := strings.Repeat("d/", 16000) + "end"
	err := Errorf(ClassOrder, "the path comes after %q", long)
	err.Path = long
	if text := err.Error(); len(text) > 1000 || !strings.Contains(text, `d/end"`) {
		t.Errorf("%d bytes: %.300s", len(text), text)
	}
}
