package restic

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/formattest"
)

// randomDir draws a directory that shares much with others that are drawn.
func randomDir(t *rapid.T, depth int) map[string]*testNode {
	dir := map[string]*testNode{}
	for range rapid.IntRange(0, 4).Draw(t, "nodes") {
		// Names that sort otherwise with the "/" that follows them.
		name := rapid.SampledFrom([]string{"a", "a!", "a\xff", "b", "b\"\\"}).Draw(t, "name")
		n := &testNode{extra: map[string]any{"mode": 0o600 + rapid.IntRange(0, 1).Draw(t, "mode")}}
		switch rapid.IntRange(0, 5).Draw(t, "kind") {
		case 0, 1:
			if depth > 0 {
				n.children = randomDir(t, depth-1)
				n.extra["mode"] = 1<<31 | n.extra["mode"].(int)
				break
			}
			fallthrough
		case 2, 3:
			for range rapid.IntRange(0, 3).Draw(t, "chunks") {
				n.content = append(n.content, bytes.Repeat([]byte{byte(rapid.IntRange('0', '9').Draw(t, "chunk"))}, 100))
			}
		case 4:
			n.extra["type"], n.extra["linktarget"] = "symlink", rapid.SampledFrom([]string{"a", "b"}).Draw(t, "target")
		default:
			n.extra["type"] = rapid.SampledFrom([]string{"fifo", "irregular"}).Draw(t, "type")
		}
		dir[name] = n
	}
	return dir
}

// drops makes patterns as bk's are: each takes what is below too, some only
// directories, and what is not wanted may be wanted again further down.
func drops(name string, onlyDirs bool, again string) func(string, bool) (bool, bool) {
	return func(path string, isDir bool) (drop, skip bool) {
		parts := strings.Split(path, "/")
		for i, part := range parts {
			if part == name && (isDir || i < len(parts)-1 || !onlyDirs) {
				drop = true
			}
			if drop && i > 0 && part == again {
				drop = false
			}
		}
		return drop, drop && again == ""
	}
}

// TestDifferences draws histories and holds what comes as differences, in every
// way, against whole listings.
func TestDifferences(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b := newBuilder(t)
		b.compress = rapid.Bool().Draw(rt, "compress")
		b.packBlobs = rapid.IntRange(1, 9).Draw(rt, "blobs in a pack")
		var ids []format.ID
		for range rapid.IntRange(1, 4).Draw(rt, "snapshots") {
			ids = append(ids, b.snapshot(b.tree(randomDir(rt, 3))))
		}
		r := b.open()
		checkDifferences(t, r, ids, nil)
		for _, again := range []string{"", "b", "a!"} {
			checkDifferences(t, r, ids, drops("a", rapid.Bool().Draw(rt, "only directories"), again))
		}
		if t.Failed() {
			rt.Fatal("see above")
		}
	})
}

// TestTypeChanges has a path that is a file, a directory and a link by turns, in
// a directory too, and patterns that look at that.
func TestTypeChanges(t *testing.T) {
	file := &testNode{content: [][]byte{[]byte("x")}}
	link := &testNode{extra: map[string]any{"type": "symlink", "linktarget": "y"}}
	dir := &testNode{children: map[string]*testNode{"b": file, "c": {children: map[string]*testNode{"b": {children: map[string]*testNode{"d": file}}}}}}
	b := newBuilder(t)
	var ids []format.ID
	for _, n := range []*testNode{dir, file, dir, link, file, nil, dir, nil, file} {
		top := map[string]*testNode{"0": file}
		if n != nil {
			top["a"] = n
			top["z"] = &testNode{children: map[string]*testNode{"a": n}}
		}
		ids = append(ids, b.snapshot(b.tree(top)))
	}
	r := b.open()
	for _, name := range []string{"a", "b", "c", "z"} {
		for _, again := range []string{"", "a", "b", "d"} {
			checkDifferences(t, r, ids, drops(name, false, again))
			checkDifferences(t, r, ids, drops(name, true, again))
		}
	}
}

func checkDifferences(t *testing.T, r *Repository, ids []format.ID, drop func(string, bool) (bool, bool)) {
	whole := formattest.Receive(t, formattest.MustStream(t, r, format.ExportOptions{Full: true, Drop: drop}), nil)
	if drop != nil {
		for i, s := range formattest.Receive(t, formattest.MustStream(t, r, format.ExportOptions{Full: true}), nil) {
			maps.DeleteFunc(s.Listing, func(path string, o *formattest.Object) bool {
				drop, _ := drop(path, o.Entry.Type == format.TypeDir)
				return drop
			})
			formattest.EqualListing(t, "dropped", s.Listing, whole[i].Listing)
		}
	}
	formattest.EqualSnapshots(t, "differences", whole, formattest.Receive(t, formattest.MustStream(t, r, format.ExportOptions{Drop: drop}), nil))
	formattest.EqualSnapshots(t, "copies", whole, formattest.Receive(t, formattest.MustStream(t, r, format.ExportOptions{Drop: drop, Copy: true}), nil))
	if len(ids) > 1 {
		opts := format.ExportOptions{Drop: drop, Base: ids[0], Snapshots: ids[1:]}
		formattest.EqualSnapshots(t, "based", whole, formattest.Receive(t, formattest.MustStream(t, r, opts), whole[0].Listing))
	}
}

