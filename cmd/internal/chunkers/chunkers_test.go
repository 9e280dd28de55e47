package chunkers

import (
	"testing"

	"github.com/bk-backup/bk/format/chunker"
	"github.com/bk-backup/bk/repo/keyring"
)

func TestLastRuleCuts(t *testing.T) {
	factory := func(spec chunker.Spec) (*chunker.Factory, error) {
		return chunker.New(spec, chunker.Keyed{Secret: [32]byte{1}})
	}
	rules := []keyring.Rule{{Pattern: "*.img", Chunker: "fixed:64KiB"}, {Pattern: "vm", Chunker: "fixed:128KiB"}}
	for _, c := range []struct {
		flags []string
		path  string
		want  string
	}{
		{nil, "home/a", "gear:1MiB"},
		{nil, "home/a.img", "fixed:64KiB"},
		{nil, "home/vm/a.img", "fixed:128KiB"},
		{nil, "home/vm/deep/a", "fixed:128KiB"},
		{[]string{"/home/*.img=gear:64KiB"}, "home/a.img", "gear:64KiB"},
		{[]string{"/home/*.img=gear:64KiB"}, "srv/a.img", "fixed:64KiB"},
		{[]string{"rabin"}, "home/vm/a.img", "rabin"},
		{[]string{"*.c=fixed:1MiB", "rabin", "*.h=fixed:2MiB"}, "a.c", "rabin"},
		{[]string{"*.c=fixed:1MiB", "rabin", "*.h=fixed:2MiB"}, "a.h", "fixed:2MiB"},
	} {
		who, err := New(factory, "gear:1MiB", rules, c.flags)
		if err != nil {
			t.Fatal(err)
		}
		spec, err := chunker.ParseSpec(c.want)
		if err != nil {
			t.Fatal(err)
		}
		if _, name := who(c.path, 1<<20); name != spec.String() {
			t.Errorf("%v cut %s with %s, want %s", c.flags, c.path, name, spec)
		}
	}
	for _, bad := range []string{"*.img=nothing", "=fixed:1MiB=", "!a=rabin", "[=rabin"} {
		if _, err := New(factory, "gear:1MiB", nil, []string{bad, "rabin"}); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
