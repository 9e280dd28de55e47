package restic

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/store/mem"
)

const fixturePassphrase = "restic set-a passphrase"

var fixtures = []string{"v1", "v2", "v2-new", "v1-upgraded", "v2-pruned"}

// unpack returns the files of an archive in testdata.
func unpack(t testing.TB, name string) map[string][]byte {
	t.Helper()
	f, err := os.Open("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := zstd.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	files := make(map[string][]byte)
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimPrefix(h.Name, "./")] = b
	}
}

// fixtureStore returns a repository of testdata in memory.
func fixtureStore(t testing.TB, name string) *mem.Store {
	t.Helper()
	st := mem.New()
	for name, b := range unpack(t, "restic-"+name+".tar.zst") {
		if err := st.Create(context.Background(), strings.TrimPrefix(name, "repo/"), b); err != nil {
			t.Fatal(err)
		}
	}
	return st
}

// fixtureKeys has the keys of the fixtures that were opened, since deriving them
// takes as long as all else together.
var fixtureKeys sync.Map

// openFixture opens a fixture as it lies in st.
func openFixture(t testing.TB, name string, st *mem.Store) *Repository {
	t.Helper()
	ks, ok := fixtureKeys.Load(name)
	if !ok {
		r, err := Open(context.Background(), st, passphrase(fixturePassphrase))
		if err != nil {
			t.Fatal(err)
		}
		fixtureKeys.Store(name, r.keys)
		return r
	}
	r := newRepository(st, Options{})
	r.keys = ks.(*keys)
	b, err := st.Get(context.Background(), "config", configSizeMax)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.openConfig(b); err != nil {
		t.Fatal(err)
	}
	return r
}

func passphrase(text string) Options {
	return Options{Passphrase: func(context.Context) (string, error) { return text, nil }}
}

// stream returns what an export writes.
func stream(r *Repository, opts format.ExportOptions) ([]byte, error) {
	var out bytes.Buffer
	src, err := r.Export(context.Background(), opts)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	err = format.Copy(context.Background(), format.NewWriter(&out, format.WriterOptions{}), src)
	return out.Bytes(), err
}

func mustStream(t testing.TB, r *Repository, opts format.ExportOptions) []byte {
	t.Helper()
	b, err := stream(r, opts)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// object is what a listing has at a path.
type object struct {
	entry  *format.Entry
	pieces [][]byte // of a file: its content
	err    string   // of its eof
}

// listing is a snapshot as a receiver has it.
type listing map[string]*object

// received is a snapshot with its listing.
type received struct {
	record  *format.Snapshot
	commit  *format.Commit
	listing listing
}

// receive reads a stream and applies it, with all the checks that there are; base
// is what the receiver holds. It also checks that every chunk says whether it
// comes again.
func receive(t testing.TB, b []byte, base listing) []*received {
	t.Helper()
	x := &receiver{TB: t, chunks: make(map[format.ID][]byte), base: base, once: make(map[format.ID]bool), again: make(map[format.ID]bool)}
	r := format.NewReader(bytes.NewReader(b), format.ReaderOptions{})
	if err := format.Copy(context.Background(), x, r, &format.Verifier{}); err != nil {
		t.Fatal(err)
	}
	if !x.flat {
		for id, once := range x.once {
			if once == x.again[id] {
				t.Errorf("chunk %s: once %v, and it came again %v", id, once, x.again[id])
			}
		}
	}
	return x.list
}

// receiver is a sink that keeps everything.
type receiver struct {
	testing.TB
	chunks      map[format.ID][]byte
	once, again map[format.ID]bool
	flat        bool
	base        listing
	parent      listing
	cur         *received
	file        *object
	list        []*received
}

func (x *receiver) Write(rec format.Record) error {
	switch rec := rec.(type) {
	case *format.Header:
		for _, f := range rec.Features {
			x.flat = x.flat || f == format.FeatureFlat
		}
	case *format.Snapshot:
		x.cur = &received{record: rec.Clone(), listing: listing{}}
		if !rec.Parent.IsZero() {
			x.parent = x.base
			if len(x.list) > 0 {
				x.parent = x.list[len(x.list)-1].listing
			}
			for path, o := range x.parent {
				x.cur.listing[path] = o
			}
		}
		x.list = append(x.list, x.cur)
	case *format.Entry:
		if rec.Type != format.TypeDir {
			x.remove(rec.Path)
		}
		x.file = &object{entry: rec.Clone()}
		x.cur.listing[rec.Path] = x.file
	case *format.Data:
		plain, err := format.DecodePayload(nil, rec)
		if err != nil {
			return err
		}
		x.chunks[rec.ID], x.once[rec.ID] = plain, rec.Once
		x.file.pieces = append(x.file.pieces, plain)
	case *format.Refs:
		for _, c := range rec.Chunks {
			x.again[c.ID] = true
			x.file.pieces = append(x.file.pieces, x.chunks[c.ID])
		}
	case *format.CopyRange:
		b := bytes.Join(x.parent[x.file.entry.Path].pieces, nil)
		x.file.pieces = append(x.file.pieces, b[rec.Offset:rec.Offset+rec.Size])
	case *format.EOF:
		x.file.err = rec.Error
	case *format.Remove:
		x.remove(rec.Path)
	case *format.Commit:
		x.cur.commit = rec.Clone()
	}
	return nil
}

// remove takes a path and what is below it out of the listing.
func (x *receiver) remove(path string) {
	for p := range x.cur.listing {
		if p == path || format.IsBelow(p, path) {
			delete(x.cur.listing, p)
		}
	}
}

// wantError fails unless err is one of kind and names all of words.
func wantError(t testing.TB, err, kind error, words ...string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("error %v, want one that is %v", err, kind)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not name %q", err, w)
		}
	}
}
