package repo

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/bk-backup/bk/format"
)

// TestLongEntriesTakeLittleMemory sends entries with long attributes, which
// compress to next to nothing, as fast as the sink takes them.
func TestLongEntriesTakeLittleMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("moves 450 MiB")
	}
	r := newRepo(t, 1)
	sink, err := r.Import(t.Context(), ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	for _, rec := range []format.Record{&format.Header{Version: 1}, &format.Snapshot{ID: format.ID{1}}} {
		if err := sink.Write(rec); err != nil {
			t.Fatal(err)
		}
	}
	most := uint64(0)
	for i := range 450 {
		e := modelEntry(fmt.Sprintf("%04d", i), format.TypeDir)
		e.Xattrs = []format.Xattr{{Name: "user.a", Value: fmt.Sprint(i, strings.Repeat("x", 1<<20-10))}}
		if err := sink.Write(&e); err != nil {
			t.Fatal(err)
		}
		if i%50 == 49 {
			var stats runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&stats)
			most = max(most, stats.HeapAlloc)
		}
	}
	if most > 350<<20 {
		t.Errorf("%d MiB in use", most>>20)
	}
}
