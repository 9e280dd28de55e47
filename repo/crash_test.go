package repo

import (
	"testing"

	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/store/storetest"
)

// TestImportCrashes stops the machine at every change that an import makes.
func TestImportCrashes(t *testing.T) {
	m := faultHistory()
	begin := initStore(t)
	if _, err := tryImport(t, begin, m[:1]); err != nil {
		t.Fatal(err)
	}
	var committed []*Snapshot
	cases := storetest.EachCrash(t,
		func(*testing.T) store.Store { return begin.Clone() },
		func(t *testing.T, s *storetest.Crash) {
			sum, err := tryImport(t, s, m)
			committed = sum.Snapshots
			if s.Crashed() == (err == nil) {
				t.Errorf("crashed: %t, error: %v", s.Crashed(), err)
			}
			if err != nil {
				checkExplains(t, err, storetest.ErrCrashed)
			}
		},
		func(t *testing.T, s store.Store, changes int) { checkCompletes(t, s, m, committed) })
	t.Logf("%d crashes", cases)
}
