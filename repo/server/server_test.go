package server_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/server"
	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/store/httpstore"
	"github.com/bk-backup/bk/repo/store/mem"
	"github.com/bk-backup/bk/repo/store/storetest"
)

// as returns the authorization that gives everybody one access.
func as(access httpstore.Access) func(string, string) (httpstore.Access, bool) {
	return func(string, string) (httpstore.Access, bool) { return access, true }
}

// names is one name of each kind of object, and what is none.
var names = func() map[string]string {
	id := strings.Repeat("ab", 16)
	sum := strings.Repeat("cd", 32)
	return map[string]string{
		"config": "config/1", "credential": "credentials/" + id, "client": "clients/" + id + "/1",
		"pack": "packs/cd/" + sum, "index": "index/" + sum,
		"snapshot": "snapshots/" + id + "/" + id + "-0", "resealed": "snapshots/" + id + "/" + id + "-0-2",
		"session": "sessions/" + id + "/" + id, "plan": "condemned/3", "forget": "forgets/" + id + "/" + id + "-0",
		"partial": "partial/" + id + "/" + id + "-0", "damage": "damaged/" + id + "/" + id + "-0", "strange": "something/else",
	}
}()

// TestAccess goes through all kinds of objects: who may create and delete them.
func TestAccess(t *testing.T) {
	creates := map[httpstore.Access]string{httpstore.Read: "", httpstore.Append: " pack index snapshot session partial ", httpstore.Full: "all"}
	deletes := map[httpstore.Access]string{httpstore.Read: "", httpstore.Append: " session partial ", httpstore.Full: "all"}
	may := func(rights, kind string) bool { return rights == "all" || strings.Contains(rights, " "+kind+" ") }
	for access := range creates {
		t.Run(string(access), func(t *testing.T) {
			ctx := t.Context()
			st := mem.New()
			s := serve(t, st, server.Options{Authorize: as(access)}, httpstore.Options{})
			if s.Access() != access {
				t.Errorf("the server says %q", s.Access())
			}
			for kind, name := range names {
				switch err := s.Create(ctx, name, make([]byte, 200<<10)); {
				case may(creates[access], kind) && err != nil:
					t.Errorf("create a %s: %v", kind, err)
				case !may(creates[access], kind) && !errors.Is(err, store.ErrReadOnly):
					t.Errorf("create a %s: %v; want ErrReadOnly", kind, err)
				}
				if _, err := st.Stat(ctx, name); (err == nil) != may(creates[access], kind) {
					t.Errorf("behind the server, a %s: %v", kind, err)
				}
			}
			for kind, name := range names {
				if err := st.Create(ctx, name); err != nil && !errors.Is(err, store.ErrExists) {
					t.Fatal(err)
				}
				if _, err := s.Get(ctx, name, 1<<20); err != nil {
					t.Errorf("read a %s: %v", kind, err)
				}
				switch err := s.Delete(ctx, name); {
				case may(deletes[access], kind) && err != nil:
					t.Errorf("delete a %s: %v", kind, err)
				case !may(deletes[access], kind) && !errors.Is(err, store.ErrReadOnly):
					t.Errorf("delete a %s: %v; want ErrReadOnly", kind, err)
				}
				if _, err := st.Stat(ctx, name); (err != nil) != may(deletes[access], kind) {
					t.Errorf("behind the server, a deleted %s: %v", kind, err)
				}
			}
			if _, err := s.Now(ctx); (err == nil) != (access != httpstore.Read) {
				t.Errorf("the clock: %v", err)
			}
		})
	}
}

// TestUnknownUser has a stranger learn nothing, and do nothing.
func TestUnknownUser(t *testing.T) {
	st := mem.New()
	if err := st.Create(t.Context(), "config/0", []byte("secret")); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(server.New(st, server.Options{Authorize: func(user, token string) (httpstore.Access, bool) {
		return httpstore.Full, user == "jo" && token == "open"
	}}))
	defer srv.Close()
	for _, url := range []string{srv.URL, "http://jo:shut@" + srv.Listener.Addr().String(), "http://joe:open@" + srv.Listener.Addr().String()} {
		_, err := httpstore.Open(t.Context(), url, httpstore.Options{})
		var e *store.Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), "does not know this user") || e.Fix == "" || strings.Contains(err.Error(), "shut") {
			t.Errorf("%s: %v", url, err)
		}
	}
	for _, path := range []string{"/", "/objects/config/0", "/objects/nothing", "/list/", "/elsewhere"} {
		for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "POST"} {
			req, _ := http.NewRequest(method, srv.URL+path, nil)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			text, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode != http.StatusUnauthorized || bytes.Contains(text, []byte("secret")) {
				t.Errorf("%s %s: %s, %q", method, path, resp.Status, text)
			}
		}
	}
	s, err := httpstore.Open(t.Context(), "http://jo@"+srv.Listener.Addr().String(), httpstore.Options{Token: "open"})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get(t.Context(), "config/0", 10); err != nil || string(got) != "secret" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestDamagedOnTheWay has the server refuse what is not the object that its name
