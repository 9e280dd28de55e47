package format

import (
	"bytes"
	"testing"
)

func TestVerifier(t *testing.T) {
	file := &Entry{Path: "a", Type: TypeFile}
	one, two := plainData([]byte("one")), plainData([]byte("two"))
	ref := func(d *Data, size uint32) *Refs { return &Refs{Chunks: []ChunkRef{{d.ID, size}}} }
	sum := func(s string) *ID { return new(SumID([]byte(s))) }
	for _, c := range []struct {
		name     string
		features []Feature
		recs     []Record
		want     Class
	}{
		{"good", nil, []Record{file, one, two, ref(one, 3), &EOF{Size: 9}}, ""},
		{"whole", nil, []Record{file, one, two, &EOF{Size: 6, SHA256: sum("onetwo")}}, ""},
		{"whole after another", nil, []Record{file, one, &EOF{Size: 3}, &Entry{Path: "b", Type: TypeFile}, two, &EOF{Size: 3, SHA256: sum("two")}}, ""},
		{"not whole", nil, []Record{file, one, ref(one, 3), &EOF{Size: 6, SHA256: sum("?")}}, ""},
		{"wrong whole", nil, []Record{file, one, two, &EOF{Size: 6, SHA256: sum("twoone")}}, ClassDigest},
		{"wrong id", nil, []Record{file, &Data{ID: ID{1}, Size: 1, Payload: []byte("x")}}, ClassChunk},
		{"not sent", nil, []Record{file, one, ref(two, 3)}, ClassReference},
		{"wrong size", nil, []Record{file, one, ref(one, 4)}, ClassReference},
		{"held", []Feature{FeatureHeld}, []Record{file, ref(two, 3)}, ""},
		{"held, wrong size", []Feature{FeatureHeld}, []Record{file, two, ref(two, 4)}, ClassReference},
	} {
		var v Verifier
		passed := 0
		recs := append([]Record{&Header{Version: 1, Features: c.features}, &Snapshot{ID: ID{1}}}, c.recs...)
		for i, rec := range recs {
			err := v.Process(rec, func(Record) error { passed++; return nil })
			want := Class("")
			if i == len(recs)-1 {
				want = c.want
			}
			if ClassOf(err) != want || err == nil && want != "" {
				t.Errorf("%s: record %d: %v, want %q", c.name, i, err, want)
			}
		}
		if want := len(recs); c.want == "" && passed != want {
			t.Errorf("%s: %d of %d records passed", c.name, passed, want)
		}
	}
	var v Verifier
	r := NewReader(bytes.NewReader(encodeStream(t, sampleRecords())), ReaderOptions{})
	if err := Copy(t.Context(), sinkFunc(func(Record) error { return nil }), r, &v); err != nil {
		t.Fatal(err)
	}
	if want := uint64(13 + 70_000 + 21_000); v.UniqueBytes() != want {
		t.Errorf("%d unique bytes, want %d", v.UniqueBytes(), want)
	}
}
