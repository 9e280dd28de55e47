package filter

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bk-backup/bk/format"
	"github.com/google/go-cmp/cmp"
)

func renaming(pairs ...string) Options {
	var opts Options
	for _, pair := range pairs {
		from, to, _ := strings.Cut(pair, "=")
		opts.Changes.Renames = append(opts.Changes.Renames, Rename{from, to})
	}
	return opts
}

func TestRename(t *testing.T) {
	runTextCases(t, []textCase{
		{"a prefix", renaming("a/b=c"), `
			snapshot 1 root=a root=a/b
			dir a
			dir a/b
			file a/b/x one
			x note
			fifo a/bc
			loss unreadable 3 a/b/x a/c
			snapshot 2 parent 1
			remove a/b
			x note
			fifo d`, `
			snapshot 1 unsorted root=a root=c
			dir a
			dir c
			file c/x one
			x note
			fifo a/bc
			loss unreadable 3 c/x a/c
			snapshot 2 parent 1 unsorted
			remove c
			x note
			fifo d`, ""},
		{"everything", renaming("=host/a"), `
			snapshot 1
			dir /
			dir b
			snapshot 2 parent 1
			remove b`, `
			snapshot 1
			dir host/a
			dir host/a/b
			snapshot 2 parent 1
			remove host/a/b`, ""},
		{"the longest prefix wins", renaming("a=x", "a/b=y"), `
			snapshot 1
			fifo a/b/c
			fifo a/d
			snapshot 2 parent 1
			remove a
			snapshot 3 parent 2
			fifo a
			snapshot 4
			fifo a`, `
			snapshot 1 unsorted
			fifo y/c
			fifo x/d
			snapshot 2 parent 1 unsorted
			remove y
			remove x
			snapshot 3 parent 2 unsorted
			remove y
			fifo x
			snapshot 4 unsorted
			fifo x`, ""},
		{"one level up", renaming("a/b=a"), `
			snapshot 1
			dir a
			x gone
			dir a/b
			fifo a/b/c
			snapshot 2 parent 1
			remove a
			x gone`, `
			snapshot 1 unsorted
			dir a
			fifo a/c
			snapshot 2 parent 1 unsorted
			remove a`, ""},
		{"to a place that is taken", renaming("a=b"), `
			snapshot 1
			fifo b/x`, "", `"b/x" lies where --rename moves another one`},
		{"a removal in such a place", renaming("a=b"), `
			snapshot 1
			fifo a/x
			snapshot 2 parent 1
			remove b`, `
			snapshot 1 unsorted
			fifo b/x
			snapshot 2 parent 1 unsorted`, ""},
		{"below what is taken away", renaming("a=b/c"), `
			snapshot 1
			fifo a/x
			snapshot 2 parent 1
			remove b`, "", "is taken away"},
		{"copies", renaming("a=b"), `
			features base copy
			snapshot 2 parent 1
			file c
			copy 7 from a/x`, `
			features base copy
			snapshot 2 parent 1 unsorted
			file c
			copy 7 from b/x`, ""},
	})
	for _, bad := range [][]string{{"a=a"}, {"a=b", "a=c"}, {"a=x", "b=x/y"}, {"a/../b=c"}, {"/a=c"}} {
		if f, err := New(renaming(bad...)); err == nil {
			f.Close()
			t.Errorf("%q pass for renames", bad)
		}
	}
}

func TestStripPrefix(t *testing.T) {
	strip := Options{Changes: Changes{StripPrefix: "a/b"}}
	runTextCases(t, []textCase{
		{"becomes the root", strip, `
			snapshot 1 root=a root=a/b/d root=z
			dir /
			dir a
			x gone
			dir a/b
			x note
			fifo a/b/c
			file a/b-c two
			file a/x one
			dir z
			snapshot 2 parent 1
			file a/b/e =one
			remove z`, `
			snapshot 1 root= root=d
			dir /
			x note
			fifo c
			snapshot 2 parent 1
			file e one`, ""},
		{"what takes the prefix away empties the root", strip, `
			snapshot 1
			dir a/b
			fifo a/b/c
			snapshot 2 parent 1
			remove a
			dir a/b
			fifo a/b/d
			snapshot 3 parent 2
			fifo a
			snapshot 4 parent 3
			dir a
			fifo a/b/e`, `
			snapshot 1
			dir /
			fifo c
			snapshot 2 parent 1
			remove /
			dir /
			fifo d
			snapshot 3 parent 2
			remove /
			snapshot 4 parent 3
			fifo e`, ""},
		{"taken away twice over", strip, `
			features base
			snapshot 2 parent 1
			remove a
			remove a/b`, `
			features base
			snapshot 2 parent 1
			remove /`, ""},
		{"a file", strip, `
			snapshot 1
			fifo a/b`, "", "cannot become the root"},
	})
}

