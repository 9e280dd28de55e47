//go:build linux

package disk

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bk-backup/bk/format"
)

// bare takes the content out of a script, as an export of a listing has it.
func bare(s *script) format.Source {
	out := &recordSource{}
	for _, rec := range s.recs {
		switch rec.(type) {
		case *format.Data, *format.Refs, *format.Hole, *format.CopyRange:
		default:
			out.recs = append(out.recs, rec)
		}
	}
	return out
}

type recordSource struct{ recs []format.Record }

// Next implements format.Source.
func (s *recordSource) Next() (format.Record, error) {
	if len(s.recs) == 0 {
		return nil, io.EOF
	}
	rec := s.recs[0]
	s.recs = s.recs[1:]
	return rec, nil
}

func TestRehearse(t *testing.T) {
	long := strings.Repeat("n", 300)
	for name, c := range map[string]struct {
		change func(s *script)
		lost   string
	}{
		"nothing":     {func(s *script) {}, ""},
		"a long name": {func(s *script) { s.file("d/"+long, text("x")) }, format.LossUnwritable},
		"a far time":  {func(s *script) { s.file("d/f", text("x"), mtime(1<<60, 0)) }, "time"},
		"immutable": {func(s *script) {
			s.file("d/f", text("x"), func(e *format.Entry) { e.Flags = []string{"immutable"}; e.Mode = 0o400 })
		}, "flags or nothing"},
		"a flag of another system": {func(s *script) {
			s.file("d/f", text("x"), func(e *format.Entry) { e.Flags = []string{"uarch"} })
		}, format.LossFlags},
		"an unknown key": {func(s *script) {
			s.file("d/f", text("x"), func(e *format.Entry) { e.Extra = []format.Field{{Key: "zzz", Raw: []byte{1}}} })
		}, format.LossExtension},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript().snapshot("a", "").dir("d", 0o500).file("d/a", []run{chunk("abc"), hole(1 << 30)})
			c.change(s)
			s.commit().end()
			dir := tempDir(t)
			target := filepath.Join(dir, "missing", "target")
			losses, err := Rehearse(t.Context(), target, bare(s), RestoreOptions{})
			if err != nil {
				t.Fatal(err)
			}
			var kinds []string
			for _, l := range losses {
				kinds = append(kinds, l.Kind)
			}
			got := strings.Join(kinds, " ")
			if c.lost == "flags or nothing" {
				if got != "" && got != format.LossFlags {
					t.Errorf("lost %q", got)
				}
			} else if !strings.HasPrefix(got, c.lost) || (got == "") != (c.lost == "") {
				t.Errorf("lost %q, not %q", got, c.lost)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
	if _, err := Rehearse(t.Context(), "/dev/null/x", bare(newScript().snapshot("a", "").commit().end()), RestoreOptions{}); err == nil {
		t.Error("a target below a device was taken")
	}
}
