//go:build linux

package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/bk-backup/bk/format"
)

// aclUser1000 grants user 1000 to read: version 2, then tag, permission and id
// of user::rw-, user:1000:r--, group::r--, mask::r--, other::---.
const aclUser1000 = "\x02\x00\x00\x00" +
	"\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x04\x00\xe8\x03\x00\x00" +
	"\x04\x00\x04\x00\xff\xff\xff\xff" + "\x10\x00\x04\x00\xff\xff\xff\xff" + "\x20\x00\x00\x00\xff\xff\xff\xff"

// capNetBind is cap_net_bind_service=ep in the kernel's form, version 2.
const capNetBind = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

func TestRestoreEveryType(t *testing.T) {
	needRoot(t)
	device := func(major, minor uint32) func(*format.Entry) {
		return func(e *format.Entry) { e.Rdev = format.Rdev{Major: major, Minor: minor} }
	}
	s := newScript().snapshot("a", "").
		dir("", 0o755).
		dir("d", 0o2751, owned(1000, 1001), mtime(-1000, 999999999)).
		object("d/block", format.TypeBlock, 0o660, device(7, 300)).
		object("d/char", format.TypeChar, 0o666, device(1, 3)).
		file("d/empty", nil).
		object("d/fifo", format.TypeFifo, 0o622, owned(3, 4)).
		file("d/hole", []run{hole(100000), chunk("end")}).
		file("d/hole at end", []run{chunk("begin"), hole(100000)}).
		file("d/not utf-8 \xff\xfe\n", text("name"), mode(0o400)).
		object("d/socket", format.TypeSocket, 0o755).
		symlink("d/symlink", "/nowhere/\xff", owned(5, 6), mtime(-5, 5), xattr("trusted.t", "on a link")).
		file("e/acl", text("acl"), mode(0o640), xattr("system.posix_acl_access", aclUser1000)).
		file("e/caps", text("caps"), mode(0o755), owned(7, 8), xattr("security.capability", capNetBind)).
		file("e/old", text("old"), mtime(-2000000000, 1)).
		file("e/setuid", text("setuid"), mode(0o6755), owned(1000, 1001)).
		file("e/user", text("user"), xattr("trusted.x", ""), xattr("user.a", "1"), xattr("user.b", "\x00\xff")).
		dir("f", 0o1000, xattr("system.posix_acl_default", aclUser1000)).
		commit().end()
	dir := filepath.Join(tempDir(t), "target")
	sum := mustRestore(t, dir, RestoreOptions{}, s)
	want := map[string]string{
		"d":                      "dir 2751 at -1000.999999999 of 1000:1001",
		"d/block":                "block 0660 7:300",
		"d/char":                 "char 0666 1:3",
		"d/empty":                `file 0644 ""`,
		"d/fifo":                 "fifo 0622 of 3:4",
		"d/hole":                 "file 0644 100003 bytes " + format.SumID([]byte(strings.Repeat("\x00", 100000)+"end")).Short(),
		"d/hole at end":          "file 0644 100005 bytes " + format.SumID([]byte("begin"+strings.Repeat("\x00", 100000))).Short(),
		"d/not utf-8 \xff\xfe\n": `file 0400 "name"`,
		"d/socket":               "socket 0755",
		"d/symlink":              "link 0777 -> /nowhere/\xff at -5.000000005 of 5:6 trusted.t=6f6e2061206c696e6b",
		"e/acl":                  fmt.Sprintf(`file 0640 "acl" system.posix_acl_access=%x`, aclUser1000),
		"e/caps":                 fmt.Sprintf(`file 0755 "caps" of 7:8 security.capability=%x`, capNetBind),
		"e/old":                  `file 0644 "old" at -2000000000.000000001`,
		"e/setuid":               `file 6755 "setuid" of 1000:1001`,
		"e/user":                 `file 0644 "user" trusted.x= user.a=31 user.b=00ff`,
		"f":                      fmt.Sprintf("dir 1000 system.posix_acl_default=%x", aclUser1000),
	}
	got := tree(t, dir)
	delete(got, "e") // implied: its time is that of the restore
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := describe(t, dir); got != "dir 0755" {
		t.Errorf("the target is %s", got)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "d/hole"), &st); err != nil || st.Blocks*512 > 50000 {
		t.Errorf("the hole takes %d bytes: %v", st.Blocks*512, err)
	}
	if sum.Files != 9 || sum.Dirs != 3 || sum.Others != 5 || sum.Created != 17 {
		t.Errorf("summary %+v", sum)
	}
}

