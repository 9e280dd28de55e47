package chunker_test

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/bk-backup/bk/format/chunker"
)

// resync drives a Resync over a file in memory. It returns the new chunks and
// how many bytes were cut again.
func resync(s chunker.Splitter, oldSize int, old []int, changes []chunker.Change, file []byte) (chunks []int, recut int, err error) {
	r, err := chunker.NewResync(int64(oldSize), changes)
	if err != nil {
		return nil, 0, err
	}
	if r.Size() != int64(len(file)) {
		return nil, 0, fmt.Errorf("the new size is %d instead of %d", r.Size(), len(file))
	}
	for {
		switch r.Step() {
		case chunker.StepDone:
			return chunks, recut, nil
		case chunker.StepOffer:
			keep, err := r.Offer(int64(old[0]))
			if err != nil {
				return nil, 0, err
			}
			if keep {
				chunks = append(chunks, old[0])
			}
			old = old[1:]
		case chunker.StepCut:
			n := s.Cut(file[r.Offset():], true)
			if err := r.Cut(int64(n)); err != nil {
				return nil, 0, err
			}
			chunks = append(chunks, n)
			recut += n
		}
	}
}

// apply makes the new file; the bytes of changes come from random.
func apply(old []byte, changes []chunker.Change, random []byte) []byte {
	var file []byte
	at := int64(0)
	for _, c := range changes {
		file = append(file, old[at:c.At]...)
		file = append(file, random[:c.New]...)
		random = random[c.New:]
		at = c.At + c.Old
	}
	return append(file, old[at:]...)
}

func TestResyncEqualsCuttingAfresh(t *testing.T) {
	for _, text := range []string{"fixed:1000", "fixed:1", "gear:256", "gear:64,128,129", "gear:1KiB", "rabin:64,256,2KiB"} {
		t.Run(text, func(t *testing.T) {
			factory := newFactory(t, text)
			rapid.Check(t, func(t *rapid.T) {
				length := rapid.IntRange(0, 60).Draw(t, "length") * rapid.SampledFrom([]int{1, 100, 500}).Draw(t, "unit")
				old := mixedBytes(rapid.Uint64().Draw(t, "seed"), length)
				cuts := lengthsOf(factory.Splitter(), old)
				// Places where something may go wrong: cuts and the two ends.
				marks := append(ends(cuts), 0, len(old))
				changes := drawChanges(t, len(old), marks)
				added := 0
				for _, c := range changes {
					added += int(c.New)
				}
				// Small values, so that changes now and then leave bytes as they were.
				file := apply(old, changes, mixedBytes(rapid.Uint64().Draw(t, "added"), added))
				want := lengthsOf(factory.Splitter(), file)
				got, _, err := resync(factory.Splitter(), len(old), cuts, changes, file)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatalf("afresh (-), resync (+), changes %v:\n%s", changes, diff)
				}
			})
		})
	}
}

func drawChanges(t *rapid.T, size int, marks []int) []chunker.Change {
	var changes []chunker.Change
	at := 0
	for range rapid.IntRange(0, 5).Draw(t, "changes") {
		begin := drawOffset(t, at, size, marks)
		c := chunker.Change{At: int64(begin)}
		switch rapid.SampledFrom([]string{"overwrite", "insert", "delete", "replace"}).Draw(t, "kind") {
		case "overwrite":
			c.Old = int64(drawOffset(t, begin, size, marks) - begin)
			c.New = c.Old
		case "insert":
			c.New = int64(rapid.IntRange(0, 3000).Draw(t, "inserted"))
		case "delete":
			c.Old = int64(drawOffset(t, begin, size, marks) - begin)
		case "replace":
			c.Old = int64(drawOffset(t, begin, size, marks) - begin)
			c.New = int64(rapid.IntRange(0, 3000).Draw(t, "inserted"))
		}
		changes = append(changes, c)
		at = int(c.At + c.Old)
	}
	return changes
}

// drawOffset picks an offset from low to high, often one of the marks.
func drawOffset(t *rapid.T, low, high int, marks []int) int {
	if mark := rapid.SampledFrom(marks).Draw(t, "mark"); mark >= low && mark <= high && rapid.Bool().Draw(t, "on a mark") {
		return mark
	}
	return rapid.IntRange(low, high).Draw(t, "offset")
}

