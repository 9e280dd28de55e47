package tree

import (
	"context"
	"io"
	"math"
	"slices"
	"testing"

	"github.com/bk-backup/bk/format"
	"pgregory.net/rapid"
)

func contentWith(tb testing.TB, m *memory, pieces []Piece) Content {
	tb.Helper()
	w := NewContentWriter(context.Background(), m)
	for _, p := range pieces {
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
	c, err := w.Finish()
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func piecesOf(tb testing.TB, r *ContentReader) []Piece {
	tb.Helper()
	var pieces []Piece
	for {
		p, _, err := r.Next()
		if err == io.EOF {
			return pieces
		}
		if err != nil {
			tb.Fatal(err)
		}
		pieces = append(pieces, p)
	}
}

// chunksFrom makes n chunks with ids that follow from first.
func chunksFrom(first, n int) []Piece {
	var pieces []Piece
	for i := range n {
		pieces = append(pieces, Piece{ID: testID(first + i), Size: uint64(1000 + (first+i)%7)})
	}
	return pieces
}

func TestContentRoundTrip(t *testing.T) {
	m := newMemory()
	for _, n := range []int{0, 1, 31, 32, 33, 63, 64, 65, 1023, 1024, 1025, 5000, 60000} {
		pieces := chunksFrom(0, n)
		if n > 30 {
			pieces[7] = Piece{Size: 1 << 40}
			pieces[n-1] = Piece{Size: 5}
		}
		c := contentWith(t, m, pieces)
		got := piecesOf(t, NewContentReader(context.Background(), m, c))
		if !slices.Equal(pieces, got) {
			t.Fatalf("%d pieces: %d others were read", n, len(got))
		}
		top := c.AppendPieces(nil)
		if len(top) > contentInlineMax || (n <= contentInlineMax) != (depthOf(partsOf(c)) == 0) {
			t.Errorf("%d pieces: %d at the top, of the depth %d", n, len(top), top[0].Depth)
		}
		sum := uint64(0)
		for _, p := range pieces {
			sum += p.Size
		}
		if c.Size() != sum {
			t.Errorf("%d pieces: %d bytes, want %d", n, c.Size(), sum)
		}
	}
}

func TestContentIsCanonical(t *testing.T) {
	m := newMemory()
	a := contentWith(t, m, []Piece{{Size: 5}, {Size: 6}, {ID: testID(1), Size: 1}})
	b := contentWith(t, m, []Piece{{Size: 11}, {ID: testID(1), Size: 1}})
	if !a.Equal(b) {
		t.Error("two holes are not one")
	}
	if a.Equal(contentWith(t, m, []Piece{{Size: 11}, {ID: testID(2), Size: 1}})) {
		t.Error("contents with other chunks are equal")
	}
	if !contentWith(t, m, nil).Equal(Content{}) {
		t.Error("empty contents are not equal")
	}
}

func TestContentWriterRefuses(t *testing.T) {
	w := NewContentWriter(context.Background(), newMemory())
	for name, err := range map[string]error{
		"an empty chunk":     w.Chunk(testID(1), 0),
		"a large chunk":      w.Chunk(testID(1), format.ChunkSizeMax+1),
		"a chunk without id": w.Chunk(format.ID{}, 1),
		"a large hole":       w.Hole(math.MaxUint64),
	} {
		if format.ClassOf(err) != format.ClassLimit {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := w.Hole(format.FileSizeMax); err != nil {
		t.Fatal(err)
	}
	if err := w.Hole(1); format.ClassOf(err) != format.ClassLimit {
		t.Errorf("a content over the limit: %v", err)
	}
	w.Reset()
	if err := w.Chunk(testID(1), 1); err != nil {
		t.Errorf("after Reset: %v", err)
	}
}

func TestContentSeek(t *testing.T) {
	ctx := context.Background()
	m := newMemory()
	pieces := chunksFrom(0, 30000)
	pieces[100] = Piece{Size: 1 << 30}
	c := contentWith(t, m, pieces)
	var offsets []uint64
	at := uint64(0)
	for _, p := range pieces {
		offsets = append(offsets, at)
		at += p.Size
	}
	r := NewContentReader(ctx, m, c)
	rapid.Check(t, func(rt *rapid.T) {
		i := rapid.IntRange(0, len(pieces)-1).Draw(rt, "piece")
		within := rapid.Uint64Range(0, pieces[i].Size-1).Draw(rt, "within")
		m.reset()
		if err := r.Seek(offsets[i] + within); err != nil {
			rt.Fatal(err)
		}
		for ; i < min(len(pieces), rapid.IntRange(0, 300).Draw(rt, "count")); i++ {
			p, offset, err := r.Next()
			if err != nil || p != pieces[i] || offset != offsets[i] {
				rt.Fatalf("piece %d is %v at %d, %v", i, p, offset, err)
			}
		}
		if len(m.loads) > 10 {
			rt.Fatalf("%d loads", len(m.loads))
		}
	})
	if err := r.Seek(c.Size()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Next(); err != io.EOF {
		t.Errorf("at the end Next returns %v", err)
	}
	if err := r.Seek(c.Size() + 1); err == nil {
		t.Error("seeking behind the end is no error")
	}
}

func TestHugeContentTakesLittleMemory(t *testing.T) {
	m := newMemory()
	w := NewContentWriter(context.Background(), m)
	id := testID(1)
	for i := range 1 << 20 {
		id[0], id[1], id[2], id[3] = byte(i*31), byte(i>>8), byte(i>>16), byte(i*7)
		if err := w.Chunk(id, 16<<20); err != nil {
			t.Fatal(err)
		}
	}
	kept := 0
	for _, l := range w.levels {
		kept += cap(l.pieces)
	}
	c, err := w.Finish()
	if err != nil || c.Size() != 16<<40 {
		t.Fatal(c.Size(), err)
	}
	if kept > 4096 {
		t.Errorf("the writer kept %d pieces", kept)
	}
	m.reset()
	r := NewContentReader(context.Background(), m, c)
	if err := r.Seek(15 << 40); err != nil || len(m.loads) > 4 {
		t.Errorf("%d loads to seek, error %v", len(m.loads), err)
	}
}

func TestContentDiff(t *testing.T) {
	ctx := context.Background()
	rapid.Check(t, func(rt *rapid.T) {
		m := newMemory()
		older := chunksFrom(0, rapid.SampledFrom([]int{0, 3, 40, 3000, 12000}).Draw(rt, "old"))
		newer := append([]Piece{}, older...)
		for range rapid.IntRange(0, 5).Draw(rt, "edits") {
			i := rapid.IntRange(0, len(newer)).Draw(rt, "at")
			gone := min(rapid.SampledFrom([]int{0, 1, 100}).Draw(rt, "gone"), len(newer)-i)
			with := chunksFrom(1000000*rapid.IntRange(1, 5).Draw(rt, "new"), rapid.SampledFrom([]int{0, 1, 60, 500}).Draw(rt, "come"))
			if rapid.Bool().Draw(rt, "hole") {
				with = append(with, Piece{Size: 4096})
			}
			newer = append(append(append([]Piece{}, newer[:i]...), with...), newer[i+gone:]...)
		}
		a, b := contentWith(t, m, older), contentWith(t, m, newer)
		m.reset()
		d, err := NewContentDiff(ctx, m, a, b)
		if err != nil {
			rt.Fatal(err)
		}
		at := make(map[uint64]format.ID) // the old content's chunks
		known := make(map[format.ID]bool)
		offset := uint64(0)
		for _, p := range older {
			at[offset] = p.ID
			known[p.ID] = true
			offset += p.Size
		}
		got := piecesOf(t, NewContentReader(ctx, m, b))
		offset = 0
		sent := 0
		for {
			s, err := d.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				rt.Fatal(err)
			}
			if s.Offset != offset {
				rt.Fatalf("a segment begins at %d, the one before ends at %d", s.Offset, offset)
			}
			if !s.Same {
				if s.Piece != got[0] || s.Size != s.Piece.Size {
					rt.Fatalf("the segment %+v is not the piece %+v", s, got[0])
				}
				if known[s.Piece.ID] {
					sent++
				}
				offset += s.Size
				got = got[1:]
				continue
			}
			for from := s.From; from < s.From+s.Size; {
				if at[from] != got[0].ID {
					rt.Fatalf("the old content has %s at %d, not %s", at[from].Short(), from, got[0].ID.Short())
				}
				from += got[0].Size
				offset += got[0].Size
				got = got[1:]
			}
		}
		if len(got) > 0 {
			rt.Fatalf("%d pieces were not handed out", len(got))
		}
		if sent > 0 {
			rt.Fatalf("%d chunks of the old content were not found", sent)
		}
	})
}

func TestContentDiffFollowsRepeatedChunks(t *testing.T) {
	m := newMemory()
	var older []Piece
	for i := range 30 {
		older = append(older, chunksFrom(i%3, 1)...)
	}
	newer := append(slices.Clone(older[3:]), chunksFrom(99, 1)...)
	newer[0].ID = testID(1000)
	d, err := NewContentDiff(context.Background(), m, contentWith(t, m, older), contentWith(t, m, newer))
	n := 0
	for ; err == nil; n++ {
		_, err = d.Next()
	}
	if err != io.EOF || n > 5 {
		t.Errorf("%d segments, error %v", n-1, err)
	}
}

func TestContentDiffCostsWhatDiffers(t *testing.T) {
	ctx := context.Background()
	m := newMemory()
	older := chunksFrom(0, 65536)
	newer := append([]Piece{}, older...)
	newer[30000] = Piece{ID: testID(1 << 30), Size: 77}
	newer = append(append(newer[:10:10], chunksFrom(1<<29, 3)...), newer[10:]...)
	a, b := contentWith(t, m, older), contentWith(t, m, newer)
	m.reset()
	d, err := NewContentDiff(ctx, m, a, b)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for {
		s, err := d.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if n++; !s.Same && s.Offset > 20000 && s.Size != 77 {
			t.Errorf("the segment %+v was not found", s)
		}
	}
	if n != 7 || len(m.loads) > 14 {
		t.Errorf("%d segments with %d loads", n, len(m.loads))
	}
}
