package restic

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	//lint:ignore SA1019 as in crypt.go
	"golang.org/x/crypto/poly1305"
	"golang.org/x/crypto/scrypt"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/store/mem"
)

// builder writes repositories as restic does, and as it does not.
type builder struct {
	testing.TB
	st         *mem.Store
	encrypt    []byte
	k, r       []byte
	compress   bool
	noIndex    bool
	pending    [kinds][]builtBlob
	have       map[format.ID]bool
	packBlobs  int // blobs of a pack
	packs      []map[string]any
	timeOfNext time.Time
}

type builtBlob struct {
	id    format.ID
	plain []byte
}

func newBuilder(t testing.TB) *builder {
	b := &builder{TB: t, st: mem.New(), encrypt: random(32), k: random(16), r: random(16), compress: true,
		have: map[format.ID]bool{}, packBlobs: 7, timeOfNext: time.Date(2024, 5, 6, 7, 8, 9, 123456789, time.UTC)}
	b.create("config", b.seal(b.json(map[string]any{"version": 2, "id": hex.EncodeToString(random(32)), "chunker_polynomial": "3da3358b4dc173"})))
	return b
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func (b *builder) create(name string, data []byte) {
	b.Helper()
	if err := b.st.Create(context.Background(), name, data); err != nil {
		b.Fatal(err)
	}
}

func (b *builder) json(v any) []byte {
	out, err := json.Marshal(v)
	if err != nil {
		b.Fatal(err)
	}
	return out
}

// seal encrypts an item.
func (b *builder) seal(plain []byte) []byte { return sealWith(b.encrypt, b.k, b.r, plain) }

func sealWith(encrypt, k, r, plain []byte) []byte {
	block, _ := aes.NewCipher(encrypt)
	nonce, _ := aes.NewCipher(k)
	out := append(random(16), plain...)
	cipher.NewCTR(block, out[:16]).XORKeyStream(out[16:], plain)
	var key [32]byte
	copy(key[:], r)
	nonce.Encrypt(key[16:], out[:16])
	var mac [16]byte
	poly1305.Sum(&mac, out[16:], &key)
	return append(out, mac[:]...)
}

var testEncoder, _ = zstd.NewWriter(nil, zstd.WithEncoderCRC(false))

// file stores an unpacked file.
func (b *builder) file(kind string, v any) format.ID {
	plain := b.json(v)
	if b.compress {
		plain = testEncoder.EncodeAll(plain, []byte{2})
	}
	sealed := b.seal(plain)
	id := format.SumID(sealed)
	b.create(kind+"/"+id.String(), sealed)
	return id
}

// blob stores a blob once and returns its id.
func (b *builder) blob(k kind, plain []byte) format.ID {
	id := format.SumID(plain)
	if !b.have[id] {
		b.have[id] = true
		b.pending[k] = append(b.pending[k], builtBlob{id, plain})
		if len(b.pending[k]) == b.packBlobs {
			b.flush(k)
		}
	}
	return id
}

// flush writes a pack.
func (b *builder) flush(k kind) {
	if len(b.pending[k]) == 0 {
		return
	}
	var pack, header []byte
	var blobs []map[string]any
	for _, p := range b.pending[k] {
		what, content := byte(k), p.plain
		entry := map[string]any{"id": p.id.String(), "type": k.String(), "offset": len(pack)}
		if b.compress {
			what |= 2
			content = testEncoder.EncodeAll(p.plain, nil)
			entry["uncompressed_length"] = len(p.plain)
		}
		sealed := b.seal(content)
		entry["length"] = len(sealed)
		blobs = append(blobs, entry)
		pack = append(pack, sealed...)
		header = binary.LittleEndian.AppendUint32(append(header, what), uint32(len(sealed)))
		if b.compress {
			header = binary.LittleEndian.AppendUint32(header, uint32(len(p.plain)))
		}
		header = append(header, p.id[:]...)
	}
	sealed := b.seal(header)
	pack = binary.LittleEndian.AppendUint32(append(pack, sealed...), uint32(len(sealed)))
	id := format.SumID(pack)
	b.create(packName(id), pack)
	b.packs = append(b.packs, map[string]any{"id": id.String(), "blobs": blobs})
	b.pending[k] = nil
}

// testNode is a node of a directory as a test describes it. What it does not
// describe, extra gives as JSON fields.
type testNode struct {
	content  [][]byte             // of a file: its chunks
	children map[string]*testNode // of a directory
	extra    map[string]any
}

// tree stores a directory and what is below.
func (b *builder) tree(children map[string]*testNode) format.ID {
	names := make([]string, 0, len(children))
	for name := range children {
		names = append(names, name)
	}
	slices.Sort(names)
	nodes := []map[string]any{}
	for _, name := range names {
		nodes = append(nodes, b.node(name, children[name]))
	}
	return b.blob(treeBlob, append(b.json(map[string]any{"nodes": nodes}), '\n'))
}

func (b *builder) node(name string, n *testNode) map[string]any {
	quoted := strconv.Quote(name)
	out := map[string]any{"name": quoted[1 : len(quoted)-1], "mode": 0o644, "uid": 1000, "gid": 100, "mtime": "2020-01-02T03:04:05.6Z"}
	if n.children != nil {
		out["type"], out["mode"], out["content"] = "dir", 1<<31|0o755, nil
		out["subtree"] = b.tree(n.children).String()
	} else {
		ids, size := []string{}, 0
		for _, c := range n.content {
			ids = append(ids, b.blob(dataBlob, c).String())
			size += len(c)
		}
		out["type"], out["content"], out["size"] = "file", ids, size
	}
	for key, value := range n.extra {
		out[key] = value
	}
	return out
}

// snapshot stores a snapshot of a tree.
func (b *builder) snapshot(tree format.ID) format.ID {
	b.timeOfNext = b.timeOfNext.Add(time.Hour)
	return b.file("snapshots", map[string]any{"time": b.timeOfNext, "tree": tree.String(), "paths": []string{"/x"}, "hostname": "h"})
}

// open writes what is pending and opens the repository.
func (b *builder) open() *Repository {
	b.Helper()
	b.flush(dataBlob)
	b.flush(treeBlob)
	if !b.noIndex {
		b.file("index", map[string]any{"packs": b.packs})
		b.packs = nil
	}
	return b.on(b.st)
}

// on opens the repository as it lies in st.
func (b *builder) on(st *mem.Store) *Repository {
	b.Helper()
	r := newRepository(st, Options{})
	var err error
	if r.keys, err = newKeys(b.encrypt, b.k, b.r); err != nil {
		b.Fatal(err)
	}
	return r
}

// addKey stores a key file, with parameters that cost nothing.
func (b *builder) addKey(passphrase string, change func(map[string]any)) {
	b.Helper()
	salt := random(64)
	derived, err := scrypt.Key([]byte(passphrase), salt, 2, 1, 1, 64)
	if err != nil {
		b.Fatal(err)
	}
	b64 := base64.StdEncoding.EncodeToString
	master := b.json(map[string]any{"mac": map[string]any{"k": b64(b.k), "r": b64(b.r)}, "encrypt": b64(b.encrypt)})
	file := map[string]any{"kdf": "scrypt", "N": 2, "r": 1, "p": 1, "salt": b64(salt), "data": b64(sealWith(derived[:32], derived[32:48], derived[48:], master))}
	if change != nil {
		change(file)
	}
	content := b.json(file)
	b.create(fmt.Sprintf("keys/%s", format.SumID(content)), content)
}
