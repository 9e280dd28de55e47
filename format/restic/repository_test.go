package restic

import (
	"bytes"
	"context"
	"crypto/aes"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"

	//lint:ignore SA1019 as in crypt.go
	"golang.org/x/crypto/poly1305"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/formattest"
	"github.com/bk-backup/bk/repo/store/mem"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestPoly1305AES holds the way the one-time key is made against the first vector
// of the paper that defines Poly1305-AES.
func TestPoly1305AES(t *testing.T) {
	ks, err := newKeys(make([]byte, 32), unhex(t, "ec074c835580741701425b623235add6"), unhex(t, "851fc40c3467ac0be05cc20404f3f700"))
	if err != nil {
		t.Fatal(err)
	}
	iv, sealed, mac := unhex(t, "fb447350c4e868c52ac3275cf9d4327e"), unhex(t, "f3f6"), unhex(t, "f4c633c3044fc145f84f335cb81953de")
	item := slices.Concat(iv, sealed, mac)
	if err := ks.open(make([]byte, 2), item); err != nil {
		t.Error(err)
	}
	for i := range item {
		bad := bytes.Clone(item)
		bad[i] ^= 1
		if err := ks.open(make([]byte, 2), bad); !errors.Is(err, errMAC) {
			t.Errorf("byte %d flipped: %v", i, err)
		}
	}
}

func TestOpenItemRefuses(t *testing.T) {
	ks, err := newKeys(make([]byte, 32), make([]byte, 16), make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	// An IV of zeros, with the right code.
	var key [32]byte
	block, _ := aes.NewCipher(make([]byte, 16))
	block.Encrypt(key[16:], make([]byte, 16))
	var mac [16]byte
	poly1305.Sum(&mac, nil, &key)
	for name, item := range map[string][]byte{"zero IV": append(make([]byte, 16), mac[:]...), "short": make([]byte, 31), "empty": nil} {
		if _, err := ks.openInPlace(item); err == nil {
			t.Errorf("%s passed", name)
		}
	}
}

func TestOpen(t *testing.T) {
	ctx := context.Background()
	b := newBuilder(t)
	b.addKey("one", nil)
	b.addKey("größer 🔑", nil)
	b.addKey("", nil)
	b.create("keys/not-a-key", []byte("x"))
	for _, p := range []string{"one", "größer 🔑", ""} {
		r, err := Open(ctx, b.st, passphrase(p))
		if err != nil {
			t.Errorf("%q: %v", p, err)
			continue
		}
		if r.Version() != 2 {
			t.Error(r.Version())
		}
	}
	_, err := Open(ctx, b.st, passphrase("two"))
	formattest.WantError(t, err, ErrWrongPassphrase)
	_, err = Open(ctx, mem.New(), Options{})
	formattest.WantError(t, err, ErrNoRepository, "config")
	noKeys := newBuilder(t)
	_, err = Open(ctx, noKeys.st, passphrase(""))
	formattest.WantError(t, err, ErrNoRepository, "keys")
	refused := errors.New("no terminal")
	_, err = Open(ctx, b.st, Options{Passphrase: func(context.Context) (string, error) { return "", refused }})
	formattest.WantError(t, err, refused)
}

// TestOpenHostileKeys has key files that ask for more than there is.
func TestOpenHostileKeys(t *testing.T) {
	for name, change := range map[string]func(map[string]any){
		"memory":       func(f map[string]any) { f["N"] = 1 << 40 },
		"memory by r":  func(f map[string]any) { f["r"] = uint64(1) << 62 },
		"time":         func(f map[string]any) { f["p"] = 1 << 40 },
		"overflow":     func(f map[string]any) { f["N"], f["r"], f["p"] = uint64(1)<<63, uint64(1)<<63, uint64(1)<<63 },
		"N=0":          func(f map[string]any) { f["N"] = 0 },
		"N=3":          func(f map[string]any) { f["N"] = 3 },
		"r=0":          func(f map[string]any) { f["r"] = 0 },
		"negative":     func(f map[string]any) { f["p"] = -1 },
		"other kdf":    func(f map[string]any) { f["kdf"] = "argon2id" },
		"no data":      func(f map[string]any) { delete(f, "data") },
		"data, no b64": func(f map[string]any) { f["data"] = "!" },
	} {
		b := newBuilder(t)
		b.addKey("p", change)
		if _, err := Open(context.Background(), b.st, passphrase("p")); !errors.Is(err, ErrWrongPassphrase) || !strings.Contains(err.Error(), "keys/") {
			t.Errorf("%s: %v", name, err)
		}
		b.addKey("p", nil) // a good one beside it is found
		if _, err := Open(context.Background(), b.st, passphrase("p")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOpenConfig(t *testing.T) {
	b := newBuilder(t)
	r := b.open()
	for text, want := range map[string]error{
		`{"version":1,"id":"abc","chunker_polynomial":"x"}`: nil,
		`{"version":3}`: ErrVersion,
		`{}`:            ErrVersion,
		`[]`:            ErrDamaged,
	} {
		if err := r.openConfig(b.seal([]byte(text))); !errors.Is(err, want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if got := r.rawID(); got != "abc" {
		t.Errorf("id %q", got)
	}
}

func TestUnpackJSON(t *testing.T) {
	for in, want := range map[string]error{"{}": nil, "[]": nil, "\x02" + string(testEncoder.EncodeAll([]byte("{}"), nil)): nil,
		"": ErrDamaged, "\x01{}": ErrVersion, "\x02{}": ErrDamaged} {
		if out, err := unpackJSON([]byte(in)); !errors.Is(err, want) || err == nil && out[0] != in[0] && string(out) != "{}" {
			t.Errorf("%q: %q, %v", in, out, err)
		}
	}
}

func TestRootPath(t *testing.T) {
	for in, want := range map[string]string{
		"/": "", "/a/b": "a/b", "/a//b/": "a/b", "a/../../b": "b", `C:\Users\x`: "C/Users/x", "C:": "C", `/a\b`: `a\b`, "": "", "/a:b": "a:b",
	} {
		if got, ok := rootPath(in); got != want || !ok {
			t.Errorf("%q: %q, %v", in, got, ok)
		}
	}
	if _, ok := rootPath("/a\x00"); ok {
		t.Error("a zero byte passed")
	}
}

// TestSnapshotOrder lists by time, and leaves damaged ones out.
func TestSnapshotOrder(t *testing.T) {
	b := newBuilder(t)
	tree := b.tree(nil)
	var want []format.ID
	for range 5 {
		want = append(want, b.snapshot(tree))
	}
	bad := b.file("snapshots", map[string]any{"time": "yesterday", "tree": tree.String()})
	b.create("snapshots/readme", []byte("x"))
	r := b.open()
	list, err := r.Snapshots(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var got []format.ID
	for _, s := range list {
		got = append(got, s.ID)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	_, err = formattest.Stream(r, format.ExportOptions{})
	formattest.WantError(t, err, ErrDamaged, bad.String())
	if _, err := formattest.Stream(r, format.ExportOptions{Snapshots: want[:1]}); err != nil {
		t.Error(err)
	}
	_, err = formattest.Stream(r, format.ExportOptions{Snapshots: []format.ID{{7}}})
	if err == nil || !strings.Contains(err.Error(), format.ID{7}.String()) {
		t.Errorf("a snapshot that is not there: %v", err)
	}
}
