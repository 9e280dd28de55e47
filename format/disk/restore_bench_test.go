//go:build linux

package disk

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bk-backup/bk/format"
)

// benchSource hands out a tree of directories with filesPerDir files each, like
// source code: text that compresses, of sizes around the mean. Chunks are
// prepared beforehand and then change in eight bytes only, so that producing
// them costs little. With held it refers to chunks instead of sending them.
type benchSource struct {
	files, sizeMean, filesPerDir int
	once, held, checked, zstd    bool

	plains  [][]byte
	packed  []format.Data // the same chunks as they come from a pipe
	n, step int
	bytes   int64
	entry   format.Entry
	data    format.Data
	refs    format.Refs
	eof     format.EOF
}

const benchChunks = 512

func (b *benchSource) prepare(tb testing.TB) {
	rng := rand.New(rand.NewPCG(1, 2))
	words := make([]string, 2000)
	for i := range words {
		words[i] = fmt.Sprintf("%x", rng.Uint32N(1<<(4+rng.Uint32N(20))))
	}
	for range benchChunks {
		size := 1 + int(rng.ExpFloat64()*float64(b.sizeMean))
		plain := make([]byte, 0, size+20)
		for len(plain) < size {
			plain = append(append(plain, words[rng.IntN(len(words))]...), " \n"[rng.IntN(8)/7])
		}
		plain = plain[:size]
		b.plains = append(b.plains, plain)
		d := format.Data{ID: format.SumID(plain), Size: uint32(size), Codec: format.CodecNone, Payload: plain}
		if b.zstd {
			codec, payload, err := format.EncodePayload(nil, plain, format.LevelFastest)
			if err != nil {
				tb.Fatal(err)
			}
			d.Codec, d.Payload = codec, append([]byte(nil), payload...)
		}
		b.packed = append(b.packed, d)
	}
}

func (b *benchSource) chunk(i int) *format.Data { return &b.packed[i%len(b.packed)] }

func (b *benchSource) Next() (format.Record, error) {
	b.step++
	switch b.step {
	case 1:
		return &format.Header{Version: 1, Features: []format.Feature{format.FeatureZstd}}, nil
	case 2:
		return &format.Snapshot{ID: testID("bench")}, nil
	case 3:
		if b.n == b.files {
			b.step = 10
			return &format.Commit{}, nil
		}
		if b.n%b.filesPerDir == 0 && b.entry.Type != format.TypeDir {
			b.step = 2
			b.fill(b.dir(), format.TypeDir, 0o755, 0)
			return &b.entry, nil
		}
		b.fill(fmt.Sprintf("%s/file-%04d.c", b.dir(), b.n%b.filesPerDir), format.TypeFile, 0o644, uint64(b.chunk(b.n).Size))
		return &b.entry, nil
	case 4:
		d := b.chunk(b.n)
		b.bytes += int64(d.Size)
		if b.held {
			b.refs.Chunks = append(b.refs.Chunks[:0], format.ChunkRef{ID: b.heldID(b.n), Size: d.Size})
			return &b.refs, nil
		}
		b.data = format.Data{ID: d.ID, Size: d.Size, Codec: d.Codec, Once: b.once, Checked: b.checked}
		b.data.Payload = append(format.AllocPayload(len(d.Payload))[:0], d.Payload...)
		return &b.data, nil
	case 5:
		b.step = 2
		b.eof.Size = uint64(b.chunk(b.n).Size)
		b.n++
		b.entry.Type = ""
		return &b.eof, nil
	case 11:
		return &format.End{}, nil
	}
	return nil, io.EOF
}

// heldID makes each file's chunk another one.
func (b *benchSource) heldID(n int) (id format.ID) {
	id = b.chunk(n).ID
	binary.BigEndian.PutUint64(id[:], uint64(n))
	return id
}

func (b *benchSource) dir() string { return fmt.Sprintf("tree/dir-%05d", b.n/b.filesPerDir) }

func (b *benchSource) fill(path string, typ format.Type, mode uint32, size uint64) {
	b.entry = format.Entry{Path: path, Type: typ, Has: baseHas | format.HasSize, Mode: mode, Size: size,
		UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), User: "", Mtime: testTime}
}

// ReadChunks serves what held refers to.
func (b *benchSource) ReadChunks(_ context.Context, refs []format.ChunkRef, fn func(int, []byte, error) error) error {
	for i, ref := range refs {
		n := binary.BigEndian.Uint64(ref.ID[:])
		if err := fn(i, b.plains[n%benchChunks], nil); err != nil {
			return err
		}
	}
	return nil
}

// benchDir is on a file system in memory where there is one, so that the disk
// is not what is measured.
func benchDir(tb testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "bk-bench-")
	if err != nil {
		return tb.TempDir()
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// cpuTime is what the process has used so far. On a machine that does other
// things too it says more than the time on the wall.
func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkRestore writes whole trees. "source code" is 79,000 files of 16 KiB,
// 1.3 GB; a benchmark's unit is one tree of a tenth of that.
func BenchmarkRestore(b *testing.B) {
	for _, c := range []struct {
		name string
		src  benchSource
	}{
		{"source code, zstd", benchSource{files: 7900, sizeMean: 16 << 10, filesPerDir: 15, zstd: true}},
		{"source code, once, zstd", benchSource{files: 7900, sizeMean: 16 << 10, filesPerDir: 15, zstd: true, once: true}},
		{"source code, plain", benchSource{files: 7900, sizeMean: 16 << 10, filesPerDir: 15}},
		{"source code, content source", benchSource{files: 7900, sizeMean: 16 << 10, filesPerDir: 15, held: true}},
		{"tiny files, plain", benchSource{files: 25000, sizeMean: 300, filesPerDir: 20}},
		{"tiny files, content source", benchSource{files: 25000, sizeMean: 300, filesPerDir: 20, held: true}},
		{"large files, plain", benchSource{files: 100, sizeMean: 1 << 20, filesPerDir: 20}},
	} {
		b.Run(c.name, func(b *testing.B) {
			c.src.prepare(b)
			dir := benchDir(b)
			b.ReportAllocs()
			b.ResetTimer()
			files, cpu := 0, time.Duration(0)
			for i := range b.N {
				src := c.src
				target := fmt.Sprintf("%s/%d", dir, i)
				begun := cpuTime()
				r, err := NewRestore(context.Background(), target, RestoreOptions{Content: &src})
				if err != nil {
					b.Fatal(err)
				}
				if err := format.Copy(context.Background(), r, &src); err != nil {
					b.Fatal(err)
				}
				if err := r.Close(); err != nil {
					b.Fatal(err)
				}
				sum := r.Summary()
				if len(sum.Losses) > 0 || sum.Files != uint64(src.files) {
					b.Fatalf("%+v", sum)
				}
				b.SetBytes(src.bytes)
				files += src.files
				b.StopTimer()
				cpu += cpuTime() - begun
				os.RemoveAll(target)
				b.StartTimer()
			}
			b.ReportMetric(float64(files)/b.Elapsed().Seconds(), "files/s")
			b.ReportMetric(float64(cpu.Nanoseconds())/float64(files), "cpu-ns/file")
		})
	}
}
