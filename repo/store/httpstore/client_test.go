package httpstore

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bk-backup/bk/repo/store"
)

// respond opens a store behind a handler, which says hello first.
func respond(t *testing.T, opts Options, handler http.HandlerFunc) *Store {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			w.Header().Set(ServerHeader, "1")
			io.WriteString(w, `{"protocol":1,"access":"full"}`)
			return
		}
		handler(w, r)
	}))
	t.Cleanup(srv.Close)
	s, err := Open(t.Context(), srv.URL, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// TestSomebodyElse has a proxy answer instead of the server: what it says must not
// be taken for what storage holds.
func TestSomebodyElse(t *testing.T) {
	for status, temporary := range map[int]bool{200: false, 206: false, 201: false, 204: false, 404: false, 412: false, 416: false, 403: false, 429: true, 502: true, 503: true, 504: true} {
		s := respond(t, Options{}, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			if status != 204 {
				io.WriteString(w, "<html>0123456789</html>")
			}
		})
		ctx := t.Context()
		_, statErr := s.Stat(ctx, "a")
		_, getErr := s.Get(ctx, "a", 1000)
		_, nowErr := s.Now(ctx)
		for call, err := range map[string]error{
			"Stat": statErr, "Get": getErr, "Now": nowErr, "ReadAt": s.ReadAt(ctx, "a", make([]byte, 5), 0),
			"Create": s.Create(ctx, "a", make([]byte, 100<<10)), "Delete": s.Delete(ctx, "a"),
			"List": s.List(ctx, "", func(store.Info) error { return nil }),
		} {
			for _, kind := range []error{store.ErrNotFound, store.ErrExists, store.ErrReadOnly, io.ErrUnexpectedEOF} {
				if err == nil || errors.Is(err, kind) {
					t.Errorf("%s, answered %d by somebody else: %v", call, status, err)
				}
			}
			if errors.Is(err, store.ErrTemporary) != temporary {
				t.Errorf("%s, answered %d by somebody else: %v; temporary: %v", call, status, err, temporary)
			}
		}
	}
}

// TestOpen has clear words for what is not a server.
func TestOpen(t *testing.T) {
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "<html>It works!</html>") }))
	defer page.Close()
	newer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(ServerHeader, "2")
		io.WriteString(w, `{"protocol":2}`)
	}))
	defer newer.Close()
	gone := httptest.NewServer(nil)
	gone.Close()
	for url, want := range map[string]string{
		page.URL: "does not come from a server of bk", newer.URL: "version 2 of the protocol", gone.URL: "refused",
		"http:///path": "a host", "ftp://host/": "a scheme", "http://host/?x": "a scheme", "https://host/%zz": "not a URL", "http:host": "a host",
	} {
		_, err := Open(t.Context(), url, Options{})
		var e *store.Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), want) || e.Fix == "" {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// TestRedirect has a server that would lead the client, and its token, elsewhere.
func TestRedirect(t *testing.T) {
	asked := atomic.Int32{}
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer elsewhere.Close()
	s := respond(t, Options{Token: "secret"}, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
	})
	if _, err := s.Get(t.Context(), "a", 10); err == nil || asked.Load() != 0 {
		t.Errorf("%v; asked elsewhere %d times", err, asked.Load())
	}
}

