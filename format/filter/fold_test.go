package filter

import (
	"fmt"
	"strings"
	"testing"
)

var keepTagged = Options{Snapshots: []SnapshotRule{{Tag: new("k")}}}

func TestFold(t *testing.T) {
	runTextCases(t, []textCase{
		{"changes of a dropped snapshot come with the next", keepTagged, `
			snapshot 1 tag=k
			dir a
			file a/x one
			file b two
			snapshot 2 parent 1
			file a/x three
			x note
			file a/y four ~5 =one
			remove b
			snapshot 3 parent 2 tag=k
			file a/z =four`, `
			snapshot 1 tag=k
			dir a
			file a/x one
			file b two
			snapshot 3 parent 1 tag=k
			file a/x three
			x note
			file a/y four ~5 =one
			file a/z =four
			remove b`, ""},
		{"what is outdone does not come, but for its chunks", keepTagged, `
			snapshot 1 tag=k
			snapshot 2 parent 1
			file a secret shared
			file b !gone
			file c !once
			snapshot 3 parent 2 tag=k
			file a =shared
			remove b`, `
			snapshot 1 tag=k
			snapshot 3 parent 1 tag=k
			file a shared
			remove b
			file c !once`, ""},
		{"whole and dropped", keepTagged, `
			snapshot 1
			dir a
			file a/x one
			remove n
			x note
			file z two
			snapshot 2 parent 1 tag=k
			remove a/x
			x note
			file z three`, `
			snapshot 2 tag=k
			dir a
			file z three`, ""},
		{"a whole snapshot needs nothing but chunks", keepTagged, `
			snapshot 1
			file a one
			file b two
			snapshot 2 tag=k
			file c =two
			snapshot 3 parent 2 tag=k
			file d =two =one`, `
			snapshot 2 tag=k
			file c two
			snapshot 3 parent 2 tag=k
			file d =two one`, ""},
		{"a directory made again begins empty", keepTagged, `
			snapshot 1 tag=k
			dir d
			file d/x one
			snapshot 2 parent 1
			remove d
			snapshot 3 parent 2 tag=k
			dir d
			file d/y two`, `
			snapshot 1 tag=k
			dir d
			file d/x one
			snapshot 3 parent 1 tag=k
			remove d
			dir d
			file d/y two`, ""},
		{"a directory in place of a file begins empty", keepTagged, `
			snapshot 1 tag=k
			dir d
			file d/x one
			snapshot 2 parent 1
			fifo d
			snapshot 3 parent 2
			dir d
			snapshot 4 parent 3 tag=k
			dir d
			file d/y two`, `
			snapshot 1 tag=k
			dir d
			file d/x one
			snapshot 4 parent 1 tag=k
			remove d
			dir d
			file d/y two`, ""},
		{"not if nothing was before", keepTagged, `
			snapshot 1
			fifo d
			snapshot 2 parent 1 tag=k
			dir d`, `
			snapshot 2 tag=k
			dir d`, ""},
		{"nor below what is taken away", keepTagged, `
			snapshot 1 tag=k
			dir a
			snapshot 2 parent 1
			fifo a/b
			dir a/c
			snapshot 3 parent 2 tag=k
			remove a
			dir a/b
			remove a/c`, `
			snapshot 1 tag=k
			dir a
			snapshot 3 parent 1 tag=k
			remove a
			dir a/b
			remove a/c`, ""},
		{"a file in place of a directory", keepTagged, `
			snapshot 1 tag=k
			snapshot 2 parent 1
			dir d
			file d/x !one
			fifo d/y
			fifo e
			snapshot 3 parent 2 tag=k
			fifo d`, `
			snapshot 1 tag=k
			snapshot 3 parent 1 tag=k
			fifo d
			fifo e`, ""},
		{"a chunk that comes twice is not sent again", keepTagged, `
			snapshot 1
			file a one
			snapshot 2 tag=k
			file a one
			file b =one`, `
			snapshot 2 tag=k
			file a one
			file b =one`, ""},
		{"dropped at the end", keepTagged, `
			snapshot 1 tag=k
			file a one
			snapshot 2 parent 1
			x s
			file b two
			loss unreadable 1 b
			snapshot 3 parent 2
			x t`, `
			snapshot 1 tag=k
			file a one`, ""},
		{"on a base", keepTagged, `
			features base
			snapshot 2 parent 1
			fifo a
			snapshot 3 parent 2
			fifo b
			snapshot 4 parent 3 tag=k
			snapshot 5 parent 4 tag=k`, `
			features base
			snapshot 4 parent 1 tag=k
			fifo a
			fifo b
			snapshot 5 parent 4 tag=k`, ""},
		{"not sorted", keepTagged, `
			snapshot 1 tag=k
			snapshot 2 parent 1 unsorted
			fifo b
			fifo a
			snapshot 3 parent 2
			remove b
			snapshot 4 parent 3 tag=k
			x note
			fifo a`, `
			snapshot 1 tag=k
			snapshot 4 parent 1 unsorted tag=k
			x note
			fifo b
			fifo a
			remove b
			fifo a`, ""},
		{"copy", keepTagged, "features copy", "", "copy records"},
	})
}

// TestFoldManyInARow drops so many snapshots that runs are merged over and over.
func TestFoldManyInARow(t *testing.T) {
	const n = 19
	var in, want strings.Builder
	fmt.Fprintf(&in, "snapshot 0 tag=k\nfile f c0\n")
	for i := 1; i < n; i++ {
		tag := ""
		if i == n-1 {
			tag = "tag=k"
		}
		fmt.Fprintf(&in, "snapshot %d parent %d %s\nfile d%02d !x%d\nfile f c%d\n", i, i-1, tag, i, i, i)
	}
	fmt.Fprintf(&want, "snapshot 0 tag=k\nfile f c0\nsnapshot %d parent 0 tag=k\n", n-1)
	for i := 1; i < n; i++ {
		fmt.Fprintf(&want, "file d%02d !x%d\n", i, i)
	}
	fmt.Fprintf(&want, "file f c%d\n", n-1)
	got, _, err := filterText(t, in.String(), keepTagged)
	if err != nil {
		t.Fatal(err)
	}
	if got != want.String() {
		t.Errorf("got\n%s\nwant\n%s", got, want.String())
	}
}
