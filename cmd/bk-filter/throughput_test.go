package main

import (
	"bufio"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/bk-backup/bk/format"
)

var (
	streamSizeMiB = flag.Int64("stream-mib", 256, "size of the stream that BenchmarkPipe filters, in MiB")
	streamOnce    = flag.Bool("stream-once", true, "mark the chunks of that stream as never referred to again")
)

// fileSize makes 4 GiB of 500,000 entries.
const fileSize = 4 << 30 / 500_000

var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "bk-filter-test-")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "bk-filter")
	out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return bin, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if bin, err := build(); err == nil {
		os.RemoveAll(filepath.Dir(bin))
	}
	os.Exit(code)
}

// writeStream makes a stream of two snapshots, of which the second changes half
// of the first. Nobody looks into its chunks.
func writeStream(w io.Writer, size int64, once bool) error {
	buffered := bufio.NewWriterSize(w, 1<<20)
	out := format.NewWriter(buffered, format.WriterOptions{})
	payload := make([]byte, fileSize)
	for i := range payload {
		payload[i] = byte(i * 7)
	}
	files := size / fileSize
	n := uint64(0)
	entries := func(step int64) error {
		for i := int64(0); i < files*2/3; i += step {
			dir := fmt.Sprintf("home/jo/projects/d%05d", i/100)
			if i%100 == 0 {
				if err := out.Write(&format.Entry{Path: dir, Type: format.TypeDir, Has: format.HasMode, Mode: 0o755}); err != nil {
					return err
				}
			}
			n++
			ext := []string{"go", "cat.jpg", "txt"}[i%3]
			d := &format.Data{Size: fileSize, Once: once, Payload: payload}
			binary.BigEndian.PutUint64(d.ID[:], n*0x9e3779b97f4a7c15)
			for _, rec := range []format.Record{
				&format.Entry{Path: fmt.Sprintf("%s/file%05d.%s", dir, i, ext), Type: format.TypeFile,
					Has:  format.HasMode | format.HasUID | format.HasGID | format.HasMtime | format.HasSize | format.HasInode | format.HasCtime,
					Mode: 0o644, UID: 1000, GID: 1000, User: "jo", Group: "users", Mtime: format.Time{Sec: 1_700_000_000 + i, Nsec: uint32(i)},
					Ctime: format.Time{Sec: 1_700_000_000 + i, Nsec: uint32(i)}, Inode: 10_000_000 + n, Size: fileSize},
				d, &format.EOF{Size: fileSize},
			} {
				if err := out.Write(rec); err != nil {
					return err
				}
			}
		}
		return nil
	}
	first, second := format.ID{1}, format.ID{2}
	for _, step := range []func() error{
		func() error { return out.Write(&format.Header{Version: format.Version}) },
		func() error { return out.Write(&format.Snapshot{ID: first}) },
		func() error { return entries(1) },
		func() error { return out.Write(&format.Commit{}) },
		func() error { return out.Write(&format.Snapshot{ID: second, Parent: first}) },
		func() error { return entries(2) },
		func() error { return out.Write(&format.Commit{}) },
		func() error { return out.Write(&format.End{}) },
		buffered.Flush,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// BenchmarkPipe compares the whole program with cat in the same pipe:
// cat stream | X | cat > /dev/null. It reports X's peak memory too. Where chunks
// are not marked as never referred to again, what is dropped has to be kept, and
// cat-to-file is the peer: it only puts the stream into a file.
//
//	go test -run - -bench Pipe -benchtime 3x ./cmd/bk-filter -stream-mib 4096
func BenchmarkPipe(b *testing.B) {
	bin, err := build()
	if err != nil {
		b.Fatal(err)
	}
	name := filepath.Join(b.TempDir(), "stream")
	file, err := os.Create(name)
	if err != nil {
		b.Fatal(err)
	}
	if err := writeStream(file, *streamSizeMiB<<20, *streamOnce); err != nil {
		b.Fatal(err)
	}
	info, err := file.Stat()
	if err != nil {
		b.Fatal(err)
	}
	file.Close()
	for _, bc := range []struct {
		name string
		argv []string
	}{
		{"cat", []string{"cat"}},
		{"cat-to-file", []string{"sh", "-c", `cat > "$0"; rm "$0"`, filepath.Join(b.TempDir(), "copy")}},
		{"no-options", []string{bin, "--quiet"}},
		{"drop-none", []string{bin, "--quiet", "--drop", "*.dog.jpg"}},
		{"drop-third", []string{bin, "--quiet", "--drop", "*.cat.jpg"}},
		{"drop-most", []string{bin, "--quiet", "--keep", "*.cat.jpg"}},
		{"larger-than", []string{bin, "--quiet", "--larger-than", "1M"}},
	} {
		b.Run(bc.name, func(b *testing.B) {
			b.SetBytes(info.Size())
			var peak int64
			for range b.N {
				peak = max(peak, pipeThrough(b, name, bc.argv))
			}
			b.ReportMetric(float64(peak)/(1<<20), "MiB-peak")
		})
	}
}

// pipeThrough runs the pipe and returns the peak memory of the program in its
// middle, in bytes.
func pipeThrough(b *testing.B, stream string, argv []string) int64 {
	first, middle, last := exec.Command("cat", stream), exec.Command(argv[0], argv[1:]...), exec.Command("cat")
	middle.Stderr = os.Stderr
	var err error
	if middle.Stdin, err = first.StdoutPipe(); err != nil {
		b.Fatal(err)
	}
	if last.Stdin, err = middle.StdoutPipe(); err != nil {
		b.Fatal(err)
	}
	for _, cmd := range []*exec.Cmd{first, middle, last} {
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
	}
	for _, cmd := range []*exec.Cmd{first, middle, last} {
		if err := cmd.Wait(); err != nil {
			b.Fatalf("%v: %v", cmd.Args, err)
		}
	}
	return peakMemory(middle.ProcessState)
}

// peakMemory returns the most memory that a process that ended had, in bytes.
// That of this process, from which it was forked, is counted as well.
func peakMemory(p *os.ProcessState) int64 { return p.SysUsage().(*syscall.Rusage).Maxrss << 10 }
