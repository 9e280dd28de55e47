package repo

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/internal/mp"
	"github.com/bk-backup/bk/repo/internal/vectors"
	"github.com/bk-backup/bk/repo/keyring"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/store/mem"
)

// vectorKeys are the keys that an object of a vector is made with.
type vectorKeys struct {
	Suite      seal.Suite  `json:"suite"`
	Repository vectors.Hex `json:"repository"`
	Client     vectors.Hex `json:"client"`
	PublicKey  vectors.Hex `json:"public_key"` // the client's, for signatures
	Group      vectors.Hex `json:"group"`
	Epoch      uint32      `json:"epoch"`
	EpochKey   vectors.Hex `json:"epoch_key"`
}

// sealedVector is an object and what it opens to.
type sealedVector struct {
	Comment string `json:"comment"`
	Refused string `json:"refused,omitempty"` // why readers refuse it
	Void    bool   `json:"void,omitempty"`
	vectorKeys
	Name   string      `json:"name"`
	Plain  vectors.Hex `json:"plain"` // the sealed body
	Body   vectors.Hex `json:"body,omitempty"`
	ID     vectors.Hex `json:"id,omitempty"` // SHA-256 of body
	Object vectors.Hex `json:"object"`
}

var vectorTime = time.Unix(1_700_000_000, 5)

