package borg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/formattest"
)

func TestInit(t *testing.T) {
	ctx := context.Background()
	opts := InitOptions{Passphrase: testPassphrase, Now: time.Now, Rand: testRand(1)}
	for _, mode := range []string{"", "none", "authenticated", "authenticated-blake2", "repokey", "keyfile", "repokey-blake2", "keyfile-blake2"} {
		place, keyFile := filepath.Join(t.TempDir(), "new"), filepath.Join(t.TempDir(), "keys", "key")
		opts.Encryption = mode
		opts.KeyFile = func(string) (string, error) { return keyFile, nil }
		if err := Init(ctx, place, opts); err != nil {
			t.Fatalf("%q: %v", mode, err)
		}
		r, err := Open(ctx, openPlace(t, place), Options{
			Passphrase: testPassphrase, KeyFile: func(context.Context, string) ([]byte, error) { return os.ReadFile(keyFile) },
		})
		if err != nil {
			t.Fatalf("%q: %v", mode, err)
		}
		if want := strings.TrimSpace(mode + strings.Repeat("repokey-blake2", 1-min(1, len(mode)))); r.keys.mode.String() != want {
			t.Errorf("the mode is %s, not %s", r.keys.mode, want)
		}
		if list, err := r.Snapshots(ctx); err != nil || len(list) > 0 {
			t.Errorf("%q: %v, %v", mode, list, err)
		}
		if err := Init(ctx, place, opts); !errors.Is(err, ErrExists) {
			t.Errorf("%q, again: %v", mode, err)
		}
		if list, _ := filepath.Glob(place + ".tmp*"); len(list) > 0 {
			t.Errorf("left behind: %q", list)
		}
	}
	opts.Encryption = "rot13"
	if err := Init(ctx, filepath.Join(t.TempDir(), "x"), opts); !errors.Is(err, ErrNoMode) {
		t.Errorf("a mode that is none: %v", err)
	}
	opts.Encryption, opts.KeyFile = "keyfile", func(string) (string, error) { return "sink_test.go", nil }
	if err := Init(ctx, filepath.Join(t.TempDir(), "x"), opts); !errors.Is(err, os.ErrExist) {
		t.Errorf("a key file that is there: %v", err)
	}
}

// files returns what lies below a directory.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	list := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		list[strings.TrimPrefix(path, dir)] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func header() *format.Header {
	return &format.Header{Version: 1, Features: []format.Feature{format.FeatureBase, format.FeatureCopy, format.FeatureZstd}}
}

