package restic

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format"
)

// plainNode is what both decoders make of a node.
type plainNode struct {
	Name, Subtree, Kind, User, Group, Target, Err, Windows string
	Mode, UID, GID                                         uint32
	Inode, Device, Rdev, Size, Links                       uint64
	Times                                                  [3]format.Time
	Has                                                    format.Has
	Xattrs                                                 []format.Xattr
	Content                                                []format.ID
	HasContent                                             bool
}

// errLost says that a tree has nodes that are left out, and so not decoded.
var errLost = errors.New("nodes were left out")

func ours(b []byte) ([]plainNode, error) {
	t, err := parseTree(b)
	if err != nil {
		return nil, err
	}
	if len(t.lost) > 0 {
		return nil, errLost
	}
	var out []plainNode
	var n node
	for i := range t.nodes {
		ref := &t.nodes[i]
		if err := n.parse(t.raw(ref)); err != nil {
			return nil, err
		}
		p := plainNode{ref.name, "", n.kind, n.user, n.group, n.target, n.err, string(n.windows), n.mode, n.uid, n.gid, n.inode, n.device, n.rdev, n.size, n.links,
			[3]format.Time{n.mtime, n.atime, n.ctime}, n.has, slices.Clone(n.xattrs), slices.Clone(n.content), n.hasContent}
		if id, ok := t.subtree(ref); ok {
			p.Subtree = id.String()
		}
		out = append(out, p)
		n.entry("x", func(string) {})
	}
	return out, nil
}

// fields are an object's with their keys spelled exactly, the last of each.
type jsonFields map[string]json.RawMessage

func (f jsonFields) get(key string, v any) error {
	raw, ok := f[key]
	if !ok {
		return nil
	}
	return json.Unmarshal(raw, v)
}

func (f jsonFields) base64(key string) ([]byte, bool, error) {
	var text *string
	if err := f.get(key, &text); err != nil || text == nil {
		return nil, false, err
	}
	b, err := base64.StdEncoding.DecodeString(*text)
	return b, true, err
}

