package tree

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bk-backup/bk/format"
)

// memory keeps chunks and counts what is asked of it.
type memory struct {
	mu     sync.Mutex
	chunks map[format.ID][]byte
	loads  []format.ID
	saves  []format.ID // chunks that were not there before
	bytes  int
	delay  time.Duration
}

func newMemory() *memory { return &memory{chunks: make(map[format.ID][]byte)} }

func (m *memory) Load(_ context.Context, id format.ID) ([]byte, error) {
	time.Sleep(m.delay)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.loads = append(m.loads, id)
	b, ok := m.chunks[id]
	if !ok {
		return nil, fmt.Errorf("there is no chunk %s", id.Short())
	}
	return b, nil
}

func (m *memory) Save(_ context.Context, plain []byte) (format.ID, error) {
	id := format.SumID(plain)
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.chunks[id]; !ok {
		m.chunks[id] = slices.Clone(plain)
		m.saves = append(m.saves, id)
		m.bytes += len(plain)
	}
	return id, nil
}

func (m *memory) reset() { m.loads, m.saves, m.bytes = nil, nil, 0 }

// testFile is an entry with its content, in a form that can be compared.
type testFile struct {
	Path   string
	Type   format.Type
	Sec    int64
	Pieces []Piece
	EOF    string
}

func (f *testFile) entry() *format.Entry {
	e := &format.Entry{Path: f.Path, Type: f.Type, Has: format.HasMode | format.HasMtime, Mode: 0o644, Mtime: format.Time{Sec: f.Sec}, User: "somebody"}
	if f.Type == format.TypeSymlink {
		e.Target = "target"
	}
	return e
}

func (f *testFile) eof() []byte {
	if f.EOF == "" {
		return nil
	}
	b := appendStr(append([]byte{}, 0x82), "error")
	b = appendBin(b, f.EOF)
	return appendUint(appendStr(b, "size"), 5)
}

var testKey = SplitKey{1, 2, 3}

// smallCuts makes nodes of a few items, so that small listings are deep.
func smallCuts(u *Updater) *Updater {
	u.cut.min, u.cut.max, u.cut.modulo, u.cut.size = 2, 6, 3, 400
	return u
}

func putFile(tb testing.TB, ctx context.Context, u *Updater, f *testFile) error {
	tb.Helper()
	var c Content
	if f.Type == format.TypeFile {
		w := NewContentWriter(ctx, u.chunks)
		for _, p := range f.Pieces {
			var err error
			if p.IsHole() {
				err = w.Hole(p.Size)
			} else {
				err = w.Chunk(p.ID, p.Size)
			}
			if err != nil {
				tb.Fatal(err)
			}
		}
		var err error
		if c, err = w.Finish(); err != nil {
			tb.Fatal(err)
		}
	}
	return u.Put(f.entry(), c, f.eof())
}

func build(tb testing.TB, m *memory, files []testFile, small bool) (format.ID, Stats) {
	tb.Helper()
	ctx := context.Background()
	u := NewBuilder(ctx, m, testKey)
	if small {
		smallCuts(u)
	}
	for i := range files {
		if err := putFile(tb, ctx, u, &files[i]); err != nil {
			tb.Fatal(err)
		}
	}
	root, stats, err := u.Finish()
	if err != nil {
		tb.Fatal(err)
	}
	return root, stats
}

func fileOf(tb testing.TB, m *memory, it *Item) testFile {
	tb.Helper()
	ctx := context.Background()
	var e format.Entry
	if err := it.Decode(ctx, &e); err != nil {
		tb.Fatal(err)
	}
	f := testFile{Path: it.Path, Type: e.Type, Sec: e.Mtime.Sec}
	r := NewContentReader(ctx, m, it.Content())
	for {
		p, _, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			tb.Fatal(err)
		}
		f.Pieces = append(f.Pieces, p)
	}
	eof, err := it.EOF(ctx)
	if err != nil {
		tb.Fatal(err)
	}
	if eof != nil {
		w := wire{b: eof[7:]}
		f.EOF = string(w.bin())
	}
	return f
}

func readAll(tb testing.TB, m *memory, root format.ID, opts ReaderOptions) []testFile {
	tb.Helper()
	r, err := NewReader(context.Background(), Listing{m, root}, opts)
	if err != nil {
		tb.Fatal(err)
	}
	defer r.Close()
	var files []testFile
	for {
		it, err := r.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			tb.Fatal(err)
		}
		files = append(files, fileOf(tb, m, it))
	}
}

func testID(n int) format.ID {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(n))
	return format.SumID(b[:])
}

// synthetic makes directories with files in path order, n entries in all.
func synthetic(n, filesPerDir int) []testFile {
	files := []testFile{{Path: "", Type: format.TypeDir}}
	for d := 0; len(files) < n; d++ {
		dir := fmt.Sprintf("home/user%d/project-%d", d%7, d)
		files = append(files, testFile{Path: dir, Type: format.TypeDir, Sec: int64(d)})
		for i := 0; i < filesPerDir && len(files) < n; i++ {
			id := d*filesPerDir + i
			files = append(files, testFile{Path: fmt.Sprintf("%s/source-file-%d.c", dir, i), Type: format.TypeFile, Sec: int64(id * 7919),
				Pieces: []Piece{{ID: testID(id), Size: uint64(1 + id%9999)}}})
		}
	}
	slices.SortFunc(files, func(a, b testFile) int { return format.ComparePaths(a.Path, b.Path) })
	return slices.CompactFunc(files, func(a, b testFile) bool { return cmp.Compare(a.Path, b.Path) == 0 })
}
