package hardlinks

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format"
)

func TestTranslate(t *testing.T) {
	file := func(stat string, more ...format.Xattr) *format.Entry {
		return &format.Entry{
			Path: "p", Type: format.TypeFile, Has: format.HasMode | format.HasSize | format.HasCtime | format.HasInode,
			Mode: 0o600, UID: 1000, GID: 1000, User: "u", Group: "u", Size: 3, Inode: 7, Chunker: "c",
			Xattrs: append([]format.Xattr{{Name: fakeStat, Value: stat}}, more...),
		}
	}
	for name, c := range map[string]struct {
		entry *format.Entry
		want  format.Entry
		err   string
	}{
		"file": {entry: file("104755 0,0 1000:1000"), want: format.Entry{
			Type: format.TypeFile, Mode: 0o4755, UID: 1000, GID: 1000, User: "u", Group: "u", Has: format.HasMode | format.HasSize, Size: 3, Chunker: "c"}},
		"symlink": {entry: file("120777 0,0 0:0"), want: format.Entry{Type: format.TypeSymlink, Mode: 0o777, Has: format.HasMode, Target: "abc"}},
		"char":    {entry: file("20666 1,3 0:0"), want: format.Entry{Type: format.TypeChar, Mode: 0o666, Has: format.HasMode, Rdev: format.Rdev{Major: 1, Minor: 3}}},
		"block":   {entry: file("60660 7,200 0:6"), want: format.Entry{Type: format.TypeBlock, Mode: 0o660, GID: 6, Has: format.HasMode, Rdev: format.Rdev{Major: 7, Minor: 200}}},
		"fifo":    {entry: file("10644 0,0 0:0"), want: format.Entry{Type: format.TypeFifo, Mode: 0o644, Has: format.HasMode}},
		"socket":  {entry: file("140755 0,0 0:0"), want: format.Entry{Type: format.TypeSocket, Mode: 0o755, Has: format.HasMode}},
		"dir":     {entry: file("40755 0,0 0:0"), err: "says that a file is a dir"},
		"garbage": {entry: file("100644"), err: "not a mode"},
		"octal":   {entry: file("100844 0,0 0:0"), err: "not a mode"},
		"owner":   {entry: file("100644 0,0 0:4294967296"), err: "not a mode"},
		"type":    {entry: file("0644 0,0 0:0"), err: "not a mode"},
		"names": {entry: file("100600 0,0 1000:1000", format.Xattr{Name: "user.a"}, format.Xattr{Name: "user.rsync.%new"}, format.Xattr{Name: "user.rsync.trusted.x", Value: "v"}),
			want: format.Entry{Type: format.TypeFile, Mode: 0o600, UID: 1000, GID: 1000, User: "u", Group: "u", Has: format.HasMode | format.HasSize, Size: 3, Chunker: "c",
				Xattrs: []format.Xattr{{Name: "trusted.x", Value: "v"}, {Name: "user.a"}}}},
		"short ACL": {entry: file("100600 0,0 1000:1000", format.Xattr{Name: fakeACLAccess, Value: "short"}), err: "an ACL of 5 bytes"},
	} {
		e := c.entry
		err := translate(e, func() ([]byte, error) { return []byte("abc"), nil })
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		c.want.Path = "p"
		if len(e.Xattrs) == 0 {
			e.Xattrs = nil
		}
		if d := cmp.Diff(&c.want, e); d != "" || err != nil {
			t.Errorf("%s (-want +got): %v\n%s", name, err, d)
		}
	}
	e := file("120777 0,0 0:0")
	if err := translate(e, func() ([]byte, error) { return nil, errors.New("gone") }); err == nil || e.Type != format.TypeFile {
		t.Errorf("a target that cannot be read: %v, %s", err, e.Type)
	}
	e = file("120777 0,0 0:0")
	if err := translate(e, func() ([]byte, error) { return []byte("a\x00b"), nil }); err == nil || e.Type != format.TypeFile {
		t.Errorf("a target with a zero byte: %v, %s", err, e.Type)
	}
}

// FuzzTranslate has attributes of any kind make entries that a stream can hold.
func FuzzTranslate(f *testing.F) {
	f.Add("100644 0,0 1:1", "\x80\x00\x00\x00\x05\x00\x00\x00\x07\x00\x00\x00\x80\x00\x00\x00\x92\x10\x00\x00\x07\x00\x00\x80", "target")
	f.Add("120777 0,0 0:0", "", "")
	f.Fuzz(func(t *testing.T, stat, acl, content string) {
		e := &format.Entry{Path: "p", Type: format.TypeFile, Has: format.HasMode | format.HasSize, Size: uint64(len(content)), Xattrs: []format.Xattr{
			{Name: fakeACLAccess, Value: acl}, {Name: fakeACLDefault, Value: acl}, {Name: fakeStat, Value: stat},
		}}
		_ = translate(e, func() ([]byte, error) { return []byte(content), nil })
		if _, err := new(format.Entry).ParseBody(e.AppendBody(nil, true), true); err != nil {
			t.Fatal(err)
		}
	})
}
