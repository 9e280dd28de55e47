package formattest

import (
	"bytes"
	"crypto/sha256"
	"maps"
	"slices"
	"testing"

	"github.com/bk-backup/bk/format"
)

// Object is what a listing has at a path.
type Object struct {
	Entry  *format.Entry
	Pieces [][]byte        // of a file: its content, holes included
	Holes  []format.Extent // what of it came as holes
	Chunks []format.ID     // that data or refs named, in order
	Err    string          // of its eof
}

// Listing is a snapshot as a receiver has it.
type Listing map[string]*Object

// zeros are what holes consist of. They may be large, so their pieces share it.
var zeros [1 << 20]byte

// Content returns the bytes of a file.
func (o *Object) Content() []byte { return slices.Concat(o.Pieces...) }

// Size returns how many bytes a file has.
func (o *Object) Size() (n uint64) {
	for _, piece := range o.Pieces {
		n += uint64(len(piece))
	}
	return n
}

// Sum returns the SHA-256 of a file's content.
func (o *Object) Sum() (sum [32]byte) {
	h := sha256.New()
	for _, piece := range o.Pieces {
		h.Write(piece)
	}
	h.Sum(sum[:0])
	return sum
}

// Data returns what of a file is no hole.
func (o *Object) Data() (list []format.Extent) {
	at := uint64(0)
	for _, hole := range append(slices.Clip(o.Holes), format.Extent{Offset: o.Size()}) {
		if hole.Offset > at {
			list = append(list, format.Extent{Offset: at, Size: hole.Offset - at})
		}
		at = hole.Offset + hole.Size
	}
	return list
}

// addHole appends a hole to a file.
func (o *Object) addHole(size uint64) {
	at := o.Size()
	if n := len(o.Holes); n > 0 && o.Holes[n-1].Offset+o.Holes[n-1].Size == at {
		o.Holes[n-1].Size += size
	} else {
		o.Holes = append(o.Holes, format.Extent{Offset: at, Size: size})
	}
	for size > 0 {
		n := min(size, uint64(len(zeros)))
		o.Pieces = append(o.Pieces, zeros[:n:n])
		size -= n
	}
}

// remove takes a path and what is below it out of the listing.
func (l Listing) remove(path string) {
	for p := range l {
		if p == path || format.IsBelow(p, path) {
			delete(l, p)
		}
	}
}

// Groups returns the paths of each group of hard links, sorted.
func (l Listing) Groups() map[string][]string {
	groups := make(map[string][]string)
	for _, p := range slices.Sorted(maps.Keys(l)) {
		if g := l[p].Entry.Hardlink; g != "" {
			groups[g] = append(groups[g], p)
		}
	}
	return groups
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

// EqualSnapshots compares the listings of snapshots with those of the same ids
// in whole.
func EqualSnapshots(t testing.TB, mode string, whole, list []*Received) {
	t.Helper()
	for _, s := range list {
		i := slices.IndexFunc(whole, func(w *Received) bool { return w.Record.ID == s.Record.ID })
		EqualListing(t, mode, whole[i].Listing, s.Listing)
	}
}