// theirs decodes a tree by encoding/json.
func theirs(b []byte) ([]plainNode, error) {
	var top jsonFields
	var nodes []json.RawMessage
	if err := errors.Join(json.Unmarshal(b, &top), top.get("nodes", &nodes)); err != nil {
		return nil, err
	}
	var out []plainNode
	for _, raw := range nodes {
		p, err := theirNode(raw)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b plainNode) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func theirNode(raw json.RawMessage) (p plainNode, err error) {
	var f jsonFields
	if err := json.Unmarshal(raw, &f); err != nil || f == nil {
		return p, errors.Join(err, fmt.Errorf("a node %s", raw))
	}
	var quoted *string
	var subtree *string
	var content []*string
	var xattrs []jsonFields
	err = errors.Join(f.get("name", &quoted), f.get("type", &p.Kind), f.get("mode", &p.Mode), f.get("user", &p.User), f.get("group", &p.Group),
		f.get("inode", &p.Inode), f.get("device_id", &p.Device), f.get("size", &p.Size), f.get("links", &p.Links), f.get("linktarget", &p.Target),
		f.get("device", &p.Rdev), f.get("subtree", &subtree), f.get("content", &content), f.get("error", &p.Err), f.get("extended_attributes", &xattrs))
	if _, ok := f["name"]; err != nil || !ok {
		return p, errors.Join(err, errors.New("no name"))
	}
	if quoted != nil {
		if p.Name, err = unquoteName([]byte(*quoted)); err != nil {
			return p, err
		}
	}
	p.Windows = string(f["generic_attributes"])
	if target, ok, err := f.base64("linktarget_raw"); err != nil {
		return p, err
	} else if ok {
		p.Target = string(target)
	}
	for _, u := range []struct {
		key string
		bit format.Has
		v   *uint32
	}{{"uid", format.HasUID, &p.UID}, {"gid", format.HasGID, &p.GID}} {
		var v *uint32
		if err := f.get(u.key, &v); err != nil {
			return p, err
		}
		if v != nil {
			p.Has |= u.bit
			*u.v = *v
		}
	}
	for i, u := range []struct {
		key string
		bit format.Has
	}{{"mtime", format.HasMtime}, {"atime", format.HasAtime}, {"ctime", format.HasCtime}} {
		var text *string
		if err := f.get(u.key, &text); err != nil {
			return p, err
		}
		if text == nil {
			continue
		}
		var when time.Time
		if err := when.UnmarshalText([]byte(*text)); err != nil {
			return p, err
		}
		p.Times[i] = format.TimeOf(when)
		if !when.IsZero() {
			p.Has |= u.bit
		}
	}
	if subtree != nil {
		id, err := format.ParseID(*subtree)
		if err != nil {
			return p, err
		}
		p.Subtree = id.String()
	}
	if raw, ok := f["content"]; ok && string(raw) != "null" {
		p.HasContent = true
	}
	for _, text := range content {
		if text == nil {
			return p, errors.New("a null id")
		}
		id, err := format.ParseID(*text)
		if err != nil {
			return p, err
		}
		p.Content = append(p.Content, id)
	}
	for _, x := range xattrs {
		var name string
		value, _, err := x.base64("value")
		if err := errors.Join(err, x.get("name", &name)); err != nil {
			return p, err
		}
		p.Xattrs = append(p.Xattrs, format.Xattr{Name: name, Value: string(value)})
	}
	return p, nil
}

// FuzzTree holds our decoder of trees against encoding/json.
func FuzzTree(f *testing.F) {
	const id = `"0123456789abcdef0123456789abcdef0123456789abcdef0123456789ABCDEF"`
	for _, seed := range []string{
		`{"nodes":[]}` + "\n", `{"nodes":null,"x":[1,-2.5e+3,true,{"a":"\ud83d\ude00\ud800"}]}`, `null`,
		`{"nodes":[{"name":"a","type":"file","mode":420,"mtime":"2024-02-29T12:00:00.5+01:00","atime":"0001-01-01T00:00:00Z","uid":1,"gid":null,"user":"u","inode":18446744073709551615,"size":1,"links":2,"content":[` + id + `]}]}`,
		`{"nodes":[{"name":"b\\n\\xff","type":"dir","subtree":` + id + `},{"name":"a\u003c","type":"symlink","linktarget":"x","linktarget_raw":"/w=="}]}`,
		`{"nodes":[{"name":"c","type":"dev","device":2049,"extended_attributes":[{"name":"user.a","value":"AA=="},null],"generic_attributes":{"windows.file_attributes":32},"error":"\t"}]}`,
		`{"nodes":[{"name":"twice","mtime":"0001-01-0100:00","mtime":"2024-02-29T12:00:00Z"}]}`,
		`{"nodes":[{"name":"\"","content":[]}]}`, "{\"nodes\":[{\"name\":\"\xff\"}]}", `{"nodes" : [ { "name" : "x" , "uid" : 1e3 } ] }`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := ours(b)
		if errors.Is(err, errLost) {
			return
		}
		want, wantErr := theirs(b)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("%v", err)
			}
			// Ids must be written without escapes, and values are not nested deeply. Of
			// a key that comes twice, restic and we read both values, and the oracle the
			// last.
			if wantErr == nil && bytes.IndexByte(b, '\\') < 0 && len(b) < depthMax && !repeatsKeys(json.NewDecoder(bytes.NewReader(b))) {
				t.Errorf("refused: %v", err)
			}
			return
		}
		if wantErr != nil {
			t.Fatalf("accepted, but encoding/json says %v", wantErr)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	})
}

// repeatsKeys reports whether an object in the next value has a key twice.
func repeatsKeys(dec *json.Decoder) bool {
	token, err := dec.Token()
	if err != nil {
		return false
	}
	repeats := false
	keys := map[json.Token]bool{}
	switch token {
	case json.Delim('{'):
		for dec.More() {
			key, err := dec.Token()
			if err != nil {
				return repeats
			}
			repeats = repeats || keys[key]
			keys[key] = true
			repeats = repeatsKeys(dec) || repeats
		}
		_, _ = dec.Token()
	case json.Delim('['):
		for dec.More() {
			repeats = repeatsKeys(dec) || repeats
		}
		_, _ = dec.Token()
	}
	return repeats
}

