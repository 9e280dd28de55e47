package keyring

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/repo/internal/vectors"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store/mem"
)

// keyringVector is all that a new repository consists of, and what it opens to.
type keyringVector struct {
	Comment    string                 `json:"comment"`
	Suite      seal.Suite             `json:"suite"`
	Passphrase string                 `json:"passphrase"`
	Repository vectors.Hex            `json:"repository"`
	Objects    map[string]vectors.Hex `json:"objects"`
	Secret     vectors.Hex            `json:"secret"` // what the passphrase leads to
	ClientKey  vectors.Hex            `json:"client_key"`
	Client     vectors.Hex            `json:"client"`
	Chunk      vectors.Hex            `json:"client_chunk"` // plaintext, msgpack
	Sign       vectors.Hex            `json:"sign"`
	PublicKey  vectors.Hex            `json:"public_key"`
	Group      vectors.Hex            `json:"group"`
	Label      vectors.Hex            `json:"label_key"`
	Split      vectors.Hex            `json:"split_key"`
	Polynomial uint64                 `json:"polynomial,omitempty"` // taken over from restic
	Seed       *uint32                `json:"seed,omitempty"`       // taken over from borg
	Epoch      uint32                 `json:"epoch"`
	EpochKey   vectors.Hex            `json:"epoch_key"`
	Body       vectors.Hex            `json:"signed_body"`
	Snapshot   vectors.Hex            `json:"signed_as_snapshot"`
}

func TestVectorsKeyring(t *testing.T) {
	var madeAll []keyringVector
	for _, suite := range seal.Suites() {
		madeAll = append(madeAll, makeVector(t, suite, ChunkerKeys{}))
	}
	madeAll = append(madeAll, makeVector(t, seal.SuiteAES256GCM, ChunkerKeys{Polynomial: 0x3da3358b4dc173}))
	madeAll = append(madeAll, makeVector(t, seal.SuiteAES256GCM, ChunkerKeys{HasSeed: true}))
	madeAll = append(madeAll, makeVector(t, seal.SuiteAES256GCM, ChunkerKeys{Seed: 0x9e3779b9, HasSeed: true}))
	for _, v := range vectors.Check(t, "keyring.json", madeAll) {
		st := mem.New()
		for name, object := range v.Objects {
			if err := st.Create(t.Context(), name, object); err != nil {
				t.Fatal(err)
			}
		}
		k, err := Open(t.Context(), st, pass(v.Passphrase))
		if err != nil {
			t.Fatal(err)
		}
		got := makeHex(k)
		got.Comment, got.Passphrase, got.Objects, got.Secret = v.Comment, v.Passphrase, v.Objects, v.Secret
		if diff := cmp.Diff(v, got); diff != "" {
			t.Error(diff)
		}
	}
}

func makeVector(t *testing.T, suite seal.Suite, keys ChunkerKeys) keyringVector {
	o := testInit(vectors.Rand("keyring " + suite.String()))
	o.Suite, o.ChunkerKeys = suite, keys
	o.Argon2 = Argon2{MemoryKiB: 256, Passes: 2, Threads: 4}
	o.Passphrase = "passphrase with umlauts: äöü"
	st := mem.New()
	k, err := Init(t.Context(), st, o)
	if err != nil {
		t.Fatal(err)
	}
	v := makeHex(k)
	v.Comment = "Argon2id is cheap here; a new repository costs 65536 KiB, 3 passes, 4 threads"
	v.Passphrase = o.Passphrase
	v.Objects = map[string]vectors.Hex{}
	for _, name := range names(t, st) {
		stored, err := st.Get(t.Context(), name, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		v.Objects[name] = stored
	}
	list, err := readCredentials(t.Context(), st, k.Repository())
	if err != nil || len(list) != 1 {
		t.Fatal(len(list), err)
	}
	secret, err := Passphrase(o.Passphrase, Argon2{}).Unwrap(context.Background(), list[0].params)
	if err != nil {
		t.Fatal(err)
	}
	v.Secret = secret[:]
	return v
}

// makeHex shows what a keyring holds.
func makeHex(k *Keyring) keyringVector {
	repository, client, own := k.Repository(), k.Client(), k.Own()
	epoch, key := own.CurrentEpoch()
	body := []byte("body of a snapshot")
	var seed *uint32
	if own.ChunkerKeys.HasSeed {
		seed = &own.ChunkerKeys.Seed
	}
	return keyringVector{
		Suite: k.Suite(), Repository: repository[:], ClientKey: k.clientKey[:], Client: client[:], Chunk: k.chunk.encode(),
		Sign: k.chunk.sign[:], PublicKey: vectors.Hex(k.PublicKey()), Group: own.ID[:], Label: own.Label[:], Split: own.Split[:], Polynomial: own.ChunkerKeys.Polynomial, Seed: seed,
		Epoch: epoch, EpochKey: key[:], Body: body, Snapshot: k.SignSnapshot(body),
	}
}
