package mem_test

import (
	"testing"
	"time"

	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/store/mem"
	"github.com/bk-backup/bk/repo/store/storetest"
)

func TestConformance(t *testing.T) {
	storetest.Conformance(t, func(*testing.T) store.Store { return mem.New() })
}

func TestClock(t *testing.T) {
	s := mem.New()
	at := time.Date(2001, 2, 3, 4, 5, 6, 7, time.FixedZone("elsewhere", 3600))
	s.SetClock(func() time.Time { return at })
	if err := s.Create(t.Context(), "a", nil); err != nil {
		t.Fatal(err)
	}
	created := at
	at = at.Add(-24 * time.Hour)
	if now, err := s.Now(t.Context()); err != nil || !now.Equal(at) {
		t.Errorf("Now() = %v, %v; want %v", now, err, at)
	}
	if info, err := s.Stat(t.Context(), "a"); err != nil || !info.Created.Equal(created) {
		t.Errorf("Stat() = %v, %v; want %v", info, err, created)
	}
}

func TestCloneIsIndependent(t *testing.T) {
	ctx := t.Context()
	s := mem.New()
	for _, name := range []string{"a", "b"} {
		if err := s.Create(ctx, name, []byte(name)); err != nil {
			t.Fatal(err)
		}
	}
	c := s.Clone()
	if err := c.Delete(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if err := s.Create(ctx, "c", nil); err != nil {
		t.Fatal(err)
	}
	if !s.Damage("b", func(data []byte) []byte { data[0] = 'x'; return data }) || s.Damage("d", nil) {
		t.Error("Damage does not say whether there is such an object")
	}
	for _, test := range []struct {
		s    *mem.Store
		want string
	}{{s, "a=a b=x c= "}, {c, "b=b "}} {
		got := ""
		err := test.s.List(ctx, "", func(info store.Info) error {
			data, err := test.s.Get(ctx, info.Name, 10)
			got += info.Name + "=" + string(data) + " "
			return err
		})
		if err != nil || got != test.want {
			t.Errorf("holds %q, %v; want %q", got, err, test.want)
		}
	}
}