// FuzzIndex holds our decoder of indexes against encoding/json.
func FuzzIndex(f *testing.F) {
	const id = `"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"`
	for _, seed := range []string{
		`{"packs":[]}`, `{"supersedes":[` + id + `],"packs":null}`,
		`{"packs":[{"id":` + id + `,"blobs":[{"id":` + id + `,"type":"data","offset":0,"length":40,"uncompressed_length":9}]}]}`,
		`{"packs":[{"blobs":[{"type":"tree","id":` + id + `,"offset":7,"length":40}],"id":` + id + `}, {"id":` + id + `}]}`,
	} {
		f.Add([]byte(seed))
	}
	type entry struct {
		Pack, ID             format.ID
		Kind                 string
		Offset, Stored, Size uint32
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := parseIndex(b)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Error(err)
			}
			return
		}
		var got, want []entry
		for k := range x.blobs {
			for _, e := range x.blobs[k] {
				got = append(got, entry{x.packs[e.pack], e.id, kind(k).String(), e.offset, e.stored, e.plain})
			}
		}
		var top jsonFields
		var packs []jsonFields
		if err := errors.Join(json.Unmarshal(b, &top), top.get("packs", &packs)); err != nil {
			t.Fatalf("accepted, but encoding/json says %v", err)
		}
		for _, k := range []string{"data", "tree"} {
			for _, p := range packs {
				var blobs []jsonFields
				var pack string
				if err := errors.Join(p.get("id", &pack), p.get("blobs", &blobs)); err != nil {
					t.Fatal(err)
				}
				for _, f := range blobs {
					e := entry{}
					var id string
					err := errors.Join(f.get("id", &id), f.get("type", &e.Kind), f.get("offset", &e.Offset), f.get("length", &e.Stored), f.get("uncompressed_length", &e.Size))
					if err != nil {
						t.Fatal(err)
					}
					if e.Kind != k {
						continue
					}
					if e.ID, err = format.ParseID(id); err != nil {
						t.Fatal(err)
					}
					if e.Pack, err = format.ParseID(pack); err != nil {
						t.Fatal(err)
					}
					want = append(want, e)
				}
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	})
}

// FuzzPackHeader decodes headers and writes them again.
func FuzzPackHeader(f *testing.F) {
	f.Add([]byte{}, int64(0))
	f.Add(append([]byte{0, 40, 0, 0, 0}, make([]byte, 32)...), int64(100))
	f.Add(append([]byte{3, 40, 0, 0, 0, 9, 0, 0, 0}, make([]byte, 32)...), int64(40))
	f.Fuzz(func(t *testing.T, b []byte, room int64) {
		var again []byte
		end := int64(0)
		err := parsePackHeader(b, room, func(k kind, e blob) {
			if int64(e.offset) != end || e.stored < sealOverhead || e.size() > e.stored && e.plain == 0 {
				t.Errorf("a blob of %d bytes at %d, after %d", e.stored, e.offset, end)
			}
			end += int64(e.stored)
			what := byte(k)
			zip := b[len(again)] >= 2
			if zip {
				what |= 2
			}
			again = binary.LittleEndian.AppendUint32(append(again, what), e.stored)
			if zip {
				again = binary.LittleEndian.AppendUint32(again, e.plain)
			}
			again = append(again, e.id[:]...)
		})
		if end > room && room >= 0 {
			t.Errorf("blobs of %d bytes in %d", end, room)
		}
		if err == nil && !bytes.Equal(again, b) {
			t.Errorf("%x became %x", b, again)
		}
	})
}

// FuzzJSON accepts what encoding/json does.
func FuzzJSON(f *testing.F) {
	for _, seed := range []string{`{"a":[1,-0.5e-7,"\u00e9\\",null,true,false,{}]}`, ` "x" `, "[[", `{"a":1,}`, "01", "\"\x1f\""} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= depthMax {
			return
		}
		s := scanner{b: b}
		s.skip()
		s.end()
		if valid := json.Valid(b); valid != (s.err == nil) {
			t.Errorf("encoding/json: valid %v; ours: %v", valid, s.err)
		}
		if s.err == nil && len(b) > 0 && bytes.TrimSpace(b)[0] == '"' {
			var want string
			if err := json.Unmarshal(b, &want); err != nil {
				t.Fatal(err)
			}
			s = scanner{b: b}
			if got := string(s.text()); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		}
	})
}
