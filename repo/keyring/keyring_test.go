package keyring

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/bk-backup/bk/repo/internal/mp"
	"github.com/bk-backup/bk/repo/internal/vectors"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/store/mem"
	"github.com/bk-backup/bk/repo/store/storetest"
)

const secretText = "correct horse"

var (
	cheap   = Argon2{MemoryKiB: 64, Passes: 1, Threads: 1}
	testNow = time.Date(2026, 2, 3, 4, 5, 6, 7, time.UTC)
)

func now() time.Time { return testNow }

func testInit(rand io.Reader) InitOptions {
	return InitOptions{
		Passphrase: secretText, Argon2: cheap, CredentialName: "first", ClientName: "laptop", GroupName: "mine",
		Chunker: "gear:1MiB", Compression: "zstd:1", Rules: []Rule{{"*.vmdk", "fixed:64KiB"}}, Rand: rand, Now: now,
	}
}

// made returns a repository's storage and keys.
func made(t testing.TB) (*mem.Store, *Keyring) {
	t.Helper()
	st := mem.New()
	k, err := Init(context.Background(), st, testInit(vectors.Rand("keyring test")))
	if err != nil {
		t.Fatal(err)
	}
	return st, k
}

func pass(text string) Secrets {
	return Secrets{Passphrase: func(context.Context) (string, error) { return text, nil }}
}

