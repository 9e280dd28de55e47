package pack

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/internal/vectors"
	"github.com/bk-backup/bk/repo/seal"
)

// zstdFrame is zstdPlain in one frame. It stands here as bytes, since encoders
// do not promise to make the same ones again.
const zstdFrame = "28b52ffd0048ad0100c40274686520717569636b2062726f776e20666f78206a756d7073206f76657220746865206c617a7920646f670a01000cfa2a5506"

var zstdPlain = strings.Repeat("the quick brown fox jumps over the lazy dog\n", 20)

type packVector struct {
	Suite      seal.Suite    `json:"suite"`
	Epoch      uint32        `json:"epoch"`
	EpochKey   vectors.Hex   `json:"epoch_key"`
	LabelKey   vectors.Hex   `json:"label_key"`
	Repository vectors.Hex   `json:"repository"`
	Group      vectors.Hex   `json:"group"`
	Writer     vectors.Hex   `json:"writer"`
	Chunks     []chunkVector `json:"chunks"`
	// Directory and Trailer are plaintexts, without the directory's padding.
	Directory vectors.Hex `json:"directory"`
	Trailer   vectors.Hex `json:"trailer"`
	Name      string      `json:"name"`
	Object    vectors.Hex `json:"object"`
}

type chunkVector struct {
	Kind    seal.ChunkKind `json:"kind"`
	Plain   vectors.Hex    `json:"plain"`
	ID      vectors.Hex    `json:"id"`
	Label   vectors.Hex    `json:"label"`
	Codec   Codec          `json:"codec"`
	Payload vectors.Hex    `json:"payload"`
	Offset  uint32         `json:"offset"`
	Stored  uint32         `json:"stored_size"`
}

// groupKeys returns the keys of the group that all vectors here belong to.
func groupKeys(t *testing.T) (key, labelKey seal.Key, client seal.ClientID, h seal.Header) {
	r := vectors.Rand("group")
	h.Epoch = 2
	for _, b := range [][]byte{key[:], labelKey[:], client[:], h.Repository[:], h.Owner[:]} {
		vectors.Fill(t, r, b)
	}
	return key, labelKey, client, h
}

// makePack makes the vector of a pack.
func makePack(t *testing.T, suite seal.Suite) (packVector, Listed) {
	r := vectors.Rand("pack " + suite.String())
	key, labelKey, client, h := groupKeys(t)
	h.Kind, h.Suite = seal.KindDataPack, suite
	frame, err := hex.DecodeString(zstdFrame)
	if err != nil {
		t.Fatal(err)
	}
	w, err := NewWriter(&key, h, client, r)
	if err != nil {
		t.Fatal(err)
	}
	v := packVector{Suite: suite, Epoch: h.Epoch, EpochKey: key[:], LabelKey: labelKey[:], Repository: h.Repository[:], Group: h.Owner[:], Writer: client[:]}
	for _, c := range []chunkVector{
		{Plain: vectors.Hex("hello\n"), Payload: vectors.Hex("hello\n")},
		{Plain: vectors.Hex(zstdPlain), Codec: CodecZstd, Payload: frame},
		{Plain: vectors.Hex{0}, Payload: vectors.Hex{0}},
	} {
		c.Kind = seal.ChunkData
		id := format.SumID(c.Plain)
		label := seal.NewLabeler(&labelKey).LabelOf(c.Kind, id)
		if err := w.Add(label, c.Codec, uint32(len(c.Plain)), c.Payload); err != nil {
			t.Fatal(err)
		}
		c.ID, c.Label = id[:], label[:]
		v.Chunks = append(v.Chunks, c)
	}
	parts, info, entries, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	object := bytes.Join(parts, nil)
	for i, e := range entries {
		v.Chunks[i].Offset, v.Chunks[i].Stored = e.Offset, e.StoredSize
	}
	v.Name, v.Object = info.ObjectName(), object
	v.Directory, v.Trailer = openDirectory(t, &key, object)
	return v, Listed{info, entries}
}

