package format

import (
	"bytes"
	"fmt"
	"io"
	"testing"
)

// benchEntry has 13 keys and about 250 bytes.
func benchEntry(i int) *Entry {
	return &Entry{
		Path: fmt.Sprintf("home/someone/projects/a-program/internal/package%04d/with-a-longer-name/file-%08d.go", i/100, i),
		Type: TypeFile, Has: HasMode | HasUID | HasGID | HasMtime | HasSize | HasCtime | HasInode | HasLinks,
		Mode: 0o644, UID: 1000, GID: 1000, User: "someone", Group: "someone",
		Mtime: Time{1767225600 + int64(i), 123456789}, Ctime: Time{1767225600 + int64(i), 123456789},
		Size: uint64(i), Inode: 1 << 40, Links: 1, Chunker: "gear:avg=1048576",
	}
}

func BenchmarkEntryDecode(b *testing.B) {
	body := benchEntry(1234567).AppendBody(nil, true)
	b.ReportMetric(float64(len(body)), "bytes/entry")
	b.ReportAllocs()
	var e Entry
	for b.Loop() {
		if _, err := e.ParseBody(body, true); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEntryEncode(b *testing.B) {
	e := benchEntry(1234567)
	buf := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		buf = e.AppendBody(buf[:0], true)
	}
}

// BenchmarkReaderToWriterPayloads moves data records with 1 MiB payloads.
func BenchmarkReaderToWriterPayloads(b *testing.B) {
	const n = 64
	recs := []Record{&Header{Version: 1}, &Snapshot{ID: ID{1}}, &Entry{Path: "f", Type: TypeFile}}
	chunk := noise(1<<20, 1)
	for range n {
		recs = append(recs, plainData(chunk))
	}
	recs = append(recs, &EOF{Size: n << 20}, &Commit{}, &End{})
	benchCopy(b, encodeStream(b, recs))
	b.SetBytes(n << 20)
}

// BenchmarkReaderToWriterEntries decodes and encodes entries, with the digests
// of both sides.
func BenchmarkReaderToWriterEntries(b *testing.B) {
	const n = 20_000
	recs := []Record{&Header{Version: 1}, &Snapshot{ID: ID{1}}}
	for i := range n {
		e := benchEntry(i)
		e.Type, e.Has, e.Chunker = TypeFifo, e.Has&^HasSize, ""
		e.Hardlink = "0123456789abcdef"
		recs = append(recs, e)
	}
	recs = append(recs, &Commit{}, &End{})
	stream := encodeStream(b, recs)
	benchCopy(b, stream)
	b.SetBytes(int64(len(stream)))
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}

func benchCopy(b *testing.B, stream []byte) {
	for b.Loop() {
		r := NewReader(bytes.NewReader(stream), ReaderOptions{})
		if err := Copy(b.Context(), NewWriter(io.Discard, WriterOptions{}), r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodePayload(b *testing.B) {
	plain := bytes.Repeat(noise(4096, 3), 256)
	codec, payload, err := EncodePayload(nil, plain, LevelDefault)
	if err != nil {
		b.Fatal(err)
	}
	d := &Data{ID: SumID(plain), Size: uint32(len(plain)), Codec: codec, Payload: payload}
	var buf []byte
	b.SetBytes(int64(len(plain)))
	for b.Loop() {
		if buf, err = DecodePayload(buf, d); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodePayloadNoise(b *testing.B) {
	plain := noise(1<<20, 5)
	b.SetBytes(int64(len(plain)))
	for b.Loop() {
		if codec, _, err := EncodePayload(nil, plain, LevelDefault); err != nil || codec != CodecNone {
			b.Fatal(codec, err)
		}
	}
}