func TestChanges(t *testing.T) {
	e := &format.Entry{Path: "a", Type: format.TypeDir, Has: format.HasUID | format.HasGID, UID: 1, GID: 2, User: "u", Group: "g",
		Xattrs: []format.Xattr{{Name: "security.a"}, {Name: "user.a/b"}, {Name: "user.c"}}}
	for _, tc := range []struct {
		owner  string
		xattrs []string
		want   format.Entry
	}{
		{"jo", nil, format.Entry{Has: format.HasGID, GID: 2, User: "jo", Group: "g", Xattrs: e.Xattrs}},
		{"1000:100", nil, format.Entry{Has: format.HasUID | format.HasGID, UID: 1000, GID: 100, Xattrs: e.Xattrs}},
		{":staff", nil, format.Entry{Has: format.HasUID, UID: 1, User: "u", Group: "staff", Xattrs: e.Xattrs}},
		{"", []string{"user.*"}, format.Entry{Has: e.Has, UID: 1, GID: 2, User: "u", Group: "g", Xattrs: e.Xattrs[:1]}},
		{"", []string{"user.[a-b]/?", "security.x"}, format.Entry{Has: e.Has, UID: 1, GID: 2, User: "u", Group: "g", Xattrs: []format.Xattr{e.Xattrs[0], e.Xattrs[2]}}},
	} {
		c := &Changes{DropXattrs: tc.xattrs}
		if tc.owner != "" {
			var err error
			if c.Owner, err = ParseOwner(tc.owner); err != nil {
				t.Fatal(err)
			}
		}
		s, err := newChangeStage(c)
		if err != nil {
			t.Fatal(err)
		}
		before := e.Clone()
		got := s.changeEntry(e)
		tc.want.Path, tc.want.Type = "a", format.TypeDir
		if diff := cmp.Diff(&tc.want, got); diff != "" {
			t.Errorf("owner %q, xattrs %q: %s", tc.owner, tc.xattrs, diff)
		}
		if diff := cmp.Diff(before, e); diff != "" {
			t.Errorf("the record that came in was changed: %s", diff)
		}
	}
	for _, bad := range []string{"", ":", "a:b:c"} {
		if o, err := ParseOwner(bad); err == nil {
			t.Errorf("%q passes for the owner %+v", bad, o)
		}
	}
	runTextCases(t, []textCase{
		{"host and tags", Options{Changes: Changes{SetHost: "new", AddTags: []string{"a", "b"}}}, `
			snapshot 1 host=old tag=b
			snapshot 2 parent 1 tag=c`, `
			snapshot 1 host=new tag=b tag=a
			snapshot 2 parent 1 host=new tag=c tag=a tag=b`, ""},
	})
}

func TestSnapshotRule(t *testing.T) {
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	s := &format.Snapshot{ID: format.ID{0xab, 0xcd}, Host: "h,1", Tags: []string{"x", "y"}, Roots: []string{"home", "etc/a"},
		Time: &format.Time{Sec: now.Unix() - 86400}}
	for text, want := range map[string]bool{
		`host=h\,1`: true, "host=h": false, "tag=y": true, "tag=z": false, "tag=x,tag=z": false,
		"path=/home/jo": true, "path=home": true, "path=/etc": false, "path=/": false,
		"after=2d": true, "after=1d": true, "after=12h": false, "before=12h": true, "before=1d": false,
		"id=abcd": true, "id=ABC": true, "id=bc": false, `tag=x,host=h\,1,id=a`: true,
	} {
		r, err := ParseSnapshotRule(text, now)
		if err != nil {
			t.Errorf("%q: %v", text, err)
		} else if r.Match(s) != want {
			t.Errorf("%q: match %v, want %v", text, !want, want)
		}
	}
	if r, _ := ParseSnapshotRule("after=2d", now); r.Match(&format.Snapshot{}) {
		t.Error("a snapshot without a time is after something")
	}
	for _, bad := range []string{"", "host", "host=", "nohost=x", "id=xyz", "after=never", "tag=a,", "path=a/../b"} {
		if r, err := ParseSnapshotRule(bad, now); err == nil {
			t.Errorf("%q passes for the rule %+v", bad, r)
		}
	}
}