// TestResyncReadsLittle wants the cost of a change to be that of a few chunks.
func TestResyncReadsLittle(t *testing.T) {
	const size = 4 << 20
	old := randomBytes(30, size)
	for _, c := range []struct {
		text     string
		change   chunker.Change
		recutMax int
	}{
		{"gear:16KiB", chunker.Change{At: size / 2, Old: 1, New: 1}, 100_000},
		{"gear:16KiB", chunker.Change{At: size / 2, New: 1}, 100_000},
		{"gear:16KiB", chunker.Change{At: size / 2, Old: 1}, 100_000},
		{"gear:16KiB", chunker.Change{At: size, New: 1}, 65_537},
		{"gear:16KiB", chunker.Change{At: size / 2, Old: size / 2}, 65_536},
		{"gear:16KiB", chunker.Change{}, 0},
		{"rabin:4KiB,16KiB,64KiB", chunker.Change{At: size / 2, New: 5}, 200_000},
		{"fixed:4KiB", chunker.Change{At: 5000, Old: 10, New: 10}, 4096},
		{"fixed:4KiB", chunker.Change{At: 4096, Old: 4096, New: 4096}, 4096},
		{"fixed:4KiB", chunker.Change{At: 8192, New: 4096}, 4096},
		{"fixed:4KiB", chunker.Change{At: 8192, Old: 8192}, 0},
		{"fixed:4KiB", chunker.Change{At: 8191, Old: 8192}, 4096},
		{"fixed:4KiB", chunker.Change{At: size, New: 10}, 4106},
		{"fixed:4KiB", chunker.Change{At: size - 4096, Old: 4096}, 0},
		{"fixed:4KiB", chunker.Change{At: size - 4095, Old: 4095}, 1},
		{"fixed:4KiB", chunker.Change{At: size - 8192, New: 1}, 8193},
	} {
		factory := newFactory(t, c.text)
		file := apply(old, []chunker.Change{c.change}, bytes.Repeat([]byte{7}, int(c.change.New)))
		want := cutWhole(t, factory.Splitter(), file)
		got, recut, err := resync(factory.Splitter(), size, cutWhole(t, factory.Splitter(), old), []chunker.Change{c.change}, file)
		if err != nil || !slices.Equal(want, got) {
			t.Errorf("%s, %+v: other cuts than afresh, error %v", c.text, c.change, err)
		}
		if recut > c.recutMax {
			t.Errorf("%s, %+v: %d bytes were cut again", c.text, c.change, recut)
		}
	}
}

func TestResyncRefuses(t *testing.T) {
	for _, c := range []struct {
		oldSize int64
		changes []chunker.Change
		want    string
	}{
		{-1, nil, "negative"},
		{10, []chunker.Change{{At: -1}}, "outside"},
		{10, []chunker.Change{{At: 11}}, "outside"},
		{10, []chunker.Change{{At: 9, Old: 2}}, "outside"},
		{10, []chunker.Change{{At: 1, Old: math.MaxInt64}}, "outside"},
		{10, []chunker.Change{{At: 1, Old: -1}}, "outside"},
		{10, []chunker.Change{{At: 1, New: -1}}, "outside"},
		{10, []chunker.Change{{At: 2, Old: 2}, {At: 3}}, "change 1"},
		{10, []chunker.Change{{At: 2, New: math.MaxInt64}}, "2^63"},
		{math.MaxInt64, []chunker.Change{{At: 2, New: 1}}, "2^63"},
	} {
		if _, err := chunker.NewResync(c.oldSize, c.changes); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("NewResync(%d, %v): error %v, want %q", c.oldSize, c.changes, err, c.want)
		}
	}

	r, err := chunker.NewResync(10, []chunker.Change{{At: 5, New: 5}})
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what string, err error) {
		t.Helper()
		if err == nil {
			t.Errorf("%s was taken", what)
		}
	}
	refused("a new chunk out of turn", r.Cut(1))
	for _, size := range []int64{0, -1, 11, math.MinInt64, math.MaxInt64} {
		_, err := r.Offer(size)
		refused("an old chunk that does not fit", err)
	}
	if keep, err := r.Offer(6); keep || err != nil {
		t.Fatal(keep, err)
	}
	_, err = r.Offer(4)
	refused("an old chunk out of turn", err)
	for _, size := range []int64{0, -1, 16, math.MinInt64, math.MaxInt64} {
		refused("a new chunk that does not fit", r.Cut(size))
	}
}

func ExampleResync() {
	factory, _ := chunker.New(chunker.Spec{Method: chunker.Fixed, Min: 4, Avg: 4, Max: 4}, chunker.Keyed{})
	splitter := factory.Splitter()
	// "aaaabbbbccccdd" was overwritten in one place and grew.
	old, file := []int64{4, 4, 4, 2}, []byte("aaaabXbbccccddee")
	r, _ := chunker.NewResync(14, []chunker.Change{{At: 5, Old: 1, New: 1}, {At: 14, New: 2}})
	for r.Step() != chunker.StepDone {
		at := r.Offset()
		if r.Step() == chunker.StepOffer {
			if keep, _ := r.Offer(old[0]); keep {
				fmt.Printf("keep %s\n", file[at:at+old[0]])
			}
			old = old[1:]
			continue
		}
		n := splitter.Cut(file[at:], true)
		fmt.Printf("cut  %s\n", file[at:at+int64(n)])
		_ = r.Cut(int64(n))
	}
	// Output:
	// keep aaaa
	// cut  bXbb
	// keep cccc
	// cut  ddee
}
