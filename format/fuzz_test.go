package format

import (
	"bytes"
	"testing"
	"testing/iotest"

	"github.com/vmihailenco/msgpack/v5"
)

// FuzzReader reads arbitrary bytes. What it accepts must come out the same when
// it is written and read again; what it refuses must be refused with the same
// class however the bytes arrive.
func FuzzReader(f *testing.F) {
	stream := encodeStream(f, sampleRecords()[:3])
	f.Add(stream)
	var small []Record
	for _, rec := range sampleRecords() {
		if d, ok := rec.(*Data); ok && d.Size > 50_000 {
			continue
		}
		if e, ok := rec.(*EOF); ok && e.Size > 50_000 {
			e.Size -= 70_000
		}
		small = append(small, rec)
	}
	f.Add(encodeStream(f, small))
	f.Fuzz(func(t *testing.T, b []byte) {
		recs, err := readBytes(b)
		slowRecs, slow := readAll(NewReader(iotest.OneByteReader(bytes.NewReader(b)), ReaderOptions{}))
		if len(recs) != len(slowRecs) || ClassOf(err) != ClassOf(slow) {
			t.Fatalf("%d records and %v, but byte by byte %d and %v", len(recs), err, len(slowRecs), slow)
		}
		if err != nil {
			if ClassOf(err) == "" {
				t.Fatal(err)
			}
			return
		}
		again := encodeStream(t, recs)
		back, err := readBytes(again)
		if err != nil || len(back) != len(recs) {
			t.Fatal(err)
		}
		if third := encodeStream(t, back); !bytes.Equal(again, third) {
			t.Fatal("not stable")
		}
	})
}

// FuzzRecordRoundTrip parses arbitrary bytes as one record: what it accepts must
// encode canonically and parse to the same again.
func FuzzRecordRoundTrip(f *testing.F) {
	for _, rec := range sampleRecords() {
		if b, err := AppendRecord(nil, rec); err == nil && len(b) < 10_000 {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		rec, err := parseRecord(b)
		if err != nil {
			return
		}
		one, err := AppendRecord(nil, rec)
		if err != nil {
			t.Fatal(err)
		}
		back, err := parseRecord(one)
		if err != nil {
			t.Fatal(err)
		}
		two, err := AppendRecord(nil, back)
		if err != nil || !bytes.Equal(one, two) {
			t.Fatalf("%v\n% x\n% x", err, one, two)
		}
	})
}

// FuzzScanner compares where values end with another implementation, which must
// not be shown what nests deep.
func FuzzScanner(f *testing.F) {
	f.Add([]byte{0x93, 1, 0xc0, 0x81, 0xa1, 'a', 0xca, 0, 0, 0, 0})
	f.Add([]byte{0xc7, 3, 1, 1, 2, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		s := scanner{depthMax: DepthMax, sizeMax: BodySizeMax}
		n, err := s.scan(b)
		if err == errShort || ClassOf(err) == ClassLimit || len(b) > 1<<20 {
			return
		}
		r := bytes.NewReader(b)
		oracleErr := msgpack.NewDecoder(r).Skip()
		if (err == nil) != (oracleErr == nil) {
			t.Fatalf("% x: %v, but the other says %v", b, err, oracleErr)
		}
		if err == nil && n != len(b)-r.Len() {
			t.Fatalf("% x: %d bytes, but the other says %d", b, n, len(b)-r.Len())
		}
	})
}

// FuzzEntry compares the values in an entry's body with another implementation.
func FuzzEntry(f *testing.F) {
	for i := range 3 {
		f.Add(benchEntry(i).AppendBody(nil, true))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var e Entry
		rest, err := e.ParseBody(b, true)
		if err != nil {
			return
		}
		var m map[string]msgpack.RawMessage
		if err := msgpack.Unmarshal(b[:len(b)-len(rest)], &m); err != nil {
			return // it knows fewer forms of some values than msgpack has
		}
		compare := func(key string, has bool, want any, got any) {
			raw, ok := m[key]
			if !ok {
				if has {
					t.Fatalf("%s: not there", key)
				}
				return
			}
			if err := msgpack.Unmarshal(raw, got); err != nil {
				t.Fatalf("%s: %v", key, err)
			}
			if key != "path" && key != "user" {
				if w, g := want.(uint64), *got.(*uint64); w != g {
					t.Fatalf("%s: %d, but the other says %d", key, w, g)
				}
			} else if w, g := want.(string), string(*got.(*[]byte)); w != g {
				t.Fatalf("%s: %q, but the other says %q", key, w, g)
			}
		}
		compare("path", true, e.Path, new([]byte))
		compare("user", e.User != "", e.User, new([]byte))
		compare("size", e.Has&HasSize != 0, e.Size, new(uint64))
		compare("uid", e.Has&HasUID != 0, uint64(e.UID), new(uint64))
		compare("mode", e.Has&HasMode != 0, uint64(e.Mode), new(uint64))
		compare("inode", e.Has&HasInode != 0, e.Inode, new(uint64))
	})
}
