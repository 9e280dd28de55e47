package borg

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/chunker"
	"github.com/bk-backup/bk/format/formattest"
	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/store/dir"
)

// smallCuts cut as borg does, but small.
var smallCuts = chunker.Spec{Method: chunker.Buzhash, Min: 64, Avg: 256, Max: 2048, Window: 63}

// testRand is not random, so that a failure can be seen again.
func testRand(seed byte) *rand.ChaCha8 { return rand.NewChaCha8([32]byte{seed}) }

var testPassphrase = func(context.Context) (string, error) { return "test", nil }

// newPlace makes an empty repository in a new directory.
func newPlace(t testing.TB, mode string) string {
	t.Helper()
	place := t.TempDir()
	err := Init(context.Background(), place, InitOptions{
		Encryption: mode, Passphrase: testPassphrase, Now: func() time.Time { return time.Unix(1_700_000_000, 0) }, Rand: testRand(1),
	})
	if err != nil {
		t.Fatal(err)
	}
	return place
}

func openPlace(t testing.TB, place string) store.Store {
	t.Helper()
	st, err := store.Open(context.Background(), place, store.Schemes{"file": dir.Scheme(dir.Options{})})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// openSink opens a repository for writing, and fills in what options need.
func openSink(t testing.TB, place string, how SinkOptions) *Sink {
	t.Helper()
	how.Holder = cmp.Or(how.Holder, Holder{"test", 1})
	how.Now = func() time.Time { return time.Unix(1_700_000_000, 0) }
	how.Rand = testRand(2)
	st := openPlace(t, place)
	s, err := OpenSink(context.Background(), place, st, Options{Passphrase: testPassphrase}, how)
	if err != nil {
		st.Close()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func openRepository(t testing.TB, place string) *Repository {
	t.Helper()
	r, err := Open(context.Background(), openPlace(t, place), Options{Passphrase: testPassphrase})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// write writes records, and closes the sink.
func (m *model) write(s *Sink, list []format.Record) {
	m.Helper()
	for _, rec := range list {
		if err := s.Write(format.Clone(rec)); err != nil {
			m.Fatalf("%s: %v", format.AppendText(nil, rec), err)
		}
	}
	if err := s.Close(); err != nil {
		m.Fatal(err)
	}
}

// object is what a tree of a model has at a path.
type object struct {
	entry   format.Entry
	content []byte
}

type modelTree map[string]object

// model makes histories of trees and the streams that bring them.
type model struct {
	testing.TB
	rnd    *rand.Rand
	tree   modelTree
	pool   []byte // content comes from here
	serial int
	sent   map[format.ID][]byte
	last   format.ID // the last snapshot
}

func newModel(t testing.TB, seed uint64) *model {
	m := &model{TB: t, rnd: rand.New(rand.NewPCG(seed, 7)), tree: modelTree{}}
	m.pool = make([]byte, 40_000)
	for i := range m.pool {
		m.pool[i] = byte(m.rnd.Uint32())
	}
	clear(m.pool[10_000:16_000]) // zeros
	return m
}

func (m *model) path() string {
	var parts []string
	for range 1 + m.rnd.IntN(3) {
		parts = append(parts, []string{"a", "b", "b!", "c"}[m.rnd.IntN(4)])
	}
	return strings.Join(parts, "/")
}

// part is some of the pool.
func (m *model) part(most int) []byte {
	n := m.rnd.IntN(most)
	at := m.rnd.IntN(len(m.pool) - n)
	return m.pool[at : at+n]
}

// put puts an object where it may lie.
func (m *model) put(path string, o object) {
	for above := format.ParentPath(path); above != ""; above = format.ParentPath(above) {
		if x, ok := m.tree[above]; ok && x.entry.Type != format.TypeDir {
			delete(m.tree, above)
		}
	}
	if o.entry.Type != format.TypeDir {
		m.remove(path)
	}
	o.entry.Path = path
	m.tree[path] = o
}

func (m *model) remove(path string) {
	for p := range m.tree {
		if p == path || format.IsBelow(p, path) {
			delete(m.tree, p)
		}
	}
}

// change makes a few changes.
func (m *model) change() {
	for range 1 + m.rnd.IntN(8) {
		m.serial++
		path := m.path()
		e := format.Entry{
			Type: format.TypeFile, Has: format.HasMode | format.HasUID | format.HasGID | format.HasMtime,
			Mode: uint32(m.rnd.IntN(0o10000)), UID: uint32(m.serial), Mtime: format.Time{Sec: int64(m.serial), Nsec: 5},
		}
		switch old, ok := m.tree[path]; m.rnd.IntN(10) {
		case 0:
			m.remove(path)
		case 1, 2:
			e.Type = format.TypeDir
			m.put(path, object{entry: e})
		case 3:
			e.Type, e.Target = format.TypeSymlink, "target"
			m.put(path, object{entry: e})
		case 4: // hard links
			e.Hardlink = fmt.Sprint("group ", m.serial)
			o := object{e, m.part(3000)}
			m.put(path, o)
			m.put(m.path(), o)
			m.put(m.path(), o)
		case 5: // one more member of a group
			for _, o := range m.tree {
				if o.entry.Hardlink != "" {
					m.put(path, o)
					break
				}
			}
		case 6, 7: // another version of a file
			if ok && len(old.content) > 0 {
				at := m.rnd.IntN(len(old.content))
				end := min(len(old.content), at+m.rnd.IntN(500))
				m.put(path, object{e, slices.Concat(old.content[:at], m.part(500), old.content[end:])})
				break
			}
			fallthrough
		default:
			m.put(path, object{e, bytes.Clone(m.part(12_000))})
		}
	}
}

// snapshot returns the records of a snapshot of the tree, as a difference to an
// older one if there is one.
func (m *model) snapshot(old modelTree, parent format.ID, unsorted bool) []format.Record {
	m.last = format.SumID([]byte(fmt.Sprint("snapshot", m.serial, m.rnd.Uint64())))
	head := &format.Snapshot{
		ID: m.last, Parent: parent, Time: &format.Time{Sec: int64(m.serial), Nsec: 123_456_789}, Host: "host", User: "user",
		Tags: []string{"one", "two"}, Roots: []string{"a"}, Comment: "comment", Unsorted: unsorted,
	}
	list := [][]format.Record{}
	var removes [][]format.Record
	gone := "/"
	both := maps.Clone(m.tree)
	maps.Copy(both, old)
	for _, p := range slices.SortedFunc(maps.Keys(both), format.ComparePaths) {
		now, isThere := m.tree[p]
		was, wasThere := old[p]
		switch {
		case format.IsBelow(p, gone) && !isThere:
		case !isThere:
			gone = p
			list = append(list, []format.Record{&format.Remove{Path: p}})
			removes = append(removes, list[len(list)-1])
			if unsorted {
				list = list[:len(list)-1]
			}
		case wasThere && was.entry.Equal(&now.entry) && bytes.Equal(was.content, now.content):
		default:
			if now.entry.Type != format.TypeDir {
				gone = p
			}
			if unsorted && now.entry.Type == format.TypeFile && m.rnd.IntN(4) == 0 {
				// A version that the one behind it replaces.
				list = append(list, m.entry(object{entry: now.entry, content: m.part(9000)}, nil))
			}
			list = append(list, m.entry(now, old))
		}
	}
	if unsorted {
		// The content stays in the order in which it was made, so that refs name
		// what came before; of the rest, what is removed goes first.
		if len(removes) > 0 {
			m.rnd.Shuffle(len(removes), func(i, j int) { removes[i], removes[j] = removes[j], removes[i] })
			list = append(removes, list...)
		}
	}
	out := []format.Record{head}
	for _, part := range list {
		out = append(out, part...)
	}
	return append(out, &format.Commit{})
}

// entry returns the records of one object.
func (m *model) entry(o object, old modelTree) []format.Record {
	e := o.entry
	out := []format.Record{&e}
	if e.Type != format.TypeFile {
		return out
	}
	rest := o.content
	put := func(n int, rec format.Record) {
		out = append(out, rec)
		rest = rest[n:]
	}
	for len(rest) > 0 {
		n := 1 + m.rnd.IntN(min(len(rest), 2000))
		from, common := m.common(rest, old, e.Path)
		switch {
		case common > 0 && m.rnd.IntN(3) > 0:
			was := old[from].content
			put(common, &format.CopyRange{Offset: uint64(bytes.Index(was, rest[:common])), Size: uint64(common), From: from, HasFrom: from != e.Path})
			continue
		case m.rnd.IntN(2) == 0 && bytes.Count(rest[:n], []byte{0}) == n:
			put(n, &format.Hole{Size: uint64(n)})
			continue
		}
		if refs := m.refs(rest); len(refs) > 0 {
			size := 0
			for _, ref := range refs {
				size += int(ref.Size)
			}
			put(size, &format.Refs{Chunks: refs})
			continue
		}
		plain := bytes.Clone(rest[:n])
		d := &format.Data{ID: format.SumID(plain), Size: uint32(n), Payload: plain}
		if m.rnd.IntN(3) == 0 {
			codec, payload, err := format.EncodePayload(nil, plain, format.LevelDefault)
			if err != nil {
				m.Fatal(err)
			}
			d.Codec, d.Payload = codec, payload
		}
		m.sent[d.ID] = plain
		put(n, d)
	}
	return append(out, &format.EOF{Size: uint64(len(o.content))})
}

// common finds an old file whose content has a part that comes next.
func (m *model) common(rest []byte, old modelTree, path string) (from string, n int) {
	if len(rest) < 16 {
		return "", 0
	}
	for _, p := range append([]string{path}, slices.Sorted(maps.Keys(old))...) {
		was := old[p]
		at := -1
		if was.entry.Type == format.TypeFile {
			at = bytes.Index(was.content, rest[:16])
		}
		if at < 0 {
			continue
		}
		for n = 16; n < len(rest) && at+n < len(was.content) && was.content[at+n] == rest[n]; n++ {
		}
		return p, 1 + m.rnd.IntN(n)
	}
	return "", 0
}

// refs finds chunks that were sent and come next.
func (m *model) refs(rest []byte) (refs []format.ChunkRef) {
	for len(rest) > 0 && len(refs) < 5 {
		found := false
		for _, id := range slices.SortedFunc(maps.Keys(m.sent), func(a, b format.ID) int { return a.Compare(b) }) {
			if plain := m.sent[id]; bytes.HasPrefix(rest, plain) {
				refs, rest, found = append(refs, format.ChunkRef{ID: id, Size: uint32(len(plain))}), rest[len(plain):], true
				break
			}
		}
		if !found {
			break
		}
	}
	return refs
}

// compare compares a tree with what was read back.
func (m *model) compare(tree modelTree, got formattest.Listing) {
	m.Helper()
	groups, names := map[string]string{}, map[string]string{}
	for _, p := range slices.Sorted(maps.Keys(tree)) {
		want, o := tree[p], got[p]
		if o == nil {
			m.Errorf("%q is missing", p)
			continue
		}
		e := o.Entry
		a, b := want.entry, *e
		a.Hardlink, b.Hardlink = "", ""
		b.Size, b.Has = 0, b.Has&^format.HasSize
		if !a.Equal(&b) {
			m.Errorf("%s\nshould be\n%s", format.AppendText(nil, &b), format.AppendText(nil, &a))
		}
		if !bytes.Equal(want.content, slices.Concat(o.Pieces...)) {
			m.Errorf("%q has other content", p)
		}
		if g, ok := groups[want.entry.Hardlink]; ok && want.entry.Hardlink != "" && g != e.Hardlink {
			m.Errorf("%q is not linked with others of %s", p, want.entry.Hardlink)
		}
		if n, ok := names[e.Hardlink]; ok && e.Hardlink != "" && n != want.entry.Hardlink {
			m.Errorf("%q is linked with others of %s", p, n)
		}
		groups[want.entry.Hardlink], names[e.Hardlink] = e.Hardlink, want.entry.Hardlink
	}
	for p := range got {
		if _, ok := tree[p]; !ok {
			m.Errorf("%q is there", p)
		}
	}
}

// TestSinkHistories writes histories of differences, in several runs, and reads
// the snapshots back. Where content is cut anew, the cuts are those of the whole.
func TestSinkHistories(t *testing.T) {
	modes := []string{"none", "none", "none", "none", "none", "none", "none", "repokey-blake2"}
	for seed := range uint64(16) {
		recut, unsorted := seed%2 == 1, seed%3 == 2
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			m := newModel(t, seed)
			place := newPlace(t, modes[seed%uint64(len(modes))])
			var states []modelTree
			old := modelTree{}
			for range 3 {
				m.sent = map[format.ID][]byte{}
				list := []format.Record{&format.Header{Version: 1, Features: []format.Feature{format.FeatureBase, format.FeatureCopy, format.FeatureZstd}}}
				for range 1 + m.rnd.IntN(3) {
					m.change()
					list = append(list, m.snapshot(old, m.last, unsorted)...)
					old = maps.Clone(m.tree)
					states = append(states, old)
				}
				s := openSink(t, place, SinkOptions{Recut: recut, cuts: smallCuts})
				m.write(s, append(list, &format.End{}))
				for _, l := range s.Summary().Losses {
					if l.Kind != format.LossSparse {
						t.Errorf("lost: %+v", l)
					}
				}
			}
			r := openRepository(t, place)
			checkObjects(t, r, recut)
			got := formattest.Receive(t, formattest.MustStream(t, r, format.ExportOptions{}), nil)
			if len(got) != len(states) {
				t.Fatalf("%d snapshots of %d", len(got), len(states))
			}
			for i, one := range got {
				m.compare(states[i], one.Listing)
				rec := one.Record
				if rec.Host != "host" || rec.User != "user" || rec.Comment != "comment" || len(rec.Tags) != 2 || len(rec.Roots) != 1 || rec.Time.Nsec != 123_456_789 || len(rec.Via) != 1 {
					t.Errorf("record %s", format.AppendText(nil, rec))
				}
			}
		})
	}
}

// checkObjects wants all objects to be part of an archive. If they were cut anew,
// it cuts the content of all files as a whole, and wants their chunks.
func checkObjects(t *testing.T, r *Repository, recut bool) {
	t.Helper()
	used := map[objectID]bool{manifestID: true}
	factory, err := r.keys.splitters(smallCuts)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	list, _, err := r.list(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range list {
		var stream []byte
		used[objectID(a.record.ID)] = true
		for _, id := range a.items {
			used[id] = true
			plain, err := r.plain(ctx, id)
			if err != nil {
				t.Fatal(err)
			}
			stream = append(stream, plain...)
		}
		for len(stream) > 0 {
			u := &unpacker{b: stream}
			u.skip()
			var it item
			if err := it.parse(stream[:u.i]); err != nil {
				t.Fatal(err)
			}
			stream = stream[u.i:]
			var content []byte
			for _, c := range it.chunks {
				used[c.id] = true
				object, _, err := r.object(ctx, c.id, c.csize)
				if err != nil {
					t.Fatal(err)
				}
				if uint32(len(object)) != c.csize {
					t.Errorf("%s: an object of %d bytes is listed with %d", it.path, len(object), c.csize)
				}
				plain, _, err := r.keys.openChunk(c.id, c.size, object)
				if err != nil {
					t.Fatal(err)
				}
				content = append(content, plain...)
			}
			splitter := factory.Splitter()
			for i := 0; recut && len(content) > 0; i++ {
				n := splitter.Cut(content, true)
				if uint32(n) != it.chunks[i].size {
					t.Fatalf("%s in %s: chunk %d of %d has %d bytes, not %d", it.path, a.name, i, len(it.chunks), it.chunks[i].size, n)
				}
				content = content[n:]
			}
		}
	}
	objects := make(map[objectID]bool)
	for _, one := range r.segments {
		b, err := r.store.Get(ctx, r.segmentName(one.number), 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		read := func(offset int64, _ int) ([]byte, error) { return b[offset:], nil }
		err = parseSegment(int64(len(b)), read, func(_ uint32, h *entryHead) error {
			if h.tag != tagCommit {
				objects[h.id] = h.tag == tagPut
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for id, there := range objects {
		if there && !used[id] {
			t.Errorf("no archive needs object %s", id)
		}
	}
}
