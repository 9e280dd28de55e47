package restic

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/bk-backup/bk/format"
)

const hasOwner = format.HasMode | format.HasUID | format.HasGID

// TestEntry says what of a node becomes what of an entry.
func TestEntry(t *testing.T) {
	const owner = `"uid":1,"gid":2,`
	group := groupName(65025, 77)
	for _, c := range []struct {
		node   string
		want   *format.Entry
		losses string
	}{
		{
			`"type":"file","mode":2432,"mtime":"2024-02-29T12:00:00.5+01:00","atime":"2024-02-29T12:00:00.5+01:00","ctime":"1969-12-31T23:59:59.25Z","user":"u","group":"g","inode":9,"device_id":65025,"size":12,"links":1,"content":[]`,
			&format.Entry{
				Type: format.TypeFile, Has: hasOwner | format.HasMtime | format.HasCtime | format.HasSize | format.HasInode | format.HasLinks, Mode: 0o600,
				User: "u", Group: "g", Mtime: format.Time{Sec: 1709204400, Nsec: 5e8}, Ctime: format.Time{Sec: -1, Nsec: 25e7}, Inode: 9, Links: 1, Size: 12,
			}, "",
		},
		{
			`"type":"file","mode":13631999,"atime":"2024-02-29T12:00:00Z","mtime":"0001-01-01T00:00:00Z","links":3,"inode":77,"device_id":65025`,
			&format.Entry{
				Type: format.TypeFile, Has: hasOwner | format.HasAtime | format.HasSize | format.HasInode | format.HasLinks, Mode: 0o7777,
				Atime: format.Time{Sec: 1709208000}, Inode: 77, Links: 3, Hardlink: group,
			}, "",
		},
		{`"type":"symlink","mode":134218239,"linktarget":"a\u003c","links":2,"inode":77,"device_id":65025`, &format.Entry{
			Type: format.TypeSymlink, Has: hasOwner | format.HasInode | format.HasLinks, Mode: 0o777, Target: "a<", Inode: 77, Links: 2, Hardlink: group,
		}, ""},
		{`"type":"symlink","linktarget":"?","linktarget_raw":"` + base64.StdEncoding.EncodeToString([]byte("\xff/x")) + `"`, &format.Entry{
			Type: format.TypeSymlink, Has: hasOwner, Target: "\xff/x",
		}, ""},
		{`"type":"symlink","linktarget_raw":"AA=="`, nil, "limit"},
		{`"type":"dir","mode":2148532735,"links":5,"inode":77,"device_id":65025`, &format.Entry{
			Type: format.TypeDir, Has: hasOwner | format.HasInode | format.HasLinks, Mode: 0o1777, Inode: 77, Links: 5,
		}, ""},
		{`"type":"chardev","device":4293985279`, &format.Entry{Type: format.TypeChar, Has: hasOwner, Rdev: format.Rdev{Major: 259, Minor: 1048575}}, ""},
		{`"type":"dev","device":2049,"links":2`, &format.Entry{Type: format.TypeBlock, Has: hasOwner | format.HasLinks, Links: 2, Rdev: format.Rdev{Major: 8, Minor: 1}}, ""},
		{`"type":"fifo"`, &format.Entry{Type: format.TypeFifo, Has: hasOwner}, ""},
		{`"type":"socket"`, &format.Entry{Type: format.TypeSocket, Has: hasOwner}, ""},
		{`"type":"irregular"`, nil, "limit"},
		{`"size":1`, nil, "limit"},
		{
			`"type":"fifo","extended_attributes":[{"name":"user.b","value":"AQI="},{"name":"user.a","value":null},{"name":"","value":""},{"name":"user.b","value":""},{"name":"a\u0000","value":""}]`,
			&format.Entry{Type: format.TypeFifo, Has: hasOwner, Xattrs: []format.Xattr{{Name: "user.a"}, {Name: "user.b", Value: "\x01\x02"}}}, "xattr xattr xattr",
		},
		{`"type":"fifo","error":"x","user":"` + strings.Repeat("u", 5000) + `"`, &format.Entry{Type: format.TypeFifo, Has: hasOwner}, "owner unreadable"},
		{
			`"type":"fifo","generic_attributes":{"windows.creation_time":{"LowDateTime":3577643008,"HighDateTime":27111902},"windows.file_attributes":39}`,
			&format.Entry{Type: format.TypeFifo, Has: hasOwner | format.HasBtime, Btime: format.Time{}, Flags: []string{"archived", "hidden", "readonly", "system"}}, "",
		},
		{`"type":"fifo","generic_attributes":{"windows.security_descriptor":"AA=="}`, &format.Entry{Type: format.TypeFifo, Has: hasOwner}, "acl"},
		{`"type":"fifo","generic_attributes":{"windows.file_attributes":16384}`, &format.Entry{Type: format.TypeFifo, Has: hasOwner}, "extension"},
		{`"type":"fifo","generic_attributes":{"other":[{"a":1}]}`, &format.Entry{Type: format.TypeFifo, Has: hasOwner}, "extension"},
		{`"type":"fifo","generic_attributes":7`, &format.Entry{Type: format.TypeFifo, Has: hasOwner}, "extension"},
	} {
		var n node
		if err := n.parse([]byte(`{"name":"x",` + owner + c.node + `}`)); err != nil {
			t.Errorf("%s: %v", c.node, err)
			continue
		}
		var losses []string
		got, ok := n.entry("d/x", func(kind string) { losses = append(losses, kind) })
		if ok != (c.want != nil) || strings.Join(losses, " ") != c.losses {
			t.Errorf("%s: %v, losses %v", c.node, ok, losses)
		}
		if !ok || c.want == nil {
			continue
		}
		c.want.Path, c.want.UID, c.want.GID = "d/x", 1, 2
		if d := cmp.Diff(string(format.AppendText(nil, c.want)), string(format.AppendText(nil, got))); d != "" {
			t.Errorf("%s:\n%s", c.node, d)
		}
	}
}

