package flattext

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bk-backup/bk/format"
)

const text = "dir \"\" \"\"\ndir \"d\" \"\"\nfile \"d/a\" \"one\\nline \\xff\"\nfile \"e\" \"\"\n"

func write(t *testing.T, content string) *System {
	t.Helper()
	s := &System{Dir: t.TempDir()}
	if err := os.WriteFile(filepath.Join(s.Dir, "first.txt"), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// through exports a system into a sink.
func through(t *testing.T, s *System, sink *Sink, opts format.ExportOptions) error {
	t.Helper()
	src, err := s.Export(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	defer sink.Close()
	return format.Copy(t.Context(), sink, src)
}

func TestRoundTrip(t *testing.T) {
	s := write(t, text)
	sink := &Sink{Dir: t.TempDir(), Strict: true}
	if err := through(t, s, sink, format.ExportOptions{Flat: true}); err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(sink.Dir + "/*")
	if err != nil || len(names) != 1 {
		t.Fatalf("there are %q, %v", names, err)
	}
	got, err := os.ReadFile(names[0])
	if err != nil || string(got) != text {
		t.Errorf("it came back as %q, %v", got, err)
	}
	list, err := s.Snapshots(t.Context())
	if err != nil || len(list) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	again, err := (&System{Dir: sink.Dir}).Snapshots(t.Context())
	if err != nil || again[0].ID != list[0].ID {
		t.Errorf("a copy has the id %v, %v", again, err)
	}
}

func TestDropAndListing(t *testing.T) {
	sink := &Sink{Dir: t.TempDir()}
	opts := format.ExportOptions{Drop: func(path string, _ bool) (bool, bool) { return path == "d/a", false }}
	if err := through(t, write(t, text), sink, opts); err != nil {
		t.Fatal(err)
	}
	if got := sink.text.String(); strings.Contains(got, "d/a") || !strings.Contains(got, `"e"`) {
		t.Errorf("with a pattern: %q", got)
	}
}

func TestLosses(t *testing.T) {
	recs := []format.Record{
		&format.Header{Version: format.Version, Features: []format.Feature{format.FeatureFlat}}, &format.Snapshot{ID: format.ID{1}},
		&format.Entry{Path: "a", Type: format.TypeFile, Has: format.HasMode, Mode: 0o600, Flags: []string{"nodump"}}, &format.EOF{},
		&format.Entry{Path: "b", Type: format.TypeFifo},
	}
	for _, strict := range []bool{false, true} {
		sink := &Sink{Dir: t.TempDir(), Strict: strict}
		var err error
		for _, rec := range append(recs, &format.Commit{}, &format.End{}) {
			if err = sink.Write(rec); err != nil {
				break
			}
		}
		names, _ := filepath.Glob(sink.Dir + "/*")
		if strict && (err == nil || len(names) > 0) {
			t.Errorf("with strict: error %v, there is %q", err, names)
		}
		if !strict && (err != nil || len(names) != 1 || sink.Losses["mode"] != 1 || sink.Losses["flags"] != 1 || sink.Losses["type"] != 1) {
			t.Errorf("error %v, losses %v", err, sink.Losses)
		}
	}
}

// FuzzSource has any text make a stream that keeps the rules, or an error.
func FuzzSource(f *testing.F) {
	f.Add(text)
	f.Add("file \"../x\" \"\"\n")
	f.Add("socket \"x\" \"\"\n")
	f.Add("file \"\" \"\"\n")
	f.Fuzz(func(t *testing.T, content string) {
		var checker format.Checker
		src, err := write(t, content).Export(t.Context(), format.ExportOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		for rec, err := src.Next(); err == nil; rec, err = src.Next() {
			if err := checker.Check(rec, nil); err != nil {
				t.Fatal(err)
			}
		}
	})
}
