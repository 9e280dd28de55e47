package filter

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bk-backup/bk/format"
)

func dropping(t *testing.T, rules ...string) Options {
	return Options{Paths: mustPatterns(t, false, rulesOf(rules...)...)}
}

func TestDropByPath(t *testing.T) {
	runTextCases(t, []textCase{
		{"leaves nothing", dropping(t, "-*.jpg"), `
			features base
			snapshot 2 parent 1 root=a root=a/b.jpg
			x a
			dir a
			x b
			file a/b.jpg one
			x c
			remove c.jpg
			x d
			dir d.jpg
			x e
			file d.jpg/x two
			loss unreadable 5 a a/b.jpg c.jpg
			loss xattr 1 b.jpg`, `
			features base
			snapshot 2 parent 1 root=a
			x a
			dir a
			x b
			loss unreadable 3 a`, ""},
		{"content that others need", dropping(t, "-a"), `
			snapshot 1
			file a one !two three ~9
			file b =one four
			file c =one =three =four
			snapshot 2 parent 1
			file d =four =three =one`, `
			snapshot 1
			file b one four
			file c =one three =four
			snapshot 2 parent 1
			file d =four =three =one`, ""},
		{"a chunk that comes twice is not sent again", dropping(t, "-a"), `
			snapshot 1
			file a one
			file b one
			file c =one`, `
			snapshot 1
			file b one
			file c =one`, ""},
		{"a file becomes a directory that is dropped", dropping(t, "-d/"), `
			snapshot 1
			file d one
			snapshot 2 parent 1
			dir d
			file d/x =one
			snapshot 3 parent 2
			dir d`, `
			snapshot 1
			file d one
			snapshot 2 parent 1
			remove d
			snapshot 3 parent 2
			remove d`, ""},
		{"a directory is dropped by a pattern for directories", dropping(t, "-d/"), `
			snapshot 1
			dir d
			file d/x one
			snapshot 2 parent 1
			dir d
			snapshot 3 parent 2
			remove d
			snapshot 4
			file d =one`, `
			snapshot 1
			snapshot 2 parent 1
			snapshot 3 parent 2
			snapshot 4
			file d one`, ""},
		{"what passed before a base is not known", dropping(t, "-d/"), `
			features base
			snapshot 2 parent 1
			dir d
			snapshot 3 parent 2
			remove d
			snapshot 4
			dir d
			snapshot 5 parent 4
			remove d`, `
			features base
			snapshot 2 parent 1
			remove d
			snapshot 3 parent 2
			remove d
			snapshot 4
			snapshot 5 parent 4`, ""},
		{"directories above what is kept", dropping(t, "+/a/b/*.jpg"), `
			snapshot 1
			dir /
			dir a
			dir a/b
			file a/b/x.jpg one
			file a/b/y.txt two
			dir a/c
			dir e
			fifo f
			snapshot 2 parent 1
			remove a/b
			remove a/c/y.txt
			remove f`, `
			snapshot 1
			dir /
			dir a
			dir a/b
			file a/b/x.jpg one
			snapshot 2 parent 1
			remove a/b`, ""},
		{"what was below an implied directory is removed with it", dropping(t, "+*.jpg"), `
			snapshot 1
			fifo a/b/x.jpg
			fifo c/d
			snapshot 2 parent 1
			remove a
			remove c`, `
			snapshot 1
			fifo a/b/x.jpg
			snapshot 2 parent 1
			remove a`, ""},
		{"a file in place of such a directory", dropping(t, "+*.jpg"), `
			snapshot 1
			fifo a/x.jpg
			snapshot 2 parent 1
			fifo a
			fifo b`, `
			snapshot 1
			fifo a/x.jpg
			snapshot 2 parent 1
			remove a`, ""},
		{"copy from another path", dropping(t, "-secret"), `
			features base copy
			snapshot 2 parent 1
			file a
			copy 10
			copy 5 from b
			file secret
			copy 5 from b`, `
			features base copy
			snapshot 2 parent 1
			file a
			copy 10
			copy 5 from b`, ""},
		{"copy from a path that is dropped", dropping(t, "-secret"), `
			features base copy
			snapshot 2 parent 1
			file a
			copy 5 from secret`, "", "copied from a path that is dropped"},
		{"flat", dropping(t, "-a"), `
			features flat
			snapshot 1
			file a one
			file b one
			snapshot 2
			file a one`, `
			features flat
			snapshot 1
			file b one
			snapshot 2`, ""},
	})
}

