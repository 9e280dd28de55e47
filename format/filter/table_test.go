package filter

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"hash/maphash"
	mathrand "math/rand/v2"
	"testing"

	"github.com/bk-backup/bk/format"
)

func numberedID(n uint64) format.ID {
	return format.SumID(binary.BigEndian.AppendUint64(nil, n))
}

func TestTable(t *testing.T) {
	tab := newTable(t.TempDir(), rand.Reader)
	defer tab.Close()
	const n = 5*hotMax + 17
	for i := range uint64(n) {
		if err := tab.put(numberedID(i), i*3); err != nil {
			t.Fatal(err)
		}
	}
	// Half of them change after they went to the file.
	for i := uint64(0); i < n; i += 2 {
		if err := tab.put(numberedID(i), i*7); err != nil {
			t.Fatal(err)
		}
	}
	if tab.file == nil || tab.pages <= pagesMin {
		t.Fatalf("the table has %d pages: it did not grow", tab.pages)
	}
	rnd := mathrand.New(mathrand.NewPCG(1, 1))
	for range 50_000 {
		i := rnd.Uint64N(n)
		want := i * 3
		if i%2 == 0 {
			want = i * 7
		}
		if got, ok, err := tab.get(numberedID(i)); err != nil || !ok || got != want {
			t.Fatalf("id %d: got %d, %v, %v, want %d", i, got, ok, err, want)
		}
		if _, ok, err := tab.get(numberedID(n + i)); err != nil || ok {
			t.Fatalf("id %d was never put: %v, %v", n+i, ok, err)
		}
	}
}

// TestTableFullPages crowds a table so that pages spill into the next ones,
// round the end of the file too.
func TestTableFullPages(t *testing.T) {
	tab := newTable(t.TempDir(), rand.Reader)
	defer tab.Close()
	if _, err := tab.reserve(1); err != nil {
		t.Fatal(err)
	}
	tab.batch = new(pageBatch)
	const n = 3*slotsPerPage + 5
	lastPage := ^uint64(0)
	for i := range uint64(n) {
		e := tableEntry{hash: lastPage, id: numberedID(i), value: i}
		if err := tab.store(&e); err != nil {
			t.Fatal(err)
		}
	}
	for i := range uint64(n) {
		id := numberedID(i)
		slot, found, err := tab.find(lastPage, &id)
		if err != nil || !found || slotValue(slot) != i {
			t.Fatalf("id %d: %v, %v", i, found, err)
		}
	}
}

// TestTableGrowsFromFullPages has a table grow of which many pages spilled into
// the next ones: what was put last stays, wherever the older number was found.
func TestTableGrowsFromFullPages(t *testing.T) {
	tab := newTable(t.TempDir(), rand.Reader)
	defer tab.Close()
	if _, err := tab.reserve(1); err != nil {
		t.Fatal(err)
	}
	const n = pagesMin * slotsPerPage * 95 / 100
	entries := make([]tableEntry, n)
	for i := range uint64(n) {
		id := numberedID(i)
		entries[i] = tableEntry{hash: maphash.Bytes(tab.seed, id[:]), id: id, value: i}
	}
	sortEntries(entries)
	tab.batch = new(pageBatch)
	if err := errors.Join(tab.storeAll(entries), tab.save(), tab.batch.write(tab.file)); err != nil {
		t.Fatal(err)
	}
	for i := uint64(0); i < n; i += 3 {
		tab.hot[numberedID(i)] = i * 5
	}
	for i := range uint64(100) {
		tab.hot[numberedID(n+i)] = i
	}
	if err := tab.flush(); err != nil {
		t.Fatal(err)
	}
	if tab.pages <= pagesMin || tab.stored != n+100 {
		t.Fatalf("%d ids in %d pages", tab.stored, tab.pages)
	}
	for i := range uint64(n + 100) {
		want := i
		switch {
		case i >= n:
			want = i - n
		case i%3 == 0:
			want = i * 5
		}
		if got, ok, err := tab.get(numberedID(i)); err != nil || !ok || got != want {
			t.Fatalf("id %d: %d, %v, %v; want %d", i, got, ok, err, want)
		}
	}
}

// TestSpoolLeavesNothingReadable looks into the spool's files for what went in.
func TestSpoolLeavesNothingReadable(t *testing.T) {
	s := newSpool(t.TempDir(), rand.Reader)
	defer s.Close()
	payload := bytes.Repeat([]byte("a secret of the user "), 40_000)
	d := &format.Data{ID: format.SumID(payload), Size: uint32(len(payload)), Payload: payload,
		Extra: []format.Field{{Key: "k", Raw: []byte{0xa1, 'v'}}, {Key: "l", Raw: []byte{1}}}}
	if _, err := s.keep(d, false); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(hotMax) {
		if err := s.index.put(numberedID(i), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.chunks.file.wait(); err != nil {
		t.Fatal(err)
	}
	raw := make([]byte, s.chunks.file.size)
	if n, err := s.chunks.file.file.ReadAt(raw, 0); n == 0 || n != len(raw) {
		t.Fatal(n, err)
	}
	if bytes.Contains(raw, []byte("secret")) {
		t.Error("the spool's file holds the payload in plain")
	}
	index := make([]byte, tableFileSize(t, s.index))
	if _, err := s.index.file.ReadAt(index, 0); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(index, d.ID[:8]) {
		t.Error("the spool's index holds an id in plain")
	}
	var got *format.Data
	if err := s.send(format.ChunkRef{ID: d.ID, Size: d.Size}, func(rec format.Record) error {
		got = format.Clone(rec).(*format.Data)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Payload, payload) || got.ID != d.ID || got.Size != d.Size || len(got.Extra) != 2 || got.Extra[0].Key != "k" {
		t.Error("the chunk came back changed")
	}
	if err := s.send(format.ChunkRef{ID: d.ID, Size: 1}, nil); format.ClassOf(err) != format.ClassReference {
		t.Errorf("a wrong size gives %v", err)
	}
}

func tableFileSize(t *testing.T, tab *table) int64 {
	info, err := tab.file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func TestCryptFileReadsAnywhere(t *testing.T) {
	f := newCryptFile(t.TempDir(), rand.Reader)
	defer f.Close()
	rnd := mathrand.New(mathrand.NewPCG(2, 2))
	for range 2 { // the second time after a reset
		var want []byte
		for range 300 {
			part := make([]byte, rnd.IntN(5000))
			for i := range part {
				part[i] = byte(rnd.Uint32())
			}
			want = append(want, part...)
			if _, err := f.Write(part); err != nil {
				t.Fatal(err)
			}
			if len(want) == 0 {
				continue
			}
			at := rnd.IntN(len(want))
			got := make([]byte, rnd.IntN(len(want)-at))
			if _, err := f.ReadAt(got, int64(at)); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want[at:at+len(got)]) {
				t.Fatalf("%d bytes at %d differ", len(got), at)
			}
		}
		if err := f.reset(); err != nil {
			t.Fatal(err)
		}
	}
}

func BenchmarkTable(b *testing.B) {
	tab := newTable(b.TempDir(), rand.Reader)
	defer tab.Close()
	const n = 1 << 20
	for i := range uint64(n) {
		if err := tab.put(numberedID(i), i); err != nil {
			b.Fatal(err)
		}
	}
	for name, from := range map[string]uint64{"hit": 0, "miss": n} {
		b.Run(name, func(b *testing.B) {
			for i := range uint64(b.N) {
				if _, _, err := tab.get(numberedID(from + i*7919%n)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
