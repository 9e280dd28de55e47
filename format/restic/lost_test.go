package restic

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/formattest"
	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/store/mem"
)

// lostHistory has a chunk that three files need: one of the first snapshot, which
// stays, and two of the second, of which the one names it alone and the other is a
// new version. The third snapshot has none of them.
func lostHistory(t *testing.T) (b *builder, pack, chunk string) {
	b = newBuilder(t)
	b.packBlobs = 1
	text := func(words ...string) *testNode {
		n := &testNode{}
		for _, word := range words {
			n.content = append(n.content, []byte(strings.Repeat(word, 100)))
		}
		return n
	}
	first := map[string]*testNode{"bad": text("one", "lost", "two"), "changed": text("lost", "two"), "good": text("one", "two")}
	b.snapshot(b.tree(first))
	second := map[string]*testNode{"bad": first["bad"], "changed": text("lost", "three", "two"), "good": first["good"], "more": text("two", "lost")}
	b.snapshot(b.tree(second))
	b.snapshot(b.tree(map[string]*testNode{"good": first["good"]}))
	id := format.SumID([]byte(strings.Repeat("lost", 100)))
	r := b.open()
	_, at, err := r.find(context.Background(), dataBlob, id)
	if err != nil {
		t.Fatal(err)
	}
	return b, packName(r.index.Load().listed.packs[at.pack]), id.String()
}

// TestLostContent goes on over a chunk that is damaged or missing: what needs it
// says so, in every snapshot that has it, and everything else is as it was.
func TestLostContent(t *testing.T) {
	b, pack, chunk := lostHistory(t)
	want := formattest.Receive(t, formattest.MustStream(t, b.on(b.st), format.ExportOptions{}), nil)
	for name, damage := range map[string]func(*mem.Store){
		"flipped": func(st *mem.Store) { st.Damage(pack, func(b []byte) []byte { b[30] ^= 1; return b }) },
		"cut":     func(st *mem.Store) { st.Damage(pack, func(b []byte) []byte { return b[:20] }) },
		"missing": func(st *mem.Store) {
			if err := st.Delete(context.Background(), pack); err != nil {
				t.Fatal(err)
			}
		},
	} {
		for form, opts := range map[string]format.ExportOptions{"differences": {}, "full": {Full: true}, "flat": {Flat: true}, "copy": {Copy: true}} {
			t.Run(name+" "+form, func(t *testing.T) {
				st := b.st.Clone()
				damage(st)
				if _, err := formattest.Stream(b.on(st), opts); err == nil {
					t.Error("who did not ask for it gets a stream with gaps")
				}
				var told []string
				r := b.on(st)
				snaps, err := r.Snapshots(context.Background())
				if err != nil {
					t.Fatal(err)
				}
				opts.OnDamage = func(snapshot format.ID, path string, err error) {
					if !isLost(err) || !strings.Contains(err.Error(), chunk) || !strings.Contains(err.Error(), idOf(pack)) {
						t.Error(err)
					}
					n := slices.IndexFunc(snaps, func(s *format.Snapshot) bool { return s.ID == snapshot })
					told = append(told, fmt.Sprint(n, " ", path))
				}
				got := formattest.Receive(t, formattest.MustStream(t, r, opts), nil)
				for i, paths := range [][]string{{"bad", "changed"}, {"bad", "changed", "more"}, nil} {
					checkGaps(t, got[i], want[i], paths)
				}
				wantTold := []string{"0 bad", "0 changed", "1 bad", "1 changed", "1 more"}
				if form == "differences" || form == "copy" {
					wantTold = slices.Delete(wantTold, 2, 3) // it comes from the parent
				}
				if !slices.Equal(told, wantTold) {
					t.Errorf("named: %q, not %q", told, wantTold)
				}
			})
		}
	}
}