func TestRestoreAsRestrictiveDirectories(t *testing.T) {
	s := newScript().snapshot("a", "").
		dir("a", 0o555).dir("a/b", 0o000).file("a/b/f", text("x"), mode(0o444), xattr("user.k", "v")).
		dir("a/b/g", 0o100).file("a/b/g/h", text("y"), mode(0)).
		commit().end()
	dir := tempDir(t)
	for range 2 { // the second time over what the first one made
		mustRestore(t, dir, RestoreOptions{}, s)
		for p, want := range map[string]string{"a": "dir 0555", "a/b": "dir 0000"} {
			if got := describe(t, filepath.Join(dir, p)); got != want {
				t.Errorf("%s is %s, not %s", p, got, want)
			}
		}
	}
	for _, p := range []string{"a", "a/b", "a/b/g"} {
		if err := os.Chmod(filepath.Join(dir, p), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if got := describe(t, filepath.Join(dir, "a/b/f")); got != `file 0444 "x" user.k=76` {
		t.Error(got)
	}
}

func TestRestoreRefs(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 1<<17) // 2 MiB: more than a load takes
	s := newScript().snapshot("a", "").
		file("a", []run{chunk("one"), chunk("two"), once("three"), ref("one")}).
		file("b", []run{ref("two"), hole(5), ref("one")}).
		file("big", []run{chunk(big), chunk(big + "x"), ref(big), ref("two")}).
		file("c", []run{ref(big)}).
		commit().end()
	for name, opts := range map[string]RestoreOptions{
		"plain": {}, "verify": {Verify: true, Sync: true}, "spilled": {MemoryChunks: 1}, "one worker": {Workers: 1},
	} {
		t.Run(name, func(t *testing.T) {
			dir := tempDir(t)
			for range 2 {
				mustRestore(t, dir, opts, s)
				for p, want := range map[string]string{
					"a": "onetwothreeone", "b": "two\x00\x00\x00\x00\x00one", "big": big + big + "x" + big + "two", "c": big,
				} {
					if read(t, filepath.Join(dir, p)) != want {
						t.Errorf("%s is wrong", p)
					}
				}
			}
		})
	}
}

func TestRestoreRefNeverSent(t *testing.T) {
	s := newScript().snapshot("a", "").file("a", text("one")).file("b", []run{ref("other")}).commit().end()
	_, err := restore(t, tempDir(t), RestoreOptions{}, s)
	if format.ClassOf(err) != format.ClassReference {
		t.Errorf("got %v", err)
	}
}

func TestRestoreChunkIsWrong(t *testing.T) {
	s := newScript().snapshot("a", "").file("a", text("one")).commit().end()
	for _, rec := range s.recs {
		if d, ok := rec.(*format.Data); ok {
			d.Payload = []byte("eno")
		}
	}
	_, err := restore(t, tempDir(t), RestoreOptions{}, s)
	if format.ClassOf(err) != format.ClassChunk || !strings.Contains(err.Error(), "/a") {
		t.Errorf("got %v", err)
	}
}

// TestRestoreZstd has chunks that are compressed, many to a load and larger than one.
func TestRestoreZstd(t *testing.T) {
	s := newScript(format.FeatureZstd).snapshot("a", "")
	want := make(map[string]string)
	for i := range 50 {
		plain := []byte(strings.Repeat(fmt.Sprintf("line %d\n", i), 10+i*i*i))
		codec, payload, err := format.EncodePayload(nil, plain, format.LevelDefault)
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("%03d", i)
		want[name] = string(plain)
		s.object(name, format.TypeFile, 0o644)
		s.add(&format.Data{ID: format.SumID(plain), Size: uint32(len(plain)), Codec: codec, Payload: payload})
		s.add(&format.EOF{Size: uint64(len(plain))})
	}
	dir := tempDir(t)
	mustRestore(t, dir, RestoreOptions{}, s.commit().end())
	for name, text := range want {
		if read(t, filepath.Join(dir, name)) != text {
			t.Errorf("%s is wrong", name)
		}
	}
}

func TestRestoreHardLinks(t *testing.T) {
	s := newScript().snapshot("a", "").
		dir("d", 0o700).
		file("d/1", text("same"), hardlink("g")).
		file("e", []run{ref("same")}, hardlink("g")).
		file("f", []run{ref("same")}, hardlink("g"), mode(0o600)).
		file("g", text("different"), hardlink("g")).
		file("h", []run{ref("same")}, hardlink("g"), mode(0o600)).
		file("i", []run{ref("same")}).
		symlink("s1", "x", hardlink("s")).symlink("s2", "x", hardlink("s")).symlink("s3", "y", hardlink("s")).
		commit().end()
	dir := tempDir(t)
	for run := range 2 {
		sum, err := restore(t, dir, RestoreOptions{}, s)
		if err != nil || lossKinds(sum) != "hardlink:3" {
			// f and g differ from the first, h agrees with f; so does s3 not.
			t.Errorf("run %d: %v, losses %q", run, err, lossKinds(sum))
		}
		want := map[string]string{
			"d": "dir 0700", "d/1": `file 0644 "same" links 2`, "e": `file 0644 "same" links 2`,
			"f": `file 0600 "same" links 2`, "g": `file 0644 "different"`, "h": `file 0600 "same" links 2`, "i": `file 0644 "same"`,
			"s1": "link 0777 -> x links 2", "s2": "link 0777 -> x links 2", "s3": "link 0777 -> y",
		}
		if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
			t.Errorf("run %d: %s", run, diff)
		}
	}
	if inode(t, filepath.Join(dir, "d/1")) != inode(t, filepath.Join(dir, "e")) {
		t.Error("d/1 and e are not one file")
	}
}

