package borg

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/formattest"
	"github.com/bk-backup/bk/repo/store/mem"
)

// smallHistory makes a repository of two archives and some segments, with
// something that was deleted.
func smallHistory(t testing.TB, m mode, c codec) *builder {
	b := newBuilder(t, m)
	b.codec = c
	words := func(s string) string { return strings.Repeat(s+" ", 300) }
	doomed := b.put([]byte(words("doomed")))
	b.archive("one", dirItem("d"), b.file("d/a", words("alpha"), words("beta")), b.file("d/b", words("gamma")))
	b.end()
	b.delete(doomed)
	b.archive("two", dirItem("d"), b.file("d/a", words("alpha"), words("delta")), b.file("e", words("beta")))
	return b
}

// borgsIndex makes the file that borg keeps beside the log.
func borgsIndex(entries map[objectID]place) []byte {
	buckets := 2*len(entries) + 1
	b := []byte(indexMagic)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(entries)))
	b = binary.LittleEndian.AppendUint32(b, uint32(buckets))
	b = append(b, 32, 8)
	table := make([]byte, buckets*bucketSize)
	for i := range buckets {
		segment := uint32(bucketEmpty)
		if i%7 == 3 {
			segment = bucketDeleted
		}
		binary.LittleEndian.PutUint32(table[i*bucketSize+32:], segment)
	}
	for id, at := range entries {
		n := int(binary.LittleEndian.Uint32(id[:])) % buckets
		for binary.LittleEndian.Uint32(table[n*bucketSize+32:]) < bucketDeleted {
			n = (n + 1) % buckets
		}
		bucket := table[n*bucketSize:]
		copy(bucket, id[:])
		binary.LittleEndian.PutUint32(bucket[32:], at.segment)
		binary.LittleEndian.PutUint32(bucket[36:], at.offset)
	}
	return append(b, table...)
}

func (b *builder) withIndex() *mem.Store {
	st := b.commit()
	b.addFile(st, fmt.Sprintf("index.%d", b.number-1), borgsIndex(b.have))
	return st
}

func (b *builder) addFile(st *mem.Store, name string, data []byte) {
	b.Helper()
	if err := st.Create(context.Background(), name, data); err != nil {
		b.Fatal(err)
	}
}

// damaged returns a copy of a store with one object changed.
func damaged(t testing.TB, st *mem.Store, name string, change func([]byte) []byte) *mem.Store {
	t.Helper()
	st = st.Clone()
	if !st.Damage(name, change) {
		t.Fatalf("there is no %s", name)
	}
	return st
}

// export opens a repository and returns its stream.
func (b *builder) export(st *mem.Store) ([]byte, error) {
	r, err := b.on(st, Options{})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return formattest.Stream(r, format.ExportOptions{})
}

// TestFlippedBits flips bits everywhere: what comes is right, or an error that
// says what and where. What borg's index says can also be found in the log.
func TestFlippedBits(t *testing.T) {
	places := 30
	if raceEnabled {
		places = 6
	}
	for i, m := range []mode{modeRepokey, modeNone, modeAuthenticatedBlake2, modeRepokeyBlake2} {
		b := smallHistory(t, m, []codec{codecLZ4, codecZstd, codecLZMA, codecZlib}[i])
		for _, indexed := range []bool{true, false} {
			st := b.commit()
			if indexed {
				st = b.withIndex()
			}
			want, err := b.export(st)
			if err != nil {
				t.Fatal(err)
			}
			failed, right := 0, 0
			for name, object := range b.files {
				for at := 0; at < len(object); at += 1 + len(object)/places {
					got, err := b.export(damaged(t, st, name, func(o []byte) []byte { o[at] ^= 4; return o }))
					switch {
					case err == nil && bytes.Equal(got, want):
						right++
					case err == nil:
						t.Errorf("%s, %s, byte %d: other bytes and no error", m, name, at)
					case !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrMissing) && !errors.Is(err, ErrVersion):
						t.Errorf("%s, %s, byte %d: %v", m, name, at, err)
					default:
						failed++
						if !strings.Contains(err.Error(), "segment") && !strings.Contains(err.Error(), "data/") {
							t.Errorf("%s, %s, byte %d: no place in %q", m, name, at, err)
						}
					}
				}
			}
			if failed < 2*places || right == 0 {
				t.Errorf("%s: %d of the changes were noticed, %d harmless", m, failed, right)
			}
		}
	}
}

