package formattest

import (
	"crypto/sha256"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/bk-backup/bk/format"
)

// source hands out records.
type source []format.Record

func (s *source) Next() (format.Record, error) {
	if len(*s) == 0 {
		return nil, io.EOF
	}
	rec := (*s)[0]
	*s = (*s)[1:]
	return rec, nil
}

func (s *source) Close() error { return nil }

func data(text string) *format.Data {
	return &format.Data{ID: format.SumID([]byte(text)), Size: uint32(len(text)), Codec: format.CodecNone, Payload: []byte(text)}
}

func refs(text string) *format.Refs {
	return &format.Refs{Chunks: []format.ChunkRef{{ID: format.SumID([]byte(text)), Size: uint32(len(text))}}}
}

func file(path string, content ...format.Record) []format.Record {
	size := uint64(0)
	for _, rec := range content {
		switch rec := rec.(type) {
		case *format.Data:
			size += uint64(rec.Size)
		case *format.Refs:
			size += uint64(rec.Chunks[0].Size)
		case *format.Hole:
			size += rec.Size
		case *format.CopyRange:
			size += rec.Size
		}
	}
	list := append([]format.Record{&format.Entry{Path: path, Type: format.TypeFile}}, content...)
	return append(list, &format.EOF{Size: size})
}

func dir(path string) []format.Record {
	return []format.Record{&format.Entry{Path: path, Type: format.TypeDir}}
}

func begin(n byte, parent byte) []format.Record {
	s := &format.Snapshot{ID: format.ID{n}}
	if parent > 0 {
		s.Parent = format.ID{parent}
	}
	return []format.Record{s}
}

var commit = []format.Record{&format.Commit{Losses: []format.Loss{{Kind: "socket", Count: 2}}}}

// collect applies a stream of what is given.
func collect(parts ...[]format.Record) (*Receiver, error) {
	h := &format.Header{Version: format.Version, Features: []format.Feature{format.FeatureCopy}}
	list := slices.Concat(append([][]format.Record{{h}}, parts...)...)
	s := source(append(list, &format.End{}))
	return Collect(&s, false)
}

func TestReceiver(t *testing.T) {
	got, err := collect(
		begin(1, 0), dir("d"), file("d/x", data("abc"), &format.Hole{Size: 3 << 20}, data("de"), refs("abc")), file("y", data("f")), commit,
		begin(2, 1), []format.Record{&format.Remove{Path: "d"}}, file("y", &format.CopyRange{Size: 1}, refs("de")),
		file("z", &format.CopyRange{From: "d/x", HasFrom: true, Offset: 1, Size: 2}), commit)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Snapshots) != 2 || got.Commits() != 2 || got.Losses()["socket"] != 4 || len(got.Chunks) != 3 {
		t.Fatalf("%+v", got)
	}
	first, second := got.Snapshots[0], got.Snapshots[1]
	x := first.Listing["d/x"]
	hole := uint64(3 << 20)
	whole := "abc" + strings.Repeat("\x00", 3<<20) + "deabc"
	if string(x.Content()) != whole || x.Size() != uint64(len(whole)) || x.Sum() != sha256.Sum256([]byte(whole)) {
		t.Errorf("%d bytes", x.Size())
	}
	if want := []format.Extent{{Size: 3}, {Offset: 3 + hole, Size: 5}}; !slices.Equal(x.Data(), want) {
		t.Errorf("data is at %v", x.Data())
	}
	if !slices.Equal(x.Chunks, []format.ID{format.SumID([]byte("abc")), format.SumID([]byte("de")), format.SumID([]byte("abc"))}) {
		t.Errorf("chunks %v", x.Chunks)
	}
	if want := []string{"-d", "y", "z"}; !slices.Equal(second.Changes, want) || first.Data != 3 || second.Data != 0 {
		t.Errorf("changes %q, %d and %d chunks", second.Changes, first.Data, second.Data)
	}
	l := got.Listing()
	if len(l) != 2 || string(l["y"].Content()) != "fde" || string(l["z"].Content()) != "bc" || len(first.Listing) != 3 {
		t.Errorf("%v", l)
	}
	if d := Describe(first.Listing, "d")["x"]["data"]; d != "0+3,3145731+5" {
		t.Errorf("data=%s", d)
	}
}

// TestReceiverRefuses has what a sink has to refuse.
func TestReceiverRefuses(t *testing.T) {
	bad := data("abc")
	bad.ID = format.ID{1}
	for name, c := range map[string]struct {
		parts [][]format.Record
		err   string
	}{
		"below a file":        {[][]format.Record{begin(1, 0), file("a"), file("a/b"), commit}, "lies below"},
		"refs to nothing":     {[][]format.Record{begin(1, 0), file("a", refs("abc")), commit}, "refs name chunk"},
		"another chunk":       {[][]format.Record{begin(1, 0), file("a", bad), commit}, "chunk"},
		"another parent":      {[][]format.Record{begin(1, 0), commit, begin(2, 9), commit}, "parent"},
		"the grammar":         {[][]format.Record{file("a")}, ""},
		"an order of its own": {[][]format.Record{begin(1, 0), file("b"), file("a"), commit}, ""},
	} {
		if _, err := collect(c.parts...); err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDifferences(t *testing.T) {
	want := ParseManifest([]byte("a x:user.e= mode=0644 data=none\nb type=file\n"))
	got := map[string]Fields{"a": {"mode": "0600", "x:user.f": "01"}, "c": {}}
	list := Differences(want, got, "data")
	if !slices.Equal(list, []string{`a mode: "0600", not "0644"`, `a x:user.e: there false, not true`, `a x:user.f: "01", not ""`, "missing b", "extra c"}) {
		t.Errorf("%q", list)
	}
	if list := Differences(want, got, "data", "x", "mode"); len(list) != 2 {
		t.Errorf("%q", list)
	}
}

func TestGroups(t *testing.T) {
	l := Listing{}
	for path, group := range map[string]string{"c": "1", "a": "1", "b": "2", "d": ""} {
		l[path] = &Object{Entry: &format.Entry{Path: path, Hardlink: group}}
	}
	if g := l.Groups(); len(g) != 2 || !slices.Equal(g["1"], []string{"a", "c"}) || !slices.Equal(g["2"], []string{"b"}) {
		t.Errorf("%v", g)
	}
}