// TestDifferenceIsSmall counts what two equal or nearly equal snapshots cost.
func TestDifferenceIsSmall(t *testing.T) {
	b := newBuilder(t)
	big := map[string]*testNode{}
	for i := range 300 {
		big[fmt.Sprintf("dir%03d", i)] = &testNode{children: map[string]*testNode{"file": {content: [][]byte{fmt.Appendf(nil, "content %d", i)}}}}
	}
	first := b.tree(map[string]*testNode{"top": {children: big}})
	b.snapshot(first)
	b.snapshot(first)
	big["dir123"].children["new"] = &testNode{content: [][]byte{[]byte("content 7"), []byte("new")}}
	b.snapshot(b.tree(map[string]*testNode{"top": {children: big}}))
	r := b.open()
	got := formattest.Receive(t, formattest.MustStream(t, r, format.ExportOptions{}), nil)
	for i, want := range []format.Commit{{Entries: 601, Data: 300}, {}, {Entries: 1, Data: 1}} {
		c := got[i].Commit
		if c.Entries != want.Entries || c.Data != want.Data || c.Removes != 0 {
			t.Errorf("snapshot %d: %d entries, %d chunks, %d removes", i, c.Entries, c.Data, c.Removes)
		}
		if e := got[i].Record.Estimate; e.Entries != c.Entries || e.Bytes != c.Bytes {
			t.Errorf("snapshot %d: estimated %+v, there were %d and %d", i, e, c.Entries, c.Bytes)
		}
	}
	whole := formattest.Receive(t, formattest.MustStream(t, r, format.ExportOptions{Full: true}), nil)
	formattest.EqualSnapshots(t, "differences", whole, got)
	var progress format.Progress
	for _, opts := range []format.ExportOptions{{}, {Held: true}, {Flat: true}} {
		opts.OnProgress = func(p format.Progress) { progress = p }
		formattest.MustStream(t, r, opts)
		if progress.Entries == 0 || progress.EntriesTotal != 0 && (progress.Entries != progress.EntriesTotal || progress.Bytes != progress.BytesTotal) {
			t.Errorf("progress %+v", progress)
		}
	}
}

// TestUnsortedTrees reads trees as they should not be.
func TestUnsortedTrees(t *testing.T) {
	b := newBuilder(t)
	node := func(name string, extra string) string {
		return fmt.Sprintf(`{"name":%q,"type":"fifo","mode":420,"uid":0,"gid":0%s}`, name, extra)
	}
	raw := func(nodes ...string) format.ID {
		return b.blob(treeBlob, []byte(`{"nodes":[`+strings.Join(nodes, ",")+`]}`))
	}
	for _, tree := range []format.ID{
		raw(node("b", ""), node("a", ""), node("c", "")),
		raw(node("c", ""), node("a", ""), node("a", `,"uid":5`), node("b", "")),
		raw(node("..", ""), node("", ""), node("a/b", ""), node(strings.Repeat("x", 5000), ""), node("a", ""), node("b", ""), node("c", `,"type":"door"`)),
	} {
		b.snapshot(tree)
	}
	got := formattest.Receive(t, formattest.MustStream(t, b.open(), format.ExportOptions{}), nil)
	for i, want := range []struct {
		paths  string
		losses []format.Loss
	}{
		{"a b c", nil},
		{"a b c", []format.Loss{{Kind: "damaged", Count: 1, Paths: []string{""}}}},
		{"a b", []format.Loss{{Kind: "damaged", Count: 3, Paths: []string{"", "", ""}}, {Kind: "limit", Count: 2, Paths: []string{"", "c"}}}},
	} {
		if paths := strings.Join(slices.Sorted(maps.Keys(got[i].Listing)), " "); paths != want.paths {
			t.Errorf("%d: %s", i, paths)
		}
		if d := cmp.Diff(want.losses, got[i].Commit.Losses); d != "" {
			t.Errorf("%d: %s", i, d)
		}
		if got[i].Listing["a"].Entry.UID != 0 {
			t.Errorf("%d: the second of two nodes of a name was taken", i)
		}
	}
}

