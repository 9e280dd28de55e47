package tree

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/internal/vectors"
)

// listingVector is a listing and all its chunks.
type listingVector struct {
	Name     string        `json:"name"`
	SplitKey vectors.Hex   `json:"split_key"`
	Entries  []entryVector `json:"entries"` // in path order
	Root     vectors.Hex   `json:"root"`
	Chunks   []vectors.Hex `json:"chunks"` // nodes, lists and bodies, by id
}

type entryVector struct {
	Path    vectors.Hex   `json:"path"`
	Body    vectors.Hex   `json:"body"`              // the map without path
	Content []pieceVector `json:"content,omitempty"` // chunks and holes
	EOF     vectors.Hex   `json:"eof,omitempty"`
}

type pieceVector struct {
	Size uint64      `json:"size"`
	ID   vectors.Hex `json:"id,omitempty"` // absent for a hole
}

func vectorListings() []listingVector {
	long := strings.Repeat("long ", 500)
	all := []testFile{
		{Path: "", Type: format.TypeDir}, {Path: "a", Type: format.TypeDir, Sec: -1}, {Path: "a/b", Type: format.TypeFile, Pieces: chunksFrom(0, 2)},
		{Path: "a/b.c", Type: format.TypeSymlink}, {Path: "a-b", Type: format.TypeFile, Pieces: []Piece{{Size: 1 << 33}, {ID: testID(9), Size: 4096}}},
		{Path: "a\xff\x01b", Type: format.TypeFile}, {Path: "broken", Type: format.TypeFile, Pieces: chunksFrom(5, 1), EOF: "input/output error"},
		{Path: "implied/dir/file", Type: format.TypeFile, EOF: long}, {Path: "large", Type: format.TypeFile, Pieces: chunksFrom(100, 200)},
	}
	sortFiles(all)
	var list []listingVector
	for _, c := range []struct {
		name  string
		files []testFile
	}{{"empty", nil}, {"one file", all[2:3]}, {"every kind of item", all}, {"two levels", synthetic(300, 25)}} {
		v := listingVector{Name: c.name, SplitKey: testKey[:]}
		for i := range c.files {
			f := &c.files[i]
			e := entryVector{Path: vectors.Hex(f.Path), Body: f.entry().AppendBody(nil, false), EOF: f.eof()}
			for _, p := range f.Pieces {
				piece := pieceVector{Size: p.Size}
				if !p.IsHole() {
					piece.ID = p.ID[:]
				}
				e.Content = append(e.Content, piece)
			}
			v.Entries = append(v.Entries, e)
		}
		list = append(list, v)
	}
	long1 := (&format.Entry{Type: format.TypeDir, Has: format.HasMode, Mode: 0o755, Xattrs: []format.Xattr{{Name: "user.long", Value: long}}}).AppendBody(nil, false)
	list = append(list, listingVector{Name: "a long body", SplitKey: testKey[:], Entries: []entryVector{{Path: vectors.Hex("d"), Body: long1}}})
	return list
}

// build makes the listing of the vector's entries.
func (v *listingVector) build(t *testing.T) (format.ID, *memory) {
	t.Helper()
	ctx := context.Background()
	m := newMemory()
	u := NewBuilder(ctx, m, SplitKey(v.SplitKey))
	for _, ev := range v.Entries {
		var e format.Entry
		if _, err := e.ParseBody(ev.Body, false); err != nil {
			t.Fatal(err)
		}
		e.Path = string(ev.Path)
		var pieces []Piece
		for _, p := range ev.Content {
			piece := Piece{Size: p.Size}
			copy(piece.ID[:], p.ID)
			pieces = append(pieces, piece)
		}
		if err := u.Put(&e, contentWith(t, m, pieces), ev.EOF); err != nil {
			t.Fatal(err)
		}
	}
	root, _, err := u.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return root, m
}

