package transfer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/filter"
)

func id(n byte) format.ID { return format.ID{n} }

func snaps(names ...string) (list []*format.Snapshot) {
	for i, host := range names {
		list = append(list, &format.Snapshot{ID: id(byte(i + 1)), Host: host, Roots: []string{"home"}})
	}
	return list
}

func set(ids ...format.ID) map[format.ID]bool {
	m := make(map[format.ID]bool)
	for _, id := range ids {
		m[id] = true
	}
	return m
}

func TestPlan(t *testing.T) {
	const stage = "bk-filter paths=00"
	for name, test := range map[string]struct {
		list        []*format.Snapshot
		held        held
		description string
		runs        []run
		kept        int
		err         string
	}{
		"nothing there": {
			list: snaps("a", "b", "a"),
			runs: []run{{format.ID{}, []format.ID{id(1), id(3), id(2)}}},
		},
		"nothing new": {list: snaps("a", "a"), held: held{as: set(id(1), id(2))}, kept: 2},
		"one new":     {list: snaps("a", "a", "a"), held: held{as: set(id(1), id(2))}, kept: 2, runs: []run{{id(2), []format.ID{id(3)}}}},
		"a gap": {
			list: snaps("a", "a", "a"), held: held{as: set(id(1), id(3))}, kept: 2,
			runs: []run{{id(3), []format.ID{id(2)}}},
		},
		"two hosts": {
			list: snaps("a", "b", "a", "b"), held: held{as: set(id(1), id(2))}, kept: 2,
			runs: []run{{id(1), []format.ID{id(3)}}, {id(2), []format.ID{id(4)}}},
		},
		"a new host": {
			list: snaps("a", "a", "b", "c"), held: held{as: set(id(1), id(2))}, kept: 2,
			runs: []run{{id(2), []format.ID{id(3), id(4)}}},
		},
		"through a filter": {
			list: snaps("a", "a"), description: stage, kept: 1,
			held: held{as: set(filter.MapID(id(1), stage)), other: map[format.ID]string{id(1): stage}},
			runs: []run{{id(1), []format.ID{id(2)}}},
		},
		"through another filter": {
			list: snaps("a", "a"), description: "bk-filter paths=11",
			held: held{as: set(filter.MapID(id(1), stage)), other: map[format.ID]string{id(1): stage}},
			err:  `came into the target through "bk-filter paths=00" before, and now would come through "bk-filter paths=11"`,
		},
		"no filter any more": {
			list: snaps("a"), held: held{other: map[format.ID]string{id(1): stage}},
			err: "now would come without a filter",
		},
		"rewritten since": {
			list: snaps("a", "a"), held: held{was: set(id(1)), other: map[format.ID]string{id(1): stage}}, kept: 1,
			runs: []run{{format.ID{}, []format.ID{id(2)}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			runs, kept, err := plan(test.list, test.held, test.description)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Fatalf("error %v, not %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.runs, runs, cmp.AllowUnexported(run{})); diff != "" || kept != test.kept {
				t.Errorf("kept %d, want %d; runs: %s", kept, test.kept, diff)
			}
		})
	}
}

func TestLeaveOut(t *testing.T) {
	list := snaps("a", "a", "a", "a")
	for name, test := range map[string]struct {
		have string
		base format.ID
		rest int
	}{
		"nothing":        {"", format.ID{}, 4},
		"some":           {id(9).String() + " " + id(2).String() + "\n" + id(1).String() + "\n", id(2), 2},
		"rewritten":      {id(9).String() + " -" + id(2).String() + "\n" + id(1).String() + "\n", id(1), 2},
		"all rewritten":  {"-" + id(1).String() + " -" + id(2).String(), format.ID{}, 2},
		"both":           {"-" + id(2).String() + "\n" + id(2).String(), id(2), 3},
		"everything":     {id(1).String() + " " + id(2).String() + " " + id(3).String() + " " + id(4).String(), id(4), 0},
		"many on a line": {strings.Repeat(id(7).String()+" ", 4096) + id(1).String(), id(1), 3},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "have")
			if err := os.WriteFile(file, []byte(test.have), 0o600); err != nil {
				t.Fatal(err)
			}
			have, err := readHave(file)
			rest, base := have.leaveOut(list)
			if err != nil || base != test.base || len(rest) != test.rest {
				t.Errorf("base %s, %d left: %v", base.Short(), len(rest), err)
			}
		})
	}
	hosts := &have{ids: set(id(2), id(3)), parents: set(id(2), id(3))}
	rest, base := hosts.leaveOut(snaps("a", "b", "c", "a", "b", "c", "a"))
	var order []format.ID
	for _, s := range rest {
		order = append(order, s.ID)
	}
	if diff := cmp.Diff([]format.ID{id(5), id(1), id(4), id(7), id(6)}, order); diff != "" || base != id(2) {
		t.Errorf("three hosts: base %s, %s", base.Short(), diff)
	}
	file := filepath.Join(t.TempDir(), "have")
	if err := os.WriteFile(file, []byte("no id"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readHave(file); err == nil {
		t.Error("a list of something else was taken")
	}
}
