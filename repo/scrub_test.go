package repo

import (
	"errors"
	"testing"

	"github.com/bk-backup/bk/repo/keyring"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store/mem"
)

// TestScrub finds every damage to every object without a key, but for those that
// are gone.
func TestScrub(t *testing.T) {
	if _, err := Scrub(t.Context(), mem.New(), ScrubOptions{}); !errors.Is(err, keyring.ErrNoRepository) {
		t.Errorf("empty storage: %v", err)
	}
	for _, suite := range seal.Suites() {
		begin, _ := checkable(t, suite)
		if err := begin.Create(t.Context(), "readme", []byte("of no kind")); err != nil {
			t.Fatal(err)
		}
		names := objects(t, begin, "")
		out, err := Scrub(t.Context(), begin, ScrubOptions{})
		if err != nil || len(out.Findings) > 0 || out.Objects.Packs != len(names)-1 || out.Strange != 1 {
			t.Fatalf("%+v, %v", out, err)
		}
		for _, name := range names {
			if name == "readme" {
				continue
			}
			for what, change := range harms(t, begin, name) {
				if change == nil {
					continue
				}
				st := begin.Clone()
				st.Damage(name, change)
				out, err := Scrub(t.Context(), st, ScrubOptions{})
				if err != nil || len(out.Findings) != 1 || out.Findings[0].Object != name || !errors.Is(out.Findings[0].Err, seal.ErrDamaged) {
					t.Errorf("%s, %s: %+v, %v", name, what, out, err)
				}
			}
		}
	}
}
