package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"
)

// Policy says how a store made by Retry repeats calls. The zero value is a
// good one for storage behind a network.
type Policy struct {
	// TriesMax is how often a call is tried at most; 0 means 6.
	TriesMax int
	// DelayFirst is the pause after the first try; 0 means 250 ms. Each
	// further pause is twice as long, up to DelayMax; 0 means 8 s.
	DelayFirst, DelayMax time.Duration
	// TryDurationMax ends a try that takes longer, which then counts as a
	// temporary failure; 0 means no limit. A listing is not limited by it.
	TryDurationMax time.Duration
	// Sleep waits, or returns the context's error; nil means by the system's clock.
	Sleep func(context.Context, time.Duration) error
	// Rand returns a number in [0, 1) by which each pause is shortened by up
	// to a half, so that clients which failed together do not come back
	// together; nil means a random one.
	Rand func() float64
	// Log gets a line for every try that failed; nil discards them.
	Log *slog.Logger
}

// Retry returns a store that repeats calls of s which fail with ErrTemporary.
// A Create that may have had its effect although it failed is read back before
// it counts as lost: what is there then counts as created if it is the same,
// byte by byte. So a caller for whom it matters that it was first, and not
// another one with equal data, has to put something unique into the object.
// Likewise a Delete succeeds if a try failed and nothing is there afterwards.
// A listing goes on after the last object that was seen.
func Retry(s Store, policy Policy) Store {
	if policy.TriesMax <= 0 {
		policy.TriesMax = 6
	}
	if policy.DelayFirst <= 0 {
		policy.DelayFirst = 250 * time.Millisecond
	}
	if policy.DelayMax <= 0 {
		policy.DelayMax = 8 * time.Second
	}
	if policy.Sleep == nil {
		policy.Sleep = sleep
	}
	if policy.Rand == nil {
		policy.Rand = rand.Float64
	}
	if policy.Log == nil {
		policy.Log = slog.New(slog.DiscardHandler)
	}
	return &retry{s, policy}
}

type retry struct {
	Store  // Close and String are passed on
	policy Policy
}

func (r *retry) Unwrap() Store { return r.Store }

func (r *retry) ReadAt(ctx context.Context, name string, p []byte, off int64) error {
	return r.repeat(ctx, "read", name, func(ctx context.Context) error {
		return r.Store.ReadAt(ctx, name, p, off)
	})
}

func (r *retry) Get(ctx context.Context, name string, sizeMax int64) (data []byte, err error) {
	err = r.repeat(ctx, "read", name, func(ctx context.Context) error {
		data, err = r.Store.Get(ctx, name, sizeMax)
		return err
	})
	return data, err
}

func (r *retry) Stat(ctx context.Context, name string) (info Info, err error) {
	err = r.repeat(ctx, "stat", name, func(ctx context.Context) error {
		info, err = r.Store.Stat(ctx, name)
		return err
	})
	return info, err
}

func (r *retry) Now(ctx context.Context) (now time.Time, err error) {
	err = r.repeat(ctx, "read clock of", "", func(ctx context.Context) error {
		now, err = r.Store.Now(ctx)
		return err
	})
	return now, err
}

func (r *retry) Create(ctx context.Context, name string, data ...[]byte) error {
	uncertain := false
	err := r.repeat(ctx, "create", name, func(ctx context.Context) error {
		err := r.Store.Create(ctx, name, data...)
		if uncertain && errors.Is(err, ErrExists) {
			same, readErr := r.holds(ctx, name, data)
			if readErr != nil {
				return readErr
			}
			if same {
				return nil
			}
		}
		uncertain = uncertain || r.temporary(err)
		return err
	})
	if err == nil || !uncertain || errors.Is(err, ErrExists) || ctx.Err() != nil {
		return err
	}
	same := false
	readErr := r.repeat(ctx, "read back", name, func(ctx context.Context) (err error) {
		same, err = r.holds(ctx, name, data)
		return err
	})
	if readErr == nil && same {
		return nil
	}
	return err
}

// holds says whether an object is there and consists of the parts of data.
func (r *retry) holds(ctx context.Context, name string, data [][]byte) (bool, error) {
	size := 0
	for _, part := range data {
		size += len(part)
	}
	held, err := r.Store.Get(ctx, name, int64(size))
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrTooLarge) || err == nil && len(held) != size {
		return false, nil
	}
	for _, part := range data {
		if err != nil || !bytes.Equal(held[:len(part)], part) {
			return false, err
		}
		held = held[len(part):]
	}
	return true, err
}

func (r *retry) Delete(ctx context.Context, name string) error {
	uncertain := false
	return r.repeat(ctx, "delete", name, func(ctx context.Context) error {
		err := r.Store.Delete(ctx, name)
		if uncertain && errors.Is(err, ErrNotFound) {
			return nil
		}
		uncertain = uncertain || r.temporary(err)
		return err
	})
}

func (r *retry) List(ctx context.Context, prefix string, fn func(Info) error) error {
	last := ""
	for try := 1; ; try++ {
		var stopped error
		err := r.Store.List(ctx, prefix, func(info Info) error {
			if info.Name <= last {
				return nil
			}
			// Progress gives a long listing all its tries anew.
			last, try = info.Name, 1
			stopped = fn(info)
			return stopped
		})
		if stopped != nil || err == nil {
			return stopped
		}
		if err := r.pause(ctx, "list", prefix, try, err); err != nil {
			return err
		}
	}
}

// repeat calls fn until it succeeds or fails for good.
func (r *retry) repeat(ctx context.Context, op, name string, fn func(context.Context) error) error {
	for try := 1; ; try++ {
		err := r.try(ctx, fn)
		if err == nil {
			return nil
		}
		if err := r.pause(ctx, op, name, try, err); err != nil {
			return err
		}
	}
}

func (r *retry) try(ctx context.Context, fn func(context.Context) error) error {
	if r.policy.TryDurationMax > 0 {
		limited, cancel := context.WithTimeout(ctx, r.policy.TryDurationMax)
		defer cancel()
		ctx = limited
	}
	return fn(ctx)
}

// pause waits and returns nil if the try that failed with err is to be
// repeated. Otherwise it returns the error for the caller.
func (r *retry) pause(ctx context.Context, op, name string, try int, err error) error {
	if ctx.Err() != nil || !r.temporary(err) {
		return err
	}
	if try >= r.policy.TriesMax {
		return fmt.Errorf("%w (tried %d times)", err, try)
	}
	delay := r.policy.DelayMax
	if shift := try - 1; shift < 32 && r.policy.DelayFirst<<shift>>shift == r.policy.DelayFirst {
		delay = min(delay, r.policy.DelayFirst<<shift)
	}
	delay -= time.Duration(r.policy.Rand() * float64(delay) / 2)
	r.policy.Log.WarnContext(ctx, "storage failed, trying again", "store", r.Store.String(), "op", op, "object", name, "try", try, "delay", delay, "error", err)
	if r.policy.Sleep(ctx, delay) != nil {
		return err
	}
	return nil
}

// temporary says whether a call that failed with err may succeed later. A
// deadline counts, since pause looks first whether it was the caller's own.
func (r *retry) temporary(err error) bool {
	return errors.Is(err, ErrTemporary) || r.policy.TryDurationMax > 0 && errors.Is(err, context.DeadlineExceeded)
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
