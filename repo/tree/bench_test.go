package tree

import (
	"context"
	"io"
	"testing"

	"github.com/bk-backup/bk/format"
)

// benchListing is about as large as a kernel's source tree, with the keys that
// a scan of a file system gives.
func benchListing() (entries []format.Entry, contents []Content) {
	files := synthetic(79000, 16)
	w := NewContentWriter(context.Background(), newMemory())
	for i := range files {
		f := &files[i]
		e := *f.entry()
		e.Has |= format.HasUID | format.HasGID | format.HasCtime | format.HasInode | format.HasLinks
		e.User, e.Group, e.UID, e.GID = "somebody", "users", 1000, 100
		e.Mtime = format.Time{Sec: 1700000000 + f.Sec, Nsec: uint32(f.Sec*7919) % 1e9}
		e.Ctime, e.Inode, e.Links = e.Mtime, uint64(1<<20+i), 1
		for _, p := range f.Pieces {
			e.Size, e.Has, e.Chunker = p.Size, e.Has|format.HasSize, "gear:256KiB-1MiB-4MiB"
			w.Chunk(p.ID, p.Size)
		}
		c, _ := w.Finish()
		entries = append(entries, e)
		contents = append(contents, c)
	}
	return entries, contents
}

func benchBuild(b *testing.B, c Chunks, entries []format.Entry, contents []Content) format.ID {
	u := NewBuilder(context.Background(), c, testKey)
	for i := range entries {
		if err := u.Put(&entries[i], contents[i], nil); err != nil {
			b.Fatal(err)
		}
	}
	root, _, err := u.Finish()
	if err != nil {
		b.Fatal(err)
	}
	return root
}

// discard stores nothing, so that the tree's own cost is seen.
type discard struct{ n byte }

func (d *discard) Load(context.Context, format.ID) ([]byte, error) { return nil, io.EOF }

func (d *discard) Save(_ context.Context, plain []byte) (format.ID, error) {
	d.n++
	return format.ID{d.n, byte(len(plain)), 1}, nil
}

func BenchmarkBuild(b *testing.B) {
	entries, contents := benchListing()
	b.ReportAllocs()
	for b.Loop() {
		benchBuild(b, new(discard), entries, contents)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(entries)), "ns/entry")
}

func benchIterate(b *testing.B, decode bool, opts ReaderOptions) {
	ctx := context.Background()
	entries, contents := benchListing()
	m := newMemory()
	root := benchBuild(b, m, entries, contents)
	b.ReportAllocs()
	var e format.Entry
	for b.Loop() {
		r, err := NewReader(ctx, Listing{m, root}, opts)
		if err != nil {
			b.Fatal(err)
		}
		for {
			it, err := r.Next()
			if err == io.EOF {
				break
			}
			if err == nil && decode {
				err = it.Decode(ctx, &e)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
		r.Close()
		m.reset()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(entries)), "ns/entry")
}

func BenchmarkIterate(b *testing.B)      { benchIterate(b, true, ReaderOptions{}) }
func BenchmarkIterateAhead(b *testing.B) { benchIterate(b, true, ReaderOptions{ReadAhead: 16}) }
func BenchmarkIterateItems(b *testing.B) { benchIterate(b, false, ReaderOptions{}) }

// benchEdits changes 150 entries.
func benchEdits(b *testing.B, m *memory, root format.ID, entries []format.Entry, contents []Content) format.ID {
	u, err := NewUpdater(context.Background(), m, testKey, root)
	if err != nil {
		b.Fatal(err)
	}
	for i := 100; i < len(entries); i += len(entries) / 150 {
		e := entries[i]
		e.Mtime.Sec++
		if err := u.Put(&e, contents[i], nil); err != nil {
			b.Fatal(err)
		}
	}
	root, _, err = u.Finish()
	if err != nil {
		b.Fatal(err)
	}
	return root
}

func BenchmarkUpdate150(b *testing.B) {
	entries, contents := benchListing()
	m := newMemory()
	root := benchBuild(b, m, entries, contents)
	b.ReportAllocs()
	for b.Loop() {
		benchEdits(b, m, root, entries, contents)
		m.reset()
	}
}

func BenchmarkDiff150(b *testing.B) {
	entries, contents := benchListing()
	m := newMemory()
	root := benchBuild(b, m, entries, contents)
	changed := benchEdits(b, m, root, entries, contents)
	b.ReportAllocs()
	for b.Loop() {
		d, err := NewDiff(context.Background(), Listing{m, root}, Listing{m, changed}, DiffOptions{})
		n := 0
		for err == nil {
			_, err = d.Next()
			n++
		}
		if err != io.EOF || n < 150 {
			b.Fatal(n, err)
		}
		d.Close()
		m.reset()
	}
}