// TestRestoreLargeHardLinks has members that are longer than a load and come
// with their content, as from tar.
func TestRestoreLargeHardLinks(t *testing.T) {
	part := func(i int) string { return strings.Repeat(fmt.Sprint(i), 1<<20) }
	content := []run{once(part(1)), once(part(2)), once(part(3)), once(part(4)), once(part(5))}
	s := newScript(format.FeatureFlat).snapshot("a", "").
		file("a", content, hardlink("g")).file("b", content, hardlink("g")).
		file("c", append(content[:4:4], once(part(6))), hardlink("g")).
		commit().end()
	dir := tempDir(t)
	sum, err := restore(t, dir, RestoreOptions{}, s)
	if err != nil || lossKinds(sum) != "hardlink:1" {
		t.Fatalf("%v, losses %q", err, lossKinds(sum))
	}
	if inode(t, filepath.Join(dir, "a")) != inode(t, filepath.Join(dir, "b")) {
		t.Error("a and b are not one file")
	}
	if got := read(t, filepath.Join(dir, "c")); got[len(got)-1] != '6' {
		t.Error("c is wrong")
	}
}

func TestRestoreOverwrite(t *testing.T) {
	older, newer := time.Unix(testTime.Sec-100, 0), time.Unix(testTime.Sec+100, 0)
	same := time.Unix(testTime.Sec, int64(testTime.Nsec))
	s := newScript().snapshot("a", "").
		dir("dir", 0o700).file("dir/f", text("new")).
		file("newer", text("new")).file("older", text("new")).file("same", text("new")).
		symlink("symlink", "new").
		commit().end()
	const before = "old"
	for _, tc := range []struct {
		overwrite Overwrite
		want      map[string]string // what each holds afterwards
		dirMode   os.FileMode
		counts    [4]uint64 // created, replaced, unchanged, skipped
	}{
		{OverwriteIfChanged, map[string]string{"newer": "new", "older": "new", "same": "old", "symlink": "new"}, 0o700, [4]uint64{1, 3, 2, 0}},
		{OverwriteAlways, map[string]string{"newer": "new", "older": "new", "same": "new", "symlink": "new"}, 0o700, [4]uint64{1, 4, 1, 0}},
		{OverwriteIfNewer, map[string]string{"newer": "old", "older": "new", "same": "old", "symlink": "new"}, 0o755, [4]uint64{1, 2, 1, 2}},
		{OverwriteNever, map[string]string{"newer": "old", "older": "old", "same": "old", "symlink": "old"}, 0o755, [4]uint64{1, 0, 0, 5}},
	} {
		t.Run(tc.overwrite.String(), func(t *testing.T) {
			dir := tempDir(t)
			write(t, filepath.Join(dir, "newer"), before, newer)
			write(t, filepath.Join(dir, "older"), before, older)
			write(t, filepath.Join(dir, "same"), before, same)
			if err := os.Symlink(before, filepath.Join(dir, "symlink")); err != nil {
				t.Fatal(err)
			}
			ts := []unix.Timespec{unix.NsecToTimespec(older.UnixNano()), unix.NsecToTimespec(older.UnixNano())}
			if err := unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(dir, "symlink"), ts, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(filepath.Join(dir, "dir"), 0o755); err != nil {
				t.Fatal(err)
			}
			var items []Item
			dry, err := restore(t, dir, RestoreOptions{Overwrite: tc.overwrite, DryRun: true, OnItem: func(it Item) { items = append(items, it) }}, s)
			if err != nil {
				t.Fatal(err)
			}
			sum := mustRestore(t, dir, RestoreOptions{Overwrite: tc.overwrite}, s)
			for name, want := range tc.want {
				p := filepath.Join(dir, name)
				got, _ := os.Readlink(p)
				if name != "symlink" {
					got = read(t, p)
				}
				if got != want {
					t.Errorf("%s holds %q, not %q", name, got, want)
				}
			}
			if info, _ := os.Stat(filepath.Join(dir, "dir")); info.Mode().Perm() != tc.dirMode {
				t.Errorf("dir has mode %v", info.Mode())
			}
			if read(t, filepath.Join(dir, "dir/f")) != "new" {
				t.Error("dir/f is missing")
			}
			for which, s := range map[string]Summary{"dry": dry, "real": sum} {
				if got := [4]uint64{s.Created, s.Replaced, s.Unchanged, s.Skipped}; got != tc.counts {
					t.Errorf("%s run: created, replaced, unchanged, skipped %v, not %v", which, got, tc.counts)
				}
			}
			if len(items) != 6 {
				t.Errorf("the dry run reported %v", items)
			}
		})
	}
}

