package tar

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/bk-backup/bk/format"
)

// nothing takes records and does nothing.
type nothing struct{}

func (nothing) Write(format.Record) error { return nil }

// benchArchive makes an archive of files of one size.
func benchArchive(b *testing.B, files, size int) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), "a.tar")
	out, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	data := make([]byte, size)
	state := uint64(1)
	for i := range files {
		for j := 0; j+8 <= size; j += 8 {
			state = state*6364136223846793005 + 1442695040888963407
			copy(data[j:], fmt.Sprintf("%08x", uint32(state>>33)))
		}
		one := new(builder).pax(typePax, keyMtime, "1700000000.123456789", keyXattrPrefix+"user.a", "b").file(fmt.Sprintf("dir%d/file%d", i/100, i), string(data))
		if _, err := io.Copy(out, &one.Buffer); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := out.Write(make([]byte, 2*blockSize)); err != nil {
		b.Fatal(err)
	}
	if err := out.Close(); err != nil {
		b.Fatal(err)
	}
	return path
}

func BenchmarkRead(b *testing.B) {
	for _, shape := range []struct{ files, size int }{{20_000, 1000}, {4, 32 << 20}} {
		for _, export := range []struct {
			name string
			opts format.ExportOptions
		}{{"content", format.ExportOptions{}}, {"listing", format.ExportOptions{ListingOnly: true}}} {
			b.Run(fmt.Sprintf("%dx%d/%s", shape.files, shape.size, export.name), func(b *testing.B) {
				path := benchArchive(b, shape.files, shape.size)
				b.SetBytes(int64(shape.files) * int64(shape.size))
				for b.Loop() {
					system, err := Open(context.Background(), path, Options{})
					if err != nil {
						b.Fatal(err)
					}
					system.archives[0].snapshot = &format.Snapshot{ID: format.ID{1}, Unsorted: true}
					system.listed = true // hashing the archive is measured by sha256sum
					src, err := system.Export(context.Background(), export.opts)
					if err != nil {
						b.Fatal(err)
					}
					if err := format.Copy(context.Background(), nothing{}, src); err != nil {
						b.Fatal(err)
					}
					if err := src.Close(); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(shape.files)*float64(b.N)/b.Elapsed().Seconds(), "files/s")
			})
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, shape := range []struct{ files, size int }{{20_000, 1000}, {4, 32 << 20}} {
		b.Run(fmt.Sprintf("%dx%d", shape.files, shape.size), func(b *testing.B) {
			plain := bytes.Repeat([]byte("content "), min(shape.size, 1<<20)/8)
			chunk := format.Data{ID: format.SumID(plain), Size: uint32(len(plain)), Payload: plain}
			e := format.Entry{Type: format.TypeFile, Has: allHas | format.HasSize, Size: uint64(shape.size) / 8 * 8, Mtime: format.Time{Sec: 1, Nsec: 5}}
			b.SetBytes(int64(shape.files) * int64(shape.size))
			for b.Loop() {
				sink, err := Create(context.Background(), "-", SinkOptions{Stdout: io.Discard})
				if err != nil {
					b.Fatal(err)
				}
				put := func(rec format.Record) {
					if err := sink.Write(rec); err != nil {
						b.Fatal(err)
					}
				}
				put(&format.Header{Version: 1})
				put(&format.Snapshot{ID: format.ID{1}})
				for i := range shape.files {
					e.Path = fmt.Sprintf("d/%08d", i)
					put(&e)
					n := 0
					for ; n < shape.size/8*8; n += len(plain) {
						put(&chunk)
					}
					put(&format.EOF{Size: uint64(n)})
				}
				put(&format.Commit{})
				put(&format.End{Snapshots: 1})
				if err := sink.Close(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(shape.files)*float64(b.N)/b.Elapsed().Seconds(), "files/s")
		})
	}
}
