package borg

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/formattest"
)

// sampleItem has everything that an item can have.
func sampleItem() item {
	return item{
		path: "a/\xff\n", mode: typeFile | 0o6755, has: format.HasMode | format.HasUID | format.HasGID | format.HasMtime | format.HasAtime | format.HasCtime | format.HasBtime | format.HasSize,
		uid: 1000, gid: 1<<32 - 1, user: "me", group: "us", size: 1 << 40,
		mtime: format.Time{Sec: -2, Nsec: 5e8}, atime: format.Time{Sec: 1 << 34, Nsec: 1}, ctime: format.Time{}, birthtime: format.Time{Sec: 1},
		source: "b", hasSource: true, rdev: 259<<8 | 3, hasRdev: true, hlid: strings.Repeat("h", 32), bsdflags: 3, part: 2, master: masterYes,
		xattrs: []format.Xattr{{Name: "user.a", Value: "x"}, {Name: "user.empty"}},
		acls:   [len(aclKeys)]string{"user::rw-\nuser:me:r--:1000\ngroup::r--\nmask::r--\nother::---", "", "mac", "nfs"},
		chunks: []chunkRef{{id: objectID{1}, size: 5, csize: 70000}}, hasChunks: true,
		healthy: []chunkRef{{id: objectID{2}, size: 5, csize: 90}}, hasHealthy: true,
	}
}

// TestItemRoundTrip decodes what was packed.
func TestItemRoundTrip(t *testing.T) {
	for _, it := range []item{sampleItem(), {path: "x", has: format.HasMode}, {path: ".", mode: typeDir | 0o755, has: format.HasMode}} {
		b := it.appendPacked(nil)
		got := item{}
		if err := got.parse(b); err != nil {
			t.Fatal(err)
		}
		if again := got.appendPacked(nil); !bytes.Equal(b, again) {
			t.Errorf("%q became %q", b, again)
		}
		if d := cmp.Diff(it, got, cmp.AllowUnexported(item{}, chunkRef{}), cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".xattrs" && len(it.xattrs) == 0 }, cmp.Ignore())); d != "" {
			t.Error(d)
		}
	}
}

// FuzzItem decodes items from any bytes: both readings agree, what was packed
// again is the same item, and entries are such as the stream allows.
func FuzzItem(f *testing.F) {
	it := sampleItem()
	f.Add(it.appendPacked(nil))
	it = item{path: "d", mode: typeDir | 0o755}
	f.Add(it.appendPacked(nil))
	f.Add([]byte("\x82\xa4path\xa1x\xa5mtime\xa9\xff\xff\xff\xff\xff\xff\xff\xff\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		u := &unpacker{b: b}
		h := u.parseHead()
		if u.err != nil {
			if !errors.Is(u.err, ErrDamaged) {
				t.Fatal(u.err)
			}
			return
		}
		var it item
		if err := it.parse(b[:u.i]); err != nil {
			return
		}
		if it.path != "" && it.path != string(h.path) && bytes.Count(b, []byte("path")) == 1 {
			t.Fatalf("paths %q and %q", it.path, h.path)
		}
		path, ok := cleanPath(it.path)
		if !ok {
			return
		}
		e, ok := it.entry(path, "", func(string) {})
		if !ok {
			return
		}
		if e.Type == format.TypeFile {
			e.Has |= format.HasSize
			e.Size = it.size
		}
		if _, err := format.AppendRecord(nil, e); err != nil {
			t.Fatalf("%+v: %v", e, err)
		}
		if !timeFits(it.mtime) || !timeFits(it.atime) || !timeFits(it.ctime) || !timeFits(it.birthtime) || len(it.unknown) > 0 {
			return
		}
		packed := it.appendPacked(nil)
		var again item
		if err := again.parse(packed); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(packed, again.appendPacked(nil)) {
			t.Fatalf("%q became %q", packed, again.appendPacked(nil))
		}
	})
}