func TestRestoreDryRunChangesNothing(t *testing.T) {
	dir := tempDir(t)
	write(t, filepath.Join(dir, "old"), "old")
	write(t, filepath.Join(dir, "kept/x"), "x")
	before := tree(t, dir)
	s := newScript().snapshot("a", "", roots("")).dir("", 0o700).dir("new", 0o700).file("new/f", text("f")).
		file("old", text("new")).symlink("old2", "x").commit().end()
	sum := mustRestore(t, dir, RestoreOptions{DryRun: true, Delete: true}, s)
	if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
		t.Error(diff)
	}
	if sum.Created != 3 || sum.Replaced != 1 || sum.Removed != 2 {
		t.Errorf("%+v", sum)
	}
	missing := filepath.Join(dir, "missing")
	mustRestore(t, missing, RestoreOptions{DryRun: true, Delete: true}, s)
	if _, err := os.Lstat(missing); !errors.Is(err, os.ErrNotExist) {
		t.Error("the dry run made its target")
	}
}

func TestRestoreVerifyRepairs(t *testing.T) {
	dir := tempDir(t)
	content := []run{chunk("hello "), hole(10), chunk("world")}
	s := newScript().snapshot("a", "").file("f", content).file("g", content).commit().end()
	mustRestore(t, dir, RestoreOptions{}, s)
	want := tree(t, dir)
	f, g := filepath.Join(dir, "f"), filepath.Join(dir, "g")
	outside := filepath.Join(tempDir(t), "outside")
	when := time.Unix(testTime.Sec, int64(testTime.Nsec))
	write(t, f, "hEllo 0123456789World", when)
	write(t, g, "xxxxxxxxxxxxxxxxxxxxx", when)
	if err := os.Link(g, outside); err != nil {
		t.Skip("no hard link from one temporary directory to another: ", err)
	}
	sum := mustRestore(t, dir, RestoreOptions{}, s)
	if sum.Unchanged != 2 || read(t, f)[0:2] != "hE" {
		t.Error("without verify, size and time are trusted")
	}
	number := inode(t, f)
	mustRestore(t, dir, RestoreOptions{Verify: true}, s)
	if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
		t.Error(diff)
	}
	if inode(t, f) != number {
		t.Error("the file was replaced, not repaired")
	}
	if read(t, outside)[0] != 'x' {
		t.Error("a name outside the target was changed")
	}
}

