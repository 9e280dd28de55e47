package borg

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/store/mem"
)

// builder makes repositories as borg would, from items that tests make up.
type builder struct {
	testing.TB
	keys     *keys
	codec    codec
	cut      func(rest int) int // how many bytes of items the next object has
	perDir   uint64
	files    map[string][]byte
	have     map[objectID]place
	log      []byte // of the segment that is being written
	number   uint32
	iv       uint64
	archives []archiveRef
	clock    int
	adapt    func(*archiveMeta) // nil, or changes archives
}

func testKeys(t testing.TB, m mode) *keys {
	t.Helper()
	k := &keys{mode: m, tamRequired: m.keyed()}
	fill := func(n int, c byte) []byte { return bytes.Repeat([]byte{c}, n) }
	copy(k.repository[:], fill(32, 0x1d))
	if m.keyed() {
		k.encrypt, k.authenticate, k.name = fill(32, 1), fill(m.keySize(), 2), fill(m.keySize(), 3)
	}
	if err := k.ready(); err != nil {
		t.Fatal(err)
	}
	return k
}

func newBuilder(t testing.TB, m mode) *builder {
	b := &builder{
		TB: t, keys: testKeys(t, m), codec: codecNone, perDir: 3, files: make(map[string][]byte), have: make(map[objectID]place),
		cut: func(rest int) int { return min(rest, 300) },
	}
	b.begin()
	return b
}

func (b *builder) begin() { b.log = []byte(segmentMagic) }

// end writes the segment and begins another one.
func (b *builder) end() {
	b.files[segmentName(b.number, b.perDir)] = b.log
	b.number++
	b.begin()
}

// object stores what is compressed already under an id.
func (b *builder) object(id objectID, content []byte) {
	b.have[id] = place{b.number, uint32(len(b.log))}
	b.log = appendEntry(b.log, tagPut, &id, b.keys.appendObject(nil, content, b.iv))
	b.iv += uint64(len(content)/16 + 1)
	if len(b.log) > 4000 {
		b.end()
	}
}

// put stores plain content once.
func (b *builder) put(plain []byte) objectID {
	id := b.keys.id(plain)
	if _, ok := b.have[id]; !ok {
		b.object(id, b.compress(plain))
	}
	return id
}

func (b *builder) delete(id objectID) {
	b.log = appendEntry(b.log, tagDelete, &id, nil)
	delete(b.have, id)
}

func (b *builder) compress(plain []byte) []byte {
	b.Helper()
	var out bytes.Buffer
	out.Write(appendCodec(nil, b.codec))
	var err error
	switch b.codec {
	case codecNone:
		out.Write(plain)
	case codecLZ4:
		packed := make([]byte, lz4.CompressBlockBound(len(plain)))
		n, failed := lz4.CompressBlock(plain, packed, nil)
		if err = failed; n == 0 {
			return append([]byte{0, 0}, plain...)
		}
		out.Write(packed[:n])
	case codecZlib:
		w := zlib.NewWriter(&out)
		_, err = w.Write(plain)
		w.Close()
	case codecLZMA:
		w, failed := xz.WriterConfig{NoCheckSum: true}.NewWriter(&out)
		if err = failed; err == nil {
			_, err = w.Write(plain)
			w.Close()
		}
	case codecZstd:
		w, failed := zstd.NewWriter(nil)
		if err = failed; err == nil {
			out.Write(w.EncodeAll(plain, nil))
		}
	}
	if err != nil {
		b.Fatal(err)
	}
	return out.Bytes()
}

// chunks stores content, cut into the given pieces.
func (b *builder) chunks(pieces ...string) []chunkRef {
	list := make([]chunkRef, 0, len(pieces))
	for _, p := range pieces {
		list = append(list, chunkRef{id: b.put([]byte(p)), size: uint32(len(p)), csize: uint32(len(p) + envelopeSize + codecSize)})
	}
	return list
}

// file makes an item of a file.
func (b *builder) file(path string, pieces ...string) item {
	it := item{path: path, mode: typeFile | 0o644, has: format.HasUID | format.HasGID | format.HasMtime, mtime: format.Time{Sec: int64(len(pieces))}, master: masterNo}
	it.chunks, it.hasChunks = b.chunks(pieces...), true
	return it
}

func dirItem(path string) item {
	return item{path: path, mode: typeDir | 0o755, has: format.HasUID | format.HasGID | format.HasMtime}
}

// slave makes an item of a hard link to another.
func slave(path, master string) item {
	return item{path: path, mode: typeFile | 0o644, has: format.HasUID | format.HasGID | format.HasMtime, source: master, hasSource: true}
}

// archive adds an archive of items, in their order.
func (b *builder) archive(name string, items ...item) {
	b.Helper()
	var stream []byte
	for i := range items {
		stream = items[i].appendPacked(stream)
	}
	b.rawArchive(name, stream)
}

// rawArchive adds an archive of a stream of items.
func (b *builder) rawArchive(name string, stream []byte) {
	b.Helper()
	b.clock++
	a := &archiveMeta{version: 1, name: name, hostname: "host", username: "user", time: fmt.Sprintf("2026-01-02T03:04:%02d.000000", b.clock)}
	for len(stream) > 0 {
		n := b.cut(len(stream))
		a.items = append(a.items, b.put(stream[:n]))
		stream = stream[n:]
	}
	if b.adapt != nil {
		b.adapt(a)
	}
	packed, err := a.pack(b.keys, make([]byte, tamSize))
	if err != nil {
		b.Fatal(err)
	}
	b.archives = append(b.archives, archiveRef{name: name, id: b.put(packed), time: a.time})
}

// commit writes the manifest and a commit, and returns the storage.
func (b *builder) commit() *mem.Store {
	b.Helper()
	m := &manifest{version: 1, timestamp: "2026-01-02T03:04:05.000000", archives: b.archives, tamRequired: b.keys.tamRequired}
	packed, err := m.pack(b.keys, make([]byte, tamSize))
	if err != nil {
		b.Fatal(err)
	}
	b.object(manifestID, append([]byte{0, 0}, packed...))
	b.end()
	b.log = append(b.log, commitEntry...)
	b.end()
	return b.store()
}

func (b *builder) store() *mem.Store {
	files := maps.Clone(b.files)
	files["config"] = fmt.Appendf(nil, "[repository]\nversion = 1\nsegments_per_dir = %d\nmax_segment_size = 1000\nappend_only = 0\nid = %x\n", b.perDir, b.keys.repository)
	return memory(b, files)
}

// on opens a repository with the keys that are known.
func (b *builder) on(st *mem.Store, opts Options) (*Repository, error) {
	opts.keys = b.keys
	return Open(context.Background(), st, opts)
}

func (b *builder) open() *Repository {
	b.Helper()
	r, err := b.on(b.commit(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	return r
}

// randomCut cuts items anywhere.
func randomCut(rng *rand.Rand, most int) func(int) int {
	return func(rest int) int { return min(rest, 1+rng.IntN(most)) }
}
