package server_test

import (
	"net/http/httptest"
	"testing"

	"github.com/bk-backup/bk/repo/server"
	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/store/dir"
	"github.com/bk-backup/bk/repo/store/httpstore"
	"github.com/bk-backup/bk/repo/store/mem"
	"github.com/bk-backup/bk/repo/store/storetest"
)

// serve puts a server before a store and opens it again from outside.
func serve(t testing.TB, st store.Store, opts server.Options, client httpstore.Options) *httpstore.Store {
	t.Helper()
	srv := httptest.NewServer(server.New(st, opts))
	t.Cleanup(srv.Close)
	s, err := httpstore.Open(t.Context(), srv.URL+opts.Base, client)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// TestConformance has client and server together do what every store promises.
func TestConformance(t *testing.T) {
	storetest.Conformance(t, func(t *testing.T) store.Store {
		return serve(t, mem.New(), server.Options{}, httpstore.Options{})
	})
}

// TestConformanceOfDirectory is the same as a user has it.
func TestConformanceOfDirectory(t *testing.T) {
	storetest.Conformance(t, func(t *testing.T) store.Store {
		st, err := dir.Create(t.TempDir(), dir.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { st.Close() })
		return store.Retry(serve(t, st, server.Options{Base: "/some/where"}, httpstore.Options{}), store.Policy{})
	})
}