// TestRestoreKeepsOtherNames restores over a tree of hard links, as a copy made
// by cp -al is: the other tree must not change, not even a mode.
func TestRestoreKeepsOtherNames(t *testing.T) {
	dir, other := tempDir(t), tempDir(t)
	when := time.Unix(testTime.Sec, int64(testTime.Nsec))
	write(t, filepath.Join(other, "f"), "text", when)
	if err := os.Link(filepath.Join(other, "f"), filepath.Join(dir, "f")); err != nil {
		t.Skip("no hard link from one temporary directory to another: ", err)
	}
	s := newScript().snapshot("a", "").file("f", text("text"), mode(0o600)).commit().end()
	mustRestore(t, dir, RestoreOptions{}, s)
	if got := describe(t, filepath.Join(other, "f")); got != `file 0644 "text"` {
		t.Errorf("outside the target: %s", got)
	}
	if got := describe(t, filepath.Join(dir, "f")); got != `file 0600 "text"` {
		t.Error(got)
	}
}

func TestRestoreMetadataOfKeptFiles(t *testing.T) {
	dir := tempDir(t)
	mustRestore(t, dir, RestoreOptions{}, newScript().snapshot("a", "").
		file("f", text("text"), mode(0o600), xattr("user.a", "1"), xattr("user.b", "1")).symlink("s", "t").commit().end())
	sum := mustRestore(t, dir, RestoreOptions{}, newScript().snapshot("a", "").
		file("f", text("text"), mode(0o640), xattr("user.b", "2"), xattr("user.c", "3")).symlink("s", "t", mtime(5, 6)).commit().end())
	want := map[string]string{"f": `file 0640 "text" user.b=32 user.c=33`, "s": "link 0777 -> t at 5.000000006"}
	if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
		t.Error(diff)
	}
	if sum.Unchanged != 2 || sum.BytesWritten != 0 {
		t.Errorf("%+v", sum)
	}
}

