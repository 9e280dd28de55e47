package compare

import (
	"fmt"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/cmd/internal/systemtest"
	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo"
)

// compared returns the lines and sums of a comparison.
func compared(t *testing.T, system format.System, a, b int, below string) (lines []string, s sums) {
	t.Helper()
	snaps, _, err := cli.ListSnapshots(t.Context(), system)
	if err != nil {
		t.Fatal(err)
	}
	diff, err := open(t.Context(), snaps, snaps.List[a], snaps.List[b], below, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer diff.Close()
	for {
		c, err := diff.Next()
		if err == io.EOF {
			return lines, s
		}
		if err != nil {
			t.Fatal(err)
		}
		k := kindOf(c)
		s.add(k, c)
		lines = append(lines, fmt.Sprintf("%s %s", k, shownPath(c)))
	}
}

// TestSystems: the differences that a repository finds in its trees are those of
// two listings side by side. In these histories content differs only where the
// size does.
func TestSystems(t *testing.T) {
	for seed := range uint64(12) {
		system := systemtest.Random(seed, 3)
		r := system.Repo(t)
		for _, below := range []string{"", "d1", "d0/a1"} {
			for a := range 3 {
				for b := range 3 {
					want, wantSums := compared(t, r, a, b, below)
					for _, unsorted := range []bool{false, true} {
						other := &systemtest.System{Listings: system.Listings, Unsorted: unsorted}
						got, gotSums := compared(t, other, a, b, below)
						// A file with another time and the same content: who does
						// not know chunks takes it for changed.
						for i, line := range got {
							if i < len(want) && line[0] == 'M' && want[i][0] == 'U' && line[1:] == want[i][1:] {
								got[i] = want[i]
								gotSums.files = wantSums.files
								gotSums.bytesChangedFrom, gotSums.changedTo = wantSums.bytesChangedFrom, wantSums.changedTo
							}
						}
						if diff := cmp.Diff(want, got); diff != "" {
							t.Errorf("seed %d, %d to %d below %q: %s", seed, a, b, below, diff)
						}
						if diff := cmp.Diff(wantSums, gotSums, cmp.AllowUnexported(sums{}, tally{})); diff != "" {
							t.Errorf("seed %d, %d to %d below %q: %s", seed, a, b, below, diff)
						}
					}
				}
			}
		}
	}
}

func TestKinds(t *testing.T) {
	file := func(size uint64) *format.Entry {
		return &format.Entry{Type: format.TypeFile, Has: format.HasSize, Size: size}
	}
	link := func(target string) *format.Entry { return &format.Entry{Type: format.TypeSymlink, Target: target} }
	var s sums
	for _, c := range []struct {
		change repo.Change
		want   kind
	}{
		{repo.Change{New: file(5)}, added},
		{repo.Change{Old: file(7)}, removed},
		{repo.Change{Old: file(1), New: file(2), Content: true}, modified},
		{repo.Change{Old: file(2), New: file(2)}, metadata},
		{repo.Change{Old: file(3), New: link("x")}, retyped},
		{repo.Change{Old: link("y"), New: link("x")}, modified},
		{repo.Change{Old: &format.Entry{Type: format.TypeChar}, New: &format.Entry{Type: format.TypeChar, Rdev: format.Rdev{Major: 1}}}, modified},
	} {
		if got := kindOf(&c.change); got != c.want {
			t.Errorf("%+v is %s, not %s", c.change, got, c.want)
		}
		s.add(c.want, &c.change)
	}
	want := sums{
		files: tally{added: 1, removed: 2, changed: 1, metadata: 1}, others: tally{added: 1, changed: 2},
		bytesAdded: 5, bytesRemoved: 10, bytesChangedFrom: 1, changedTo: 2,
	}
	if diff := cmp.Diff(want, s, cmp.AllowUnexported(sums{}, tally{})); diff != "" {
		t.Error(diff)
	}
}
