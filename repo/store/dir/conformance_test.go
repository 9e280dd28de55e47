package dir

import (
	"testing"

	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/store/storetest"
)

func TestConformance(t *testing.T) {
	storetest.Conformance(t, func(t *testing.T) store.Store { return create(t, Options{OpenFilesMax: 10}) })
}

// TestConformanceByLinks takes the way of file systems that cannot rename
// without replacing.
func TestConformanceByLinks(t *testing.T) {
	storetest.Conformance(t, func(t *testing.T) store.Store {
		s := create(t, Options{})
		s.linksOnly = true
		return s
	})
}

func create(t testing.TB, options Options) *Store {
	t.Helper()
	s, err := Create(t.TempDir(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}
