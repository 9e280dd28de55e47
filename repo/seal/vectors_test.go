package seal

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/internal/vectors"
)

type labelVector struct {
	LabelKey  vectors.Hex `json:"label_key"`
	ChunkKind ChunkKind   `json:"chunk_kind"`
	ID        vectors.Hex `json:"id"`
	Label     vectors.Hex `json:"label"`
}

func TestVectorsLabels(t *testing.T) {
	r := vectors.Rand("labels")
	var made []labelVector
	for _, kind := range []ChunkKind{ChunkData, ChunkMeta} {
		var key Key
		vectors.Fill(t, r, key[:])
		id := format.SumID([]byte("hello\n"))
		label := NewLabeler(&key).LabelOf(kind, id)
		made = append(made, labelVector{key[:], kind, id[:], label[:]})
	}
	for _, v := range vectors.Check(t, "labels.json", made) {
		if got := NewLabeler((*Key)(v.LabelKey)).LabelOf(v.ChunkKind, format.ID(v.ID)); !bytes.Equal(got[:], v.Label) {
			t.Errorf("label of %x is %s, not %x", v.ID, got, v.Label)
		}
	}
}

type sizeVector struct {
	Size   int64 `json:"size"`
	Padded int64 `json:"padded"`
}

func TestVectorsSizes(t *testing.T) {
	var made []sizeVector
	for _, n := range []int64{0, 1, 65535, 65536, 65537, 131072, 131073, 1<<20 - 1, 1 << 20, 1<<20 + 1, 1<<20 + 32768, 1<<20 + 32769,
		2<<20 - 1, 2<<20 + 1, 16<<20 - 1, 16 << 20, 16<<20 + 1, 16<<20 + 524288, 17_000_000, 1<<32 - 1, 1 << 32, 1<<32 + 1, 1_000_000_000_000} {
		made = append(made, sizeVector{n, PaddedSize(n)})
	}
	for _, v := range vectors.Check(t, "sizes.json", made) {
		if got := PaddedSize(v.Size); got != v.Padded {
			t.Errorf("padded(%d) is %d, not %d", v.Size, got, v.Padded)
		}
	}
}

// keysVector is the key schedule of one object.
type keysVector struct {
	Secret     vectors.Hex `json:"secret"`
	Header     vectors.Hex `json:"header"`
	Commitment vectors.Hex `json:"commitment"`
	Body       vectors.Hex `json:"body"`
	Chunk      vectors.Hex `json:"chunk"`
	Directory  vectors.Hex `json:"directory"`
}

func TestVectorsKeys(t *testing.T) {
	r := vectors.Rand("keys")
	var made []keysVector
	for _, h := range []Header{
		{Kind: KindClient, Suite: SuiteAES256GCM},
		{Kind: KindDataPack, Suite: SuiteXChaCha20Poly1305, Epoch: 1},
		{Kind: KindSnapshot, Suite: SuiteAES256GCM, Epoch: 0x01020304},
	} {
		var secret Key
		vectors.Fill(t, r, secret[:])
		vectors.Fill(t, r, h.Repository[:])
		vectors.Fill(t, r, h.Owner[:])
		keys, err := NewObjectKeys(&secret, &h, r)
		if err != nil {
			t.Fatal(err)
		}
		v := keysVector{Secret: secret[:], Header: h.Append(nil)}
		for dst, p := range map[*vectors.Hex]Purpose{
			&v.Commitment: PurposeCommitment, &v.Body: PurposeBody, &v.Chunk: PurposeChunk, &v.Directory: PurposeDirectory,
		} {
			key, err := keys.Key(p)
			if err != nil {
				t.Fatal(err)
			}
			*dst = key[:]
		}
		made = append(made, v)
	}
	for _, v := range vectors.Check(t, "keys.json", made) {
		h, err := ParseHeader(v.Header)
		if err != nil {
			t.Fatal(err)
		}
		keys, err := NewKeys((*Key)(v.Secret), &h)
		if err != nil {
			t.Fatal(err)
		}
		if err := keys.Check(&h); err != nil {
			t.Error(err)
		}
		if body, err := keys.Key(PurposeBody); err != nil || !bytes.Equal(body[:], v.Body) {
			t.Errorf("body key is %x, not %x (%v)", body[:], v.Body, err)
		}
	}
}

type objectVector struct {
	Comment string      `json:"comment"`
	Secret  vectors.Hex `json:"secret"`
	Kind    Kind        `json:"kind"`
	Suite   Suite       `json:"suite"`
	Epoch   uint32      `json:"epoch"`
	Repo    vectors.Hex `json:"repository"`
	Group   vectors.Hex `json:"group"`
	Body    vectors.Hex `json:"body"`
	Object  vectors.Hex `json:"object"`
}

func TestVectorsObjects(t *testing.T) {
	r := vectors.Rand("objects")
	var made []objectVector
	for _, suite := range Suites() {
		for _, size := range []int{5, 845} {
			var secret Key
			h := Header{Kind: KindSnapshot, Suite: suite, Epoch: 2}
			body := make([]byte, size)
			for _, b := range [][]byte{secret[:], h.Repository[:], h.Owner[:], body} {
				vectors.Fill(t, r, b)
			}
			object, err := SealObject(&secret, h, body, r)
			if err != nil {
				t.Fatal(err)
			}
			made = append(made, objectVector{suite.String(), secret[:], h.Kind, suite, h.Epoch, h.Repository[:], h.Owner[:], body, object})
		}
	}
	for _, v := range vectors.Check(t, "objects.json", made) {
		body, h, err := OpenObject((*Key)(v.Secret), v.Object, Expect{Kind: v.Kind, Repository: RepositoryID(v.Repo), Owner: [16]byte(v.Group)})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]byte(v.Body), body); diff != "" || h.Suite != v.Suite || h.Epoch != v.Epoch {
			t.Errorf("%s: header %v, body differs: %s", v.Comment, h, diff)
		}
	}
}