// checkGaps compares a snapshot with what it was before some of its files lost the
// chunk.
func checkGaps(t *testing.T, got, want *formattest.Received, paths []string) {
	t.Helper()
	var losses []format.Loss
	if len(paths) > 0 {
		losses = []format.Loss{{Kind: format.LossDamaged, Count: uint64(len(paths)), Paths: paths}}
	}
	if fmt.Sprint(got.Commit.Losses) != fmt.Sprint(losses) {
		t.Errorf("losses: %v, not %v", got.Commit.Losses, losses)
	}
	if len(got.Listing) != len(want.Listing) {
		t.Errorf("%d entries, not %d", len(got.Listing), len(want.Listing))
	}
	for path, right := range want.Listing {
		have, content := got.Listing[path], right.Content()
		lost := slices.Contains(paths, path)
		if lost {
			word := []byte(strings.Repeat("lost", 100))
			content = bytes.ReplaceAll(content, word, make([]byte, len(word)))
		}
		if !bytes.Equal(have.Content(), content) {
			t.Errorf("%s has other content", path)
		}
		if strings.Contains(have.Err, "400 bytes of the content could not be read") != lost {
			t.Errorf("%s: error %q", path, have.Err)
		}
	}
}

// TestLostSize ends a file before a chunk that nothing knows.
func TestLostSize(t *testing.T) {
	b := newBuilder(t)
	unknown := format.SumID([]byte("never stored")).String()
	one := b.blob(dataBlob, []byte("one")).String()
	b.snapshot(b.tree(map[string]*testNode{
		"f": {extra: map[string]any{"content": []string{one, unknown, one}, "size": 100}},
		"g": {content: [][]byte{[]byte("one")}},
	}))
	n := 0
	got := formattest.Receive(t, formattest.MustStream(t, b.open(), format.ExportOptions{OnDamage: func(_ format.ID, path string, err error) {
		n++
		formattest.WantError(t, err, ErrMissing, unknown)
	}}), nil)[0]
	f := got.Listing["f"]
	if n != 1 || string(f.Content()) != "one" || f.Err == "" || string(got.Listing["g"].Content()) != "one" {
		t.Errorf("%d named, %q, %q", n, f.Content(), f.Err)
	}
	if l := got.Commit.Losses; len(l) != 1 || l[0].Kind != format.LossDamaged || l[0].Count != 1 {
		t.Error(l)
	}
}

// failing is storage on which one object cannot be read for now.
type failing struct {
	store.Reader
	name string
}

var errMedium = errors.New("input/output error")

func (f failing) ReadAt(ctx context.Context, name string, p []byte, off int64) error {
	if name == f.name {
		return errMedium
	}
	return f.Reader.ReadAt(ctx, name, p, off)
}

// TestNotLost stops where storage fails, and where the repository was pruned or is
// gone: what cannot be read now is not lost.
func TestNotLost(t *testing.T) {
	b, pack, _ := lostHistory(t)
	opts := format.ExportOptions{OnDamage: func(_ format.ID, path string, err error) { t.Errorf("%s counts as lost: %v", path, err) }}
	r := b.on(b.st)
	r.store = failing{b.st, pack}
	_, err := formattest.Stream(r, opts)
	formattest.WantError(t, err, errMedium, idOf(pack))

	for _, prefixes := range [][]string{{"index/"}, {"index/", "data/"}} {
		st := b.st.Clone()
		r = b.on(st)
		if _, err := r.loadedIndex(context.Background()); err != nil {
			t.Fatal(err)
		}
		gone := []string{pack}
		for _, prefix := range prefixes {
			if gone = append(gone, names(t, st, prefix)...); prefix == "data/" {
				gone = gone[1:]
			}
		}
		for _, name := range gone {
			if err := st.Delete(context.Background(), name); err != nil {
				t.Fatal(err)
			}
		}
		if _, err = formattest.Stream(r, opts); err == nil {
			t.Errorf("without %s: no error", prefixes)
		}
	}
}

// TestDamagedTree names the directory and the snapshot; going on would mean that
// nobody knows what is lost.
func TestDamagedTree(t *testing.T) {
	b := newBuilder(t)
	b.packBlobs = 1
	root := b.tree(map[string]*testNode{"d": {children: map[string]*testNode{"f": {}}}})
	snap := b.snapshot(root)
	r := b.open()
	bad := b.st.Clone()
	_, at, err := r.find(context.Background(), treeBlob, format.SumID(append(b.json(map[string]any{"nodes": []map[string]any{b.node("f", &testNode{})}}), '\n')))
	if err != nil {
		t.Fatal(err)
	}
	bad.Damage(packName(r.index.Load().listed.packs[at.pack]), func(b []byte) []byte { b[20] ^= 1; return b })
	_, err = formattest.Stream(b.on(bad), format.ExportOptions{OnDamage: func(format.ID, string, error) { t.Error("a tree is no content") }})
	formattest.WantError(t, err, ErrDamaged, `directory "/d"`, snap.String())
}
