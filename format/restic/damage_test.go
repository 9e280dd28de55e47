package restic

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/formattest"
	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/store/mem"
)

// names returns the objects below a prefix.
func names(t testing.TB, st *mem.Store, prefix string) (list []string) {
	t.Helper()
	if err := st.List(context.Background(), prefix, func(info store.Info) error {
		list = append(list, info.Name)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return list
}

// damaged returns a copy of a store with one object changed.
func damaged(t testing.TB, st *mem.Store, name string, change func([]byte) []byte) *mem.Store {
	t.Helper()
	st = st.Clone()
	if !st.Damage(name, change) {
		t.Fatalf("there is no %s", name)
	}
	return st
}

// idOf returns the end of an object's name, as messages have it.
func idOf(name string) string { return name[strings.LastIndexByte(name, '/')+1:] }

// smallHistory makes a repository of two snapshots, some trees and some packs.
func smallHistory(t *testing.T) (*builder, *mem.Store) {
	b := newBuilder(t)
	b.packBlobs = 3
	dir := func(words ...string) *testNode {
		n := &testNode{children: map[string]*testNode{}}
		for i, w := range words {
			n.children[w] = &testNode{content: [][]byte{[]byte(strings.Repeat(w, 50)), []byte(words[0]), {byte(i)}}}
		}
		return n
	}
	b.snapshot(b.tree(map[string]*testNode{"a": dir("one", "two"), "b": dir("three", "four")}))
	b.snapshot(b.tree(map[string]*testNode{"a": dir("one", "two"), "b": dir("three", "five"), "c": dir("six")}))
	b.open()
	return b, b.st
}

// TestFlippedBits flips bits everywhere: what comes is right or an error that
// names the object. What the index says can also be found in the packs.
func TestFlippedBits(t *testing.T) {
	b, st := smallHistory(t)
	want := formattest.MustStream(t, b.on(st), format.ExportOptions{})
	failed := 0
	for _, name := range slices.Concat(names(t, st, "data/"), names(t, st, "index/"), names(t, st, "snapshots/")) {
		object, err := st.Get(context.Background(), name, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range []int{0, 20, len(object) / 3, len(object) / 2, len(object) - 50, len(object) - 1} {
			bad := damaged(t, st, name, func(b []byte) []byte { b[at] ^= 4; return b })
			got, err := formattest.Stream(b.on(bad), format.ExportOptions{})
			switch {
			case err == nil && !bytes.Equal(got, want):
				t.Errorf("%s, byte %d: other bytes and no error", name, at)
			case err != nil:
				failed++
				formattest.WantError(t, err, ErrDamaged, idOf(name))
			case strings.HasPrefix(name, "snapshots/"):
				t.Errorf("%s, byte %d: it went unnoticed", name, at)
			}
		}
	}
	if failed < 20 {
		t.Errorf("only %d of the changes were noticed", failed)
	}
}

// TestTruncated cuts off packs: blobs before the cut still come.
func TestTruncated(t *testing.T) {
	b := newBuilder(t)
	b.packBlobs = 4
	b.snapshot(b.tree(map[string]*testNode{"f": {content: [][]byte{[]byte("one"), []byte("two"), []byte("three"), []byte("four")}}}))
	b.snapshot(b.tree(map[string]*testNode{"g": {content: [][]byte{[]byte("one"), []byte("two")}}}))
	r := b.open()
	_, at, err := r.find(context.Background(), dataBlob, format.SumID([]byte("three")))
	if err != nil {
		t.Fatal(err)
	}
	pack := packName(r.index.Load().listed.packs[at.pack])
	for size, bad := range map[int]string{int(at.offset + at.stored): "four", int(at.offset): "three", int(at.offset) + 5: "three", 0: "one"} {
		r.store = damaged(t, b.st, pack, func(b []byte) []byte { return b[:size] })
		_, err := formattest.Stream(r, format.ExportOptions{})
		if !errors.Is(err, ErrDamaged) && !strings.Contains(err.Error(), "unexpected EOF") || !strings.Contains(err.Error(), idOf(pack)) ||
			!strings.Contains(err.Error(), format.SumID([]byte(bad)).String()) {
			t.Errorf("cut to %d: %v", size, err)
		}
		snaps, err := r.Snapshots(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		_, err = formattest.Stream(r, format.ExportOptions{Snapshots: []format.ID{snaps[1].ID}})
		if wantErr := bad == "one"; (err != nil) != wantErr {
			t.Errorf("cut to %d: the snapshot that needs the first two blobs: %v", size, err)
		}
	}
}

// TestMissingPack names the blob and the pack.
func TestMissingPack(t *testing.T) {
	b, st := smallHistory(t)
	for _, name := range names(t, st, "data/") {
		bad := st.Clone()
		if err := bad.Delete(context.Background(), name); err != nil {
			t.Fatal(err)
		}
		_, err := formattest.Stream(b.on(bad), format.ExportOptions{})
		formattest.WantError(t, err, store.ErrNotFound, idOf(name), "blob")
	}
}

// TestMissingIndex finds everything in the packs, unless it is not there.
func TestMissingIndex(t *testing.T) {
	for _, fixture := range []string{"v2-new"} {
		st := fixtureStore(t, fixture)
		opts := format.ExportOptions{Held: true} // reads all trees
		want := formattest.MustStream(t, openFixture(t, fixture, st), opts)
		bad := st.Clone()
		for i, name := range names(t, st, "index/") {
			if err := bad.Delete(context.Background(), name); err != nil {
				t.Fatal(err)
			}
			if got := formattest.MustStream(t, openFixture(t, fixture, bad), opts); !bytes.Equal(got, want) {
				t.Errorf("%s without %d index files: other bytes", fixture, i+1)
			}
		}
		for _, name := range names(t, st, "data/") {
			if err := bad.Delete(context.Background(), name); err != nil {
				t.Fatal(err)
			}
		}
		_, err := formattest.Stream(openFixture(t, fixture, bad), format.ExportOptions{})
		formattest.WantError(t, err, ErrMissing, "tree blob")
	}
}

// TestCopies reads a blob from another pack where the first is damaged.
func TestCopies(t *testing.T) {
	b := newBuilder(t)
	b.snapshot(b.tree(map[string]*testNode{"f": {content: [][]byte{[]byte("twice")}}}))
	b.flush(dataBlob)
	b.have = map[format.ID]bool{}
	id := b.blob(dataBlob, []byte("twice"))
	want := formattest.MustStream(t, b.open(), format.ExportOptions{})
	packs := names(t, b.st, "data/")
	right, wrong := 0, 0
	for _, one := range packs {
		for _, two := range packs {
			flip := func(b []byte) []byte { b[20] ^= 1; return b }
			r := b.open()
			r.store = damaged(t, b.st, one, flip)
			if one != two {
				r.store = damaged(t, r.store.(*mem.Store), two, flip)
			}
			switch got, err := formattest.Stream(r, format.ExportOptions{}); {
			case err == nil && bytes.Equal(got, want):
				right++
			case err != nil && (strings.Contains(err.Error(), id.String()) || strings.Contains(err.Error(), "tree")):
				wrong++
			default:
				t.Errorf("%v", err)
			}
		}
	}
	// Two packs hold the blob, the third the tree: either of the first alone is
	// not missed.
	if len(packs) != 3 || right != 2 || wrong != 7 {
		t.Errorf("%d packs, %d times right, %d wrong", len(packs), right, wrong)
	}
}

// TestDataThatIsATree keeps data and trees of the same id apart.
func TestDataThatIsATree(t *testing.T) {
	b := newBuilder(t)
	empty := []byte(`{"nodes":[]}`)
	id := b.blob(treeBlob, empty)
	b.have = map[format.ID]bool{}
	b.packBlobs = 1
	b.snapshot(b.tree(map[string]*testNode{
		"d": {extra: map[string]any{"type": "dir", "subtree": id.String(), "mode": 1 << 31}},
		"f": {content: [][]byte{empty}},
	}))
	got := formattest.Receive(t, formattest.MustStream(t, b.open(), format.ExportOptions{}), nil)[0].Listing
	if len(got) != 2 || string(bytes.Join(got["f"].Pieces, nil)) != string(empty) {
		t.Error(got)
	}
}

// TestWrongTree has an index that takes one tree for another.
func TestWrongTree(t *testing.T) {
	b := newBuilder(t)
	b.packBlobs = 1
	one := b.tree(nil)
	two := b.tree(map[string]*testNode{"x": {}})
	b.snapshot(two)
	for _, p := range b.packs {
		for _, e := range p["blobs"].([]map[string]any) {
			e["id"] = map[string]string{one.String(): two.String(), two.String(): one.String()}[e["id"].(string)]
		}
	}
	_, err := formattest.Stream(b.open(), format.ExportOptions{})
	formattest.WantError(t, err, ErrDamaged, two.String(), one.String())
}

// TestLargeBlobs are refused before they are read.
func TestLargeBlobs(t *testing.T) {
	b := newBuilder(t)
	b.packBlobs = 1
	chunk := []byte("small")
	b.snapshot(b.tree(map[string]*testNode{"f": {content: [][]byte{chunk}}}))
	b.flush(dataBlob)
	b.flush(treeBlob)
	packs := b.packs
	for _, change := range []func(map[string]any){
		func(e map[string]any) { e["uncompressed_length"] = format.ChunkSizeMax + 1 },
		func(e map[string]any) { e["length"] = 1 << 31 },
	} {
		b.packs = nil
		for _, name := range names(t, b.st, "index/") {
			if err := b.st.Delete(context.Background(), name); err != nil {
				t.Fatal(err)
			}
		}
		for _, p := range packs {
			e := p["blobs"].([]map[string]any)[0]
			if e["type"] == "data" {
				change(e)
			}
			b.packs = append(b.packs, p)
		}
		if _, err := formattest.Stream(b.open(), format.ExportOptions{}); err == nil || !strings.Contains(err.Error(), format.SumID(chunk).String()) || !strings.Contains(err.Error(), "bytes") {
			t.Error(err)
		}
	}
}