// TestStalls has the server stop in the middle, before and after the answer began.
func TestStalls(t *testing.T) {
	var stop chan struct{}
	for name, handler := range map[string]http.HandlerFunc{
		"no answer": func(http.ResponseWriter, *http.Request) { <-stop },
		"half an answer": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(ServerHeader, "1")
			w.Header().Set("Content-Length", "100")
			w.Write(make([]byte, 50))
			w.(http.Flusher).Flush()
			<-stop
		},
	} {
		t.Run(name, func(t *testing.T) {
			stop = make(chan struct{})
			s := respond(t, Options{StallMax: 50 * time.Millisecond}, handler)
			defer close(stop) // before the server waits for its handlers
			begin := time.Now()
			_, err := s.Get(t.Context(), "a", 1000)
			if !errors.Is(err, store.ErrTemporary) || !strings.Contains(err.Error(), "nothing moved") {
				t.Error(err)
			}
			if err := s.Create(t.Context(), "a", make([]byte, 1<<20)); name == "no answer" && !errors.Is(err, store.ErrTemporary) {
				t.Error(err)
			}
			if took := time.Since(begin); took > 20*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// TestSlowReader has a caller take longer for each object of a listing than the
// server may be silent.
func TestSlowReader(t *testing.T) {
	s := respond(t, Options{StallMax: 50 * time.Millisecond}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(ServerHeader, "1")
		for _, name := range []string{"a", "b", "c"} {
			io.WriteString(w, `{"name":"`+name+`","size":1,"created":"2026-01-02T03:04:05Z"}`+"\n")
		}
		io.WriteString(w, `{"end":true}`+"\n")
	})
	seen := 0
	if err := s.List(t.Context(), "", func(store.Info) error { seen++; time.Sleep(100 * time.Millisecond); return nil }); err != nil || seen != 3 {
		t.Errorf("%d, %v", seen, err)
	}
}

// TestListings has a server say what no listing can be.
func TestListings(t *testing.T) {
	const a, b = `{"name":"d/a","size":1,"created":"2026-01-02T03:04:05Z"}` + "\n", `{"name":"d/b","size":1,"created":"2026-01-02T03:04:05Z"}` + "\n"
	const end = `{"end":true}` + "\n"
	for text, want := range map[string]string{
		a + b + end: "", end: "", a + b: "broke off", "": "broke off", a[:20]: "broke off",
		b + a + end: "behind", a + a + end: "behind", strings.Replace(a, "d/a", "e/a", 1) + end: "behind",
		strings.Replace(a, "d/a", "d/../a", 1) + end: "name", strings.Replace(a, ":1", ":-1", 1) + end: "nothing valid",
		"{}\n": "name", "<html>\n": "not what it should be", a + strings.Repeat("x", 2*LineSizeMax): "broke off",
		a + `{"failure":{"kind":"temporary","error":"the disk sleeps"}}` + "\n": "the disk sleeps",
	} {
		s := respond(t, Options{}, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(ServerHeader, "1")
			io.WriteString(w, text)
		})
		err := s.List(t.Context(), "d/", func(store.Info) error { return nil })
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%.200q: %v; want %q", text, err, want)
		}
	}
}

// TestCreateLetsGo has a server refuse an object before it has come, and the
// caller use its buffer for something else at once: the race detector and the
// server see whether somebody still looks at it.
func TestCreateLetsGo(t *testing.T) {
	var mixed atomic.Bool
	s := respond(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(ServerHeader, "1")
		w.WriteHeader(http.StatusInsufficientStorage)
		io.WriteString(w, `{"kind":"full"}`)
		w.(http.Flusher).Flush()
		text, _ := io.ReadAll(r.Body)
		if bytes.IndexByte(text, 'y') >= 0 {
			mixed.Store(true)
		}
	})
	for range 50 {
		data := bytes.Repeat([]byte("x"), 40<<10)
		if err := s.Create(t.Context(), "a", data[:100], data[100:]); !errors.Is(err, store.ErrFull) && !errors.Is(err, store.ErrTemporary) {
			t.Fatal(err)
		}
		copy(data, bytes.Repeat([]byte("y"), len(data)))
	}
	if mixed.Load() {
		t.Error("a part of an object was sent after the call")
	}
}

// FuzzListing has any text be a listing or an error.
func FuzzListing(f *testing.F) {
	f.Add(`{"name":"d%2Fa","size":1,"created":"2026-01-02T03:04:05Z"}`)
	f.Add(`{"end":true}`)
	f.Fuzz(func(t *testing.T, name string) {
		got, err := UnescapeName(EscapeName(name))
		if err != nil || got != name {
			t.Errorf("%q is escaped to %q: %q, %v", name, EscapeName(name), got, err)
		}
		info, err := (&Line{Name: name, Created: "2026-01-02T03:04:05Z"}).info()
		if err == nil && store.CheckReadName(info.Name) != nil {
			t.Errorf("the name %q is taken", info.Name)
		}
	})
}