func TestListingVectors(t *testing.T) {
	made := vectorListings()
	for i := range made {
		root, m := made[i].build(t)
		made[i].Root = root[:]
		for _, id := range slices.SortedFunc(maps.Keys(m.chunks), format.ID.Compare) {
			made[i].Chunks = append(made[i].Chunks, m.chunks[id])
		}
	}
	for _, v := range vectors.Check(t, "tree-listings.json", made) {
		m := newMemory()
		for _, b := range v.Chunks {
			m.Save(context.Background(), b)
		}
		files := readAll(t, m, format.ID(v.Root), ReaderOptions{})
		if len(files) != len(v.Entries) {
			t.Errorf("%s: %d entries, want %d", v.Name, len(files), len(v.Entries))
		}
	}
}

// refusedVector is a listing that a reader must refuse.
type refusedVector struct {
	Name   string        `json:"name"`
	Root   vectors.Hex   `json:"root"`
	Chunks []vectors.Hex `json:"chunks"`
}

// Parts of nodes, written by hand.

func arr(parts ...[]byte) []byte {
	b := appendArray(nil, len(parts))
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func num(v uint64) []byte      { return appendUint(nil, v) }
func str(s string) []byte      { return appendStr(nil, s) }
func bin(s string) []byte      { return appendBin(nil, s) }
func ref32(b []byte) []byte    { id := format.SumID(b); return bin(string(id[:])) }
func leaf(it ...[]byte) []byte { return arr(str("leaf"), arr(it...)) }
func inner(level uint64, c ...[]byte) []byte {
	return arr(str("node"), num(level), arr(c...))
}

var fileMap = (&format.Entry{Type: format.TypeFile}).AppendBody(nil, false)

func plainItem(path string) []byte { return arr(num(0), bin(path), fileMap, arr()) }

func childOf(path string, node []byte, entries uint64) []byte {
	return arr(num(0), bin(path), ref32(node), num(entries), num(0))
}

func refusedListings() []refusedVector {
	one := leaf(plainItem("m"))
	content := func(pieces ...[]byte) []byte { return leaf(arr(num(0), bin("f"), fileMap, arr(pieces...))) }
	chunk := arr(num(5), ref32([]byte("x")))
	list := arr(str("list"), arr(chunk))
	other := leaf(plainItem("n"))
	many := make([][]byte, 257)
	for i := range many {
		many[i] = plainItem(fmt.Sprintf("f%03d", i))
	}
	cases := []struct {
		name   string
		chunks [][]byte // the last one is the root
	}{
		{"no bytes", [][]byte{{}}},
		{"cut off", [][]byte{one[:len(one)-1]}},
		{"bytes left behind", [][]byte{append(slices.Clone(one), 0)}},
		{"another tag", [][]byte{arr(str("loaf"), arr())}},
		{"a leaf of three elements", [][]byte{arr(str("leaf"), arr(), arr())}},
		{"level 0", [][]byte{one, inner(0, childOf("m", one, 1))}},
		{"level 33", [][]byte{one, inner(33, childOf("m", one, 1))}},
		{"no children", [][]byte{inner(1)}},
		{"257 items", [][]byte{leaf(many...)}},
		{"an array longer than the bytes", [][]byte{append(append([]byte{0x92}, str("leaf")...), 0xdd, 0, 0, 1, 0)}},
		{"a path of a byte that its predecessor lacks", [][]byte{leaf(plainItem("m"), arr(num(2), bin("x"), fileMap, arr()))}},
		{"shared in the first item", [][]byte{leaf(arr(num(1), bin("x"), fileMap, arr()))}},
		{"paths out of order", [][]byte{leaf(plainItem("n"), plainItem("m"))}},
		{"a path twice", [][]byte{leaf(plainItem("m"), plainItem("m"))}},
		{"a slash sorts first", [][]byte{leaf(plainItem("a-b"), plainItem("a/b"))}},
		{"the path ..", [][]byte{leaf(plainItem("a/../b"))}},
		{"an absolute path", [][]byte{leaf(plainItem("/a"))}},
		{"an item without body", [][]byte{leaf(arr(num(0), bin("m")))}},
		{"a body that is no map", [][]byte{leaf(arr(num(0), bin("m"), num(1)))}},
		{"a body's id of 31 bytes", [][]byte{leaf(arr(num(0), bin("m"), bin(strings.Repeat("x", 31))))}},
		{"a body that goes on", [][]byte{leaf(arr(num(0), bin("m"), []byte{0x8f}))}},
		{"a piece of no bytes", [][]byte{content(arr(num(0)))}},
		{"a chunk over 32 MiB", [][]byte{content(arr(num(32<<20+1), ref32(nil)))}},
		{"33 pieces", [][]byte{content(slices.Repeat([][]byte{chunk}, 33)...)}},
		{"a list of the depth 0", [][]byte{list, content(arr(num(5), ref32(list), num(0)))}},
		{"pieces of two depths", [][]byte{list, content(chunk, arr(num(5), ref32(list), num(1)))}},
		{"a content over the limit", [][]byte{content(arr(num(1<<63-1)), arr(num(1)))}},
		{"a list of another depth", [][]byte{list, content(arr(num(5), ref32(list), num(2)))}},
		{"a list of another size", [][]byte{list, content(arr(num(6), ref32(list), num(1)))}},
		{"a leaf as a list", [][]byte{one, content(arr(num(5), ref32(one), num(1)))}},
		{"an empty list", [][]byte{arr(str("list"), arr()), content(arr(num(5), ref32(arr(str("list"), arr())), num(1)))}},
		{"an empty leaf below", [][]byte{leaf(), inner(1, childOf("m", leaf(), 1))}},
		{"a child that begins elsewhere", [][]byte{one, inner(1, childOf("l", one, 1))}},
		{"a child with other entries", [][]byte{one, inner(1, childOf("m", one, 2))}},
		{"a child with other bytes", [][]byte{one, inner(1, arr(num(0), bin("m"), ref32(one), num(1), num(1)))}},
		{"a child of another level", [][]byte{one, inner(2, childOf("m", one, 1))}},
		{"a child that is not there", [][]byte{inner(1, childOf("m", one, 1))}},
		{"a child that overlaps the next", [][]byte{leaf(plainItem("m"), plainItem("z")), other,
			inner(1, childOf("m", leaf(plainItem("m"), plainItem("z")), 2), childOf("n", other, 1))}},
		{"sums over the limit", [][]byte{one, inner(1, childOf("m", one, 1<<63-1), childOf("n", one, 1))}},
		{"a body chunk that is a leaf", [][]byte{one, leaf(arr(num(0), bin("m"), ref32(one)))}},
		{"an entry without type", [][]byte{leaf(arr(num(0), bin("m"), []byte{0x80}))}},
	}
	var list2 []refusedVector
	for _, c := range cases {
		v := refusedVector{Name: c.name}
		for _, b := range c.chunks {
			id := format.SumID(b)
			v.Chunks, v.Root = append(v.Chunks, b), id[:]
		}
		list2 = append(list2, v)
	}
	return list2
}

// readStrictly reads all there is in a listing.
func readStrictly(m *memory, root format.ID) error {
	ctx := context.Background()
	r, err := NewReader(ctx, Listing{m, root}, ReaderOptions{})
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		it, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		var e format.Entry
		if err := it.Decode(ctx, &e); err != nil {
			return err
		}
		if _, err := it.EOF(ctx); err != nil {
			return err
		}
		cr := NewContentReader(ctx, m, it.Content())
		for err == nil {
			_, _, err = cr.Next()
		}
		if err != io.EOF {
			return err
		}
	}
}

func TestRefusedVectors(t *testing.T) {
	accepted := newMemory()
	good := leaf(plainItem("m"))
	accepted.Save(context.Background(), good)
	if err := readStrictly(accepted, format.SumID(good)); err != nil {
		t.Fatalf("a good listing is refused: %v", err)
	}
	for _, v := range vectors.Check(t, "tree-refused.json", refusedListings()) {
		m := newMemory()
		for _, b := range v.Chunks {
			m.Save(context.Background(), b)
		}
		err := readStrictly(m, format.ID(v.Root))
		if err == nil {
			t.Errorf("%s: not refused", v.Name)
		} else {
			t.Logf("%s: %v", v.Name, err)
		}
	}
}