// or its end says, and what no repository has.
func TestDamagedOnTheWay(t *testing.T) {
	st := mem.New()
	s := serve(t, st, server.Options{Check: server.CheckObject}, httpstore.Options{})
	object := make([]byte, 4096)
	copy(object, "bkobject\x01\x06\x01\x00\x00\x00\x00\x01")
	sum := sha256.Sum256(object)
	name := "index/" + hex.EncodeToString(sum[:])
	bad := bytes.Clone(object)
	bad[777]++
	if err := s.Create(t.Context(), name, bad); !errors.Is(err, store.ErrTemporary) {
		t.Errorf("a damaged object: %v", err)
	}
	if err := s.Create(t.Context(), "index/abc", object); err == nil {
		t.Error("an object of a strange name is taken")
	}
	if n := count(t, st); n != 0 {
		t.Errorf("%d objects are stored", n)
	}
	if err := s.Create(t.Context(), name, object); err != nil {
		t.Error(err)
	}
}

// count returns how many objects a store holds.
func count(t *testing.T, st store.Reader) (n int) {
	t.Helper()
	if err := st.List(t.Context(), "", func(store.Info) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// raw sends what a client of ours never sends, and returns the status.
func raw(t *testing.T, addr, request string) (status int, rest string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
	}
	answer, _ := io.ReadAll(conn)
	_, _ = fmt.Sscanf(string(answer), "HTTP/1.1 %d", &status)
	return status, string(answer)
}

// TestStrangeRequests sends requests that are wrong in some way: none reaches the
// storage, and none passes for an object that is not there.
func TestStrangeRequests(t *testing.T) {
	inner := mem.New()
	st := storetest.NewFaulty(inner)
	if err := st.Create(t.Context(), "config/0", []byte("0123456789")); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(server.New(st, server.Options{Base: "/repo"}))
	defer srv.Close()
	addr := srv.Listener.Addr().String()
	for _, c := range []struct {
		request string
		status  int
	}{
		{"GET /repo/objects/..%2f..%2fetc/passwd HTTP/1.1", 400},
		{"GET /repo/objects/%2e%2e/config/0 HTTP/1.1", 400},
		{"GET /repo/objects/../config/0 HTTP/1.1", 400},
		{"GET /repo/objects//config/0 HTTP/1.1", 400},
		{"GET /repo/objects/config%00 HTTP/1.1", 400},
		{"GET /repo/objects/ HTTP/1.1", 400},
		{"GET /repo/objects HTTP/1.1", 404},
		{"GET /repository/objects/config/0 HTTP/1.1", 404},
		{"GET /objects/config/0 HTTP/1.1", 404},
		{"GET /repo/list/config HTTP/1.1", 400},
		{"GET /repo/now HTTP/1.1", 404},
		{"POST /repo/objects/config/0 HTTP/1.1", 405},
		{"GET /repo/objects/config/0 HTTP/1.1\r\nRange: bytes=5-", 400},
		{"GET /repo/objects/config/0 HTTP/1.1\r\nRange: bytes=-5", 400},
		{"GET /repo/objects/config/0 HTTP/1.1\r\nRange: bytes=0-1,3-4", 400},
		{"GET /repo/objects/config/0 HTTP/1.1\r\nRange: bytes=4-3", 400},
		{"GET /repo/objects/config/0 HTTP/1.1\r\nRange: bytes=5-10", 416},
		{"PUT /repo/objects/CONFIG HTTP/1.1\r\nContent-Length: 0", 400},
		{"PUT /repo/objects/tmp/x HTTP/1.1\r\nContent-Length: 0", 400},
		{"PUT /repo/objects/a HTTP/1.1\r\nTransfer-Encoding: chunked", 413},
		{"PUT /repo/objects/a HTTP/1.1\r\nContent-Length: 9999999999999", 413},
		{"PUT /repo/objects/a HTTP/1.1\r\nContent-Length: 100", 503}, // that never come
	} {
		status, answer := raw(t, addr, c.request+"\r\nHost: x\r\nConnection: close\r\n\r\n")
		if status != c.status {
			t.Errorf("%q: %q, want %d", c.request, answer, c.status)
		}
		if strings.Contains(answer, "not-found") {
			t.Errorf("%q passes for an object that is absent: %q", c.request, answer)
		}
	}
	if n := count(t, inner); n != 1 {
		t.Errorf("%d objects are stored", n)
	}
}

// TestBreaks cuts the connection after every number of bytes in either direction.
// Without trying again the call fails as one that may be tried again, and with it
// all is as if nothing had happened; an object is whole or not there.
func TestBreaks(t *testing.T) {
	object := bytes.Repeat([]byte("0123456789abcdef"), 20<<10) // 320 KiB
	for _, up := range []bool{true, false} {
		for limit := int64(1); limit < 700<<10; limit = limit*3/2 + 37 {
			st := mem.New()
			if err := st.Create(t.Context(), "index/a", object); err != nil {
				t.Fatal(err)
			}
			srv := httptest.NewUnstartedServer(server.New(st, server.Options{}))
			breaking := &breaker{Listener: srv.Listener, up: up}
			srv.Listener = breaking
			srv.Start()
			direct, err := httpstore.Open(t.Context(), srv.URL, httpstore.Options{})
			if err != nil {
				t.Fatal(err)
			}
			s := store.Retry(direct, store.Policy{Sleep: func(ctx context.Context, _ time.Duration) error { return ctx.Err() }, TriesMax: 8})
			direct.Close() // connections that were made before
			breaking.arm(limit)
			if err := s.Create(t.Context(), "index/b", object[:100], object[100:]); err != nil {
				t.Errorf("create, broken after %d bytes: %v", limit, err)
			}
			if got, err := st.Get(t.Context(), "index/b", 1<<20); err != nil || !bytes.Equal(got, object) {
				t.Errorf("what was created, broken after %d bytes, is another object: %v", limit, err)
			}
			direct.Close()
			breaking.arm(limit)
			if got, err := s.Get(t.Context(), "index/a", 1<<20); err != nil || !bytes.Equal(got, object) {
				t.Errorf("read, broken after %d bytes: %v", limit, err)
			}
			direct.Close()
			breaking.arm(limit)
			listed := 0
			if err := s.List(t.Context(), "index/", func(store.Info) error { listed++; return nil }); err != nil || listed != 2 {
				t.Errorf("listed, broken after %d bytes: %d objects, %v", limit, listed, err)
			}
			direct.Close()
			breaking.arm(limit)
			if got, err := direct.Get(t.Context(), "index/a", 1<<20); err != nil && !errors.Is(err, store.ErrTemporary) || err == nil && !bytes.Equal(got, object) {
				t.Errorf("read once, broken after %d bytes: %v", limit, err)
			}
			breaking.arm(0)
			direct.Close()
			srv.CloseClientConnections()
			srv.Close()
		}
	}
}

// TestGoneMidway has an object vanish while it is sent.
func TestGoneMidway(t *testing.T) {
	st := storetest.NewFaulty(mem.New())
	if err := st.Create(t.Context(), "index/a", make([]byte, 3<<20)); err != nil {
		t.Fatal(err)
	}
	s := serve(t, &vanishing{Store: st, reads: 3}, server.Options{}, httpstore.Options{})
	if _, err := s.Get(t.Context(), "index/a", 4<<20); !errors.Is(err, store.ErrTemporary) {
		t.Errorf("an object that ends in the middle: %v", err)
	}
}

type vanishing struct {
	store.Store
	reads int
}

func (v *vanishing) ReadAt(ctx context.Context, name string, p []byte, off int64) error {
	if v.reads--; v.reads < 0 {
		return &store.Error{Op: "read", Name: name, Kind: store.ErrNotFound}
	}
	return v.Store.ReadAt(ctx, name, p, off)
}

// TestManyUploads has more bytes come at once than may be in memory.
func TestManyUploads(t *testing.T) {
	st := mem.New()
	s := serve(t, st, server.Options{MemoryMax: 1 << 20}, httpstore.Options{})
	failed := make(chan error, 20)
	for i := range 20 {
		go func() {
			failed <- s.Create(t.Context(), fmt.Sprintf("packs/%02d", i), bytes.Repeat([]byte{byte(i)}, (i%3+1)*500<<10))
		}()
	}
	for range 20 {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	if n := count(t, st); n != 20 {
		t.Errorf("%d objects", n)
	}
}

// FuzzServer has any request do nothing that its access does not allow.
func FuzzServer(f *testing.F) {
	for _, seed := range []string{"GET /r/objects/config/0", "PUT /r/objects/packs/aa/b", "DELETE /r/objects/config/0", "GET /r/list/", "POST /r/now", "GET /r/", "HEAD /r/objects/%63onfig/0"} {
		method, path, _ := strings.Cut(seed, " ")
		f.Add(method, path, "bytes=0-3", []byte("body"))
	}
	f.Fuzz(func(t *testing.T, method, path, ranged string, body []byte) {
		r, err := http.NewRequest(method, "http://x"+path, bytes.NewReader(body))
		if err != nil {
			return
		}
		r.Header.Set("Range", ranged)
		for _, access := range []httpstore.Access{httpstore.Read, httpstore.Append} {
			st := mem.New()
			if err := st.Create(t.Context(), "config/0", []byte("0123456789")); err != nil {
				t.Fatal(err)
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			server.New(st, server.Options{Base: "/r", Authorize: as(access)}).ServeHTTP(httptest.NewRecorder(), r)
			if got, err := st.Get(t.Context(), "config/0", 10); err != nil || string(got) != "0123456789" {
				t.Errorf("%s %s changes what is stored: %v", method, path, err)
			}
			_ = st.List(t.Context(), "", func(info store.Info) error {
				name, ok := seal.ParseName(info.Name)
				if info.Name != "config/0" && (access == httpstore.Read || !ok || name.Kind == seal.KindForget) {
					t.Errorf("%s %s creates %s", method, path, info.Name)
				}
				return nil
			})
		}
	})
}
