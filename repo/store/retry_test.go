package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/store/mem"
	"github.com/bk-backup/bk/repo/store/storetest"
)

// quick retries without waiting.
var quick = store.Policy{Sleep: func(context.Context, time.Duration) error { return nil }}

func TestRetryConformance(t *testing.T) {
	storetest.Conformance(t, func(*testing.T) store.Store { return store.Retry(mem.New(), quick) })
}

func empty(*testing.T) store.Store { return mem.New() }

// everything calls every method and returns the first error or unexpected result.
func everything(ctx context.Context, s store.Store) error {
	for _, name := range []string{"a", "b", "c"} {
		if err := s.Create(ctx, name, []byte("content of "+name)); err != nil {
			return err
		}
	}
	p := make([]byte, 7)
	if err := s.ReadAt(ctx, "a", p, 0); err != nil || string(p) != "content" {
		return fmt.Errorf("read %q: %w", p, err)
	}
	if data, err := s.Get(ctx, "b", 100); err != nil || string(data) != "content of b" {
		return fmt.Errorf("get %q: %w", data, err)
	}
	if info, err := s.Stat(ctx, "c"); err != nil || info.Size != 12 {
		return fmt.Errorf("stat %v: %w", info, err)
	}
	if now, err := s.Now(ctx); err != nil || now.IsZero() {
		return fmt.Errorf("now %v: %w", now, err)
	}
	if err := s.Delete(ctx, "b"); err != nil {
		return err
	}
	names := ""
	err := s.List(ctx, "", func(info store.Info) error { names += info.Name; return nil })
	if err == nil && names != "ac" {
		err = fmt.Errorf("listed %q", names)
	}
	return err
}

// TestRetryEachFault has each call fail once, before or after its effect, and
// midway.
func TestRetryEachFault(t *testing.T) {
	for _, mode := range []storetest.Mode{storetest.Before, storetest.After, storetest.Short} {
		runs := storetest.EachFault(t, storetest.Fault{Mode: mode, Err: store.ErrTemporary}, empty, func(t *testing.T, s *storetest.Faulty) {
			if err := everything(t.Context(), store.Retry(s, quick)); err != nil {
				t.Error(err)
			}
		})
		if runs < 9 {
			t.Errorf("%d calls failed, though there were at least 9", runs)
		}
	}
}

// TestRetryLeavesOthers has each call fail for good.
func TestRetryLeavesOthers(t *testing.T) {
	storetest.EachFault(t, storetest.Fault{}, empty, func(t *testing.T, s *storetest.Faulty) {
		err := everything(t.Context(), store.Retry(s, quick))
		if s.Fired() == 1 && !errors.Is(err, storetest.ErrInjected) || s.Fired() > 1 {
			t.Errorf("%d faults: %v", s.Fired(), err)
		}
	})
}

func TestRetryGivesUp(t *testing.T) {
	policy := quick
	policy.TriesMax = 4
	for _, method := range []storetest.Method{storetest.Create, storetest.ReadAt, storetest.Get, storetest.Stat, storetest.Now, storetest.Delete, storetest.List} {
		fault := storetest.Fault{Method: method, Call: 1, Forever: true, Err: store.ErrTemporary}
		s := storetest.NewFaulty(mem.New(), fault)
		err := everything(t.Context(), store.Retry(s, policy))
		var typed *store.Error
		if !errors.Is(err, store.ErrTemporary) || !errors.As(err, &typed) || !strings.Contains(err.Error(), "tried 4 times") {
			t.Errorf("%s fails for ever: %v", method, err)
		}
		if n := s.Counts().Calls[method]; n != 4 {
			t.Errorf("%s was tried %d times, want 4", method, n)
		}
	}
}

