package index

import (
	"context"
	"testing"

	"github.com/bk-backup/bk/repo/pack"
	"github.com/bk-backup/bk/repo/seal"
)

// TestMarks marks places of chunks of which some lie in several packs.
func TestMarks(t *testing.T) {
	st := storage{}
	a, b, lost := makePack(0, 10), makePack(0, 10), makePack(20, 10)
	b.Info.Name[0] ^= 1
	st.add(a, lost)
	c := Open("", nil)
	defer c.Close()
	if err := c.Refresh(context.Background(), st.names(), st.fetch); err != nil {
		t.Fatal(err)
	}
	if err := c.Adopt([]pack.Listed{b}); err != nil {
		t.Fatal(err)
	}
	m := c.NewMarks(func(info pack.Info) int32 {
		if info.Name == a.Info.Name {
			return 1
		}
		return 0
	})
	for i, want := range []bool{true, false} {
		fresh, found, err := m.Mark(labelOf(3))
		if fresh != want || !found || err != nil {
			t.Fatalf("mark %d: fresh %t, found %t, %v", i, fresh, found, err)
		}
	}
	if _, _, err := m.Mark(labelOf(25)); err != nil {
		t.Fatal(err)
	}
	if fresh, found, err := m.Mark(labelOf(99)); fresh || found || err != nil {
		t.Fatalf("a chunk that is nowhere: fresh %t, found %t, %v", fresh, found, err)
	}
	got := map[[32]byte][]seal.Label{}
	records := 0
	err := m.Each(func(_ int, label seal.Label, hit Hit, marked bool) error {
		records++
		if marked {
			got[hit.Pack.Name] = append(got[hit.Pack.Name], label)
		}
		return nil
	})
	if err != nil || records != 30 {
		t.Fatalf("%d records, %v", records, err)
	}
	if len(got) != 2 || len(got[b.Info.Name]) != 1 || got[b.Info.Name][0] != labelOf(3) || got[lost.Info.Name][0] != labelOf(25) {
		t.Fatalf("marked: %x", got)
	}
}

// BenchmarkMarks marks every chunk of an index and looks at all records, as a
// collection does; an operation is one chunk.
func BenchmarkMarks(b *testing.B) {
	const chunks, perPack = 500_000, 500
	st := storage{}
	for n := 0; n < chunks; n += 50 * perPack {
		var packs []pack.Listed
		for i := range 50 {
			packs = append(packs, makePack(n+i*perPack, perPack))
		}
		st.add(packs...)
	}
	c := Open("", nil)
	defer c.Close()
	if err := c.Refresh(context.Background(), st.names(), st.fetch); err != nil {
		b.Fatal(err)
	}
	labels := make([]seal.Label, chunks)
	for i := range labels {
		labels[i] = labelOf(i)
	}
	b.ReportAllocs()
	b.ResetTimer()
	m := c.NewMarks(func(pack.Info) int32 { return 0 })
	for i := range b.N {
		if _, found, err := m.Mark(labels[i%chunks]); !found || err != nil {
			b.Fatal(found, err)
		}
	}
	err := m.Each(func(int, seal.Label, Hit, bool) error { return nil })
	if err != nil {
		b.Fatal(err)
	}
}
