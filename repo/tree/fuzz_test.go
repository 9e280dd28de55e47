package tree

import (
	"context"
	"maps"
	"slices"
	"testing"

	"github.com/bk-backup/bk/format"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// addSeeds adds chunks of listings that are right and of such that are not.
func addSeeds(f *testing.F) {
	for _, v := range refusedListings() {
		for _, b := range v.Chunks {
			f.Add([]byte(b))
		}
	}
	m := newMemory()
	build(f, m, synthetic(300, 10), false)
	contentWith(f, m, chunksFrom(0, 100))
	for _, id := range slices.SortedFunc(maps.Keys(m.chunks), format.ID.Compare) {
		f.Add(m.chunks[id])
	}
}

// FuzzNode reads nodes of any level: what is accepted is read again from what is
// written of it.
func FuzzNode(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		var n node
		if n.parse(b) != nil {
			return
		}
		m := newMemory()
		w := nodeWriter{level: n.level}
		w.reset()
		for i := range n.items {
			it := &n.items[i]
			w.add(it.path, it.n, it.raw, it.entries, it.bytes)
		}
		r, _, err := w.save(context.Background(), m)
		if err != nil {
			t.Fatal(err)
		}
		again, err := loadNode(context.Background(), m, ref{id: r.id, root: true}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(n.items, again.items, cmp.AllowUnexported(item{}), cmpopts.EquateEmpty()); diff != "" {
			t.Fatal(diff)
		}
		for i := range n.items {
			if it := &n.items[i]; n.level == 0 && it.n > 3 {
				(Content{raw: it.content(), size: it.bytes}).AppendPieces(nil)
			}
		}
	})
}

// FuzzList reads lists.
func FuzzList(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		for depth := range uint8(3) {
			pieces, err := parseList(b, Piece{Size: 1000, Depth: depth + 1}, nil)
			if err != nil {
				continue
			}
			plain := appendArray(appendStr([]byte{0x92}, "list"), len(pieces))
			for _, p := range pieces {
				plain = appendPiece(plain, p)
			}
			again, err := parseList(plain, Piece{Size: 1000, Depth: depth + 1}, nil)
			if err != nil || !slices.Equal(pieces, again) {
				t.Fatalf("%v is not %v, error %v", again, pieces, err)
			}
		}
	})
}

// FuzzBody reads chunks with a long body.
func FuzzBody(f *testing.F) {
	addSeeds(f)
	f.Add(arr(str("body"), fileMap))
	f.Fuzz(func(t *testing.T, b []byte) {
		body, err := parseBody(b)
		if err != nil {
			return
		}
		if w := (wire{b: body}); !w.isMap() || len(w.skip()) != len(body) {
			t.Fatal("what is behind the tag is not one map")
		}
	})
}
