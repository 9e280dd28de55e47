package repo

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/store"
)

// failing fails to create objects of some kinds.
type failing struct {
	store.Store
	prefix string
}

var errFull = errors.New("the disk is full")

func (f *failing) Create(ctx context.Context, name string, data ...[]byte) error {
	if f.prefix != "" && strings.HasPrefix(name, f.prefix) {
		return errFull
	}
	return f.Store.Create(ctx, name, data...)
}

// TestImportAfterOneThatFailed imports again through the same Repository: what
// the first import had claimed and not stored must be stored by the second.
func TestImportAfterOneThatFailed(t *testing.T) {
	for _, prefix := range []string{"packs/", "index/", "snapshots/", "cancel"} {
		t.Run(prefix, func(t *testing.T) {
			m := randomHistory(rand.New(rand.NewPCG(5, 5)), 2, 40)
			r := newRepo(t, 1)
			st := &failing{Store: r.store, prefix: prefix}
			r.store = st
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			sink, err := r.Import(ctx, ImportOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if prefix == "cancel" {
				if err := m[:1].write(t, stopBefore{sink, format.KindCommit}); !errors.Is(err, errStopped) {
					t.Fatal(err)
				}
				cancel()
			} else if err := m.write(t, sink); !errors.Is(err, errFull) {
				t.Fatalf("import into storage that is full: %v", err)
			}
			sink.Close()
			st.prefix = ""
			if sum := importModel(t, r, m); len(sum.Snapshots) != 2 {
				t.Fatalf("%d snapshots", len(sum.Snapshots))
			}
			r.meta.init() // what is only in memory does not count
			if diff := cmp.Diff(m.listings(), expand(t, r, format.ExportOptions{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// stopBefore is a sink that fails at a record of a kind.
type stopBefore struct {
	format.Sink
	kind format.Kind
}

var errStopped = errors.New("stopped")

func (s stopBefore) Write(rec format.Record) error {
	if rec.Kind() == s.kind {
		return errStopped
	}
	return s.Sink.Write(rec)
}

func TestOneImportAtATime(t *testing.T) {
	r := newRepo(t, 1)
	sink, err := r.Import(t.Context(), ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Import(t.Context(), ImportOptions{}); err == nil {
		t.Error("a second import was begun")
	}
	for range 2 {
		if err := sink.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := sink.Write(&format.Header{Version: 1}); err == nil {
		t.Error("a closed sink takes records")
	}
	importModel(t, r, randomHistory(rand.New(rand.NewPCG(5, 6)), 1, 5))
}

// TestBaseWithoutRoot sends a difference against a snapshot whose listing is
// lost: the import fails, and does not wait for ever.
func TestBaseWithoutRoot(t *testing.T) {
	r := newRepo(t, 1)
	sink, err := r.Import(t.Context(), ImportOptions{Known: []*Snapshot{{ID: format.ID{8}, Root: format.ID{9}}}})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		err := sink.Write(&format.Snapshot{ID: format.ID{1}, Parent: format.ID{8}})
		sink.Close()
		done <- err
	}()
	select {
	case err := <-done:
		if !errors.Is(err, ErrMissing) {
			t.Errorf("a base whose root is missing: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the sink hangs")
	}
}

// TestForeignClaimsOnIDs has streams claim the id of a snapshot that is held: a
// difference to that id still applies to that snapshot.
func TestForeignClaimsOnIDs(t *testing.T) {
	victim := &Snapshot{ID: format.ID{1}, Imported: format.ID{2}, Root: format.ID{0xa}}
	via := []format.Via{{From: format.ID{1}, Stage: viaRepository + "00"}, {From: format.ID{2}, Stage: viaRepository + "00"}, {From: format.ID{3}, Stage: viaRepository + "00"}}
	thief := &Snapshot{ID: format.ID{5}, Imported: format.ID{6}, Root: format.ID{0xb}, Meta: format.Snapshot{Via: via}}
	for _, list := range [][]*Snapshot{{victim, thief}, {thief, victim}} {
		s := &Sink{known: make(map[format.ID]holding)}
		for _, snap := range list {
			s.knows(snap)
		}
		for id, want := range map[format.ID]*Snapshot{{1}: victim, {2}: victim, {3}: thief, {5}: thief, {6}: thief} {
			if s.known[id].Snapshot != want {
				t.Errorf("the id %s leads to the snapshot with the id %s", id, s.known[id].ID)
			}
		}
	}
}
