// Package formattest has what tests of systems have in common: a receiver that
// applies a stream with all checks and keeps the listings, and manifests, which
// say what a tree held that a real program backed up. Start at Receive and
// ParseManifest. Only tests import it.
package formattest

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/bk-backup/bk/format"
)

// Unpack returns the files of a compressed tar archive.
func Unpack(t testing.TB, name string) map[string][]byte {
	t.Helper()
	f, err := os.Open(name)
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

// Object is what a listing has at a path.
type Object struct {
	Entry  *format.Entry
	Pieces [][]byte // of a file: its content
	Err    string   // of its eof
}

// Listing is a snapshot as a receiver has it.
type Listing map[string]*Object

// Received is a snapshot with its listing.
type Received struct {
	Record  *format.Snapshot
	Commit  *format.Commit
	Listing Listing
}

// Receive reads a stream and applies it, with all the checks that there are; base
// is what the receiver holds. It also checks that every chunk says whether it
// comes again.
func Receive(t testing.TB, b []byte, base Listing) []*Received {
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
	base        Listing
	parent      Listing
	cur         *Received
	file        *Object
	list        []*Received
}

// Write implements format.Sink.
func (x *receiver) Write(rec format.Record) error {
	switch rec := rec.(type) {
	case *format.Header:
		for _, f := range rec.Features {
			x.flat = x.flat || f == format.FeatureFlat
		}
	case *format.Snapshot:
		x.cur = &Received{Record: rec.Clone(), Listing: Listing{}}
		if !rec.Parent.IsZero() {
			x.parent = x.base
			if len(x.list) > 0 {
				x.parent = x.list[len(x.list)-1].Listing
			}
			for path, o := range x.parent {
				x.cur.Listing[path] = o
			}
		}
		x.list = append(x.list, x.cur)
	case *format.Entry:
		if rec.Type != format.TypeDir {
			x.remove(rec.Path)
		}
		x.file = &Object{Entry: rec.Clone()}
		x.cur.Listing[rec.Path] = x.file
	case *format.Data:
		plain, err := format.DecodePayload(nil, rec)
		if err != nil {
			return err
		}
		x.chunks[rec.ID], x.once[rec.ID] = plain, rec.Once
		x.file.Pieces = append(x.file.Pieces, plain)
	case *format.Refs:
		for _, c := range rec.Chunks {
			x.again[c.ID] = true
			if plain := x.chunks[c.ID]; len(plain) == 0 || uint32(len(plain)) != c.Size {
				return fmt.Errorf("refs name chunk %s of %d bytes, which came with %d", c.ID, c.Size, len(plain))
			}
			x.file.Pieces = append(x.file.Pieces, x.chunks[c.ID])
		}
	case *format.CopyRange:
		b := bytes.Join(x.parent[x.file.Entry.Path].Pieces, nil)
		x.file.Pieces = append(x.file.Pieces, b[rec.Offset:rec.Offset+rec.Size])
	case *format.EOF:
		x.file.Err = rec.Error
	case *format.Remove:
		x.remove(rec.Path)
	case *format.Commit:
		x.cur.Commit = rec.Clone()
	}
	return nil
}

// remove takes a path and what is below it out of the listing.
func (x *receiver) remove(path string) {
	for p := range x.cur.Listing {
		if p == path || format.IsBelow(p, path) {
			delete(x.cur.Listing, p)
		}
	}
}

// EqualListing fails unless two listings are the same, in content and in what is
// informative too.
func EqualListing(t testing.TB, mode string, want, got Listing) {
	t.Helper()
	for _, p := range slices.Sorted(maps.Keys(merge(want, got))) {
		w, g := want[p], got[p]
		if w == nil || g == nil {
			t.Errorf("%s: %q is there %v, should be %v", mode, p, g != nil, w != nil)
			continue
		}
		if wantText, gotText := format.AppendText(nil, w.Entry), format.AppendText(nil, g.Entry); !bytes.Equal(wantText, gotText) {
			t.Errorf("%s:\n%s\nshould be\n%s", mode, gotText, wantText)
		}
		if !sameContent(w.Pieces, g.Pieces) || w.Err != g.Err {
			t.Errorf("%s: %q has other content", mode, p)
		}
	}
}

func sameContent(a, b [][]byte) bool {
	return slices.EqualFunc(a, b, bytes.Equal) || bytes.Equal(slices.Concat(a...), slices.Concat(b...))
}

// Stream returns what an export writes.
func Stream(sys format.System, opts format.ExportOptions) ([]byte, error) {
	var out bytes.Buffer
	src, err := sys.Export(context.Background(), opts)
	if err != nil {
		return nil, err
	}
	err = format.Copy(context.Background(), format.NewWriter(&out, format.WriterOptions{}), src)
	return out.Bytes(), errors.Join(err, src.Close())
}

// MustStream is Stream for what has to work.
func MustStream(t testing.TB, sys format.System, opts format.ExportOptions) []byte {
	t.Helper()
	b, err := Stream(sys, opts)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