func TestDropByAttribute(t *testing.T) {
	fifos := Options{Attributes: Attributes{Types: []format.Type{format.TypeFifo}}}
	runTextCases(t, []textCase{
		{"leaves a remove", fifos, `
			snapshot 1
			fifo a
			dir b
			snapshot 2 parent 1
			fifo b
			x gone
			link c`, `
			snapshot 1
			dir b
			snapshot 2 parent 1
			remove b
			link c`, ""},
		{"a path that comes again", fifos, `
			snapshot 1 unsorted
			link a
			fifo a
			link b/c
			fifo b
			fifo d
			snapshot 2 unsorted
			fifo a
			snapshot 3 parent 2 unsorted
			fifo a`, `
			snapshot 1 unsorted
			link a
			remove a
			link b/c
			remove b
			snapshot 2 unsorted
			snapshot 3 parent 2 unsorted
			remove a`, ""},
		{"flat", fifos, `
			features flat
			snapshot 1 unsorted
			link a
			fifo b
			snapshot 2 unsorted
			fifo a`, `
			features flat
			snapshot 1 unsorted
			link a
			snapshot 2 unsorted`, ""},
		{"flat, a path that comes again", fifos, `
			features flat
			snapshot 1 unsorted
			link a
			fifo a`, "", `path "a" comes more than once`},
		{"copy", fifos, "features copy", "", "copy records"},
	})
}

