package format

import (
	"fmt"
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