func TestRetryReadsBack(t *testing.T) {
	ctx := t.Context()
	timeout := storetest.Fault{Method: storetest.Create, Call: 1, Mode: storetest.After, Err: store.ErrTemporary}
	lost := timeout
	lost.Mode = storetest.Before
	always := timeout
	always.Forever = true
	once := quick
	once.TriesMax = 1
	for _, test := range []struct {
		name   string
		policy store.Policy
		faults []storetest.Fault
		held   string // what is there beforehand, if anything
		want   error
	}{
		{"timed out, but done", quick, []storetest.Fault{timeout}, "", nil},
		{"timed out, but done, and only one try", once, []storetest.Fault{timeout}, "", nil},
		{"times out always, but done", quick, []storetest.Fault{always}, "", nil},
		{"timed out and not done", once, []storetest.Fault{lost}, "", store.ErrTemporary},
		{"reading back fails once too", quick, []storetest.Fault{timeout, {Method: storetest.Get, Call: 1, Err: store.ErrTemporary}}, "", nil},
		{"reading back fails for good", once, []storetest.Fault{timeout, {Method: storetest.Get, Call: 1}}, "", store.ErrTemporary},
		{"another one came first", quick, []storetest.Fault{lost}, "other", store.ErrExists},
		{"another one came first with more", quick, []storetest.Fault{lost}, "mine and more", store.ErrExists},
		{"it was there before", quick, nil, "mine", store.ErrExists},
	} {
		inner := mem.New()
		if test.held != "" {
			if err := inner.Create(ctx, "slot", []byte(test.held)); err != nil {
				t.Fatal(err)
			}
		}
		s := store.Retry(storetest.NewFaulty(inner, test.faults...), test.policy)
		if err := s.Create(ctx, "slot", []byte("mine")); !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
	}
}

// TestRetryListGoesOn has a listing that fails after each object, for more
// often than a call is tried.
func TestRetryListGoesOn(t *testing.T) {
	inner := mem.New()
	var want []string
	for i := range 20 {
		want = append(want, fmt.Sprintf("%02d", i))
		if err := inner.Create(t.Context(), want[i], nil); err != nil {
			t.Fatal(err)
		}
	}
	s := store.Retry(&shortLists{Store: inner}, quick)
	var got []string
	if err := s.List(t.Context(), "", func(info store.Info) error { got = append(got, info.Name); return nil }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// An error of the callback is its own, even if it looks temporary.
	calls := 0
	err := s.List(t.Context(), "", func(store.Info) error { calls++; return store.ErrTemporary })
	if err != store.ErrTemporary || calls != 1 {
		t.Errorf("the callback was called %d times: %v", calls, err)
	}
}

// shortLists lists one object more with each call, and then fails.
type shortLists struct {
	store.Store
	calls int
}

func (s *shortLists) List(ctx context.Context, prefix string, fn func(store.Info) error) error {
	s.calls++
	n := 0
	return s.Store.List(ctx, prefix, func(info store.Info) error {
		if n++; n > s.calls {
			return store.ErrTemporary
		}
		return fn(info)
	})
}

func TestRetryDelays(t *testing.T) {
	var delays []time.Duration
	var log bytes.Buffer
	policy := store.Policy{
		TriesMax:   6,
		DelayFirst: time.Second,
		DelayMax:   5 * time.Second,
		Sleep:      func(_ context.Context, d time.Duration) error { delays = append(delays, d); return nil },
		Rand:       func() float64 { return 0.5 },
		Log:        slog.New(slog.NewTextHandler(&log, nil)),
	}
	s := store.Retry(storetest.NewFaulty(mem.New(), storetest.Fault{Call: 1, Forever: true, Err: store.ErrTemporary}), policy)
	if _, err := s.Stat(t.Context(), "a"); !errors.Is(err, store.ErrTemporary) {
		t.Fatal(err)
	}
	want := []time.Duration{750 * time.Millisecond, 1500 * time.Millisecond, 3 * time.Second, 3750 * time.Millisecond, 3750 * time.Millisecond}
	if diff := cmp.Diff(want, delays); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n := strings.Count(log.String(), "trying again"); n != 5 {
		t.Errorf("%d lines were logged, want 5:\n%s", n, &log)
	}
}

func TestRetryEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := storetest.NewFaulty(mem.New(), storetest.Fault{Call: 1, Forever: true, Err: store.ErrTemporary})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		err := store.Retry(s, store.Policy{TriesMax: 100}).Create(ctx, "a", nil)
		if !errors.Is(err, store.ErrTemporary) || time.Since(begin) != time.Second {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
	})
}

func TestRetryLimitsTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := storetest.NewFaulty(mem.New())
		slow := 2
		s.Latency = func(storetest.Method) time.Duration {
			if slow--; slow >= 0 {
				return time.Hour
			}
			return 0
		}
		r := store.Retry(s, store.Policy{TryDurationMax: time.Minute})
		if err := r.Create(t.Context(), "a", []byte("content")); err != nil {
			t.Error(err)
		}
		slow = 2
		p := make([]byte, 7)
		if err := r.ReadAt(t.Context(), "a", p, 0); err != nil || string(p) != "content" {
			t.Errorf("read %q, %v", p, err)
		}
		if err := r.ReadAt(t.Context(), "a", p, 1); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("read beyond the end: %v", err)
		}
	})
}