// FuzzItems exports an archive whose stream of items is any bytes, cut anywhere.
func FuzzItems(f *testing.F) {
	b := newBuilder(f, modeNone)
	one, two := b.file("f", "content"), dirItem("d")
	f.Add(two.appendPacked(one.appendPacked(nil)), uint8(7))
	link := slave("a", "f")
	f.Add(link.appendPacked(one.appendPacked(nil)), uint8(200))
	f.Fuzz(func(t *testing.T, stream []byte, cut uint8) {
		if len(stream) > 4<<10 {
			return
		}
		b := newBuilder(t, modeNone)
		one := b.file("f", "content")
		b.cut = func(rest int) int { return min(rest, int(cut)+1) }
		b.archive("before", one)
		b.rawArchive("fuzzed", stream)
		b.archive("after", one, dirItem("d"))
		r := b.open()
		defer r.Close()
		whole, err := formattest.Stream(r, format.ExportOptions{Full: true})
		differences, err2 := formattest.Stream(r, format.ExportOptions{})
		if (err == nil) != (err2 == nil) {
			t.Fatalf("whole: %v; differences: %v", err, err2)
		}
		if err != nil {
			return
		}
		w, d := formattest.Receive(t, whole, nil), formattest.Receive(t, differences, nil)
		for i := range w {
			formattest.EqualListing(t, "differences", w[i].Listing, d[i].Listing)
		}
	})
}

// FuzzManifest decodes manifests, archives, keys and configurations.
func FuzzManifest(f *testing.F) {
	k := testKeys(f, modeNone)
	m := &manifest{version: 1, archives: []archiveRef{{name: "a", id: objectID{1}, time: "2026-01-02T03:04:05"}}}
	packed, err := m.pack(k, make([]byte, tamSize))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(packed)
	a := &archiveMeta{version: 1, name: "a", items: []objectID{{1}}, cmdline: []string{"borg", "create", "r::a", "x"}, chunkerParams: []any{"buzhash", uint64(19)}}
	if packed, err = a.pack(k, make([]byte, tamSize)); err != nil {
		f.Fatal(err)
	}
	f.Add(packed)
	full := testKeys(f, modeRepokey)
	f.Add(full.appendPacked(nil))
	blob, err := sealKeys(full, "", make([]byte, 32))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(blob.encode()))
	f.Add([]byte("[repository]\nversion = 1\nsegments_per_dir = 2\nmax_segment_size = 3\nid = " + strings.Repeat("ab", 32) + "\nkey = x\n\ty\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := parseManifest(b); err == nil {
			k.checkTAM(b, m.tam, tamManifest)
			again, err := m.pack(k, make([]byte, tamSize))
			if err != nil {
				t.Fatal(err)
			}
			if m2, err := parseManifest(again); err != nil || len(m2.archives) != len(m.archives) || k.checkTAM(again, m2.tam, tamManifest) != nil {
				t.Fatalf("%q became %q: %v", b, again, err)
			}
		} else if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) {
			t.Fatal(err)
		}
		if a, err := parseArchive(b); err == nil {
			k.checkTAM(b, a.tam, tamArchive)
			roots(a.cmdline, a.cwd)
			specOf(append([]any{"buzhash"}, a.chunkerParams...))
			if len(a.chunkerParams) > 0 {
				specOf(a.chunkerParams)
			}
			parseTime(a.time)
			again, err := a.pack(k, make([]byte, tamSize))
			if err != nil {
				t.Fatal(err)
			}
			a2, err := parseArchive(again)
			if err != nil || !slices.Equal(a.items, a2.items) || a.name != a2.name || k.checkTAM(again, a2.tam, tamArchive) != nil {
				t.Fatalf("%q became %q: %v", b, again, err)
			}
		}
		if keys, err := parseKeys(b, modeRepokey); err == nil {
			if again, err := parseKeys(keys.appendPacked(nil), modeRepokey); err != nil || !bytes.Equal(again.name, keys.name) || again.chunkSeed != keys.chunkSeed {
				t.Fatal(err)
			}
		}
		if blob, err := parseKeyBlob(string(b)); err == nil {
			if again, err := parseKeyBlob(blob.encode()); err != nil || !bytes.Equal(again.data, blob.data) || again.iterations != blob.iterations {
				t.Fatal(err)
			}
		}
		parseKeyFile(b)
		parseConfig(b)
	})
}

