package borg

import (
	"context"
	"testing"

	"github.com/bk-backup/bk/format/chunker"
	"github.com/bk-backup/bk/format/formattest"
)

// TestCuts asks repositories whose archives have such parameters, oldest first.
func TestCuts(t *testing.T) {
	n := func(numbers ...uint64) (list []any) {
		for _, v := range numbers {
			list = append(list, v)
		}
		return list
	}
	named := func(method string, numbers ...uint64) []any { return append([]any{method}, n(numbers...)...) }
	for _, c := range []struct {
		why      string
		archives [][]any
		want     string // "" is an error
	}{
		{"no archive", nil, "buzhash"},
		{"the usual ones", [][]any{borgParams}, "buzhash"},
		{"the newest counts", [][]any{named("fixed", 4<<20, 0), borgParams, named("buzhash", 10, 23, 16, 4095)}, "buzhash:1KiB,64KiB,8MiB"},
		{"but for those of bk-import", [][]any{named("buzhash", 15, 19, 17, 63), foreignParams, nil}, "buzhash:32KiB,128KiB,512KiB,63"},
		{"before 1.2", [][]any{n(19, 23, 21, 4095)}, "buzhash"},
		{"blocks", [][]any{named("fixed", 4<<20)}, "fixed:4MiB"},
		{"blocks behind a head", [][]any{borgParams, named("fixed", 4<<20, 4096)}, ""},
		{"another method", [][]any{named("rolling", 19, 23, 21, 4095)}, ""},
		{"too few numbers", [][]any{named("buzhash", 19, 23)}, ""},
		{"a shift too far", [][]any{named("buzhash", 19, 64, 21, 4095)}, ""},
		{"large numbers", [][]any{named("buzhash", 19, 23, 1<<63, 4095)}, ""},
		{"text for a number", [][]any{{"fixed", "x"}}, ""},
		{"no method", [][]any{{""}}, ""},
		{"no size", [][]any{named("fixed", 0)}, ""},
	} {
		t.Run(c.why, func(t *testing.T) {
			b := newBuilder(t, modeNone)
			b.keys.chunkSeed = -2
			for i, params := range c.archives {
				b.adapt = func(a *archiveMeta) { a.chunkerParams = params }
				b.archive(string(rune('a'+i)), b.file("f", "x"))
			}
			spec, seed, err := b.open().Cuts(context.Background())
			if c.want == "" {
				formattest.WantError(t, err, ErrCuts, "archive")
				return
			}
			want, parseErr := chunker.ParseSpec(c.want)
			if err != nil || parseErr != nil || spec != want || seed != 0xfffffffe {
				t.Errorf("%s with %#x, %v, want %s", spec, seed, err, want)
			}
		})
	}
}

// TestFixtureCuts asks what borg itself has made.
func TestFixtureCuts(t *testing.T) {
	r := mustOpenFixture(t, "repokey-churn", Options{})
	spec, seed, err := r.Cuts(context.Background())
	if err != nil || spec.String() != "buzhash:1KiB,2KiB,8KiB" || seed == 0 {
		t.Errorf("%s, %t, %v", spec, seed != 0, err)
	}
}
