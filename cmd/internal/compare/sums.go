package compare

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo"
)

// sums count what differs.
type sums struct {
	files, dirs, others tally
	// Plain bytes of files that were added, of those that were removed, and of
	// both versions of those whose content changed.
	bytesAdded, bytesRemoved    uint64
	bytesChangedFrom, changedTo uint64
	content                     *repo.Difference // nil where it is not known
}

// tally counts objects of one type by what became of them.
type tally struct{ added, removed, changed, metadata uint64 }

func (t *tally) count(k kind) {
	switch k {
	case added:
		t.added++
	case removed:
		t.removed++
	case modified:
		t.changed++
	case metadata:
		t.metadata++
	}
}

func (s *sums) of(e *format.Entry) *tally {
	switch e.Type {
	case format.TypeFile:
		return &s.files
	case format.TypeDir:
		return &s.dirs
	}
	return &s.others
}

// add counts a change. One type in the place of another counts as removed and
// added.
func (s *sums) add(k kind, c *repo.Change) {
	switch {
	case k == retyped:
		s.of(c.Old).count(removed)
		s.of(c.New).count(added)
	case c.New != nil:
		s.of(c.New).count(k)
	default:
		s.of(c.Old).count(k)
	}
	oldSize, newSize := fileSize(c.Old), fileSize(c.New)
	switch k {
	case modified:
		s.bytesChangedFrom += oldSize
		s.changedTo += newSize
	case added, removed, retyped:
		s.bytesAdded += newSize
		s.bytesRemoved += oldSize
	}
}

func fileSize(e *format.Entry) uint64 {
	if e == nil || e.Type != format.TypeFile {
		return 0
	}
	return e.Size
}

// print writes the sums for people, or for programs.
func (s *sums) print(out io.Writer, app *cli.App, older, newer *format.Snapshot) error {
	if app.JSON {
		return json.NewEncoder(out).Encode(s.json(older, newer))
	}
	if app.Quiet {
		return nil
	}
	rows := [][]string{}
	for _, row := range []struct {
		name string
		t    *tally
	}{{"files", &s.files}, {"directories", &s.dirs}, {"others", &s.others}} {
		rows = append(rows, []string{row.name, cli.Count(row.t.added), cli.Count(row.t.removed), cli.Count(row.t.changed), cli.Count(row.t.metadata)})
	}
	rows = append(rows, []string{"bytes of files", cli.Bytes(s.bytesAdded), cli.Bytes(s.bytesRemoved), cli.Bytes(s.changedTo), ""})
	if s.content != nil {
		rows = append(rows, []string{"content", cli.Bytes(s.content.Bytes) + " new", cli.Bytes(s.content.BytesRemoved) + " gone", "", ""})
	}
	fmt.Fprintf(out, "\nfrom %s %s to %s %s\n", older.ID.Short(), cli.TimeText(older.Time), newer.ID.Short(), cli.TimeText(newer.Time))
	return cli.Table(out, []string{"", "ADDED", "REMOVED", "CHANGED", "METADATA"}, rows, map[int]bool{1: true, 2: true, 3: true, 4: true})
}

func (s *sums) json(older, newer *format.Snapshot) map[string]any {
	object := map[string]any{
		"change": "summary", "older": older.ID.String(), "newer": newer.ID.String(),
		"bytes_added": s.bytesAdded, "bytes_removed": s.bytesRemoved,
		"bytes_changed_from": s.bytesChangedFrom, "bytes_changed_to": s.changedTo,
	}
	for name, t := range map[string]*tally{"files": &s.files, "dirs": &s.dirs, "others": &s.others} {
		object[name] = map[string]uint64{"added": t.added, "removed": t.removed, "changed": t.changed, "metadata": t.metadata}
	}
	if s.content != nil {
		object["content"] = map[string]uint64{
			"bytes_new": s.content.Bytes, "chunks_new": s.content.Chunks,
			"bytes_gone": s.content.BytesRemoved, "chunks_gone": s.content.ChunksRemoved,
		}
	}
	return object
}