func TestRestorePrefix(t *testing.T) {
	s := func() *script {
		return newScript().snapshot("a", "", roots("home/u")).
			dir("", 0o755).file("a", text("chunk")).dir("home", 0o755).
			dir("home/u", 0o711).dir("home/u/d", 0o700).file("home/u/d/f", []run{ref("chunk"), chunk("more")}).
			file("home/ux", []run{ref("more")}).
			commit().end()
	}
	dir := filepath.Join(tempDir(t), "new")
	mustRestore(t, dir, RestoreOptions{Prefix: "home/u"}, s())
	if diff := cmp.Diff(map[string]string{"d": "dir 0700", "d/f": `file 0644 "chunkmore"`}, tree(t, dir)); diff != "" {
		t.Error(diff)
	}
	if got := describe(t, dir); got != "dir 0711" {
		t.Errorf("the target is %s", got)
	}
	dir = tempDir(t)
	if err := os.Symlink("nowhere", filepath.Join(dir, "other")); err != nil {
		t.Fatal(err)
	}
	mustRestore(t, dir, RestoreOptions{Prefix: "home/ux", Delete: true}, s())
	got := tree(t, dir)
	if _, ok := got["other"]; !ok {
		t.Error("deleting for one file deleted what lies beside it")
	}
	delete(got, "other")
	if diff := cmp.Diff(map[string]string{"ux": `file 0644 "more"`}, got); diff != "" {
		t.Error(diff)
	}
	if _, err := restore(t, dir, RestoreOptions{Prefix: "home/none"}, s()); err == nil || !strings.Contains(err.Error(), "home/none") {
		t.Errorf("a prefix that is not in the snapshot: %v", err)
	}
}

func TestRestoreDelete(t *testing.T) {
	dir := tempDir(t)
	for _, p := range []string{"home/u/keep/extra", "home/u/gone/deep/file", "home/u/safe/x", "home/other/x", "home/u/gone2/safe/x", "top"} {
		write(t, filepath.Join(dir, p), "x")
	}
	s := newScript().snapshot("a", "", roots("home/u")).
		dir("home", 0o755).dir("home/u", 0o755).dir("home/u/keep", 0o755).file("home/u/keep/f", text("f")).commit()
	// Cut off before its end, the stream still has deleted: the snapshot was complete.
	sum, err := restore(t, dir, RestoreOptions{Delete: true, Protect: func(p string, isDir bool) bool {
		return strings.HasSuffix(p, "/safe") && isDir
	}}, s)
	if err != nil {
		t.Error(err)
	}
	var got []string
	for p, d := range tree(t, dir) {
		if strings.HasPrefix(d, "file") {
			got = append(got, p)
		}
	}
	want := []string{"home/other/x", "home/u/gone2/safe/x", "home/u/keep/f", "home/u/safe/x", "top"}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if sum.Removed != 4 { // extra, gone, gone/deep, gone/deep/file
		t.Errorf("removed %d", sum.Removed)
	}
	if got := describe(t, filepath.Join(dir, "home/u/keep")); got != "dir 0755" {
		t.Errorf("deleting changed the directory: %s", got)
	}
}

func TestRestoreDeleteOnlyAfterCommit(t *testing.T) {
	dir := tempDir(t)
	write(t, filepath.Join(dir, "d/extra"), "x")
	s := newScript().snapshot("a", "", roots("d")).dir("d", 0o755).file("d/f", text("f"))
	mustRestore(t, dir, RestoreOptions{Delete: true}, s)
	read(t, filepath.Join(dir, "d/extra"))
}

func TestRestoreNonEmptyDirectoryInTheWay(t *testing.T) {
	dir := tempDir(t)
	write(t, filepath.Join(dir, "a/x"), "precious")
	s := newScript().snapshot("a", "", roots("a", "b")).file("a", text("file")).file("b", text("b")).commit().end()
	sum, err := restore(t, dir, RestoreOptions{}, s)
	if err != nil || lossKinds(sum) != "unwritable:1" || sum.Losses[0].Paths[0] != "a" {
		t.Errorf("%v, losses %v", err, sum.Losses)
	}
	if read(t, filepath.Join(dir, "a/x")) != "precious" || read(t, filepath.Join(dir, "b")) != "b" {
		t.Error("something was lost")
	}
	if n := len(tree(t, dir)); n != 3 {
		t.Errorf("something was left behind: %v", tree(t, dir))
	}
	mustRestore(t, dir, RestoreOptions{Delete: true}, s)
	if read(t, filepath.Join(dir, "a")) != "file" {
		t.Error("a was not replaced")
	}
}

