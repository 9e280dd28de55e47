package fidelity_test

import (
	"slices"
	"strings"

	"github.com/bk-backup/bk/format"
)

// piece is a run of content: data, or a hole.
type piece struct {
	data string
	hole uint64
}

// object is what a listing has at a path.
type object struct {
	entry   format.Entry
	content []piece // joined runs
	records []string
}

// probe is a row of the table: an object, or two, with one attribute, and how to
// see whether it is still there.
type probe struct {
	row      string
	entries  []format.Entry // paths below the probe's directory; the first one is looked at
	content  []piece        // of each file
	unknown  bool           // an extension follows each
	same     func(want, got *object) bool
	snapshot func(want, got *format.Snapshot) bool // instead, for what the snapshot's record says

	// fixture is a path of the tree that the real tools backed up, and field what
	// its manifest says of the attribute.
	fixture, field string
}

const known = format.HasMode | format.HasUID | format.HasGID | format.HasMtime

// base is an entry with everything that one of its type has.
func base(typ format.Type, change ...func(*format.Entry)) format.Entry {
	e := format.Entry{Path: "x", Type: typ, Has: known, Mode: 0o640, Mtime: format.Time{Sec: 1_600_000_000}}
	switch typ {
	case format.TypeDir:
		e.Mode = 0o750
	case format.TypeSymlink:
		e.Mode, e.Target = 0o777, "to"
	case format.TypeChar, format.TypeBlock:
		e.Rdev = format.Rdev{Major: 7, Minor: 200}
	}
	for _, c := range change {
		c(&e)
	}
	return e
}

func sameType(want, got *object) bool { return want.entry.Type == got.entry.Type }

func sameContent(want, got *object) bool {
	return sameType(want, got) && plain(want.content) == plain(got.content)
}

// plain is content with its holes as zeros.
func plain(content []piece) string {
	var b strings.Builder
	for _, p := range content {
		b.WriteString(p.data)
		b.WriteString(strings.Repeat("\x00", int(p.hole)))
	}
	return b.String()
}

func sameHoles(want, got *object) bool {
	hole := func(p piece) uint64 { return p.hole }
	var a, b []uint64
	for _, p := range want.content {
		a = append(a, hole(p), uint64(len(p.data)))
	}
	for _, p := range got.content {
		b = append(b, hole(p), uint64(len(p.data)))
	}
	return slices.Equal(a, b)
}

func sameMode(want, got *object) bool  { return want.entry.Mode == got.entry.Mode }
func sameMtime(want, got *object) bool { return want.entry.Mtime == got.entry.Mtime }
func sameRdev(want, got *object) bool {
	return sameType(want, got) && want.entry.Rdev == got.entry.Rdev
}
func sameFlags(want, got *object) bool { return slices.Equal(want.entry.Flags, got.entry.Flags) }
func sameLink(want, got *object) bool  { return got.entry.Hardlink != "" }
func sameOwner(want, got *object) bool {
	return want.entry.UID == got.entry.UID && want.entry.GID == got.entry.GID
}
func sameNames(want, got *object) bool {
	return want.entry.User == got.entry.User && want.entry.Group == got.entry.Group
}
func sameTarget(want, got *object) bool {
	return sameType(want, got) && want.entry.Target == got.entry.Target
}

// sameXattrs holds the attributes that the probe has, and none beside them.
func sameXattrs(want, got *object) bool { return slices.Equal(want.entry.Xattrs, got.entry.Xattrs) }

func has(bit format.Has, get func(*format.Entry) any) func(want, got *object) bool {
	return func(want, got *object) bool {
		return got.entry.Has&bit != 0 && get(&got.entry) == get(&want.entry)
	}
}

func xattr(name, value string) func(*format.Entry) {
	return func(e *format.Entry) { e.Xattrs = append(e.Xattrs, format.Xattr{Name: name, Value: value}) }
}

func mtime(sec int64, nsec uint32) func(*format.Entry) {
	return func(e *format.Entry) { e.Mtime = format.Time{Sec: sec, Nsec: nsec} }
}

func linked(e *format.Entry) { e.Hardlink = "group of " + string(e.Type) }

func flag(name string) func(*format.Entry) {
	return func(e *format.Entry) { e.Flags = []string{name} }
}

func mode(m uint32) func(*format.Entry) { return func(e *format.Entry) { e.Mode = m } }

func named(name string) func(*format.Entry) { return func(e *format.Entry) { e.Path = name } }

func target(text string) func(*format.Entry) { return func(e *format.Entry) { e.Target = text } }

func owner(uid, gid uint32, user, group string) func(*format.Entry) {
	return func(e *format.Entry) { e.UID, e.GID, e.User, e.Group = uid, gid, user, group }
}

// Access control lists in the kernel's form: owner rw, user 4242 rwx, group r,
// mask rwx, others none; and for the default one.
const (
	aclAccess  = "\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x07\x00\x92\x10\x00\x00\x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x07\x00\xff\xff\xff\xff\x20\x00\x00\x00\xff\xff\xff\xff"
	capability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
)

