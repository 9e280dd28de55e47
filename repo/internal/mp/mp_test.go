package mp

import (
	"bytes"
	"errors"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/repo/seal"
)

type sample struct {
	A []part `msgpack:"a"`
	B uint64 `msgpack:"b,omitempty"`
}

type part struct {
	//lint:ignore U1000 msgpack reads it by reflection
	_msgpack struct{} `msgpack:",as_array"`
	Number   int64
	Bytes    []byte
}

func TestRoundTrip(t *testing.T) {
	v := sample{A: []part{{Number: -1, Bytes: []byte{2}}, {Number: 300, Bytes: []byte{}}}, B: 1 << 40}
	want := []byte("\x82\xa1a\x92\x92\xff\xc4\x01\x02\x92\xcd\x01\x2c\xc4\x00\xa1b\xcf\x00\x00\x01\x00\x00\x00\x00\x00")
	b := Encode(&v)
	if !bytes.Equal(b, want) {
		t.Errorf("%x, want %x", b, want)
	}
	var got sample
	if err := Decode(b, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(v, got, cmp.AllowUnexported(part{})); diff != "" {
		t.Error(diff)
	}
	if b := Encode(&sample{A: []part{}}); !bytes.Equal(b, []byte("\x81\xa1a\x90")) {
		t.Errorf("without what is optional: %x", b)
	}
}

// TestHostile decodes what makes package msgpack alone allocate without bound,
// or overflow the stack.
func TestHostile(t *testing.T) {
	for name, b := range map[string][]byte{
		"empty":    {},
		"cut":      []byte("\x81\xa1a"),
		"trailing": []byte("\x80\x80"),
		"array":    []byte("\x81\xa1a\xdd\x40\x00\x00\x00\x92\x01\x02"),
		"bin":      []byte("\x81\xa1a\x91\x92\x01\xc6\x7f\xff\xff\xff"),
		"depth":    append([]byte("\x81\xa1x"), bytes.Repeat([]byte{0x91}, 1<<20)...),
		"type":     []byte("\x81\xa1a\x01"),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		var v sample
		err := Decode(b, &v)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, seal.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
			t.Errorf("%s: %d bytes were allocated", name, n)
		}
	}
}