func TestRestoreCancelled(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	r, err := NewRestore(ctx, tempDir(t), RestoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	reason := errors.New("enough")
	for i, rec := range newScript().snapshot("a", "").dir("d", 0o700).file("d/f", text("x")).commit().end().recs {
		if i == 4 {
			cancel(reason)
		}
		if err = r.Write(rec); err != nil {
			break
		}
	}
	if !errors.Is(err, reason) {
		t.Errorf("got %v", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// TestRestoreFlags has flags that forbid every change, on a directory and on
// files, and restores over them, compares, replaces and removes.
func TestRestoreFlags(t *testing.T) {
	needRoot(t)
	dir := tempDir(t)
	t.Cleanup(func() {
		for _, p := range []string{"d", "d/f", "d/g", "d/h", "d/i", "d/j"} {
			softenForGood(unix.AT_FDCWD, filepath.Join(dir, p))
		}
	})
	flags := func(names ...string) func(*format.Entry) { return func(e *format.Entry) { e.Flags = names } }
	first := func() *script {
		return newScript().snapshot("1", "", roots("d")).
			dir("d", 0o755, flags("immutable")).
			file("d/f", text("f"), flags("append", "nodump")).file("d/g", text("g"), flags("immutable")).
			file("d/i", text("i"), flags("immutable"), hardlink("i")).file("d/j", []run{ref("i")}, flags("immutable"), hardlink("i")).
			commit()
	}
	sum, err := restore(t, dir, RestoreOptions{}, first().end())
	if err != nil {
		t.Fatal(err)
	}
	if len(sum.Losses) > 0 {
		t.Skip("the file system has no flags: ", sum.Losses)
	}
	check := func(want map[string]string) {
		t.Helper()
		got := make(map[string]string)
		for p, d := range tree(t, dir) {
			fd, err := unix.Open(filepath.Join(dir, p), unix.O_RDONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			bits, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
			unix.Close(fd)
			if err != nil {
				t.Fatal(err)
			}
			names, _ := flagBits([]string{"append", "immutable", "nodump"})
			got[p] = d + " " + strings.Join(flagNames(bits&names), ",")
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	want := map[string]string{
		"d": "dir 0755 immutable", "d/f": `file 0644 "f" append,nodump`, "d/g": `file 0644 "g" immutable`,
		"d/i": `file 0644 "i" links 2 immutable`, "d/j": `file 0644 "i" links 2 immutable`,
	}
	check(want)
	for _, opts := range []RestoreOptions{{}, {Verify: true}, {Overwrite: OverwriteAlways}} {
		mustRestore(t, dir, opts, first().end())
		check(want)
	}
	mustRestore(t, dir, RestoreOptions{Overwrite: OverwriteAlways}, first().
		snapshot("2", "1").remove("d/f").file("d/g", text("new")).file("d/h", []run{ref("f")}).remove("d/i").commit().end())
	check(map[string]string{
		"d": "dir 0755 immutable", "d/g": `file 0644 "new" `, "d/h": `file 0644 "f" `, "d/j": `file 0644 "i" immutable`,
	})
	mustRestore(t, dir, RestoreOptions{Overwrite: OverwriteAlways}, first().snapshot("2", "1").remove("d").commit().end())
	if got := tree(t, dir); len(got) != 2 || got["d/h"] == "" { // which no snapshot of this stream had
		t.Errorf("left: %v", got)
	}
}
