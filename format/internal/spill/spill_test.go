package spill

import (
	"bytes"
	"encoding/binary"
	"os"
	"testing"

	"pgregory.net/rapid"
)

func TestTable(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		table := newTable(dir, 7)
		defer table.Close()
		model := map[Key]uint64{}
		key := func() Key {
			k := KeyOf('t', "")
			binary.BigEndian.PutUint16(k[:], rapid.Uint16Range(0, 900).Draw(t, "key"))
			return k
		}
		for range rapid.IntRange(0, 1500).Draw(t, "steps") {
			k := key()
			if rapid.Bool().Draw(t, "put") {
				v := rapid.Uint64().Draw(t, "value")
				model[k] = v
				if err := table.Put(k, v); err != nil {
					t.Fatal(err)
				}
				continue
			}
			got, ok, err := table.Get(k)
			want, has := model[k]
			if err != nil || ok != has || got != want {
				t.Fatalf("Get(%x) = %d, %v, %v; want %d, %v", k, got, ok, err, want, has)
			}
		}
		for k, v := range model {
			if got, ok, err := table.Get(k); !ok || got != v || err != nil {
				t.Fatalf("at the end Get(%x) = %d, %v, %v; want %d", k, got, ok, err, v)
			}
		}
		if len(table.runs) > 9 {
			t.Fatalf("%d runs", len(table.runs))
		}
	})
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestTableMany(t *testing.T) {
	table := newTable(t.TempDir(), 1000)
	defer table.Close()
	const n = 50_000
	name := func(i int) Key { return KeyOf('n', string(binary.AppendUvarint(nil, uint64(i)))) }
	for i := range n {
		if err := table.Put(name(i), uint64(i)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		if v, ok, err := table.Get(name(i)); v != uint64(i) || !ok || err != nil {
			t.Fatalf("key %d: %d, %v, %v", i, v, ok, err)
		}
	}
	if _, ok, _ := table.Get(KeyOf('m', "")); ok {
		t.Error("a key of another space is there")
	}
	if err := table.Reset(); err != nil {
		t.Fatal(err)
	}
	if _, ok, _ := table.Get(name(1)); ok {
		t.Error("a key outlived Reset")
	}
}

func TestLog(t *testing.T) {
	log := NewLog(t.TempDir())
	defer log.Close()
	var model []byte
	for i := range 300 {
		p := bytes.Repeat([]byte{byte(i)}, i*101)
		if log.Size() != int64(len(model)) {
			t.Fatalf("size %d, not %d", log.Size(), len(model))
		}
		if _, err := log.Write(p); err != nil {
			t.Fatal(err)
		}
		model = append(model, p...)
		if len(model) > 100 {
			at := i * 7919 % (len(model) - 50)
			if _, err := log.WriteAt([]byte("overwritten"), int64(at)); err != nil {
				t.Fatal(err)
			}
			copy(model[at:], "overwritten")
		}
	}
	got := make([]byte, len(model))
	if _, err := log.ReadAt(got, 0); err != nil || !bytes.Equal(got, model) {
		t.Fatalf("the log is not what was written: %v", err)
	}
	if len(model) < logMemory+logMemory/2 {
		t.Fatal("too little was written to reach the file")
	}
	if _, err := log.ReadAt(make([]byte, 2), log.Size()-1); err == nil {
		t.Error("reading behind the end is no error")
	}
}