// TestEntryWithoutOwner keeps what is not known apart from 0.
func TestEntryWithoutOwner(t *testing.T) {
	var n node
	for _, b := range []string{`{"type":"fifo","uid":4,"gid":4}`, `{"type":"fifo","uid":null}`} { // the first one must not show in the second
		if err := n.parse([]byte(b)); err != nil {
			t.Fatal(err)
		}
	}
	e, _ := n.entry("x", func(string) {})
	if e.Has != format.HasMode {
		t.Errorf("has %b", e.Has)
	}
}

// TestParseTime compares with package time, whose forms these are.
func TestParseTime(t *testing.T) {
	check := func(t interface{ Errorf(string, ...any) }, text string) (fast bool) {
		got, ok := parseTime([]byte(text))
		var want time.Time
		err := want.UnmarshalText([]byte(text))
		if ok && (err != nil || got != format.TimeOf(want)) {
			t.Errorf("%q: %v, want %v, %v", text, got, format.TimeOf(want), err)
		}
		return ok
	}
	for text, fast := range map[string]bool{
		"2024-02-29T00:00:00Z": true, "2023-02-29T00:00:00Z": false, "1900-02-29T00:00:00Z": false, "2000-02-29T23:59:59.999999999+23:59": true,
		"0000-01-01T00:00:00Z": true, "0000-02-29T00:00:00Z": true, "0000-03-01T00:00:00Z": true, "9999-12-31T23:59:59-00:01": true, "1969-12-31T23:59:59.5Z": true,
		"2024-01-31T24:00:00Z": false, "2024-01-31T00:60:00Z": false, "2024-01-31T00:00:60Z": false, "2024-13-01T00:00:00Z": false, "2024-00-01T00:00:00Z": false,
		"2024-04-31T00:00:00Z": false, "2024-04-00T00:00:00Z": false, "2024-04-30T00:00:00.Z": false, "2024-04-30T00:00:00.1234567890Z": false, "2024-04-30T00:00:00": false,
		"2024-04-30T00:00:00+24:00": false, "2024-04-30T00:00:00+01:60": false, "2024-04-30T00:00:00+0100": false, "": false, "2024-04-30T0a:00:00Z": false,
	} {
		if got := check(t, text); got != fast {
			t.Errorf("%q: known %v", text, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		zone := time.FixedZone("", 60*rapid.IntRange(-1439, 1439).Draw(t, "zone"))
		when := time.Unix(rapid.Int64Range(-62000000000, 253000000000).Draw(t, "s"), rapid.Int64Range(0, 999999999).Draw(t, "ns")).In(zone)
		text := when.Format(time.RFC3339Nano)
		if !check(t, text) {
			t.Errorf("%q is not known", text)
		}
	})
}

// TestNames takes restic's quoting back for any bytes.
func TestNames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"))
		if rapid.Bool().Draw(t, "text") {
			name = rapid.String().Draw(t, "name")
		}
		quoted := strconv.Quote(name)
		b, err := json.Marshal(map[string]any{"nodes": []any{map[string]any{"name": quoted[1 : len(quoted)-1]}}})
		if err != nil {
			t.Fatal(err)
		}
		tree, err := parseTree(b)
		if err != nil {
			t.Fatal(err)
		}
		if isName(name) && len(name) <= format.NameSizeMax {
			if len(tree.nodes) != 1 || tree.nodes[0].name != name {
				t.Fatalf("%q became %v", name, tree.nodes)
			}
		} else if len(tree.nodes) != 0 || len(tree.lost) != 1 {
			t.Fatalf("%q passed", name)
		}
	})
}

func TestUint(t *testing.T) {
	for text, want := range map[string]uint64{"0": 0, "18446744073709551615": math.MaxUint64, "null": 0, " 7": 7} {
		s := scanner{b: []byte(text)}
		if got := s.uint(math.MaxUint64); got != want || s.err != nil {
			t.Errorf("%q: %d, %v", text, got, s.err)
		}
	}
	for _, text := range []string{"18446744073709551616", "-1", "-0", "1.0", "1e3", "", "x", `"1"`, "99999999999999999999"} {
		s := scanner{b: []byte(text)}
		if got := s.uint(math.MaxUint64); s.err == nil {
			t.Errorf("%q: %d", text, got)
		}
	}
	s := scanner{b: []byte("4294967296")}
	if s.uint(math.MaxUint32); s.err == nil {
		t.Error("more than 32 bits passed")
	}
}

func BenchmarkTree(b *testing.B) {
	var nodes []any
	for i := range 1000 {
		nodes = append(nodes, map[string]any{
			"name": fmt.Sprintf("some-file-%04d.txt", i), "type": "file", "mode": 420, "mtime": "2024-05-06T07:08:09.123456789Z",
			"atime": "2024-05-06T07:08:09.123456789Z", "ctime": "2024-05-06T07:08:09.123456789Z", "uid": 1000, "gid": 1000, "user": "somebody", "group": "somebody",
			"inode": 123456789 + i, "device_id": 65025, "size": 12345, "links": 1, "content": []string{format.SumID([]byte{byte(i), byte(i >> 8)}).String()},
		})
	}
	json, err := json.Marshal(map[string]any{"nodes": nodes})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(json)))
	b.ReportAllocs()
	var n node
	for b.Loop() {
		t, err := parseTree(json)
		if err != nil {
			b.Fatal(err)
		}
		for i := range t.nodes {
			if err := n.parse(t.raw(&t.nodes[i])); err != nil {
				b.Fatal(err)
			}
		}
	}
}