// TestSinkAbandons closes sinks in the midst of a snapshot: the repository is what
// it was.
func TestSinkAbandons(t *testing.T) {
	place := newPlace(t, "none")
	m := newModel(t, 1)
	m.sent = map[format.ID][]byte{}
	m.change()
	m.put("file", object{format.Entry{Type: format.TypeFile}, m.part(20_000)})
	list := append([]format.Record{header()}, m.snapshot(nil, format.ID{}, false)...)
	before := files(t, place)
	for n := range list {
		s := openSink(t, place, SinkOptions{Recut: n%2 == 0, cuts: smallCuts})
		m.write(s, list[:n])
		if d := cmp.Diff(before, files(t, place)); d != "" {
			t.Fatalf("after %d of %d records:\n%s", n, len(list), d)
		}
	}
	// A snapshot that is complete stays though the stream is not.
	s := openSink(t, place, SinkOptions{})
	m.write(s, append(list, &format.Snapshot{ID: format.ID{1}}))
	if got, err := openRepository(t, place).Snapshots(context.Background()); err != nil || len(got) != 1 {
		t.Errorf("%d snapshots, %v", len(got), err)
	}
	// What an interrupted backup has left does not count, and goes.
	if err := os.WriteFile(filepath.Join(place, "data", "0", "99"), []byte("BORG_SEG"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = openSink(t, place, SinkOptions{})
	m.write(s, append(list, &format.End{}))
	if sum := s.Summary(); sum.Held != 1 || sum.Snapshots != 0 {
		t.Errorf("the same again: %+v", sum)
	}
	if _, err := os.Stat(filepath.Join(place, "data", "0", "99")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was not committed is there: %v", err)
	}
}

// TestCountersAreUsedOnce writes into one repository in several runs, some of
// them abandoned, and looks at the counters of all objects on storage.
func TestCountersAreUsedOnce(t *testing.T) {
	place := newPlace(t, "repokey")
	used := make(map[uint64]string)
	look := func() {
		for name, b := range files(t, filepath.Join(place, "data")) {
			read := func(offset int64, _ int) ([]byte, error) { return []byte(b)[offset:], nil }
			err := parseSegment(int64(len(b)), read, func(at uint32, h *entryHead) error {
				if h.tag != tagPut {
					return nil
				}
				object := []byte(b)[at:][putHeadSize:h.size]
				where := fmt.Sprintf("%s %x", name, object)
				for n := range blocks(len(object) - envelopeSize) {
					iv := ivOf(object) + n
					if other := used[iv]; other != "" && other != where {
						t.Errorf("counter %d in %.20s and %.20s", iv, other, where)
					}
					used[iv] = where
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	m := newModel(t, 3)
	for i := range 4 {
		m.sent = map[format.ID][]byte{}
		m.change()
		m.put("file", object{format.Entry{Type: format.TypeFile}, m.part(20_000)})
		list := append([]format.Record{header()}, m.snapshot(nil, format.ID{}, false)...)
		s := openSink(t, place, SinkOptions{})
		for _, rec := range list[:len(list)-i%2] {
			if err := s.Write(format.Clone(rec)); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(s.arrive.drain(), s.log.flush()); err != nil {
			t.Fatal(err)
		}
		look()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(used) < 1000 {
		t.Errorf("only %d counters were looked at", len(used))
	}
	// What the client has noted counts, too.
	noted := filepath.Join(t.TempDir(), "nonce")
	if err := os.WriteFile(noted, []byte("00000abc00000000"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := openSink(t, place, SinkOptions{ClientNonce: func(string) string { return noted }})
	if s.nonces.next != 0xabc00000000 {
		t.Errorf("it begins at %#x", s.nonces.next)
	}
	if err := os.WriteFile(filepath.Join(place, "nonce"), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := OpenSink(context.Background(), place, openPlace(t, place), Options{Passphrase: testPassphrase}, s.opts); !errors.Is(err, ErrDamaged) {
		t.Errorf("a file of counters that is damaged: %v", err)
	}
}

func TestLock(t *testing.T) {
	place := t.TempDir()
	gone := Holder{"here", 1 << 22} // more than there are processes
	for name, test := range map[string]struct {
		file, roster string
		locked       bool
	}{
		"nobody":                {},
		"who is gone":           {file: gone.fileName()},
		"one that runs":         {file: Holder{"here", os.Getpid()}.fileName(), locked: true},
		"another machine":       {file: Holder{"there", 1 << 22}.fileName(), locked: true},
		"an unknown name":       {file: "x", locked: true},
		"a reader":              {roster: `{"shared": [["there", 1, 0]]}`, locked: true},
		"a reader that is gone": {roster: `{"shared": [["here", 4194304, 0]]}`},
		"a roster of nothing":   {roster: `{`},
	} {
		os.RemoveAll(filepath.Join(place, lockName))
		os.Remove(filepath.Join(place, rosterName))
		if test.file != "" {
			if err := os.Mkdir(filepath.Join(place, lockName), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(place, lockName, test.file), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if test.roster != "" {
			if err := os.WriteFile(filepath.Join(place, rosterName), []byte(test.roster), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		before := files(t, place)
		l, err := lockRepository(place, Holder{"here", os.Getpid()})
		if test.locked {
			if !errors.Is(err, ErrLocked) {
				t.Errorf("%s: %v", name, err)
			}
			if d := cmp.Diff(before, files(t, place)); d != "" {
				t.Errorf("%s: %s", name, d)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, err := lockRepository(place, Holder{"here", os.Getppid()}); !errors.Is(err, ErrLocked) {
			t.Errorf("%s: a second lock: %v", name, err)
		}
		if err := l.release(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if left := files(t, place); len(left) > 0 {
			t.Errorf("%s: left behind: %v", name, left)
		}
	}
}

// TestSinkLosses writes entries of which something is lost, and reads back what
// became of them.
func TestSinkLosses(t *testing.T) {
	const all = format.HasMode | format.HasUID | format.HasGID | format.HasMtime
	good := format.Entry{Path: "x", Type: format.TypeDir, Has: all, Mode: 0o700, Mtime: format.Time{Sec: 5, Nsec: 7}}
	for name, test := range map[string]struct {
		entry func(e *format.Entry)
		want  func(e *format.Entry) // what is read; nil: nothing
		loss  string
	}{
		"nothing": {},
		"what is only for information": {entry: func(e *format.Entry) {
			e.Has |= format.HasAtime | format.HasCtime | format.HasBtime
			e.Atime, e.Ctime, e.Btime = format.Time{Sec: 1}, format.Time{Sec: 2}, format.Time{Sec: 3}
		}},
		"names":              {entry: func(e *format.Entry) { e.User, e.Group = "somebody", "\xff\xfe" }},
		"before 1970":        {entry: func(e *format.Entry) { e.Mtime = format.Time{Sec: -1, Nsec: 5e8} }},
		"the year 2300":      {entry: func(e *format.Entry) { e.Mtime = format.Time{Sec: 10_413_792_000, Nsec: 1} }},
		"an attribute":       {entry: func(e *format.Entry) { e.Xattrs = []format.Xattr{{Name: "user.a"}, {Name: "user.b", Value: "\x00"}} }},
		"flags":              {entry: func(e *format.Entry) { e.Flags = []string{"append", "immutable", "nodump"} }},
		"a device":           {entry: func(e *format.Entry) { e.Type, e.Rdev = format.TypeBlock, format.Rdev{Major: 259, Minor: 1048575} }},
		"an ACL":             {entry: func(e *format.Entry) { e.Xattrs = []format.Xattr{{Name: "system.posix_acl_access", Value: testACL}} }},
		"no permissions":     {func(e *format.Entry) { e.Has &^= format.HasMode; e.Mode = 0 }, func(e *format.Entry) { e.Has, e.Mode = all, 0o755 }, format.LossMode},
		"no owner":           {func(e *format.Entry) { e.Has &^= format.HasUID }, func(e *format.Entry) { e.Has = all }, format.LossOwner},
		"no time":            {func(e *format.Entry) { e.Has &^= format.HasMtime; e.Mtime = format.Time{} }, func(e *format.Entry) { e.Has = all }, format.LossTime},
		"the far future":     {func(e *format.Entry) { e.Mtime.Sec = 1 << 40 }, func(e *format.Entry) { e.Mtime = format.Time{Sec: timeSecMax, Nsec: 999_999_999} }, format.LossTimeRange},
		"the far past":       {func(e *format.Entry) { e.Mtime.Sec = -1 << 40 }, func(e *format.Entry) { e.Mtime = format.Time{Sec: timeSecMin} }, format.LossTimeRange},
		"an unknown flag":    {func(e *format.Entry) { e.Flags = []string{"casefold", "nodump"} }, func(e *format.Entry) { e.Flags = []string{"nodump"} }, format.LossFlags},
		"what is no ACL":     {func(e *format.Entry) { e.Xattrs = []format.Xattr{{Name: "system.posix_acl_access", Value: "x"}} }, func(e *format.Entry) { e.Xattrs = nil }, format.LossACL},
		"an unknown key":     {func(e *format.Entry) { e.Extra = []format.Field{{Key: "x-a", Raw: []byte{1}}} }, func(e *format.Entry) { e.Extra = nil }, format.LossExtension},
		"a socket":           {func(e *format.Entry) { e.Type = format.TypeSocket }, nil, format.LossSocket},
		"a link to nothing":  {func(e *format.Entry) { e.Type = format.TypeSymlink }, nil, format.LossUnwritable},
		"a link to anything": {entry: func(e *format.Entry) { e.Type, e.Target = format.TypeSymlink, "\xff/.." }},
	} {
		e := good
		if test.entry != nil {
			test.entry(&e)
		}
		want := e
		want.Xattrs = append([]format.Xattr(nil), e.Xattrs...)
		if test.want != nil {
			test.want(&want)
		}
		place := newPlace(t, "none")
		list := []format.Record{header(), &format.Snapshot{ID: format.ID{1}}, &e, &format.Commit{}, &format.End{}}
		m := &model{TB: t}
		s := openSink(t, place, SinkOptions{})
		m.write(s, list)
		losses := s.Summary().Losses
		if len(losses) > 1 || len(losses) == 1 != (test.loss != "") || test.loss != "" && losses[0].Kind != test.loss {
			t.Errorf("%s: losses %+v, not %q", name, losses, test.loss)
		}
		got := formattest.Receive(t, formattest.MustStream(t, openRepository(t, place), format.ExportOptions{}), nil)[0].Listing
		switch {
		case test.loss != "" && test.want == nil:
			if len(got) > 0 {
				t.Errorf("%s: it is there", name)
			}
		case got["x"] == nil:
			t.Errorf("%s: it is not there", name)
		default:
			a, b := format.AppendText(nil, &want), format.AppendText(nil, got["x"].Entry)
			if !bytes.Equal(a, b) {
				t.Errorf("%s:\n%s\nshould be\n%s", name, b, a)
			}
		}
		if test.loss != "" {
			s := openSink(t, newPlace(t, "none"), SinkOptions{Strict: true})
			var err error
			for _, rec := range list {
				err = errors.Join(err, s.Write(format.Clone(rec)))
			}
			if err == nil || !strings.Contains(err.Error(), test.loss) {
				t.Errorf("%s: strictly: %v", name, err)
			}
		}
	}
}

// testACL has an entry for a user and one for a group, in the kernel's form.
const testACL = "\x02\x00\x00\x00" +
	"\x01\x00\x07\x00\xff\xff\xff\xff" + "\x02\x00\x05\x00\xe8\x03\x00\x00" + "\x04\x00\x04\x00\xff\xff\xff\xff" +
	"\x08\x00\x01\x00\x37\x00\x00\x00" + "\x10\x00\x05\x00\xff\xff\xff\xff" + "\x20\x00\x00\x00\xff\xff\xff\xff"

// TestSinkRefuses gives a sink streams that it must not take.
func TestSinkRefuses(t *testing.T) {
	file := func(recs ...format.Record) []format.Record {
		return append([]format.Record{header(), &format.Snapshot{ID: format.ID{1}}, &format.Entry{Path: "x", Type: format.TypeFile}}, recs...)
	}
	chunk := &format.Data{ID: format.SumID([]byte("a")), Size: 1, Payload: []byte("a")}
	ref := func(id byte, size uint32) *format.Refs {
		return &format.Refs{Chunks: []format.ChunkRef{{ID: format.SumID([]byte{id}), Size: size}}}
	}
	second := append(file(chunk, &format.EOF{Size: 1}, &format.Commit{}), &format.Snapshot{ID: format.ID{2}, Parent: format.ID{1}})
	entry := func(path string) *format.Entry { return &format.Entry{Path: path, Type: format.TypeFile} }
	for name, test := range map[string]struct {
		list  []format.Record
		class format.Class
	}{
		"a wrong chunk":            {file(&format.Data{ID: format.ID{1}, Size: 1, Payload: []byte("a")}, &format.EOF{Size: 1}), format.ClassChunk},
		"refs to nothing":          {file(ref('b', 1), &format.EOF{Size: 1}), format.ClassReference},
		"refs with another size":   {file(chunk, ref('a', 2), &format.EOF{Size: 3}), format.ClassReference},
		"a parent that is nowhere": {[]format.Record{header(), &format.Snapshot{ID: format.ID{1}, Parent: format.ID{9}}}, format.ClassParent},
		"a copy of nothing":        {append(second[:len(second):len(second)], entry("y"), &format.CopyRange{Size: 1}, &format.EOF{Size: 1}), format.ClassReference},
		"a copy from beyond":       {append(second[:len(second):len(second)], entry("x"), &format.CopyRange{Offset: 1, Size: 1}, &format.EOF{Size: 1}), format.ClassReference},
		"an entry below a file":    {append(second[:len(second):len(second)], entry("x/y"), &format.EOF{}), format.ClassTree},
	} {
		for _, recut := range []bool{false, true} {
			if name == "an entry below a file" {
				// In the parent x is a file, and the record does not say otherwise.
				test.class = ""
			}
			s := openSink(t, newPlace(t, "none"), SinkOptions{Recut: recut, cuts: smallCuts})
			var err error
			for _, rec := range append(test.list, &format.Commit{}) {
				if err = s.Write(format.Clone(rec)); err != nil {
					break
				}
			}
			var e *format.Error
			if test.class != "" && (!errors.As(err, &e) || e.Class != test.class) {
				t.Errorf("%s: %v, not of the class %s", name, err, test.class)
			}
			if test.class == "" && err == nil {
				t.Errorf("%s was taken", name)
			}
			if again := s.Write(&format.End{}); err != nil && !errors.Is(again, err) {
				t.Errorf("%s: after an error: %v", name, again)
			}
		}
	}
}

func TestParseCompression(t *testing.T) {
	plain := []byte(strings.Repeat("compressible ", 1000))
	for text, want := range map[string]codec{"": codecZstd, "keep": codecZstd, "none": codecNone, "lz4": codecLZ4, "zstd": codecZstd, "zstd,1": codecZstd, "zstd:19": codecZstd} {
		c, err := ParseCompression(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		b, err := c.packContent(plain)
		if err != nil {
			t.Fatal(err)
		}
		used, rest, err := splitCodec(b)
		if err != nil || used != want {
			t.Errorf("%q: %s, %v", text, used, err)
		}
		if got, err := decompress(used, rest, 1<<20); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, text := range []string{"zlib", "zstd,0", "zstd,20", "zstd,", "lz4,1", "none,", "keep,3"} {
		if _, err := ParseCompression(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

// TestNames gives archives names that are free, and that borg's command line
// takes.
func TestNames(t *testing.T) {
	s := &Sink{manifest: &manifest{archives: []archiveRef{{name: "host-2023-11-14T22:13:20"}, {name: "taken"}, {name: "taken-2"}}}}
	when := &format.Time{Sec: 1_700_000_000}
	for want, record := range map[string]*format.Snapshot{
		"host-2023-11-14T22:13:20-2":  {Host: "host", Time: when},
		"2023-11-14T22:13:20":         {Time: when},
		"host-01000000":               {Host: "host"},
		"a_b__c_d--e-01000000":        {Host: "a/b\n c\xffd::e"},
		"taken-3":                     {Tags: []string{"taken"}, Origin: &format.Origin{System: "borg"}},
		"x.checkpoint-01000000":       {Tags: []string{"x.checkpoint"}, Origin: &format.Origin{System: "borg"}},
		strings.Repeat("\u00e9", 100): {Tags: []string{strings.Repeat("\u00e9", 200)}, Origin: &format.Origin{System: "borg"}},
	} {
		record.ID = format.ID{1}
		if got := s.archiveName(record); got != want {
			t.Errorf("%q instead of %q", got, want)
		}
	}
}

// TestRecordOf reads records back from command lines, and whatever else stands
// there.
func TestRecordOf(t *testing.T) {
	record := &format.Snapshot{
		ID: format.ID{1}, Parent: format.ID{2}, Host: "h", Tags: []string{"\xff", ""}, Unstable: true, Unsorted: true,
		Via: []format.Via{{Stage: "s", From: format.ID{3}}}, Origin: &format.Origin{System: "bk", ID: "x"},
		Extra: []format.Field{{Key: "x-k", Raw: []byte{0xc3}}},
	}
	got := recordOf(recordCommand(record))
	record.Parent, record.Unsorted = format.ID{}, false
	if d := cmp.Diff(record, got); d != "" {
		t.Error(d)
	}
	for _, cmdline := range [][]string{nil, {"borg", "create"}, {recordFlag}, {recordFlag + "!"}, {recordFlag + "gA"}} {
		if r := recordOf(cmdline); r != nil {
			t.Errorf("%q is %+v", cmdline, r)
		}
	}
	if groupsOf([]string{groupsFlag + "AAAA"}) != nil {
		t.Error("names of groups that are cut off were taken")
	}
}