func TestAttributes(t *testing.T) {
	file := &format.Entry{Type: format.TypeFile, Has: format.HasSize | format.HasMtime | format.HasUID, Size: 100,
		Mtime: format.Time{Sec: 50, Nsec: 5}, UID: 7, User: "jo"}
	bare := &format.Entry{Type: format.TypeFile}
	dir := &format.Entry{Type: format.TypeDir, Has: format.HasMtime | format.HasUID, UID: 7, User: "jo"}
	at := func(sec int64, nsec uint32) *format.Time { return &format.Time{Sec: sec, Nsec: nsec} }
	for name, tc := range map[string]struct {
		a    Attributes
		e    *format.Entry
		want bool
	}{
		"larger":           {Attributes{LargerThan: new(uint64(99))}, file, true},
		"not larger":       {Attributes{LargerThan: new(uint64(100))}, file, false},
		"size unknown":     {Attributes{SmallerThan: new(uint64(100))}, bare, false},
		"smaller":          {Attributes{SmallerThan: new(uint64(101))}, file, true},
		"not smaller":      {Attributes{SmallerThan: new(uint64(100))}, file, false},
		"newer":            {Attributes{NewerThan: at(50, 4)}, file, true},
		"as new":           {Attributes{NewerThan: at(50, 5)}, file, false},
		"older":            {Attributes{OlderThan: at(50, 6)}, file, true},
		"as old":           {Attributes{OlderThan: at(50, 5)}, file, false},
		"time unknown":     {Attributes{OlderThan: at(50, 5)}, bare, false},
		"owner by name":    {Attributes{Owners: []string{"al", "jo"}}, file, true},
		"owner by number":  {Attributes{Owners: []string{"7"}}, file, true},
		"owner unknown":    {Attributes{Owners: []string{"0"}}, bare, false},
		"directory":        {Attributes{Owners: []string{"jo"}, OlderThan: at(99, 0)}, dir, false},
		"one of two":       {Attributes{LargerThan: new(uint64(1000)), Owners: []string{"jo"}}, file, true},
		"nothing asked":    {Attributes{}, file, false},
		"type":             {Attributes{Types: []format.Type{"file"}}, file, true},
		"another type":     {Attributes{Types: []format.Type{"fifo"}}, file, false},
		"type before size": {Attributes{Types: []format.Type{"file"}, LargerThan: new(uint64(1000))}, file, true},
	} {
		if got := tc.a.match(tc.e); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

func TestDropByContent(t *testing.T) {
	pdf := Options{Magic: []string{"application/pdf"}}
	meow := Options{Judge: judgeByWord("meow"), JudgeName: "meow"}
	big := strings.Repeat("0123456789", 100_000)
	cases := []textCase{
		{"by type", pdf, `
			snapshot 1
			file a %PDF-1.7 x
			x gone
			file b x %PDF-
			x note
			file c %PDF- =x
			file d =x =%PDF-1.7
			file e =%PDF-1.7 =x
			fifo f
			snapshot 2 parent 1
			file d =%PDF-1.7
			file f`, `
			snapshot 1
			file b x %PDF-
			x note
			file d =x %PDF-1.7
			fifo f
			snapshot 2 parent 1
			remove d
			file f`, ""},
		{"by command", meow, `
			snapshot 1
			file a ow =ow me
			file b =me =ow
			x gone
			file c ~3 !mew
			x note
			file d me ~1 ow`, `
			snapshot 1
			file a ow =ow me
			file c ~3 !mew
			x note
			file d me ~1 ow`, ""},
		{"a file larger than memory", meow, `
			snapshot 1
			file a ` + big + ` =` + big + ` x ~5 meow
			x gone
			file b ` + big + `x !y` + big + ` =` + big + ` ~7 =x
			x note
			file c =` + big + ` =` + big + `x`, `
			snapshot 1
			file b ` + big + `x !y` + big + ` ` + big + ` ~7 x
			x note
			file c =` + big + ` =` + big + `x`, ""},
		{"refs that nothing serves", meow, `
			snapshot 1
			file a =gone`, "", "did not come before"},
		{"copy", pdf, "features copy", "", "copy records"},
		{"held", pdf, "features held", "", "only its receiver has"},
	}
	runTextCases(t, cases)
}

// TestMagicDecidesEarly: a file is not held back for longer than its type takes
// to tell.
func TestMagicDecidesEarly(t *testing.T) {
	f, err := New(Options{Magic: []string{"image/*"}, TempDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var got []format.Kind
	head := []byte(strings.Repeat("x", magicSize))
	for _, rec := range []format.Record{&format.Header{Version: 1}, &format.Snapshot{ID: format.ID{1}}, &format.Entry{Path: "a", Type: format.TypeFile},
		&format.Data{ID: format.SumID(head[1:]), Size: magicSize - 1, Payload: head[1:]}, &format.Hole{Size: 1}} {
		got = nil
		if err := f.Process(rec, func(rec format.Record) error { got = append(got, rec.Kind()); return nil }); err != nil {
			t.Fatal(err)
		}
		if rec.Kind() == format.KindData && got != nil {
			t.Errorf("after %d bytes, %v came", magicSize-1, got)
		}
	}
	if want := []format.Kind{format.KindEntry, format.KindData, format.KindHole}; !slices.Equal(got, want) {
		t.Errorf("after %d bytes, %v came, want %v", magicSize, got, want)
	}
}

func TestJudgeByCommand(t *testing.T) {
	ctx := context.Background()
	run := func(script string, content string) (bool, error) {
		judge := JudgeByCommand(ctx, []string{"/bin/sh", "-c", script}, CommandOptions{Env: []string{"PATH=" + os.Getenv("PATH")}})
		e := &format.Entry{Path: "a/b", Type: format.TypeFile, Has: format.HasSize | format.HasUID, Size: 5, UID: 7, User: "jo\x00"}
		return judge(e, strings.NewReader(content))
	}
	for _, tc := range []struct {
		script, content string
		drop            bool
		err             string
	}{
		{"grep -q meow", "x meow y", true, ""},
		{"grep -q meow", "x woof y", false, ""},
		{"exit 0", strings.Repeat("x", 1<<20), true, ""}, // it need not read
		{"exit 3", "", false, "exit status 3"},
		{"kill -9 $$", "", false, "killed"},
		{`test "$BK_PATH $BK_TYPE $BK_SIZE $BK_UID $BK_GID $BK_USER" = "a/b file 5 7  "`, "", true, ""},
	} {
		drop, err := run(tc.script, tc.content)
		if drop != tc.drop || (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%s: %v, %v, want %v, %q", tc.script, drop, err, tc.drop, tc.err)
		}
	}
	canceled, cancel := context.WithCancelCause(ctx)
	cancel(io.ErrClosedPipe)
	if _, err := JudgeByCommand(canceled, []string{"/bin/sh", "-c", "sleep 9"}, CommandOptions{})(&format.Entry{}, strings.NewReader("")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("canceled: %v", err)
	}
}

func TestMagic(t *testing.T) {
	for head, want := range map[string]string{
		"\x7fELF\x02": "application/x-executable", "\xff\xd8\xff\xe0": "image/jpeg", "\x89PNG\r\n\x1a\n": "image/png",
		"hello": "text/plain", "PK\x03\x04": "application/zip", strings.Repeat("\x00", 257) + "ustar\x00": "application/x-tar",
	} {
		if got := contentType([]byte(head)); got != want {
			t.Errorf("%.8q: %s, want %s", head, got, want)
		}
	}
	if !matchMagic([]string{"image/*"}, []byte("\xff\xd8\xff\xe0")) || matchMagic([]string{"image/*", "text/html"}, []byte("hello")) || matchMagic([]string{"text/*"}, nil) {
		t.Error("groups of types match wrongly")
	}
	for _, bad := range []string{"image", "image/", "/x", "*/x", "image/j*", "text/plain; charset=utf-8"} {
		if checkMagic([]string{bad}) == nil {
			t.Errorf("%q passes for a content type", bad)
		}
	}
}

func TestParseSizeAndTime(t *testing.T) {
	for text, want := range map[string]uint64{
		"0": 0, "4096": 4096, "10KiB": 10240, "5M": 5 << 20, "1.5GB": 1_500_000_000, "2 t": 2 << 40, "3b": 3, "1kb": 1000,
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
	for _, bad := range []string{"", "M", "5X", "-1", "1..2", "99999999P", "1e3"} {
		if n, err := ParseSize(bad); err == nil {
			t.Errorf("%q passes for the size %d", bad, n)
		}
	}
	now := time.Date(2026, 3, 31, 12, 0, 0, 0, time.FixedZone("", 3600))
	for text, want := range map[string]string{
		"2026-01-02":                "2026-01-01T23:00:00Z",
		"2026-01-02T03:04:05Z":      "2026-01-02T03:04:05Z",
		"2026-01-02 03:04":          "2026-01-02T02:04:00Z",
		"2026-01-02T03:04:05+02:00": "2026-01-02T01:04:05Z",
		"30d":                       "2026-03-01T11:00:00Z",
		"1h30min10s":                "2026-03-31T09:29:50Z",
		"2w":                        "2026-03-17T11:00:00Z",
		"1y6mo":                     "2024-10-01T11:00:00Z", // 31 September
	} {
		got, err := ParseTime(text, now)
		if err != nil || got.Time().Format(time.RFC3339) != want {
			t.Errorf("%q: %v, %v, want %s", text, got.Time(), err, want)
		}
	}
	for _, bad := range []string{"", "30", "d", "5m", "5 d", "2026-13-01", "99999999999d"} {
		if _, err := ParseTime(bad, now); err == nil {
			t.Errorf("%q passes for a time", bad)
		}
	}
}