// FuzzSegment reads a log of any bytes.
func FuzzSegment(f *testing.F) {
	b := newBuilder(f, modeNone)
	id := b.put([]byte("content"))
	f.Add(b.log, uint16(50))
	f.Add(appendEntry(b.log, tagDelete, &id, nil), uint16(9))
	f.Add(append(b.log, commitEntry...), uint16(1000))
	f.Fuzz(func(t *testing.T, log []byte, step uint16) {
		read := func(offset int64, least int) ([]byte, error) {
			return log[offset:min(int64(len(log)), offset+int64(max(least, int(step))))], nil
		}
		end := int64(segmentMagicSize)
		err := parseSegment(int64(len(log)), read, func(offset uint32, h *entryHead) error {
			if int64(offset) != end || int64(h.size) > int64(len(log))-end {
				t.Fatalf("an entry of %d bytes at %d", h.size, offset)
			}
			end += int64(h.size)
			if h.tag == tagPut {
				if object, _, err := checkPut(log[offset:], &h.id, int64(len(log))-int64(offset)); err == nil {
					again := appendEntry(nil, tagPut, &h.id, object)
					if !bytes.Equal(again, log[offset:][:h.size]) {
						t.Fatalf("%q became %q", log[offset:][:h.size], again)
					}
				}
			}
			return nil
		})
		var bad *entryError
		if err == nil && end != int64(len(log)) && len(log) > 8 || err != nil && !errors.As(err, &bad) {
			t.Fatalf("it ends at %d of %d: %v", end, len(log), err)
		}
		// The same bytes as a segment of a repository.
		b := newBuilder(t, modeNone)
		b.archive("a", b.file("f", "content"))
		b.end()
		b.log = log
		b.end()
		if r, err := b.on(b.commit(), Options{}); err == nil {
			if _, err := r.Snapshots(context.Background()); err != nil {
				t.Fatal(err)
			}
			r.Close()
		} else if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrMissing) {
			t.Fatal(err)
		}
	})
}

// FuzzObject opens objects of any bytes: nothing but the right content comes.
func FuzzObject(f *testing.F) {
	b := newBuilder(f, modeNone)
	plain := []byte(strings.Repeat("content", 30))
	for _, c := range []codec{codecNone, codecLZ4, codecLZMA, codecZstd, codecZlib} {
		b.codec = c
		packed := b.compress(plain)
		f.Add(packed)
		f.Add(append([]byte{4, 0, 0, 0, 0, byte(len(packed))}, packed...))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		c, packed, err := splitCodec(content)
		if err != nil {
			return
		}
		out := make([]byte, 210)
		exact := decompressTo(out, c, packed)
		grown, err := decompress(c, packed, 1<<20)
		if exact == nil && (err != nil || !bytes.Equal(out, grown)) {
			t.Fatalf("%s: %d bytes, %v", c, len(grown), err)
		}
		k := &keys{mode: modeNone}
		object := append([]byte{byte(modeNone)}, content...)
		if got, _, err := k.openChunk(k.id(plain), uint32(len(plain)), object); err == nil && !bytes.Equal(got, plain) {
			t.Fatalf("%q", got)
		}
		k = testKeys(t, modeRepokeyBlake2)
		object[0] = byte(modeRepokeyBlake2)
		if _, _, err := k.openChunk(k.id(plain), uint32(len(plain)), object); err == nil {
			t.Fatal("it has that id")
		}
		if _, err := k.openManifest(object); err == nil {
			t.Fatal("it authenticates")
		}
	})
}