// vectorRepo makes a repository whose keys depend on seed alone.
func vectorRepo(t *testing.T, seed string, suite seal.Suite) *Repository {
	t.Helper()
	r, err := Init(t.Context(), mem.New(), keyring.InitOptions{Suite: suite, Passphrase: "p", Argon2: cheap},
		Options{Rand: vectors.Rand(seed), Now: func() time.Time { return vectorTime }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func keysOf(r *Repository) vectorKeys {
	repository, client := r.keys.Repository(), r.keys.Client()
	epoch, key := r.own.CurrentEpoch()
	return vectorKeys{r.keys.Suite(), repository[:], client[:], vectors.Hex(r.keys.PublicKey()), r.own.ID[:], epoch, key[:]}
}

// sealVector stores an object, signed if body is given, and returns its vector.
func sealVector(t *testing.T, r *Repository, comment string, name seal.Name, plain, body []byte) sealedVector {
	t.Helper()
	if err := r.createObject(t.Context(), name.String(), name.Kind, plain); err != nil {
		t.Fatal(err)
	}
	stored, err := r.store.Get(t.Context(), name.String(), seal.ObjectSizeMax)
	if err != nil {
		t.Fatal(err)
	}
	v := sealedVector{Comment: comment, vectorKeys: keysOf(r), Name: name.String(), Plain: plain, Body: body, Object: stored}
	if body != nil {
		id := format.SumID(body)
		v.ID = id[:]
	}
	return v
}

// voidVector takes a slot. It is sealed under the label key, and its epoch is 0.
func voidVector(t *testing.T, r *Repository, name seal.Name) sealedVector {
	t.Helper()
	if err := r.createVoid(t.Context(), name.String()); err != nil {
		t.Fatal(err)
	}
	stored, err := r.store.Get(t.Context(), name.String(), seal.ObjectSizeMax)
	if err != nil {
		t.Fatal(err)
	}
	v := sealedVector{Comment: "a slot that was taken from a session", Void: true, vectorKeys: keysOf(r), Name: name.String(), Plain: voidBody, Object: stored}
	v.Epoch, v.EpochKey = 0, r.own.Label[:]
	return v
}

func vectorID(b byte) (id format.ID) {
	for i := range id {
		id[i] = b
	}
	return id
}

func vectorSnapshots(r *Repository) []*Snapshot {
	first := &Snapshot{
		Sequence: 1, Root: vectorID(1), Entries: 3, Bytes: 1 << 33,
		Meta: format.Snapshot{
			Time: &format.Time{Sec: -1, Nsec: 500_000_000}, Host: "box", User: "me\xff", Roots: []string{"etc", "home/me"},
			Tags: []string{"b", "a"}, Comment: "the first",
		},
	}
	second := &Snapshot{
		Number: 1, Sequence: 2, Heads: []format.ID{vectorID(2), vectorID(3)}, Root: vectorID(4), Imported: vectorID(5),
		Losses: []format.Loss{{Kind: "unreadable", Count: 17, Paths: []string{"root/\xfe", "x"}}, {Kind: "xattr", Count: 1}},
		Meta: format.Snapshot{
			Origin: &format.Origin{System: "restic", Repository: "r", ID: "\x01\x02"},
			Via:    []format.Via{{From: vectorID(6), Stage: "bk-filter x"}},
		},
	}
	for _, s := range []*Snapshot{first, second} {
		s.Client, s.Session = r.keys.Client(), seal.SessionID{15: 9}
	}
	return []*Snapshot{first, second}
}

func slot(s *Snapshot) seal.Name {
	return seal.Name{Kind: seal.KindSnapshot, Client: s.Client, Session: s.Session, Number: s.Number}
}

// makeSnapshots makes the vectors of snapshots, good and bad.
func makeSnapshots(t *testing.T, suite seal.Suite) []sealedVector {
	r, other := vectorRepo(t, "snapshots "+suite.String(), suite), vectorRepo(t, "another repository", suite)
	var made []sealedVector
	encode := func(in *Repository, s *Snapshot) []byte {
		salt := vectorID(0xa0 + byte(s.Number))
		body, err := in.encodeSnapshot(s, salt[:])
		if err != nil {
			t.Fatal(err)
		}
		return body
	}
	list := vectorSnapshots(r)
	for i, comment := range []string{"a backup", "an imported snapshot with losses"} {
		body := encode(r, list[i])
		made = append(made, sealVector(t, r, comment, slot(list[i]), r.keys.SignSnapshot(body), body))
	}
	name := slot(list[0])
	add := func(number uint64, refused string, plain, body []byte) {
		name.Number = number
		v := sealVector(t, r, "refused", name, plain, body)
		v.Refused = refused
		made = append(made, v)
	}
	name.Number = 2
	made = append(made, voidVector(t, r, name))

	s := *list[0]
	s.Number = 3
	body := encode(r, &s)
	add(3, "the signature is another client's", other.keys.SignSnapshot(body), body)
	s.Number = 4
	body = encode(r, &s)
	add(4, "the signature is one of a forget object", r.keys.SignForget(body), body)
	add(5, "it belongs under another name", r.keys.SignSnapshot(body), body)
	s.Number = 6
	body = encode(other, &s)
	add(6, "its body is of another repository", r.keys.SignSnapshot(body), body)
	return made
}

func TestVectorsSnapshots(t *testing.T) {
	var made []sealedVector
	for _, suite := range seal.Suites() {
		made = append(made, makeSnapshots(t, suite)...)
	}
	held := vectors.Check(t, "snapshots.json", made)
	for n, suite := range seal.Suites() {
		r := vectorRepo(t, "snapshots "+suite.String(), suite)
		part := held[n*len(held)/2:][:len(held)/2]
		var got []*Snapshot
		for _, v := range part {
			if err := r.store.Create(t.Context(), v.Name, v.Object); err != nil {
				t.Fatal(err)
			}
			s, err := r.loadSnapshot(t.Context(), store.Info{Name: v.Name})
			if (err != nil) != (v.Refused != "") || (s == nil) != (v.Void || err != nil) {
				t.Errorf("%s %q: %v, %v", v.Comment, v.Refused, s, err)
			}
			if s == nil {
				continue
			}
			if !slices.Equal(s.ID[:], v.ID) {
				t.Errorf("%s: id %s, want %x", v.Comment, s.ID, v.ID)
			}
			got = append(got, s)
		}
		want := vectorSnapshots(r)
		for i, s := range want {
			s.ID = got[i].ID
			s.Meta.ID = s.ID
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.IgnoreUnexported(Snapshot{})); diff != "" {
			t.Error(diff)
		}
	}
}

func TestVectorsSession(t *testing.T) {
	r := vectorRepo(t, "session", seal.SuiteAES256GCM)
	client, session := r.keys.Client(), seal.SessionID{0x17, 0x97, 9: 3}
	body := mp.Encode(&sessionBody{
		Begun: []int64{vectorTime.Unix(), int64(vectorTime.Nanosecond())}, Client: client[:], Host: []byte("box"),
		Pid: 4711, Program: "bk-backup", Session: session[:],
	})
	name := seal.Name{Kind: seal.KindSession, Client: client, Session: session}
	v := vectors.Check(t, "sessions.json", []sealedVector{sealVector(t, r, "a session", name, body, nil)})[0]
	plain, err := r.getObject(t.Context(), v.Name, seal.KindSession)
	if err != nil {
		t.Fatal(err)
	}
	var got sessionBody
	if err := mp.Decode(plain, &got); err != nil {
		t.Fatal(err)
	}
	if got.Pid != 4711 || got.Program != "bk-backup" || !slices.Equal(got.Session, session[:]) {
		t.Errorf("the session opens to %+v", got)
	}
}

func TestVectorsDamage(t *testing.T) {
	r := vectorRepo(t, "damage", seal.SuiteAES256GCM)
	client, repository := r.keys.Client(), r.keys.Repository()
	lost := []lostChunk{{seal.ChunkData, vectorID(7)}, {seal.ChunkMeta, vectorID(6)}}
	var chunks []byte
	for _, c := range lost {
		chunks = append(append(chunks, byte(c.kind)), c.id[:]...)
	}
	body := mp.Encode(&damageBody{
		Chunks: chunks, Client: client[:], Repository: repository[:], Time: []int64{vectorTime.Unix(), int64(vectorTime.Nanosecond())},
	})
	name := seal.Name{Kind: seal.KindDamage, Client: client, Session: seal.SessionID{1}}
	v := vectors.Check(t, "damage.json", []sealedVector{sealVector(t, r, "a chunk of content and one of a listing are lost", name, r.keys.SignDamage(body), body)})[0]
	if err := r.store.Delete(t.Context(), v.Name); err != nil {
		t.Fatal(err)
	}
	if err := r.store.Create(t.Context(), v.Name, v.Object); err != nil {
		t.Fatal(err)
	}
	got, err := r.knownLost(t.Context())
	if err != nil || len(got) != len(lost) || !got.data(vectorID(7)) || !got.meta(vectorID(6)) {
		t.Errorf("known to be lost: %v, %v", got, err)
	}
	// What is not signed as a list of damage is none.
	if err := r.store.Delete(t.Context(), v.Name); err != nil {
		t.Fatal(err)
	}
	if err := r.createObject(t.Context(), v.Name, seal.KindDamage, r.keys.SignForget(body)); err != nil {
		t.Fatal(err)
	}
	if got, err := r.knownLost(t.Context()); err != nil || len(got) > 0 {
		t.Errorf("signed as something else: %v, %v", got, err)
	}
}

func TestVectorsForget(t *testing.T) {
	r := vectorRepo(t, "forget", seal.SuiteXChaCha20Poly1305)
	client, repository := r.keys.Client(), r.keys.Repository()
	first, second := vectorID(7), vectorID(8)
	body := mp.Encode(&forgetBody{
		Client: client[:], Reason: []byte("older than a year"), Repository: repository[:],
		Slots:     bytes.Repeat([]byte{9}, 80),
		Snapshots: [][]byte{first[:], second[:]}, Time: []int64{vectorTime.Unix(), int64(vectorTime.Nanosecond())},
	})
	name := seal.Name{Kind: seal.KindForget, Client: client, Session: seal.SessionID{1}}
	v := vectors.Check(t, "forgets.json", []sealedVector{sealVector(t, r, "two snapshots are forgotten", name, r.keys.SignForget(body), body)})[0]
	plain, err := r.getObject(t.Context(), v.Name, seal.KindForget)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := r.keys.VerifyForget(plain); err != nil || !slices.Equal(got, v.Body) {
		t.Errorf("the forget object opens to %x, %v", got, err)
	}
	if _, err := r.keys.VerifySnapshot(plain); err == nil {
		t.Error("a forget object passes for a snapshot")
	}
}