// probes returns the rows of the table.
func probes() []probe {
	one := func(row, fixture, field string, same func(want, got *object) bool, e format.Entry) probe {
		return probe{row: row, entries: []format.Entry{e}, same: same, fixture: fixture, field: field}
	}
	file := func(change ...func(*format.Entry)) format.Entry { return base(format.TypeFile, change...) }
	text := []piece{{data: "content of a file"}}
	pair := func(row, fixture string, typ format.Type) probe {
		return probe{row: row, fixture: fixture, field: "hl", same: sameLink,
			entries: []format.Entry{base(typ, linked), base(typ, linked, named("y"))}}
	}
	sparse := func(row, fixture string, content ...piece) probe {
		return probe{row: row, fixture: fixture, field: "data", same: sameHoles, entries: []format.Entry{file()}, content: content}
	}
	long := strings.Repeat("d", 250)
	rows := []probe{
		{row: "content", fixture: "docs/readme.md", field: "sha256", same: sameContent, entries: []format.Entry{file()}, content: text},
		one("empty file", "empty-file", "sha256", sameContent, file()),
		one("directory", "empty-dir", "type", sameType, base(format.TypeDir)),
		one("symbolic link", "links/dangling", "link", sameTarget, base(format.TypeSymlink)),
		one("target that is not UTF-8", "links/raw-target", "link", sameTarget, base(format.TypeSymlink, target("a\xff\n\xfe"))),
		one("target of 4095 bytes", "", "", sameTarget, base(format.TypeSymlink, target(strings.Repeat("t", 4095)))),
		one("named pipe", "dev/fifo", "type", sameType, base(format.TypeFifo)),
		one("socket", "dev/socket", "type", sameType, base(format.TypeSocket)),
		one("device", "dev/blk", "rdev", sameRdev, base(format.TypeBlock)),
		one("device with large numbers", "dev/chr-big", "rdev", sameRdev, base(format.TypeChar, func(e *format.Entry) { e.Rdev = format.Rdev{Major: 259, Minor: 1048575} })),
		pair("hard links of files", "hl/b", format.TypeFile),
		pair("hard links of symbolic links", "hl/sym2", format.TypeSymlink),
		pair("hard links of pipes and devices", "hl/fifo2", format.TypeFifo),
		sparse("holes", "", piece{data: strings.Repeat("a", 1<<16)}, piece{hole: 1 << 20}, piece{data: strings.Repeat("b", 1<<16)}),
		sparse("a hole at the end", "", piece{data: strings.Repeat("a", 1<<16)}, piece{hole: 1 << 20}),
		one("permissions", "docs/sub/two.txt", "mode", sameMode, file(mode(0o604))),
		one("setuid, setgid, sticky", "perm/setuid", "mode", sameMode, file(mode(0o7755))),
		one("owner", "own/large-id", "uid", sameOwner, file(owner(3_000_000, 2_500_000, "", ""))),
		one("owner above 2^31", "own/huge-id", "uid", sameOwner, file(owner(4_294_967_294, 4_294_967_293, "", ""))),
		one("names of owners", "", "", sameNames, file(owner(3_000_000, 2_500_000, "nobody-here", "ñ \xff"))),
		one("mtime in nanoseconds", "docs/readme.md", "mtime", sameMtime, file(mtime(1_600_000_000, 123_456_789))),
		one("mtime before 1970", "time/minus-half", "mtime", sameMtime, file(mtime(-2, 500_000_001))),
		one("mtime in 1901", "time/y1901", "mtime", sameMtime, file(mtime(-2_147_483_648, 0))),
		one("mtime before 1901", "", "", sameMtime, file(mtime(-3_000_000_000, 1))),
		one("mtime in 2300", "time/y2300", "mtime", sameMtime, file(mtime(10_413_792_000, 999_999_999))),
		one("mtime in 9999", "", "", sameMtime, file(mtime(253_402_300_799, 0))),
		one("mtime of a symbolic link", "links/dangling", "mtime", sameMtime, base(format.TypeSymlink, mtime(1_500_000_000, 5))),
		one("atime", "", "", has(format.HasAtime, func(e *format.Entry) any { return e.Atime }), file(func(e *format.Entry) { e.Has |= format.HasAtime; e.Atime = format.Time{Sec: 1_500_000_000, Nsec: 7} })),
		one("ctime", "", "", has(format.HasCtime, func(e *format.Entry) any { return e.Ctime }), file(func(e *format.Entry) { e.Has |= format.HasCtime; e.Ctime = format.Time{Sec: 1_500_000_000, Nsec: 7} })),
		one("btime", "", "", has(format.HasBtime, func(e *format.Entry) any { return e.Btime }), file(func(e *format.Entry) { e.Has |= format.HasBtime; e.Btime = format.Time{Sec: 1_500_000_000, Nsec: 7} })),
		one("inode number", "", "", has(format.HasInode, func(e *format.Entry) any { return e.Inode }), file(func(e *format.Entry) { e.Has |= format.HasInode; e.Inode = 987_654_321_012 })),
		one("attribute of a user", "x/user", "x:user.comment", sameXattrs, file(xattr("user.comment", "plain text"))),
		one("attribute without a value", "x/user", "x:user.empty", sameXattrs, file(xattr("user.empty", ""))),
		one("attribute with any bytes", "x/user", "x:user.binary", sameXattrs, file(xattr("user.binary", "\x00\xff%\n=\x7f"))),
		one("attribute with any name", "x/name-bytes", `x:user.eq\x3dual`, sameXattrs, file(xattr("user.eq=ual %41 ñ", "v"))),
		one("attribute of the system", "x/trusted", "x:trusted.note", sameXattrs, file(xattr("trusted.note", "v"))),
		one("attribute of a symbolic link", "x/link", "x:trusted.on-link", sameXattrs, base(format.TypeSymlink, xattr("trusted.on-link", "l"))),
		one("attribute of a directory", "x/dir", "x:user.on-dir", sameXattrs, base(format.TypeDir, xattr("user.on-dir", "d"))),
		one("capabilities", "x/caps", "x:security.capability", sameXattrs, file(mode(0o755), xattr("security.capability", capability))),
		one("access control list", "x/acl", "x:system.posix_acl_access", sameXattrs, file(mode(0o670), xattr("system.posix_acl_access", aclAccess))),
		one("default access control list", "x/acl-dir", "x:system.posix_acl_default", sameXattrs, base(format.TypeDir, xattr("system.posix_acl_default", aclAccess))),
		one("flag nodump", "x/nodump", "flags", sameFlags, file(flag("nodump"))),
		one("flag immutable", "x/immutable", "flags", sameFlags, file(flag("immutable"))),
		one("name that is not UTF-8", `names/bad-\xff\xfe-utf8`, "type", sameType, file(named("a\xff\xfe"))),
		one("name with a newline", "", "", sameType, file(named("a\nb"))),
		one("name of 255 bytes", "", "", sameType, file(named(strings.Repeat("n", 255)))),
		one("path of 2000 bytes", "", "", sameType, file(named(strings.Repeat(long+"/", 8)+"f"))),
		{row: "unknown key", entries: []format.Entry{file(func(e *format.Entry) { e.Extra = []format.Field{{Key: "zzz", Raw: []byte{1}}} })},
			same: func(want, got *object) bool { return len(got.entry.Extra) == 1 }},
		{row: "extension", entries: []format.Entry{file()}, unknown: true,
			same: func(want, got *object) bool { return slices.Equal(want.records, got.records) }},
	}
	return append(rows, snapshotProbes()...)
}

