package format

import (
	"bytes"
	"testing"
)

func TestCheckValue(t *testing.T) {
	nested := append(bytes.Repeat([]byte{0x91}, DepthMax), 0xc0)
	for _, c := range []struct {
		name string
		b    []byte
		want Class
	}{
		{"nil", []byte{0xc0}, ""},
		{"a map", []byte{0x81, 0xa1, 'a', 0xc4, 2, 0, 0}, ""},
		{"as deep as allowed", nested, ""},
		{"deeper", append([]byte{0x91}, nested...), ClassLimit},
		{"nothing", nil, ClassSyntax},
		{"cut", []byte{0x92, 1}, ClassSyntax},
		{"two values", []byte{1, 2}, ClassSyntax},
		{"0xc1", []byte{0x91, 0xc1}, ClassSyntax},
		{"a lying array", []byte{0xdd, 0xff, 0xff, 0xff, 0xff, 1}, ClassSyntax},
		{"a lying bin", []byte{0xc6, 0xff, 0xff, 0xff, 0xff, 1}, ClassSyntax},
		{"a lying map", []byte{0xdf, 0, 0, 0, 200, 1}, ClassSyntax},
	} {
		if err := CheckValue(c.b); ClassOf(err) != c.want || (err == nil) != (c.want == "") {
			t.Errorf("%s: %v, want class %q", c.name, err, c.want)
		}
	}
}