func names(t testing.TB, st store.Reader) []string {
	t.Helper()
	var list []string
	err := st.List(context.Background(), "", func(info store.Info) error { list = append(list, info.Name); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return list
}

var hidden = cmp.AllowUnexported(Keyring{}, config{}, clientChunk{})

func TestInitOpen(t *testing.T) {
	st, k := made(t)
	for _, name := range names(t, st) {
		stored, err := st.Get(t.Context(), name, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if err := seal.Scrub(name, stored); err != nil {
			t.Error(err)
		}
		for _, secret := range []string{"laptop", "mine", "gear", "vmdk"} {
			if bytes.Contains(stored, []byte(secret)) {
				t.Errorf("%s shows %q", name, secret)
			}
		}
	}
	opened, err := Open(t.Context(), st, pass(secretText))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(k, opened, hidden); diff != "" {
		t.Error(diff)
	}
	own := opened.Own()
	if own.Chunker != "gear:1MiB" || own.Compression != "zstd:1" || len(own.Rules) != 1 || opened.ClientName() != "laptop" ||
		opened.Suite() != seal.SuiteAES256GCM || !opened.Created().Equal(testNow) {
		t.Errorf("settings came back as %+v", own)
	}
	if n, key := own.CurrentEpoch(); n != 1 || key != own.EpochKey(1) || own.EpochKey(2) != nil || opened.Group(own.ID) != own || opened.Group(seal.GroupID{}) != nil {
		t.Error("groups and epochs are not found as they should be")
	}
	if _, err := Init(t.Context(), st, testInit(nil)); !errors.Is(err, ErrExists) {
		t.Errorf("a second Init: %v", err)
	}
	clients, err := opened.Clients(t.Context(), st)
	if diff := cmp.Diff([]ClientInfo{{ID: k.Client(), Own: true}}, clients); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

func TestSuites(t *testing.T) {
	for _, suite := range seal.Suites() {
		st, o := mem.New(), testInit(nil)
		o.Suite = suite
		if _, err := Init(t.Context(), st, o); err != nil {
			t.Fatal(err)
		}
		k, err := Open(t.Context(), st, pass(secretText))
		if err != nil || k.Suite() != suite {
			t.Errorf("%s: %v", suite, err)
		}
	}
}

func TestOpenErrors(t *testing.T) {
	if _, err := Open(t.Context(), mem.New(), pass("")); !errors.Is(err, ErrNoRepository) {
		t.Errorf("empty storage: %v", err)
	}
	st, k := made(t)
	if _, err := Open(t.Context(), st, pass("wrong")); !errors.Is(err, ErrNoKeyFits) || errors.Is(err, seal.ErrDamaged) {
		t.Errorf("wrong passphrase: %v", err)
	}
	if _, err := Open(t.Context(), st, Secrets{}); !errors.Is(err, ErrNoKeyFits) {
		t.Errorf("no secrets: %v", err)
	}
	stop := errors.New("nobody is there to ask")
	asking := Secrets{Passphrase: func(context.Context) (string, error) { return "", stop }}
	if _, err := Open(t.Context(), st, asking); !errors.Is(err, stop) {
		t.Errorf("failing to ask: %v", err)
	}
	client := seal.Name{Kind: seal.KindClient, Client: k.Client()}.String()
	if err := st.Delete(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), st, pass(secretText)); !errors.Is(err, seal.ErrDamaged) || !strings.Contains(err.Error(), k.Client().String()) {
		t.Errorf("no client chunk: %v", err)
	}
	if _, err := Open(t.Context(), st, pass("wrong")); !errors.Is(err, ErrNoKeyFits) {
		t.Errorf("wrong passphrase and no client chunk: %v", err)
	}
}

// TestFlips turns bits of each object, and expects it to be named as damaged.
func TestFlips(t *testing.T) {
	st, _ := made(t)
	for _, name := range names(t, st) {
		stored, err := st.Get(t.Context(), name, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for bit := range 8 * len(stored) {
			if bit%3 != 0 && bit/8 > seal.HeaderSize {
				continue // every byte, but not every bit
			}
			bad := st.Clone()
			bad.Damage(name, func(b []byte) []byte { b[bit/8] ^= 1 << (bit % 8); return b })
			_, err := Open(t.Context(), bad, pass(secretText))
			if !errors.Is(err, seal.ErrDamaged) || errors.Is(err, ErrNoKeyFits) || !strings.Contains(err.Error(), name) {
				t.Fatalf("%s, bit %d: %v", name, bit, err)
			}
		}
		for size := range len(stored) {
			bad := st.Clone()
			bad.Damage(name, func(b []byte) []byte { return b[:size] })
			_, err := Open(t.Context(), bad, pass(secretText))
			if !errors.Is(err, seal.ErrDamaged) || !strings.Contains(err.Error(), name) {
				t.Fatalf("%s cut to %d: %v", name, size, err)
			}
		}
	}
}

// TestForgedCredential changes what a credential says in clear, checksum and all.
func TestForgedCredential(t *testing.T) {
	st, k := made(t)
	name := k.used.objectName()
	for what, change := range map[string]func(c *credentialBody){
		"name":    func(c *credentialBody) { c.Name = []byte("other") },
		"created": func(c *credentialBody) { c.Created[0]++ },
		"sealed":  func(c *credentialBody) { c.Sealed[0]++ },
	} {
		bad := st.Clone()
		bad.Damage(name, func(b []byte) []byte { return reforge(t, b, change) })
		if _, err := Open(t.Context(), bad, pass(secretText)); !errors.Is(err, seal.ErrDamaged) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, change := range map[string]func(p *passphraseParams){
		"memory":  func(p *passphraseParams) { p.Memory = argon2MemoryMaxKiB + 1 },
		"passes":  func(p *passphraseParams) { p.Passes = 65 },
		"no pass": func(p *passphraseParams) { p.Passes = 0 },
		"threads": func(p *passphraseParams) { p.Threads, p.Memory = 65, 1024 },
		"salt":    func(p *passphraseParams) { p.Salt = p.Salt[1:] },
		"kdf":     func(p *passphraseParams) { p.KDF = "scrypt" },
	} {
		bad := st.Clone()
		bad.Damage(name, func(b []byte) []byte {
			return reforge(t, b, func(c *credentialBody) {
				var p passphraseParams
				if err := mp.Decode(c.Params, &p); err != nil {
					t.Fatal(err)
				}
				change(&p)
				c.Params = mp.Encode(&p)
			})
		})
		_, err := Open(t.Context(), bad, pass(secretText))
		if !errors.Is(err, seal.ErrDamaged) && !(what == "kdf" && errors.Is(err, seal.ErrVersion)) {
			t.Errorf("params, %s: %v", what, err)
		}
	}
}

func reforge(t testing.TB, object []byte, change func(c *credentialBody)) []byte {
	t.Helper()
	var body credentialBody
	if err := mp.Decode(object[seal.HeaderSize:len(object)-seal.SumSize], &body); err != nil {
		t.Fatal(err)
	}
	change(&body)
	return seal.AppendSum(append(bytes.Clone(object[:seal.HeaderSize]), mp.Encode(&body)...))
}

// TestUnknownKeys: a credential of a later program says more, and still opens.
func TestUnknownKeys(t *testing.T) {
	content := mp.Encode(&struct {
		Client []byte `msgpack:"client"`
		Hint   []int  `msgpack:"hint"`
		Sealed []byte `msgpack:"sealed"`
		Zebra  string `msgpack:"zebra"`
	}{[]byte{1}, []int{1, 300}, []byte{2}, "z"})
	want := mp.Encode(&struct {
		Client []byte `msgpack:"client"`
		Hint   []int  `msgpack:"hint"`
		Zebra  string `msgpack:"zebra"`
	}{[]byte{1}, []int{1, 300}, "z"})
	if got, err := withoutSealed(content); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%x, want %x (%v)", got, want, err)
	}
}

func TestFeatures(t *testing.T) {
	_, k := made(t)
	for _, c := range []struct {
		read, write []string
		reads       bool
	}{{[]string{"time-travel"}, nil, false}, {nil, []string{"time-travel"}, true}} {
		st, old := made(t)
		cfg := *k.config
		cfg.forRead, cfg.forWrite = c.read, c.write
		object, err := cfg.seal(vectors.Rand("config"))
		if err != nil {
			t.Fatal(err)
		}
		if err := st.Create(t.Context(), "config/12", object); err != nil {
			t.Fatal(err)
		}
		k, err := Open(t.Context(), st, pass(secretText))
		if c.reads && err == nil {
			err = k.CheckWrite()
			if _, addErr := (&Editor{Keyring: k, Store: st}).AddCredential(t.Context(), "x", Passphrase("x", cheap)); !errors.Is(addErr, seal.ErrVersion) {
				t.Errorf("adding a credential: %v", addErr)
			}
		}
		if !errors.Is(err, seal.ErrVersion) || !strings.Contains(err.Error(), "time-travel") || old.CheckWrite() != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestCredentials(t *testing.T) {
	st, k := made(t)
	e := &Editor{Keyring: k, Store: st, Rand: vectors.Rand("edit"), Now: now}
	if err := e.RemoveCredential(t.Context(), k.used); !errors.Is(err, ErrLastCredential) {
		t.Fatalf("removing the last one: %v", err)
	}
	second, err := e.AddCredential(t.Context(), "second", Passphrase("battery", cheap))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{secretText, "battery"} {
		if _, err := Open(t.Context(), st, pass(text)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	list, err := k.ListCredentials(t.Context(), st)
	if err != nil {
		t.Fatal(err)
	}
	want := []Credential{
		{ID: k.used, Client: k.Client(), Kind: "passphrase", Name: "first", Created: testNow, Used: true},
		{ID: second, Client: k.Client(), Kind: "passphrase", Name: "second", Created: testNow},
	}
	slices.SortFunc(want, func(a, b Credential) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	if diff := cmp.Diff(want, list); diff != "" {
		t.Error(diff)
	}

	st.Damage(second.objectName(), func(b []byte) []byte { return b[:40] })
	if err := e.RemoveCredential(t.Context(), k.used); !errors.Is(err, ErrLastCredential) {
		t.Errorf("removing the last intact one: %v", err)
	}
	if _, err := Open(t.Context(), st, pass(secretText)); err != nil {
		t.Errorf("a damaged credential beside the right one: %v", err)
	}
	if _, err := Open(t.Context(), st, pass("battery")); !errors.Is(err, ErrNoKeyFits) || !errors.Is(err, seal.ErrDamaged) || !strings.Contains(err.Error(), second.objectName()) {
		t.Errorf("a damaged credential: %v", err)
	}
	if err := e.RemoveCredential(t.Context(), CredentialID{1}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("removing what is not there: %v", err)
	}

	third, err := e.AddCredential(t.Context(), "third", Passphrase("staple", cheap))
	if err != nil {
		t.Fatal(err)
	}
	if err := e.RemoveCredential(t.Context(), k.used); !errors.Is(err, ErrInUse) {
		t.Errorf("removing the one in use: %v", err)
	}
	if opened, err := Open(t.Context(), st, pass("staple")); err != nil {
		t.Fatal(err)
	} else if err := (&Editor{Keyring: opened, Store: st}).RemoveCredential(t.Context(), k.used); err != nil {
		t.Fatal(err)
	}
	if k, err := Open(t.Context(), st, pass("staple")); err != nil || k.used != third {
		t.Errorf("after removing another: %v", err)
	}
	if _, err := e.AddCredential(t.Context(), "empty", Passphrase("", cheap)); err == nil {
		t.Error("an empty passphrase was taken")
	}
}

func TestChangePassphrase(t *testing.T) {
	st, k := made(t)
	e := &Editor{Keyring: k, Store: st, Rand: vectors.Rand("edit"), Now: now}
	for _, text := range []string{"battery", "staple"} {
		id, err := e.ChangePassphrase(t.Context(), Passphrase(text, cheap))
		if err != nil {
			t.Fatal(err)
		}
		opened, err := Open(t.Context(), st, pass(text))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(e.Keyring, opened, hidden); diff != "" || opened.used != id {
			t.Error(diff)
		}
	}
	for _, old := range []string{secretText, "battery"} {
		if _, err := Open(t.Context(), st, pass(old)); !errors.Is(err, ErrNoKeyFits) {
			t.Errorf("%s: %v", old, err)
		}
	}
	list, err := e.Keyring.ListCredentials(t.Context(), st)
	if err != nil || len(list) != 1 || list[0].Name != "first" {
		t.Errorf("credentials are %+v, %v", list, err)
	}
}

// TestFailures lets every call to the storage fail in turn, and expects that
// some passphrase opens the repository whatever happened.
func TestFailures(t *testing.T) {
	st, _ := made(t)
	for _, mode := range []storetest.Mode{storetest.Before, storetest.After, storetest.Short} {
		for n := 1; ; n++ {
			base := st.Clone()
			k, err := Open(t.Context(), base, pass(secretText))
			if err != nil {
				t.Fatal(err)
			}
			faulty := storetest.NewFaulty(base, storetest.Fault{Call: n, Mode: mode, Forever: n%2 == 0})
			e := &Editor{Keyring: k, Store: faulty}
			_, changeErr := e.ChangePassphrase(t.Context(), Passphrase("battery", cheap))
			_, newErr := Open(t.Context(), base, pass("battery"))
			_, oldErr := Open(t.Context(), base, pass(secretText))
			if newErr != nil && oldErr != nil {
				t.Fatalf("%s call %d (%v) shut everybody out", mode, n, changeErr)
			}
			if faulty.Fired() == 0 {
				if changeErr != nil || newErr != nil || oldErr == nil {
					t.Errorf("without a failure: %v; new %v, old %v", changeErr, newErr, oldErr)
				}
				break
			}
			if changeErr == nil {
				t.Errorf("%s call %d failed without an error", mode, n)
			}
		}
	}
}

// TestInitFailures is the same for Init: it can be repeated after any failure
// but the one where the repository was made and the answer lost.
func TestInitFailures(t *testing.T) {
	for _, mode := range []storetest.Mode{storetest.Before, storetest.After} {
		for n := 1; ; n++ {
			base := mem.New()
			faulty := storetest.NewFaulty(base, storetest.Fault{Call: n, Mode: mode})
			_, err := Init(t.Context(), faulty, testInit(nil))
			if faulty.Fired() == 0 {
				break
			}
			if err == nil {
				t.Errorf("%s call %d failed without an error", mode, n)
			}
			if _, err := Init(t.Context(), base, testInit(nil)); err != nil && !errors.Is(err, ErrExists) {
				t.Errorf("Init after a failure: %v", err)
			}
			if _, err := Open(t.Context(), base, pass(secretText)); err != nil {
				t.Errorf("%s call %d: %v", mode, n, err)
			}
		}
	}
}

func TestInterruptedInit(t *testing.T) {
	st, k := made(t)
	// As if the config had not been written: what lies there opens nothing.
	if err := st.Delete(t.Context(), "config/0"); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), st, pass(secretText)); !errors.Is(err, ErrNoRepository) {
		t.Errorf("without config: %v", err)
	}
	o := testInit(vectors.Rand("another"))
	o.Passphrase = "battery"
	again, err := Init(t.Context(), st, o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), st, pass("battery")); err != nil {
		t.Error(err)
	}
	if _, err := Open(t.Context(), st, pass(secretText)); !errors.Is(err, ErrNoKeyFits) {
		t.Errorf("the key of the interrupted one: %v", err)
	}
	if list, err := again.ListCredentials(t.Context(), st); err != nil || len(list) != 1 || list[0].ID == k.used {
		t.Errorf("credentials are %+v, %v", list, err)
	}
}

func TestUpdate(t *testing.T) {
	st, k := made(t)
	e := &Editor{Keyring: k, Store: st, Rand: vectors.Rand("edit")}
	other := &Editor{Keyring: k, Store: st, Rand: vectors.Rand("other")}
	n, err := e.AddEpoch(t.Context(), k.Own().ID)
	if err != nil || n != 2 {
		t.Fatal(n, err)
	}
	opened, err := Open(t.Context(), st, pass(secretText))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(e.Keyring, opened, hidden); diff != "" {
		t.Error(diff)
	}
	if n, _ := opened.Own().CurrentEpoch(); n != 2 || opened.Generation() != 1 || *opened.Own().EpochKey(1) != *k.Own().EpochKey(1) {
		t.Errorf("epoch %d, generation %d", n, opened.Generation())
	}
	if n, _ := k.Own().CurrentEpoch(); n != 1 || k.Generation() != 0 {
		t.Error("the keyring changed that an editor began with")
	}
	if _, err := other.AddEpoch(t.Context(), k.Own().ID); !errors.Is(err, ErrConflict) {
		t.Errorf("a second change from the same generation: %v", err)
	}
	if _, err := e.AddEpoch(t.Context(), seal.GroupID{1}); err == nil {
		t.Error("a group that is not there got an epoch")
	}
	for what, change := range map[string]func(groups []*Group) []*Group{
		"no groups":     func([]*Group) []*Group { return nil },
		"label key":     func(g []*Group) []*Group { g[0].Label[0]++; return g },
		"split key":     func(g []*Group) []*Group { g[0].Split[0]++; return g },
		"polynomial":    func(g []*Group) []*Group { g[0].ChunkerKeys.Polynomial = 1; return g },
		"seed":          func(g []*Group) []*Group { g[0].ChunkerKeys.HasSeed = true; return g },
		"epoch key":     func(g []*Group) []*Group { g[0].Epochs[0].Key[0]++; return g },
		"lost epoch":    func(g []*Group) []*Group { g[0].Epochs = g[0].Epochs[1:]; return g },
		"no epoch":      func(g []*Group) []*Group { g[0].Epochs = nil; return g },
		"order":         func(g []*Group) []*Group { slices.Reverse(g[0].Epochs); return g },
		"nobody's own":  func(g []*Group) []*Group { g[0].Own = false; return g },
		"twice":         func(g []*Group) []*Group { return append(g, g[0]) },
		"two own":       func(g []*Group) []*Group { c := g[0].clone(); c.ID[0]++; return append(g, c) },
		"long settings": func(g []*Group) []*Group { g[0].Chunker = strings.Repeat("x", 5000); return g },
	} {
		err := e.Update(t.Context(), func(groups []*Group) ([]*Group, error) { return change(groups), nil })
		if err == nil {
			t.Errorf("%s: taken", what)
		}
	}
	err = e.Update(t.Context(), func(groups []*Group) ([]*Group, error) {
		groups[0].Compression = "none"
		return append(groups, &Group{ID: seal.GroupID{9}, Epochs: []Epoch{{Number: 4}}}), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	opened, err = Open(t.Context(), st, pass(secretText))
	if err != nil || opened.Own().Compression != "none" || opened.Group(seal.GroupID{9}) == nil || len(opened.Groups()) != 2 {
		t.Errorf("after an update: %v", err)
	}
}

// keyFile is a Kind of the test: a secret that is simply held.
type keyFile struct{ secret seal.Key }

func (keyFile) Name() string { return "key-file" }

func (f keyFile) Wrap(context.Context, io.Reader) ([]byte, *seal.Key, error) {
	return []byte{0x80}, &f.secret, nil
}

func (f keyFile) Unwrap(context.Context, []byte) (*seal.Key, error) { return &f.secret, nil }

func TestOtherKinds(t *testing.T) {
	st, k := made(t)
	e := &Editor{Keyring: k, Store: st}
	if _, err := e.AddCredential(t.Context(), "file", keyFile{seal.Key{1}}); err != nil {
		t.Fatal(err)
	}
	asked := 0
	secrets := Secrets{
		Passphrase: func(context.Context) (string, error) { asked++; return secretText, nil },
		Kinds:      []Unwrapper{keyFile{seal.Key{1}}},
	}
	opened, err := Open(t.Context(), st, secrets)
	if err != nil || asked != 0 {
		t.Fatalf("asked %d times, %v", asked, err)
	}
	if _, err := (&Editor{Keyring: opened, Store: st}).ChangePassphrase(t.Context(), Passphrase("x", cheap)); err == nil {
		t.Error("the passphrase of a key file was changed")
	}
	secrets.Kinds = []Unwrapper{keyFile{seal.Key{2}}}
	if _, err := Open(t.Context(), st, secrets); err != nil || asked != 1 {
		t.Errorf("asked %d times, %v", asked, err)
	}
	if _, err := e.AddCredential(t.Context(), "again", Passphrase("battery", cheap)); err != nil {
		t.Fatal(err)
	}
	asked = 0
	secrets.Passphrase = func(context.Context) (string, error) { asked++; return "wrong", nil }
	if _, err := Open(t.Context(), st, secrets); !errors.Is(err, ErrNoKeyFits) || asked != 1 {
		t.Errorf("asked %d times, %v", asked, err)
	}
}

func TestSignatures(t *testing.T) {
	_, k := made(t)
	body := []byte("body")
	plain := k.SignSnapshot(body)
	if got, err := k.VerifySnapshot(plain); err != nil || !bytes.Equal(got, body) {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := k.VerifyForget(plain); !errors.Is(err, ErrSignature) {
		t.Errorf("a snapshot's signature on a forget object: %v", err)
	}
	if got, err := k.VerifyForget(k.SignForget(body)); err != nil || !bytes.Equal(got, body) {
		t.Errorf("%q, %v", got, err)
	}
	for i := range plain {
		bad := bytes.Clone(plain)
		bad[i] ^= 1
		if _, err := k.VerifySnapshot(bad); !errors.Is(err, ErrSignature) && !errors.Is(err, seal.ErrDamaged) {
			t.Errorf("byte %d: %v", i, err)
		}
	}
	void, err := msgpack.Marshal([]string{"void"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.VerifySnapshot(void); !errors.Is(err, seal.ErrDamaged) {
		t.Errorf("a void: %v", err)
	}
}

func TestCanceled(t *testing.T) {
	st, _ := made(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, st, pass(secretText)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestNoRandomness(t *testing.T) {
	for n := range 500 {
		o := testInit(io.LimitReader(vectors.Rand("short"), int64(n)))
		if _, err := Init(t.Context(), mem.New(), o); err == nil {
			if n < 300 {
				t.Fatalf("a repository was made of %d random bytes", n)
			}
			return
		} else if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatal(err)
		}
	}
}

func FuzzCredential(f *testing.F) {
	st, k := made(f)
	stored, err := st.Get(context.Background(), k.used.objectName(), 1<<20)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(stored[seal.HeaderSize : len(stored)-seal.SumSize])
	f.Fuzz(func(t *testing.T, content []byte) {
		object := seal.AppendSum(append(bytes.Clone(stored[:seal.HeaderSize]), content...))
		c, err := parseCredential(k.used, object, k.Repository())
		if err != nil {
			if !errors.Is(err, seal.ErrDamaged) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		var p passphraseParams
		_ = mp.Decode(c.params, &p)
		if _, err := c.open(&seal.Key{}); !errors.Is(err, seal.ErrWrongKey) {
			t.Fatalf("a credential opened with a wrong key: %v", err)
		}
	})
}

func FuzzClient(f *testing.F) {
	_, k := made(f)
	f.Add(k.chunk.encode())
	f.Fuzz(func(t *testing.T, content []byte) {
		c, err := parseClient(content)
		if err != nil {
			if !errors.Is(err, seal.ErrDamaged) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		again, err := parseClient(c.encode())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c, again, hidden); diff != "" {
			t.Fatal(diff)
		}
	})
}

func FuzzConfig(f *testing.F) {
	_, k := made(f)
	object, err := k.config.seal(vectors.Rand("config"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(object[seal.HeaderSize : len(object)-seal.SumSize])
	f.Fuzz(func(t *testing.T, content []byte) {
		object := seal.AppendSum(append(bytes.Clone(object[:seal.HeaderSize]), content...))
		if _, err := parseConfig("config/0", object); err != nil && !errors.Is(err, seal.ErrDamaged) {
			t.Fatalf("an error of another kind: %v", err)
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	for _, c := range []struct {
		name string
		cost Argon2
	}{{"usual", Argon2{}}, {"cheap", cheap}} {
		b.Run(c.name, func(b *testing.B) {
			st, o := mem.New(), testInit(nil)
			o.Argon2 = c.cost
			if _, err := Init(b.Context(), st, o); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := Open(b.Context(), st, pass(secretText)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestIDs(t *testing.T) {
	if s := fmt.Sprint(CredentialID{0xab}); s != "ab"+strings.Repeat("0", 30) {
		t.Error(s)
	}
}
