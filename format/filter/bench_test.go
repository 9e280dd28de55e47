package filter

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/bk-backup/bk/format"
)

// BenchmarkEntries filters entries without content, through Reader and Writer.
func BenchmarkEntries(b *testing.B) {
	const n = 50_000
	recs := []format.Record{&format.Header{Version: format.Version}, &format.Snapshot{ID: numberedID(1)}}
	for i := range n {
		recs = append(recs, &format.Entry{Path: fmt.Sprintf("home/jo/projects/d%04d/file%03d.%s", i/100, i%100, []string{"go", "jpg"}[i%2]), Type: format.TypeFifo,
			Has: format.HasMode | format.HasUID | format.HasGID | format.HasMtime | format.HasInode | format.HasCtime, Mode: 0o644, UID: 1000, GID: 1000,
			User: "jo", Group: "users", Mtime: format.Time{Sec: int64(i), Nsec: 5}, Ctime: format.Time{Sec: int64(i), Nsec: 7}, Inode: uint64(i)})
	}
	stream, err := encode(append(recs, &format.Commit{}, &format.End{}))
	if err != nil {
		b.Fatal(err)
	}
	mk := func(rules ...string) Options {
		p, err := NewPatterns(rulesOf(rules...), false)
		if err != nil {
			b.Fatal(err)
		}
		return Options{Paths: p}
	}
	for _, bc := range []struct {
		name string
		opts Options
	}{
		{"identity", Options{}},
		{"drop-none", mk("-*.dog")},
		{"drop-half", mk("-*.jpg")},
		{"keep-half", mk("+*.jpg")},
		{"older-than", Options{Attributes: Attributes{OlderThan: &format.Time{Sec: 5}}}},
		{"chown-rename", Options{Changes: Changes{Owner: &Owner{SetUser: true, User: "al"}, Renames: []Rename{{"home/jo", "home/al"}}}}},
	} {
		b.Run(bc.name, func(b *testing.B) {
			for range b.N {
				f, err := New(bc.opts)
				if err != nil {
					b.Fatal(err)
				}
				w := format.NewWriter(io.Discard, format.WriterOptions{})
				if err := format.Copy(context.Background(), w, format.NewReader(bytes.NewReader(stream), format.ReaderOptions{}), f); err != nil {
					b.Fatal(err)
				}
				if err := f.Close(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)*n/b.Elapsed().Seconds(), "entries/s")
		})
	}
}
