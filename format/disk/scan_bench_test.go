package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/chunker"
)

// benchmarkTree makes files of the given size, 15 to a directory.
func benchmarkTree(b *testing.B, files, size int) string {
	tree := &testTree{b, b.TempDir()}
	content := random(1, size+files)
	for i := range files {
		tree.file(fmt.Sprintf("%02d/%04d/some-file-%d.c", i/1500, i/15, i), content[i:i+size])
	}
	return tree.root
}

var benchmarkFactory = func() *chunker.Factory {
	spec, err := chunker.ParseSpec("gear:64KiB")
	if err != nil {
		panic(err)
	}
	f, err := chunker.New(spec, chunker.Public())
	if err != nil {
		panic(err)
	}
	return f
}()

// listing is a previous listing that costs nothing.
type entries struct {
	all  []*format.Entry
	next int
}

func (l *entries) Next() (*format.Entry, error) {
	if l.next == len(l.all) {
		return nil, io.EOF
	}
	l.next++
	return l.all[l.next-1], nil
}

// drain runs a scan to its end, and keeps the entries if asked to.
func drain(b *testing.B, o ScanOptions, keep *[]*format.Entry) ScanStats {
	o.Snapshot.ID = format.ID{1}
	o.ChunkerFor = func(string, uint64) (func() chunker.Splitter, string) { return benchmarkFactory.Splitter, "gear:64KiB" }
	s, err := Scan(b.Context(), o)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for {
		rec, err := s.Next()
		if errors.Is(err, io.EOF) {
			return s.Stats()
		}
		if err != nil {
			b.Fatal(err)
		}
		if e, ok := rec.(*format.Entry); ok && keep != nil {
			c := *e
			c.Xattrs, c.Flags = slices.Clone(e.Xattrs), slices.Clone(e.Flags)
			*keep = append(*keep, &c)
		}
	}
}

// benchmarkRoot is a generated tree, or a real one for a look beyond.
func benchmarkRoot(b *testing.B, files, size int) string {
	if root := os.Getenv("BK_BENCH_TREE"); root != "" {
		return root
	}
	return benchmarkTree(b, files, size)
}

// reportCPU reports processor seconds, which tell more than the clock on a
// machine that is busy otherwise. The function it returns ends the measurement.
func reportCPU(b *testing.B) func() {
	used := func() int64 {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return u.Utime.Nano() + u.Stime.Nano()
	}
	begin := used()
	return func() { b.ReportMetric(float64(used()-begin)/float64(b.N)/1e6, "cpu-ms/op") }
}

func BenchmarkScanUnchanged(b *testing.B) {
	root := benchmarkRoot(b, 15000, 100)
	var all []*format.Entry
	stats := drain(b, ScanOptions{Roots: []string{root}}, &all)
	cpu := reportCPU(b)
	for b.Loop() {
		o := ScanOptions{Roots: []string{root}, Previous: &entries{all: all}, Snapshot: format.Snapshot{Parent: format.ID{2}}}
		if stats := drain(b, o, nil); stats.Unchanged+5 < stats.Entries {
			b.Fatalf("%+v", stats)
		}
	}
	cpu()
	b.ReportMetric(float64(b.N)*float64(stats.Entries)/b.Elapsed().Seconds(), "entries/s")
}

func BenchmarkScanRead(b *testing.B) {
	for _, c := range []struct {
		name        string
		files, size int
	}{{"small", 6000, 15000}, {"medium", 400, 300_000}, {"large", 2, 100 << 20}} {
		b.Run(c.name, func(b *testing.B) {
			root := benchmarkRoot(b, c.files, c.size)
			var stats ScanStats
			cpu := reportCPU(b)
			for b.Loop() {
				stats = drain(b, ScanOptions{Roots: []string{root}}, nil)
			}
			cpu()
			b.SetBytes(int64(stats.BytesRead))
			b.ReportMetric(float64(b.N)*float64(stats.Entries)/b.Elapsed().Seconds(), "entries/s")
		})
	}
}

func BenchmarkScanCompress(b *testing.B) {
	tree := &testTree{b, b.TempDir()}
	for i := range 40 {
		tree.file(fmt.Sprint(i), strings.Repeat("the same words again and again, ", 10000+i)+random(uint64(i), 100_000))
	}
	for b.Loop() {
		b.SetBytes(int64(drain(b, ScanOptions{Roots: []string{tree.root}, Compress: true, Dedup: true}, nil).BytesRead))
	}
}
