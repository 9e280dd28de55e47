package chunker_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format/chunker"
)

func TestParseSpecErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                             "it is fixed, gear, rabin or buzhash",
		"buzzhash:64KiB":               `no method "buzzhash"`,
		"buzhash:64KiB":                "buzhash takes none",
		"buzhash:1,2,3,4,5":            "wrong number of sizes",
		"buzhash:64,64,4159":           "more than the minimum 64 and the window of 4095 bytes",
		"buzhash:64,64,1MiB,64KiB":     "less than 64KiB",
		"buzhash:64,1000,1MiB":         "power of two",
		"buzhash:64,64,33MiB":          "from 1 to 32MiB",
		"Gear:64KiB":                   "it is fixed, gear, rabin or buzhash",
		"fixed":                        "fixed takes one",
		"fixed:1,2,3":                  "fixed takes one",
		"gear":                         "gear takes the average",
		"gear:1KiB,2KiB":               "gear takes the average",
		"gear:1KiB,2KiB,3KiB,4KiB":     "gear takes the average",
		"rabin:1MiB":                   "rabin takes none",
		"rabin:":                       `size ""`,
		"fixed:":                       `size ""`,
		"fixed:0":                      "from 1 to 32MiB",
		"fixed:-1":                     "a number of bytes",
		"fixed:+1":                     "a number of bytes",
		"fixed:064KiB":                 "a number of bytes",
		"fixed: 64KiB":                 "a number of bytes",
		"fixed:64 KiB":                 "a number of bytes",
		"fixed:64kib":                  "KiB or MiB",
		"fixed:64K":                    "KiB or MiB",
		"fixed:1_000":                  "a number of bytes",
		"fixed:KiB":                    "a number of bytes",
		"fixed:1GiB":                   "KiB or MiB",
		"fixed:33554433":               "from 1 to 32MiB",
		"fixed:33MiB":                  "from 1 to 32MiB",
		"fixed:18446744073709551617":   "from 1 to 32MiB",
		"gear:255":                     "at least 64 bytes",
		"gear:16MiB":                   "four times the average",
		"gear:63,1KiB,4KiB":            "at least 64 bytes",
		"gear:1KiB,1087,4KiB":          "at least 64 bytes more than the minimum",
		"gear:4KiB,1KiB,16KiB":         "more than the minimum",
		"gear:1KiB,4KiB,4KiB":          "more than the average 4KiB",
		"rabin:63,64,128":              "at least 64 bytes",
		"rabin:512KiB,1000000,8MiB":    "power of two",
		"rabin:64,32,128":              "power of two from 64 bytes to 16MiB",
		"rabin:64,32MiB,32MiB":         "power of two from 64 bytes to 16MiB",
		"rabin:512KiB,1MiB,512KiB":     "more than the minimum",
		strings.Repeat("x", 1_000_000): "...",
	} {
		spec, err := chunker.ParseSpec(text)
		if err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 400 {
			t.Errorf("ParseSpec(%.40q): error %.500v, want %q", text, err, want)
		}
		if spec != (chunker.Spec{}) {
			t.Errorf("ParseSpec(%.40q) returned %v with its error", text, spec)
		}
	}
}

func TestSpecText(t *testing.T) {
	var spec chunker.Spec
	if err := spec.UnmarshalText([]byte("gear:65536")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(chunker.Spec{Method: chunker.Gear, Min: 16 << 10, Avg: 64 << 10, Max: 256 << 10}, spec); diff != "" {
		t.Error(diff)
	}
	text, err := spec.MarshalText()
	if err != nil || string(text) != "gear:64KiB" {
		t.Errorf("MarshalText: %q, %v", text, err)
	}
	if err := spec.UnmarshalText([]byte("gear:1")); err == nil || spec.Avg != 64<<10 {
		t.Errorf("a wrong text: %v, %v", spec, err)
	}
	if _, err := (chunker.Spec{}).MarshalText(); err == nil {
		t.Error("the zero spec has a text")
	}
}

func FuzzParseSpec(f *testing.F) {
	for _, text := range []string{"fixed:64KiB", "gear:64KiB", "gear:16KiB,64KiB,256KiB", "gear:65,1000,1001", "rabin", "rabin:512KiB,1MiB,8MiB", "gear:8MiB", "buzhash", "buzhash:64,64,66,1", "buzhash:512KiB,2MiB,8MiB,4094", "x:1,2,3,4,5"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		spec, err := chunker.ParseSpec(text)
		if err != nil {
			return
		}
		again, err := chunker.ParseSpec(spec.String())
		if err != nil || again != spec || again.String() != spec.String() || len(spec.String()) > len(text)+len("KiB") {
			t.Fatalf("%q is %+v, which prints as %q and reads as %+v, %v", text, spec, spec, again, err)
		}
		if spec.Min < 1 || spec.Max > chunker.SizeMax || spec.Min > spec.Max {
			t.Fatalf("%q is out of bounds: %+v", text, spec)
		}
	})
}