// TestDamagedIndex reads the log where borg's index is not what it should be.
func TestDamagedIndex(t *testing.T) {
	b := smallHistory(t, modeRepokey, codecNone)
	st := b.withIndex()
	want, err := b.export(st)
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("index.%d", b.number-1)
	size := len(borgsIndex(b.have))
	for at := 0; at < size; at += 1 + size/150 {
		got, err := b.export(damaged(t, st, name, func(o []byte) []byte { o[at] ^= 1; return o }))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("byte %d of the index: %v", at, err)
		}
	}
	// The repository is not taken for what it was before its last commit.
	_, err = b.export(damaged(t, st, segmentName(b.number-1, b.perDir), func(o []byte) []byte { o[10] ^= 1; return o }))
	formattest.WantError(t, err, ErrDamaged, "commit", segmentName(b.number-1, b.perDir), name)
	for _, bad := range [][]byte{nil, []byte("BORG_IDX"), borgsIndex(nil), borgsIndex(map[objectID]place{manifestID: {1 << 30, 5}})} {
		got, err := b.export(damaged(t, st, name, func([]byte) []byte { return bad }))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("an index of %d bytes: %v", len(bad), err)
		}
	}
}

// TestIndexOnStorage looks everything up without reading an index as a whole.
func TestIndexOnStorage(t *testing.T) {
	b := smallHistory(t, modeNone, codecNone)
	st := b.withIndex()
	ctx := context.Background()
	name := fmt.Sprintf("index.%d", b.number-1)
	for _, memory := range []int64{0, 1 << 30} {
		x, err := openIndex(ctx, st, name, memory)
		if err != nil || (x.b == nil) != (memory == 0) {
			t.Fatal(err)
		}
		for id, want := range b.have {
			if got, ok, err := x.find(ctx, id); err != nil || !ok || got != want {
				t.Errorf("%s: %s, %v, %v, want %s", id, got, ok, err, want)
			}
			id[31] ^= 1
			if _, ok, err := x.find(ctx, id); ok || err != nil {
				t.Errorf("%s: found what is not there, %v", id, err)
			}
		}
	}
}

// TestLog replays what borg leaves in a log.
func TestLog(t *testing.T) {
	b := smallHistory(t, modeRepokey, codecNone)
	st := b.commit()
	want, err := b.export(st)
	if err != nil {
		t.Fatal(err)
	}
	files := func(change func(map[string][]byte)) *mem.Store {
		all := maps.Clone(b.files)
		for name, object := range all {
			all[name] = bytes.Clone(object)
		}
		change(all)
		c := *b
		c.files = all
		return c.store()
	}
	first, next := segmentName(0, b.perDir), segmentName(b.number, b.perDir)
	someID := objectID{1, 2, 3}
	for what, st := range map[string]*mem.Store{
		"Attic's beginning":        files(func(f map[string][]byte) { copy(f[first], segmentMagicAttic) }),
		"what was never committed": files(func(f map[string][]byte) { f[next] = appendEntry([]byte(segmentMagic), tagDelete, &manifestID, nil) }),
		"a torn segment":           files(func(f map[string][]byte) { f[next] = []byte(segmentMagic + "to")[:9] }),
		"other files":              files(func(f map[string][]byte) { f["data/0/tmp"], f["data/x/1"], f["data/07/1"] = []byte("x"), nil, nil }),
		"a deletion of nothing": files(func(f map[string][]byte) {
			f[next] = append(appendEntry([]byte(segmentMagic), tagDelete, &someID, nil), commitEntry...)
		}),
		"the same once more": files(func(f map[string][]byte) {
			name := segmentName(b.number+5, b.perDir)
			f[name] = append(bytes.Clone(f[first]), commitEntry...)
		}),
	} {
		got, err := b.export(st)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, c := range map[string]struct {
		st  *mem.Store
		err error
	}{
		"a deleted manifest": {files(func(f map[string][]byte) {
			f[next] = append(appendEntry([]byte(segmentMagic), tagDelete, &manifestID, nil), commitEntry...)
		}), ErrMissing},
		"no commit":              {files(func(f map[string][]byte) { clear(f) }), ErrDamaged},
		"a missing segment":      {files(func(f map[string][]byte) { delete(f, first) }), ErrMissing},
		"a segment that is not":  {files(func(f map[string][]byte) { copy(f[first], "garbage!") }), ErrMissing},
		"a damaged last segment": {files(func(f map[string][]byte) { f[segmentName(b.number-2, b.perDir)][4] ^= 0x80 }), ErrDamaged},
	} {
		if _, err := b.export(c.st); !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want one that is %v", what, err, c.err)
		}
	}
}