// TestDescription fixes the canonical text: ids depend on it.
func TestDescription(t *testing.T) {
	full := func() Options {
		return Options{
			Snapshots: []SnapshotRule{{Host: new("h")}},
			Paths:     mustPatterns(t, true, rulesOf("-secret/*.jpg", "+x")...),
			Attributes: Attributes{LargerThan: new(uint64(5)), SmallerThan: new(uint64(6)), NewerThan: &format.Time{Sec: -1, Nsec: 2},
				OlderThan: &format.Time{Sec: 3}, Types: []format.Type{"fifo", "char"}, Owners: []string{"jo", "al", "jo"}},
			Magic: []string{"image/*"}, Judge: judgeByWord("x"), JudgeName: "grep x",
			Changes: Changes{DropXattrs: []string{"user.*"}, SetHost: "h", AddTags: []string{"t"}, Owner: &Owner{SetUser: true, User: "jo"},
				StripPrefix: "home", Renames: []Rename{{"b", "y"}, {"a", "x"}}},
		}
	}
	opts := full()
	got := opts.Description()
	words := strings.Fields(got)
	for i, word := range words {
		if name, hash, _ := strings.Cut(word, "="); len(hash) == 32 {
			words[i] = name + "=#"
		}
	}
	want := "bk-filter paths=# larger-than=5 smaller-than=6 newer-than=-1.000000002 older-than=3.000000000 type=# owner=# " +
		"magic=# drop-if=# drop-xattr=# set-host=# add-tag=# chown=# strip-prefix=# rename=#"
	if short := strings.Join(words, " "); short != want {
		t.Errorf("got %s\nwant %s", short, want)
	}
	if len(got) > format.TextSizeMax {
		t.Errorf("the description has %d bytes", len(got))
	}
	if sum := sha256.Sum256([]byte(got)); format.ID(sum).Short() != "28e4e0c1" {
		t.Errorf("the description changed, and so do ids: %s: %s", format.ID(sum).Short(), got)
	}
	same := full()
	same.Snapshots, same.Attributes.Types, same.Attributes.Owners = nil, []format.Type{"char", "fifo"}, []string{"al", "jo"}
	slices.Reverse(same.Changes.Renames)
	if same.Description() != got {
		t.Error("what makes no difference changes the description")
	}
	for i, change := range []func(*Options){
		func(o *Options) { o.Paths = mustPatterns(t, false, rulesOf("-secret/*.jpg", "+x")...) },
		func(o *Options) { o.Paths = mustPatterns(t, true, rulesOf("-secret/*.jpg", "-x")...) },
		func(o *Options) { o.Paths = mustPatterns(t, true, rulesOf("+x", "-secret/*.jpg")...) },
		func(o *Options) { o.JudgeName = "grep y" },
		func(o *Options) { o.Changes.Owner.HasUserID = true },
	} {
		o := full()
		if change(&o); o.Description() == got {
			t.Errorf("change %d does not show in the description", i)
		}
	}
	none := Options{Snapshots: full().Snapshots, Paths: mustPatterns(t, false)}
	if d := none.Description(); d != "" {
		t.Errorf("a filter that changes nothing is described as %q", d)
	}
}

func TestKeepIDs(t *testing.T) {
	stream, err := encode(parseText(t, "snapshot 1\nfifo b\nsnapshot 2 parent 1\nfifo b"))
	if err != nil {
		t.Fatal(err)
	}
	opts := dropping(t, "-a")
	opts.KeepIDs = true
	if out, _, err := runFilter(stream, opts); err != nil || !bytes.Equal(stream, out) {
		t.Errorf("a filter that keeps ids and drops nothing changed the stream: %v", err)
	}
}

func TestViaAndIDs(t *testing.T) {
	opts := dropping(t, "-a")
	stream, err := encode(parseText(t, "features base\nsnapshot 2 parent 1\nsnapshot 3 parent 2\nsnapshot 4"))
	if err != nil {
		t.Fatal(err)
	}
	out, _, err := runFilter(stream, opts)
	if err != nil {
		t.Fatal(err)
	}
	description := opts.Description()
	var got []*format.Snapshot
	r := format.NewReader(bytes.NewReader(out), format.ReaderOptions{})
	for rec, err := r.Next(); err == nil; rec, err = r.Next() {
		if s, ok := rec.(*format.Snapshot); ok {
			got = append(got, s.Clone())
		}
	}
	if len(got) != 3 {
		t.Fatalf("%d snapshots", len(got))
	}
	for i, parent := range []uint64{1, 2, 0} {
		old := numberedID(uint64(i) + 2)
		want := &format.Snapshot{ID: MapID(old, description), Via: []format.Via{{Stage: description, From: old}}}
		if parent != 0 {
			want.Parent = MapID(numberedID(parent), description)
		}
		if diff := cmp.Diff(want, got[i], cmp.Transformer("empty", func(s []string) []string { return slices.Clip(s) })); diff != "" {
			t.Error(diff)
		}
	}
	if MapID(numberedID(1), "x") != sha256.Sum256(append(slices.Clone(sliceOf(numberedID(1))), 'x')) {
		t.Error("MapID is not SHA-256 of the id and the description")
	}
}

func sliceOf(id format.ID) []byte { return id[:] }