// probeSnapshot is the record of the snapshot that has the probes.
func probeSnapshot() format.Snapshot {
	return format.Snapshot{
		ID: format.SumID([]byte("probes")), Time: &format.Time{Sec: 1_700_000_000, Nsec: 123_456_789}, Host: "a-host", User: "a-user",
		Roots: []string{"home/u"}, Tags: []string{"one", "two words"}, Comment: "a comment\nof two lines",
		Origin: &format.Origin{System: "elsewhere", Repository: "r", ID: "\x01\xff"},
		Via:    []format.Via{{Stage: "drop \"*.iso\"", From: format.SumID([]byte("before"))}},
	}
}

// snapshotProbes are the rows of what the snapshot's record says.
func snapshotProbes() []probe {
	row := func(name string, same func(want, got *format.Snapshot) bool) probe {
		return probe{row: "snapshot: " + name, snapshot: same}
	}
	return []probe{
		row("time to the second", func(w, g *format.Snapshot) bool { return g.Time != nil && g.Time.Sec == w.Time.Sec }),
		row("time in nanoseconds", func(w, g *format.Snapshot) bool { return g.Time != nil && *g.Time == *w.Time }),
		row("host", func(w, g *format.Snapshot) bool { return g.Host == w.Host }),
		row("user", func(w, g *format.Snapshot) bool { return g.User == w.User }),
		row("roots", func(w, g *format.Snapshot) bool { return slices.Equal(g.Roots, w.Roots) }),
		row("tags", func(w, g *format.Snapshot) bool { return slices.Equal(g.Tags, w.Tags) }),
		row("comment", func(w, g *format.Snapshot) bool { return g.Comment == w.Comment }),
		row("origin", func(w, g *format.Snapshot) bool {
			return g.Origin != nil && g.Origin.System == w.Origin.System && g.Origin.ID == w.Origin.ID
		}),
		row("stages it went through", func(w, g *format.Snapshot) bool { return len(g.Via) > 0 && g.Via[0].Stage == w.Via[0].Stage }),
		row("that it was here before", func(w, g *format.Snapshot) bool {
			return g.ID == w.ID || slices.ContainsFunc(g.Via, func(v format.Via) bool { return v.From == w.ID })
		}),
	}
}
