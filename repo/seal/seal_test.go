package seal

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/bits"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/bk-backup/bk/format"
)

var wholeKinds = []Kind{KindClient, KindIndex, KindSnapshot, KindSession, KindPlan, KindForget, KindPartial, KindDamage}

// sample returns a key, and a header for an object of that kind.
func sample(kind Kind, suite Suite) (Key, Header) {
	h := Header{Kind: kind, Suite: suite, Repository: RepositoryID{1, 2, 3}, Owner: [16]byte{4, 5, 6}}
	if kind.inGroup() {
		h.Epoch = 3
	}
	return Key{7, 8, 9}, h
}

// sealed returns an object, and what OpenObject should expect of it.
func sealed(t testing.TB, kind Kind, suite Suite, body []byte) (Key, []byte, Expect) {
	t.Helper()
	key, h := sample(kind, suite)
	object, err := SealObject(&key, h, body, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	name := Name{Kind: kind, Number: 3}
	if !kind.HasSum() {
		name.Sum = sha256.Sum256(object)
	}
	return key, object, Expect{Name: name.String(), Kind: kind, Repository: h.Repository, Owner: h.Owner}
}

func TestSealOpen(t *testing.T) {
	for _, suite := range Suites() {
		for _, kind := range wholeKinds {
			for _, size := range []int{0, 1, 844, 845, 1000, 5000, 65535, 70000, 3 << 20} {
				body := bytes.Repeat([]byte{0xa5}, size)
				key, object, want := sealed(t, kind, suite, body)
				if kind == KindIndex {
					if n := int64(len(object)); n != PaddedSize(n) {
						t.Errorf("%s of %d: object of %d bytes", kind, size, n)
					}
				} else if n := uint(len(object)); n < 1024 || bits.OnesCount(n) != 1 || n > 1024 && int(n) >= 2*(size+180) {
					t.Errorf("%s of %d: object of %d bytes", kind, size, n)
				}
				if bytes.Contains(object, []byte{0xa5, 0xa5, 0xa5, 0xa5, 0xa5, 0xa5, 0xa5, 0xa5}) {
					t.Errorf("%s of %d: plain bytes in the object", kind, size)
				}
				if err := Scrub(want.Name, object); err != nil {
					t.Error(err)
				}
				got, h, err := OpenObject(&key, object, want)
				if err != nil {
					t.Fatalf("%s of %d: %v", kind, size, err)
				}
				if !bytes.Equal(got, body) || h.Kind != kind || h.Suite != suite {
					t.Errorf("%s of %d: something else came back", kind, size)
				}
			}
		}
	}
}

// TestFlips turns every bit of an object of every kind, and expects to hear
// that it is damaged: never that the key is wrong or the format new.
func TestFlips(t *testing.T) {
	for _, suite := range Suites() {
		for _, kind := range wholeKinds {
			key, object, want := sealed(t, kind, suite, []byte("body"))
			step := 1
			if kind == KindIndex {
				step = 509 // 64 KiB: each part of it is reached nevertheless
			}
			for bit := 0; bit < 8*len(object); bit++ {
				if bit > 8*200 && bit%step != 0 {
					continue
				}
				bad := bytes.Clone(object)
				bad[bit/8] ^= 1 << (bit % 8)
				if err := Scrub(want.Name, bad); !errors.Is(err, ErrDamaged) {
					t.Fatalf("%s, bit %d: Scrub says %v", kind, bit, err)
				}
				if _, _, err := OpenObject(&key, bad, want); !errors.Is(err, ErrDamaged) || errors.Is(err, ErrWrongKey) || !strings.Contains(err.Error(), want.Name) {
					t.Fatalf("%s, bit %d: OpenObject says %v", kind, bit, err)
				}
			}
			for size := range len(object) {
				if size > 200 && size%step != 0 {
					continue
				}
				bad := bytes.Clone(object[:size])
				if err := Scrub(want.Name, bad); !errors.Is(err, ErrDamaged) {
					t.Fatalf("%s, cut to %d: Scrub says %v", kind, size, err)
				}
				if _, _, err := OpenObject(&key, bad, want); !errors.Is(err, ErrDamaged) {
					t.Fatalf("%s, cut to %d: OpenObject says %v", kind, size, err)
				}
			}
		}
	}
}

// TestForged changes objects as somebody would who can compute checksums but has
// no key.
func TestForged(t *testing.T) {
	resum := func(b []byte) []byte { return AppendSum(b[:len(b)-SumSize]) }
	for _, c := range []struct {
		name   string
		change func(b []byte) []byte
		want   error
	}{
		{"version 2", func(b []byte) []byte { b[8] = 2; return resum(b) }, ErrVersion},
		{"version 0", func(b []byte) []byte { b[8] = 0; return resum(b) }, ErrDamaged},
		{"magic", func(b []byte) []byte { b[0] = 'B'; return resum(b) }, ErrDamaged},
		{"unknown suite", func(b []byte) []byte { b[10] = 9; return resum(b) }, ErrVersion},
		{"other suite", func(b []byte) []byte { b[10] = 2; return resum(b) }, ErrWrongKey},
		{"other kind", func(b []byte) []byte { b[9] = byte(KindForget); return resum(b) }, ErrDamaged},
		{"unknown kind", func(b []byte) []byte { b[9] = 77; return resum(b) }, ErrVersion},
		{"byte 11", func(b []byte) []byte { b[11] = 1; return resum(b) }, ErrDamaged},
		{"epoch 0", func(b []byte) []byte { b[15] = 0; return resum(b) }, ErrWrongKey}, // as voids have it
		{"other epoch", func(b []byte) []byte { b[15] = 2; return resum(b) }, ErrWrongKey},
		{"other repository", func(b []byte) []byte { b[16]++; return resum(b) }, ErrDamaged},
		{"other group", func(b []byte) []byte { b[48]++; return resum(b) }, ErrDamaged},
		{"other salt", func(b []byte) []byte { b[64]++; return resum(b) }, ErrWrongKey},
		{"other commitment", func(b []byte) []byte { b[96]++; return resum(b) }, ErrWrongKey},
		{"ciphertext", func(b []byte) []byte { b[128]++; return resum(b) }, ErrDamaged},
		{"tag", func(b []byte) []byte { b[len(b)-SumSize-1]++; return resum(b) }, ErrDamaged},
		{"cut to another valid size", func(b []byte) []byte { return AppendSum(b[:1024-SumSize]) }, ErrDamaged},
		{"longer", func(b []byte) []byte { return AppendSum(b) }, ErrDamaged},
		{"sealed by hand without padding", nil, ErrDamaged},
	} {
		t.Run(c.name, func(t *testing.T) {
			key, object, want := sealed(t, KindSnapshot, SuiteAES256GCM, make([]byte, 1500))
			if c.change != nil {
				object = c.change(object)
			} else {
				object = object[:1024+7]
				object = AppendSum(object)
			}
			_, _, err := OpenObject(&key, object, want)
			for _, sentinel := range []error{ErrDamaged, ErrVersion, ErrWrongKey} {
				if errors.Is(err, sentinel) != (sentinel == c.want) {
					t.Errorf("error is %v, want %v", err, c.want)
				}
			}
		})
	}
}

// TestPlaintext has the key and still breaks the rules for what is inside.
func TestPlaintext(t *testing.T) {
	for name, change := range map[string]func(plain []byte){
		"length too great": func(p []byte) { p[0] = 0xff },
		"padding":          func(p []byte) { p[len(p)-1] = 1 },
	} {
		key, h := sample(KindSession, SuiteAES256GCM)
		keys, err := NewObjectKeys(&key, &h, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		aead, err := keys.AEAD(PurposeBody)
		if err != nil {
			t.Fatal(err)
		}
		header := h.Append(nil)
		plain := make([]byte, 1024-HeaderSize-Overhead-SumSize)
		plain[3] = 100
		open := func() ([]byte, error) {
			object := AppendSum(aead.Seal(bytes.Clone(header), 0, plain, header))
			body, _, err := OpenObject(&key, object, Expect{Kind: h.Kind, Repository: h.Repository, Owner: h.Owner})
			return body, err
		}
		if body, err := open(); err != nil || len(body) != 100 {
			t.Fatalf("unchanged: %d bytes, %v", len(body), err)
		}
		change(plain)
		if _, err := open(); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWrongKey(t *testing.T) {
	for _, kind := range wholeKinds {
		key, object, want := sealed(t, kind, SuiteXChaCha20Poly1305, []byte("body"))
		key[31] ^= 1
		if _, _, err := OpenObject(&key, object, want); !errors.Is(err, ErrWrongKey) || errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// TestSealRefuses gives SealObject what it cannot seal.
func TestSealRefuses(t *testing.T) {
	for _, kind := range []Kind{0, KindConfig, KindCredential, KindDataPack, KindMetaPack, KindDamage + 1} {
		key, h := sample(kind, SuiteAES256GCM)
		if _, err := SealObject(&key, h, nil, rand.Reader); err == nil {
			t.Errorf("%s was sealed whole", kind)
		}
	}
	key, h := sample(KindIndex, SuiteAES256GCM)
	h.Epoch = 0
	if _, err := SealObject(&key, h, nil, rand.Reader); err == nil {
		t.Error("an index of epoch 0 was sealed")
	}
	key, h = sample(KindIndex, SuiteAES256GCM)
	if _, err := SealObject(&key, h, nil, strings.NewReader("too little randomness")); err == nil {
		t.Error("an object was sealed without a salt")
	}
	if _, err := SealObject(&key, h, make([]byte, ObjectSizeMax), rand.Reader); !errors.Is(err, ErrTooLarge) {
		t.Errorf("an object over the limit: %v", err)
	}
}

// TestScrubNames: every object is refused under a name of another kind.
func TestScrubNames(t *testing.T) {
	for _, kind := range wholeKinds {
		_, object, _ := sealed(t, kind, SuiteAES256GCM, []byte("body"))
		for other := KindConfig; other <= KindDamage; other++ {
			name := Name{Kind: other, Sum: sha256.Sum256(object)}.String()
			if err := Scrub(name, object); other != kind && !errors.Is(err, ErrDamaged) {
				t.Errorf("a %s as %s: %v", kind, name, err)
			}
		}
	}
	if err := Scrub("lost+found/x", nil); err == nil {
		t.Error("a name that no object has was accepted")
	}
}

func TestLabel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var key Key
		var id format.ID
		copy(key[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "key"))
		copy(id[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "id"))
		kind := rapid.SampledFrom([]ChunkKind{ChunkData, ChunkMeta}).Draw(t, "kind")
		mac := hmac.New(sha256.New, key[:])
		mac.Write([]byte{byte(kind)})
		mac.Write(id[:])
		if got, want := NewLabeler(&key).LabelOf(kind, id), Label(mac.Sum(nil)[:LabelSize]); got != want {
			t.Fatalf("label %s, want %s", got, want)
		}
	})
}

func TestPaddedSize(t *testing.T) {
	// Computed as section 2.4 says it, with logarithms by counting.
	slow := func(n int64) int64 {
		if n <= 1<<20 {
			p := int64(64 << 10)
			for p < n {
				p *= 2
			}
			return p
		}
		log2 := func(v int64) (l int64) {
			for ; v > 1; v /= 2 {
				l++
			}
			return l
		}
		e := log2(n)
		unit := int64(1)
		for range e - (log2(e) + 1) {
			unit *= 2
		}
		return (n + unit - 1) / unit * unit
	}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(0, 1<<40).Draw(t, "n")
		p := PaddedSize(n)
		if p != slow(n) {
			t.Fatalf("PaddedSize(%d) = %d, want %d", n, p, slow(n))
		}
		if p < n || PaddedSize(p) != p || n > 1<<20 && float64(p) > float64(n)*1.032 {
			t.Fatalf("PaddedSize(%d) = %d", n, p)
		}
	})
}

func TestNames(t *testing.T) {
	names := []Name{
		{Kind: KindConfig, Number: 0},
		{Kind: KindConfig, Number: 1<<64 - 1},
		{Kind: KindCredential, Credential: [16]byte{0xab, 15: 1}},
		{Kind: KindClient, Client: ClientID{0xcd}, Number: 12},
		{Kind: KindDataPack, Sum: [32]byte{0x77, 0x0e}},
		{Kind: KindIndex, Sum: [32]byte{0x77, 0x0e}},
		{Kind: KindSnapshot, Client: ClientID{1}, Session: SessionID{2}, Number: 3},
		{Kind: KindSession, Client: ClientID{1}, Session: SessionID{2}},
		{Kind: KindPlan, Number: 10},
		{Kind: KindForget, Client: ClientID{1}, Session: SessionID{2}, Number: 3},
		{Kind: KindPartial, Client: ClientID{1}, Session: SessionID{2}, Number: 3},
		{Kind: KindDamage, Client: ClientID{1}, Session: SessionID{2}, Number: 3},
		{Kind: KindSnapshot, Client: ClientID{1}, Session: SessionID{2}, Number: 3, Resealed: 2},
		{Kind: KindForget, Client: ClientID{1}, Session: SessionID{2}, Resealed: 1<<32 - 1},
	}
	for _, n := range names {
		got, ok := ParseName(n.String())
		if diff := cmp.Diff(n, got); !ok || diff != "" {
			t.Errorf("%s: %v %s", n, ok, diff)
		}
		if !strings.HasPrefix(n.String(), n.Kind.Dir()) {
			t.Errorf("%s does not lie below %s", n, n.Kind.Dir())
		}
	}
	if got, want := names[4].String(), "packs/77/770e"+strings.Repeat("0", 60); got != want {
		t.Errorf("name of a pack is %s, want %s", got, want)
	}
	if got := (Name{Kind: KindMetaPack, Sum: [32]byte{0x77, 0x0e}}).String(); got != names[4].String() {
		t.Errorf("name of a meta pack is %s", got)
	}
	zero32, zero64 := strings.Repeat("0", 32), strings.Repeat("0", 64)
	for _, bad := range []string{
		"", "/", "config", "config/", "config/00", "config/-1", "config/+1", "config/1 ", "config/1/", "config/18446744073709551616", "config/x",
		"credentials/" + zero32 + "0", "credentials/" + strings.Repeat("A", 32), "credentials/" + strings.Repeat("g", 32),
		"clients/" + zero32, "clients/" + zero32 + "/", "clients/" + zero32 + "/1/2",
		"packs/" + zero64, "packs/01/" + zero64, "packs/00/" + zero64 + "/", "packs/00/0", "index/" + zero32, "index/00/" + zero64,
		"snapshots/" + zero32 + "/" + zero32 + "-0-", "snapshots/" + zero32 + "/" + zero32 + "-0-0", "snapshots/" + zero32 + "/" + zero32 + "-0-1",
		"snapshots/" + zero32 + "/" + zero32 + "-0-02", "snapshots/" + zero32 + "/" + zero32 + "-0-2-2", "forgets/" + zero32 + "/" + zero32 + "-0-4294967296",
		"partial/" + zero32 + "/" + zero32 + "-0-2",
		"snapshots/" + zero32 + "/" + zero32, "snapshots/" + zero32 + "/" + zero32 + "-", "snapshots/" + zero32 + "/" + zero32 + "-01",
		"sessions/" + zero32 + "/" + zero32 + "-1", "forgotten/1", "Config/1", "tmp/config/1",
	} {
		if n, ok := ParseName(bad); ok {
			t.Errorf("%q was taken for the name of a %s", bad, n.Kind)
		}
	}
}

func TestKeyHidden(t *testing.T) {
	key := Key{0xab, 0xcd}
	for _, verb := range []string{"%v", "%x", "%s", "%d", "%#v", "%+v", "%q"} {
		if s := fmt.Sprintf(verb, key) + fmt.Sprintf(verb, struct{ K Key }{key}) + fmt.Sprintf(verb, []Key{key}); strings.Contains(s, "ab") || strings.Contains(s, "171") {
			t.Errorf("%s prints %s", verb, s)
		}
	}
}

func FuzzParseHeader(f *testing.F) {
	for _, kind := range append(wholeKinds, KindConfig, KindCredential, KindDataPack) {
		_, h := sample(kind, SuiteAES256GCM)
		f.Add(h.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHeader(b)
		if err != nil {
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		if got := h.Append(nil); !bytes.Equal(got, b[:HeaderSize]) {
			t.Fatalf("%x came back as %x", b[:HeaderSize], got)
		}
	})
}

func FuzzOpenObject(f *testing.F) {
	key, object, _ := sealed(f, KindSession, SuiteAES256GCM, []byte("body"))
	f.Add(object)
	f.Fuzz(func(t *testing.T, b []byte) {
		_, h := sample(KindSession, SuiteAES256GCM)
		want := Expect{Kind: KindSession, Repository: h.Repository, Owner: h.Owner}
		b = AppendSum(b)
		_, _, err := OpenObject(&key, b, want)
		if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) && !errors.Is(err, ErrWrongKey) {
			t.Fatalf("an error of no kind: %v", err)
		}
	})
}

func FuzzParseName(f *testing.F) {
	f.Add("snapshots/00000000000000000000000000000000/00000000000000000000000000000000-1")
	f.Add("packs/00/0000000000000000000000000000000000000000000000000000000000000000")
	f.Add("config/0")
	f.Fuzz(func(t *testing.T, s string) {
		if n, ok := ParseName(s); ok && n.String() != s {
			t.Fatalf("%q is %s", s, n)
		}
	})
}

func BenchmarkLabelOf(b *testing.B) {
	l := NewLabeler(&Key{1})
	var id format.ID
	b.ReportAllocs()
	for b.Loop() {
		id[0]++
		l.LabelOf(ChunkData, id)
	}
}

func BenchmarkObjectKeys(b *testing.B) {
	key, h := sample(KindDataPack, SuiteAES256GCM)
	for b.Loop() {
		keys, err := NewKeys(&key, &h)
		if err != nil {
			b.Fatal(err)
		}
		if err := keys.Commit(&h); err != nil {
			b.Fatal(err)
		}
		if _, err := keys.AEAD(PurposeChunk); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAEAD(b *testing.B) {
	for _, suite := range Suites() {
		b.Run(suite.String(), func(b *testing.B) {
			a, err := NewAEAD(suite, &Key{1})
			if err != nil {
				b.Fatal(err)
			}
			plain, dst, ad := make([]byte, 64<<10), make([]byte, 0, 65<<10), make([]byte, 153)
			b.SetBytes(int64(len(plain)))
			b.ReportAllocs()
			for b.Loop() {
				a.Seal(dst, 1, plain, ad)
			}
		})
	}
}