// TestNamedErrors says which file cannot be read, and why.
func TestNamedErrors(t *testing.T) {
	b := newBuilder(t, modeRepokey)
	b.codec = codecZstd
	it := b.file("dir/file", strings.Repeat("content ", 100))
	b.archive("a", it)
	at := b.have[it.chunks[0].id]
	st := damaged(t, b.commit(), segmentName(at.segment, b.perDir), func(o []byte) []byte {
		// Damage below the CRC, as if the object had been changed on purpose.
		h, err := parseEntryHead(o[at.offset:])
		if err != nil {
			t.Fatal(err)
		}
		entry := o[at.offset:][:h.size]
		entry[len(entry)-1] ^= 1
		id := h.id
		copy(entry, appendEntry(nil, tagPut, &id, entry[putHeadSize:]))
		return o
	})
	_, err := b.export(st)
	formattest.WantError(t, err, ErrDamaged, "/dir/file", it.chunks[0].id.String(), fmt.Sprintf("%s at offset %d", segmentName(at.segment, b.perDir), at.offset), "authenticate")

	b = newBuilder(t, modeNone)
	other := b.file("other", "something else")
	it = b.file("f", "content")
	it.chunks[0].id = other.chunks[0].id
	b.archive("a", it)
	_, err = b.export(b.commit())
	formattest.WantError(t, err, ErrDamaged, "/f", other.chunks[0].id.String())

	b = newBuilder(t, modeNone)
	b.archive("a", b.file("f", "content"), other)
	it = b.file("f", "content")
	it.chunks[0].size--
	b.archive("b", it)
	_, err = b.export(b.commit())
	formattest.WantError(t, err, ErrDamaged, "/f", "7 elsewhere")

	b = newBuilder(t, modeNone)
	it = b.file("big", "content")
	it.chunks[0].size = format.ChunkSizeMax + 1
	b.archive("a", it)
	if _, err = b.export(b.commit()); err == nil || !strings.Contains(err.Error(), "the stream holds up to") {
		t.Error(err)
	}

	b = newBuilder(t, modeNone)
	b.rawArchive("cut", it.appendPacked(nil)[:20])
	_, err = b.export(b.commit())
	formattest.WantError(t, err, ErrDamaged, "cut off")
}

// TestSwapped puts objects under each other's ids: the content is what it says
// it is, or it is refused.
func TestSwapped(t *testing.T) {
	for _, m := range allModes {
		b := newBuilder(t, m)
		one, two := b.file("f", "content one"), b.file("g", "content two")
		b.archive("a", one, two)
		b.object(one.chunks[0].id, b.compress([]byte("content two")))
		_, err := b.export(b.commit())
		formattest.WantError(t, err, ErrDamaged, one.chunks[0].id.String(), "/f")
	}
}

// TestTAM wants manifests that authenticate themselves wherever the keys ask.
func TestTAM(t *testing.T) {
	b := smallHistory(t, modeRepokey, codecNone)
	b.commit()
	m := &manifest{version: 1, archives: b.archives}
	packed, err := m.pack(b.keys, make([]byte, tamSize))
	if err != nil {
		t.Fatal(err)
	}
	bare := slices.Concat([]byte{0x83}, appendMapHead(appendBytes(nil, "archives"), 0), appendMapHead(appendBytes(nil, "config"), 0), appendUint(appendBytes(nil, "version"), 1))
	flipped := bytes.Clone(packed)
	flipped[bytes.Index(packed, []byte("one"))] = 'x'
	for what, plain := range map[string][]byte{"no code": bare, "another name": flipped} {
		b.object(manifestID, append([]byte{0, 0}, plain...))
		b.end()
		b.log = append(b.log, commitEntry...)
		b.end()
		_, err := b.on(b.store(), Options{})
		formattest.WantError(t, err, ErrDamaged, "manifest", "authenticate")
		if what == "no code" {
			b.keys.tamRequired = false // as repositories of borg 1.0.8 are
			if r, err := b.on(b.store(), Options{}); err != nil {
				t.Error(err)
			} else {
				r.Close()
			}
			b.keys.tamRequired = true
		}
	}
}
