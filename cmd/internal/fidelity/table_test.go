package fidelity_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bk-backup/bk/format"
)

// table is the one in spec/fidelity.md: cells by row and column.
type table struct {
	columns []string
	rows    []string
	cells   map[string]map[string]string
}

func readTable(t *testing.T, heading string) *table {
	t.Helper()
	text, err := os.ReadFile("../../../spec/fidelity.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "\n"+heading+"\n")
	if !ok {
		t.Fatalf("spec/fidelity.md has no %q", heading)
	}
	tb := &table{cells: map[string]map[string]string{}}
	for line := range strings.Lines(rest) {
		if strings.HasPrefix(line, "#") {
			break
		}
		line, isRow := strings.CutPrefix(strings.TrimSpace(line), "|")
		if !isRow {
			continue
		}
		var words []string
		for _, w := range strings.Split(strings.TrimSuffix(line, "|"), "|") {
			words = append(words, strings.TrimSpace(w))
		}
		switch {
		case tb.columns == nil:
			tb.columns = words[1:]
		case strings.Trim(words[0], "-: ") == "":
		default:
			cells := map[string]string{}
			for i, w := range words[1:] {
				cells[tb.columns[i]] = w
			}
			tb.rows = append(tb.rows, words[0])
			tb.cells[words[0]] = cells
		}
	}
	return tb
}

// Cells of the table that are no kinds of loss.
const (
	kept    = "kept"
	leftOut = "left out" // and not counted
	nothing = "–"        // the system has no place where that could be
)

// outcome says in a cell's words what became of a probe.
func (c *column) outcome(i int, p *probe, want *format.Snapshot, got *found, losses []format.Loss) string {
	if p.snapshot != nil {
		switch {
		case c.files:
			return nothing
		case p.snapshot(want, got.snapshot):
			return kept
		}
		return leftOut
	}
	path := dirOf(i)
	kinds := lostAt(losses, path)
	first := got.objects[path+"/"+p.entries[0].Path]
	original := &object{entry: p.entries[0], content: p.content}
	if p.unknown {
		original.records = []string{"x-probe"}
	}
	same := first != nil && p.same(original, first)
	switch {
	case same && len(kinds) == 0:
		return kept
	case same:
		return "kept, and lost: " + strings.Join(kinds, ", ")
	case len(kinds) > 0:
		return strings.Join(kinds, ", ")
	}
	return leftOut
}

// allows reports whether a cell has an outcome. What a file system keeps that is
// not the best there is may be less, but has to be counted; "A or B" says that
// there B need not be.
func (c *column) allows(cell, outcome string) bool {
	choices := strings.Split(cell, " or ")
	if c.files && !bestFiles() {
		return outcome != leftOut || slices.Contains(choices, leftOut)
	}
	return choices[0] == outcome
}

// bestFiles reports whether tests run as root on ext4.
func bestFiles() bool {
	var st unix.Statfs_t
	return os.Geteuid() == 0 && unix.Statfs(os.TempDir(), &st) == nil && st.Type == unix.EXT4_SUPER_MAGIC
}

// TestTable has every attribute go through every system, and compares what
// became of it with the table.
func TestTable(t *testing.T) {
	tb := readTable(t, "## What a system holds")
	all := probes()
	want := probeSnapshot()
	var rows, names []string
	for _, p := range all {
		rows = append(rows, p.row)
	}
	for _, c := range columns {
		names = append(names, c.name)
	}
	if !slices.Equal(rows, tb.rows) || !slices.Equal(names, tb.columns) {
		t.Errorf("the table has the rows %q\nand columns %q\nand not %q\nand %q", tb.rows, tb.columns, rows, names)
	}
	outcomes := map[string][]string{}
	for _, c := range columns {
		t.Run(c.name, func(t *testing.T) {
			losses, back, err := c.through(t, stream(all, func(int) bool { return true }), false)
			if err != nil {
				t.Fatal(err)
			}
			defer back.Close()
			got := collect(t, back)
			losses = append(losses, got.losses...)
			for _, l := range losses {
				if l.Count > uint64(len(l.Paths)) {
					t.Fatalf("%d objects lost %s: the paths of some are not known", l.Count, l.Kind)
				}
			}
			for i, p := range all {
				out := c.outcome(i, &p, &want, got, losses)
				outcomes[p.row] = append(outcomes[p.row], out)
				if cell := tb.cells[p.row][c.name]; !c.allows(cell, out) {
					t.Errorf("%s: %s, not %s", p.row, out, cell)
				}
			}
		})
	}
	if t.Failed() {
		var lines strings.Builder
		for _, p := range all {
			fmt.Fprintf(&lines, "| %s | %s |\n", p.row, strings.Join(outcomes[p.row], " | "))
		}
		t.Logf("as it is:\n| | %s |\n%s", strings.Join(names, " | "), lines.String())
	}
}

// TestStrict has systems refuse what they lose, and leave nothing behind, and
// take everything else.
func TestStrict(t *testing.T) {
	tb := readTable(t, "## What a system holds")
	all := probes()
	for _, c := range columns {
		if !c.strict || c.slow && raceEnabled {
			continue
		}
		fine := map[int]bool{}
		refused := map[string]bool{}
		for i, p := range all {
			cell := tb.cells[p.row][c.name]
			if cell == kept || cell == leftOut || cell == nothing {
				fine[i] = true
				continue
			}
			if c.slow && refused[cell] {
				continue
			}
			refused[cell] = true
			t.Run(c.name+"/"+p.row, func(t *testing.T) {
				t.Parallel()
				if err := c.strictly(t, all, map[int]bool{i: true}); err == nil {
					t.Errorf("%s is lost, and was not refused", cell)
				}
			})
		}
		t.Run(c.name+"/all else", func(t *testing.T) {
			t.Parallel()
			if err := c.strictly(t, all, fine); err != nil {
				t.Error(err)
			}
		})
	}
}

// strictly writes some of the probes.
func (c *column) strictly(t *testing.T, all []probe, which map[int]bool) error {
	_, back, err := c.through(t, stream(all, func(i int) bool { return which[i] }), true)
	if back != nil {
		err = errors.Join(err, back.Close())
	}
	return err
}
