package repo

import (
	"slices"
	"testing"
	"time"

	"github.com/bk-backup/bk/repo/internal/mp"
	"github.com/bk-backup/bk/repo/internal/vectors"
	"github.com/bk-backup/bk/repo/keyring"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
)

// epochVector is a sealedVector of a group with several epochs.
type epochVector struct {
	sealedVector
	Received []int64 `json:"received,omitempty"`
}

// epochsRepo makes a repository with two epochs.
func epochsRepo(t *testing.T) *Repository {
	r := vectorRepo(t, "epochs", seal.SuiteAES256GCM)
	e := keyring.Editor{Keyring: r.keys, Store: r.store, Rand: vectors.Rand("epoch 2")}
	if _, err := e.AddEpoch(t.Context(), r.own.ID); err != nil {
		t.Fatal(err)
	}
	return r
}

func makeEpochs(t *testing.T) (made []epochVector) {
	r := epochsRepo(t)
	add := func(comment, refused string, name seal.Name, plain, body []byte, received []int64) {
		v := sealVector(t, r, comment, name, plain, body)
		v.Epoch, _ = r.latest.group().CurrentEpoch()
		v.EpochKey = slices.Clone(r.latest.group().EpochKey(v.Epoch)[:])
		v.Refused = refused
		made = append(made, epochVector{v, received})
	}
	again := func(plain []byte) []byte {
		out, err := keyring.Resealed(plain, vectorTime)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	stamp := []int64{vectorTime.Unix(), int64(vectorTime.Nanosecond())}
	snap := vectorSnapshots(r)[0]
	salt := vectorID(0xa0)
	body, err := r.encodeSnapshot(snap, salt[:])
	if err != nil {
		t.Fatal(err)
	}
	client, repository := r.keys.Client(), r.keys.Repository()
	id := vectorID(7)
	forget := mp.Encode(&forgetBody{Client: client[:], Repository: repository[:], Slots: make([]byte, 40), Snapshots: [][]byte{id[:]}, Time: stamp})
	forgetName := seal.Name{Kind: seal.KindForget, Client: client, Session: seal.SessionID{1}}

	add("a snapshot under epoch 1", "", slot(snap), r.keys.SignSnapshot(body), body, nil)
	if err := r.reloadKeys(t.Context()); err != nil {
		t.Fatal(err)
	}
	name := slot(snap)
	name.Resealed = 2
	add("the same snapshot under epoch 2: its id is the same", "", name, again(r.keys.SignSnapshot(body)), body, stamp)
	forgetName.Resealed = 2
	add("a forget object that was sealed again", "", forgetName, again(r.keys.SignForget(forget)), forget, stamp)
	name.Number = 1
	add("refused", "it lies in another slot", name, again(r.keys.SignSnapshot(body)), body, nil)
	name = slot(snap)
	name.Resealed = 3
	add("refused", "it was sealed again and does not say when it was received", name, r.keys.SignSnapshot(body), body, nil)
	name.Resealed, name.Number = 0, 2
	made = append(made, epochVector{voidVector(t, r, name), nil})
	return made
}

func TestVectorsEpochs(t *testing.T) {
	r := epochsRepo(t)
	for _, v := range vectors.Check(t, "epochs.json", makeEpochs(t)) {
		if err := r.store.Create(t.Context(), v.Name, v.Object); err != nil {
			t.Fatal(err)
		}
		name, ok := seal.ParseName(v.Name)
		if !ok {
			t.Fatalf("%s is no name", v.Name)
		}
		if name.Kind == seal.KindForget {
			if b, err := r.readForget(t.Context(), v.Name); err != nil || b.Time[0] != vectorTime.Unix() {
				t.Errorf("%s: %v", v.Comment, err)
			}
			continue
		}
		created := time.Unix(1, 0)
		s, err := r.loadSnapshot(t.Context(), store.Info{Name: v.Name, Created: created})
		if (err != nil) != (v.Refused != "") || (s == nil) != (v.Void || err != nil) {
			t.Errorf("%s %q: %v, %v", v.Comment, v.Refused, s, err)
		}
		if s == nil {
			continue
		}
		want := created
		if v.Received != nil {
			want = time.Unix(v.Received[0], v.Received[1])
		}
		if !slices.Equal(s.ID[:], v.ID) || !s.Received.Equal(want) {
			t.Errorf("%s: id %s, received %v", v.Comment, s.ID, s.Received)
		}
	}
}