// TestErrorsInTrees names the directory and what is wrong.
func TestErrorsInTrees(t *testing.T) {
	for name, json := range map[string]string{
		"cut":          `{"nodes":[{"name":"x"`,
		"no subtree":   `{"nodes":[{"name":"x","type":"dir"}]}`,
		"null subtree": `{"nodes":[{"name":"x","type":"dir","subtree":null}]}`,
		"bad quoting":  `{"nodes":[{"name":"x\\q","type":"fifo"}]}`,
		"quote":        `{"nodes":[{"name":"x\"","type":"fifo"}]}`,
		"no name":      `{"nodes":[{"type":"fifo"}]}`,
		"null node":    `{"nodes":[null]}`,
		"bad time":     `{"nodes":[{"name":"x","type":"fifo","mtime":"2024-02-30T00:00:00Z"}]}`,
		"bad number":   `{"nodes":[{"name":"x","type":"fifo","uid":4294967296}]}`,
		"trailing":     `{"nodes":[]}x`,
		"bad id":       `{"nodes":[{"name":"x","type":"file","content":["12"]}]}`,
		"bad base64":   `{"nodes":[{"name":"x","type":"file","extended_attributes":[{"name":"a","value":"*"}]}]}`,
	} {
		b := newBuilder(t)
		sub := b.blob(treeBlob, []byte(json))
		top := b.blob(treeBlob, []byte(`{"nodes":[{"name":"top","type":"dir","subtree":"`+sub.String()+`"}]}`))
		b.snapshot(top)
		if _, err := formattest.Stream(b.open(), format.ExportOptions{}); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), `"/top`) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestFileWithoutContent has files that restic could not read, or lost.
func TestFileWithoutContent(t *testing.T) {
	b := newBuilder(t)
	b.snapshot(b.tree(map[string]*testNode{
		"unread": {content: [][]byte{[]byte("begin")}, extra: map[string]any{"error": "input/output error", "size": 99}},
		"lost":   {extra: map[string]any{"content": nil, "size": 7}},
		"empty":  {},
	}))
	got := formattest.Receive(t, formattest.MustStream(t, b.open(), format.ExportOptions{}), nil)[0]
	want := []format.Loss{{Kind: "damaged", Count: 1, Paths: []string{"lost"}}, {Kind: "unreadable", Count: 1, Paths: []string{"unread"}}}
	if d := cmp.Diff(want, got.Commit.Losses); d != "" {
		t.Error(d)
	}
	if o := got.Listing["unread"]; o.Err != "input/output error" || string(bytes.Join(o.Pieces, nil)) != "begin" {
		t.Errorf("%q %q", o.Err, o.Pieces)
	}
}

// TestForeignFrames has blobs that restic reads and the stream does not take.
func TestForeignFrames(t *testing.T) {
	plain := bytes.Repeat([]byte("abc"), 1000)
	twoFrames := append(testEncoder.EncodeAll(plain[:1000], nil), testEncoder.EncodeAll(plain[1000:], nil)...)
	dict, err := zstd.NewWriter(nil, zstd.WithEncoderDictRaw(7, plain[:64]))
	if err != nil {
		t.Fatal(err)
	}
	w := &want{place: place{blob: blob{id: format.SumID(plain), stored: 100, plain: 3000}}}
	data := func() *format.Data { return &format.Data{ID: w.id, Size: 3000} }
	d := data()
	if err := loadChunk(w, bytes.Clone(twoFrames), d, false); err != nil || d.Codec != format.CodecNone || !bytes.Equal(d.Payload, plain) {
		t.Errorf("two frames: %v, %s", err, d.Codec)
	}
	d = data()
	if err := loadChunk(w, testEncoder.EncodeAll(plain, nil), d, false); err != nil || d.Codec != format.CodecZstd {
		t.Errorf("one frame: %v, %s", err, d.Codec)
	}
	for name, payload := range map[string][]byte{
		"dictionary":    dict.EncodeAll(plain, nil),
		"other size":    testEncoder.EncodeAll(plain[1:], nil),
		"larger":        testEncoder.EncodeAll(append(plain[:len(plain):len(plain)], 1), nil),
		"other content": append(testEncoder.EncodeAll(plain[:1000], nil), testEncoder.EncodeAll(plain[:2000], nil)...),
		"nothing":       nil,
	} {
		if err := loadChunk(w, payload, data(), false); err == nil || !strings.Contains(err.Error(), w.id.String()) || format.ClassOf(err) != "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := loadChunk(w, testEncoder.EncodeAll(bytes.Repeat([]byte("xyz"), 1000), nil), data(), true); !errors.Is(err, ErrDamaged) || format.ClassOf(err) != "" {
		t.Errorf("plain bytes of other content: %v", err)
	}
}

// TestCloseEarly leaves an export in the middle.
func TestCloseEarly(t *testing.T) {
	b := newBuilder(t)
	many := map[string]*testNode{}
	for i := range 3000 {
		many[fmt.Sprint(i)] = &testNode{content: [][]byte{fmt.Appendf(nil, "%d", i)}}
	}
	b.packBlobs = 100
	b.snapshot(b.tree(many))
	r := b.open()
	for n := range 20 {
		src, err := r.Export(context.Background(), format.ExportOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for range n * n * 10 {
			if _, err := src.Next(); err != nil {
				t.Fatal(err)
			}
		}
		if err := src.Close(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	stopped := errors.New("stopped")
	src, err := r.Export(ctx, format.ExportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	cancel(stopped)
	for err == nil {
		_, err = src.Next()
	}
	if !errors.Is(err, stopped) {
		t.Error(err)
	}
}
