package storetest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/store/mem"
	"github.com/bk-backup/bk/repo/store/storetest"
)

func TestConformance(t *testing.T) {
	t.Run("Faulty", func(t *testing.T) {
		storetest.Conformance(t, func(*testing.T) store.Store { return storetest.NewFaulty(mem.New()) })
	})
	t.Run("Crash", func(t *testing.T) {
		storetest.Conformance(t, func(*testing.T) store.Store { return storetest.NewCrash(mem.New(), 0, storetest.Lost) })
	})
}

// holding returns storage with the objects a and b.
func holding(t *testing.T) store.Store {
	s := mem.New()
	for _, name := range []string{"a", "b"} {
		if err := s.Create(t.Context(), name, []byte("0123456789")); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestFaultModes(t *testing.T) {
	ctx := t.Context()
	create := func(s store.Store) error { return s.Create(ctx, "c", []byte("new")) }
	remove := func(s store.Store) error { return s.Delete(ctx, "a") }
	p := make([]byte, 10)
	listed := ""
	for _, test := range []struct {
		fault storetest.Fault
		call  func(store.Store) error
		err   error
		after string // the names afterwards
	}{
		{storetest.Fault{Call: 1}, create, storetest.ErrInjected, "a b"},
		{storetest.Fault{Call: 1, Mode: storetest.After}, create, storetest.ErrInjected, "a b c"},
		{storetest.Fault{Call: 1, Mode: storetest.Short, Err: store.ErrFull}, create, store.ErrFull, "a b"},
		{storetest.Fault{Call: 2}, create, nil, "a b c"},
		{storetest.Fault{Call: 1, Method: storetest.Delete}, create, nil, "a b c"},
		{storetest.Fault{Call: 1, Method: storetest.Delete}, remove, storetest.ErrInjected, "a b"},
		{storetest.Fault{Call: 1, Mode: storetest.After, Err: store.ErrTemporary}, remove, store.ErrTemporary, "b"},
		{storetest.Fault{Call: 1, Mode: storetest.Short}, func(s store.Store) error { return s.ReadAt(ctx, "a", p, 0) }, io.ErrUnexpectedEOF, "a b"},
		{storetest.Fault{Call: 1, Mode: storetest.Short}, func(s store.Store) error {
			return s.List(ctx, "", func(info store.Info) error { listed += info.Name; return nil })
		}, io.ErrUnexpectedEOF, "a b"},
	} {
		inner := holding(t)
		if err := test.call(storetest.NewFaulty(inner, test.fault)); !errors.Is(err, test.err) {
			t.Errorf("%v: %v, want %v", test.fault, err, test.err)
		}
		if got := names(t, inner); got != test.after {
			t.Errorf("%v: %q afterwards, want %q", test.fault, got, test.after)
		}
	}
	if string(p) != "01234\x00\x00\x00\x00\x00" || listed != "a" {
		t.Errorf("short: read %q, listed %q", p, listed)
	}
}

func TestFaultForever(t *testing.T) {
	s := storetest.NewFaulty(holding(t), storetest.Fault{Method: storetest.Stat, Call: 2, Forever: true})
	for call := 1; call <= 4; call++ {
		_, err := s.Stat(t.Context(), "a")
		if (err != nil) != (call >= 2) {
			t.Errorf("call %d: %v", call, err)
		}
		if _, err := s.Get(t.Context(), "a", 10); err != nil {
			t.Errorf("Get fails with a fault of Stat: %v", err)
		}
	}
	if s.Fired() != 3 {
		t.Errorf("fired %d times, want 3", s.Fired())
	}
}

func TestCounts(t *testing.T) {
	ctx := t.Context()
	s := storetest.NewFaulty(holding(t))
	for _, err := range []error{
		s.Create(ctx, "c", make([]byte, 100)),
		s.Create(ctx, "d", make([]byte, 20)),
		s.ReadAt(ctx, "c", make([]byte, 7), 0),
		s.Delete(ctx, "d"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Create(ctx, "c", make([]byte, 1000)); !errors.Is(err, store.ErrExists) {
		t.Fatal(err)
	}
	if _, err := s.Get(ctx, "a", 10); err != nil {
		t.Fatal(err)
	}
	want := storetest.Counts{
		Calls:     map[storetest.Method]int{storetest.Create: 3, storetest.ReadAt: 1, storetest.Get: 1, storetest.Delete: 1},
		BytesRead: 17, BytesWritten: 120,
	}
	if diff := cmp.Diff(want, s.Counts()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := storetest.NewFaulty(holding(t))
		s.Latency = func(m storetest.Method) time.Duration {
			if m == storetest.Get {
				return time.Hour
			}
			return 0
		}
		begin := time.Now()
		if _, err := s.Get(t.Context(), "a", 10); err != nil || time.Since(begin) != time.Hour {
			t.Errorf("Get took %v: %v", time.Since(begin), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := s.Get(ctx, "a", 10); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Get beyond the deadline: %v", err)
		}
		begin = time.Now()
		if _, err := s.Stat(t.Context(), "a"); err != nil || time.Since(begin) != 0 {
			t.Errorf("Stat took %v: %v", time.Since(begin), err)
		}
	})
}

// program creates c, d, ... and then deletes a.
func program(ctx context.Context, s store.Store) error {
	for _, name := range []string{"c", "d", "e"} {
		if err := s.Create(ctx, name, []byte("0123456789")); err != nil {
			return err
		}
	}
	return s.Delete(ctx, "a")
}

func TestEachFault(t *testing.T) {
	var seen []string
	runs := storetest.EachFault(t, storetest.Fault{Err: store.ErrFull}, holding, func(t *testing.T, s *storetest.Faulty) {
		err := program(t.Context(), s)
		seen = append(seen, names(t, s.Unwrap()))
		if (err != nil) != (s.Fired() == 1) || err != nil && !errors.Is(err, store.ErrFull) {
			t.Errorf("%d faults fired, and the program returned %v", s.Fired(), err)
		}
	})
	want := []string{"a b", "a b c", "a b c d", "a b c d e", "b c d e"}
	if diff := cmp.Diff(want, seen); diff != "" || runs != 4 {
		t.Errorf("%d runs (-want +got):\n%s", runs, diff)
	}
}

func TestEachCrash(t *testing.T) {
	var seen []string
	left := ""
	crashes := storetest.EachCrash(t, holding,
		func(t *testing.T, s *storetest.Crash) {
			s.Leave = func(name string, part []byte) { left += fmt.Sprintf("%s:%s ", name, part) }
			err := program(t.Context(), s)
			if !s.Crashed() {
				if err != nil {
					t.Errorf("without a crash: %v", err)
				}
				return
			}
			if !errors.Is(err, storetest.ErrCrashed) {
				t.Errorf("at the crash: %v", err)
			}
			_, getErr := s.Get(t.Context(), "b", 10)
			for _, err := range []error{getErr, s.Create(t.Context(), "late", nil), s.Delete(t.Context(), "b"),
				s.List(t.Context(), "", func(store.Info) error { return nil })} {
				if !errors.Is(err, storetest.ErrCrashed) {
					t.Errorf("after the crash: %v", err)
				}
			}
		},
		func(t *testing.T, s store.Store, changes int) {
			seen = append(seen, fmt.Sprintf("%d: %s", changes, names(t, s)))
		})
	want := []string{
		"1: a b c", "1: a b", "1: a b",
		"2: a b c d", "2: a b c", "2: a b c",
		"3: a b c d e", "3: a b c d", "3: a b c d",
		"4: b c d e", "4: a b c d e", "4: a b c d e",
		"4: b c d e", "4: b c d e", "4: b c d e",
	}
	if diff := cmp.Diff(want, seen); diff != "" || crashes != 12 {
		t.Errorf("%d crashes (-want +got):\n%s", crashes, diff)
	}
	if want := "c:01234 d:01234 e:01234 "; left != want {
		t.Errorf("left behind: %q, want %q", left, want)
	}
}

func TestCrashDuringList(t *testing.T) {
	s := storetest.NewCrash(holding(t), 1, storetest.Applied)
	n := 0
	err := s.List(t.Context(), "", func(info store.Info) error {
		n++
		_ = s.Create(t.Context(), "c", nil)
		return nil
	})
	if n != 1 || !errors.Is(err, storetest.ErrCrashed) {
		t.Errorf("listed %d objects, %v", n, err)
	}
	if got := names(t, s.After()); got != "a b c" {
		t.Errorf("after the crash: %s", got)
	}
}

// names returns the names of all objects, separated by spaces.
func names(t *testing.T, s store.Store) string {
	t.Helper()
	got := ""
	err := s.List(t.Context(), "", func(info store.Info) error { got += " " + info.Name; return nil })
	if err != nil {
		t.Fatal(err)
	}
	return got[min(len(got), 1):]
}

// TestRandomCrash has several changes under way at a crash: each is applied, lost
// or torn by itself, and all that returned before is there.
func TestRandomCrash(t *testing.T) {
	fates := map[string]int{}
	for seed := range uint64(200) {
		inner := mem.New()
		c := storetest.NewRandomCrash(inner, 6, seed)
		torn := atomic.Int32{}
		c.Leave = func(string, []byte) { torn.Add(1) }
		errs := make([]error, 8)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() { errs[i] = c.Create(t.Context(), fmt.Sprint(i), make([]byte, 10)) })
		}
		wg.Wait()
		c.After()
		there := names(t, inner)
		for i, err := range errs {
			has := strings.Contains(there, fmt.Sprint(i))
			switch {
			case err == nil && !has:
				t.Fatalf("seed %d: object %d was stored and is lost", seed, i)
			case err != nil && has:
				fates["applied"]++
			}
		}
		fates["torn"] += int(torn.Load())
		fates["under way"] += c.UnderWay()
	}
	if fates["applied"] < 20 || fates["torn"] < 20 || fates["under way"] < fates["applied"]+fates["torn"]+20 {
		t.Errorf("%v", fates)
	}
}
