package prefetch

import (
	"slices"
	"testing"
)

func TestRuns(t *testing.T) {
	type span struct {
		file       string
		start, end int64
	}
	where := func(s *span) (string, int64, int64) { return s.file, s.start, s.end }
	for name, c := range map[string]struct {
		spans []span
		want  []int // how many each read serves
	}{
		"none":             {},
		"one":              {[]span{{"a", 5, 10}}, []int{1}},
		"one that is huge": {[]span{{"a", 0, 10 << 20}, {"a", 10 << 20, 10<<20 + 1}}, []int{1, 1}},
		"close together":   {[]span{{"a", 0, 10}, {"a", 10, 20}, {"a", 20 + readGapMax, 30 + readGapMax}}, []int{3}},
		"a gap":            {[]span{{"a", 0, 10}, {"a", 11 + readGapMax, 20 + readGapMax}}, []int{1, 1}},
		"other files":      {[]span{{"a", 0, 10}, {"b", 10, 20}, {"b", 20, 30}}, []int{1, 2}},
		"too much":         {[]span{{"a", 0, readSizeMax - 10}, {"a", readSizeMax - 10, readSizeMax}, {"a", readSizeMax, readSizeMax + 1}}, []int{2, 1}},
		"one in another":   {[]span{{"a", 0, 90_000}, {"a", 10, 20}, {"a", 100_000, 100_001}}, []int{3}},
		"the same twice":   {[]span{{"a", 5, 10}, {"a", 5, 10}}, []int{2}},
	} {
		var got []int
		var all []span
		for run := range Runs(c.spans, where) {
			got = append(got, len(run))
			all = append(all, run...)
		}
		if !slices.Equal(got, c.want) || !slices.Equal(all, c.spans) {
			t.Errorf("%s: %v, not %v", name, got, c.want)
		}
	}
	for run := range Runs([]span{{"a", 0, 1}, {"b", 0, 1}}, where) {
		if run[0].file != "a" {
			t.Error("it went on")
		}
		break
	}
}