// openDirectory opens directory and trailer by hand.
func openDirectory(t *testing.T, key *seal.Key, object []byte) (directory, trailer []byte) {
	h, err := seal.ParseHeader(object)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := seal.NewKeys(key, &h)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := keys.AEAD(seal.PurposeDirectory)
	if err != nil {
		t.Fatal(err)
	}
	end := len(object) - trailerSize
	trailer, err = aead.Open(nil, 1, object[end:], object[:seal.HeaderSize])
	if err != nil {
		t.Fatal(err)
	}
	offset := int(trailer[6])<<8 | int(trailer[7])
	directory, err = aead.Open(nil, 0, object[offset:end], object[:seal.HeaderSize])
	if err != nil {
		t.Fatal(err)
	}
	return directory[:directorySizeMin+3*entrySize], trailer
}

func TestVectorsPacks(t *testing.T) {
	var made []packVector
	for _, suite := range seal.Suites() {
		v, _ := makePack(t, suite)
		made = append(made, v)
	}
	decoder, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer decoder.Close()
	for _, v := range vectors.Check(t, "packs.json", made) {
		secrets := func(group seal.GroupID, epoch uint32) (*seal.Key, error) { return (*seal.Key)(v.EpochKey), nil }
		st := stored(t, v.Name, v.Object)
		listed, group, err := ReadDirectory(t.Context(), st, v.Name, int64(len(v.Object)), seal.RepositoryID(v.Repository), secrets)
		if err != nil {
			t.Fatal(err)
		}
		o, err := NewOpener((*seal.Key)(v.EpochKey), seal.Header{Repository: seal.RepositoryID(v.Repository), Owner: group}, &listed.Info)
		if err != nil {
			t.Fatal(err)
		}
		for i, c := range v.Chunks {
			e := listed.Entries[i]
			want := Entry{seal.Label(c.Label), c.Codec, uint32(len(c.Plain)), c.Stored, c.Offset}
			if diff := cmp.Diff(want, e); diff != "" {
				t.Error(diff)
			}
			plain, err := o.OpenChunk(nil, uint32(i), &e, v.Object[e.Offset:][:e.StoredSize])
			if err != nil {
				t.Fatal(err)
			}
			if c.Codec == CodecZstd {
				if plain, err = decoder.DecodeAll(plain, nil); err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(plain, c.Plain) || format.SumID(plain) != format.ID(c.ID) {
				t.Errorf("chunk %d is something else", i)
			}
		}
	}
}

type indexVector struct {
	Superseded []vectors.Hex `json:"superseded"`
	Packs      []string      `json:"packs"` // names; the packs of packs.json
	Body       vectors.Hex   `json:"body"`
	EpochKey   vectors.Hex   `json:"epoch_key"`
	Repository vectors.Hex   `json:"repository"`
	Group      vectors.Hex   `json:"group"`
	Name       string        `json:"name"`
	Object     vectors.Hex   `json:"object"`
}

func TestVectorsIndex(t *testing.T) {
	r := vectors.Rand("index")
	var packs []Listed
	var names []string
	for _, suite := range seal.Suites() {
		v, listed := makePack(t, suite)
		packs, names = append(packs, listed), append(names, v.Name)
	}
	var superseded [32]byte
	vectors.Fill(t, r, superseded[:])
	key, _, _, h := groupKeys(t)
	h.Kind, h.Suite = seal.KindIndex, seal.SuiteAES256GCM
	body := AppendIndex(nil, [][32]byte{superseded}, packs)
	object, err := seal.SealObject(&key, h, body, r)
	if err != nil {
		t.Fatal(err)
	}
	name := seal.Name{Kind: seal.KindIndex, Sum: format.SumID(object)}.String()
	made := indexVector{[]vectors.Hex{superseded[:]}, names, body, key[:], h.Repository[:], h.Owner[:], name, object}

	v := vectors.Check(t, "index.json", made)
	want := seal.Expect{Name: v.Name, Kind: seal.KindIndex, Repository: seal.RepositoryID(v.Repository), Owner: [16]byte(v.Group)}
	opened, _, err := seal.OpenObject((*seal.Key)(v.EpochKey), v.Object, want)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(opened, v.Body) {
		t.Error("the index holds another body")
	}
	got, err := collect(opened)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(packs, got); diff != "" {
		t.Error(diff)
	}
}
