package storetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/bk-backup/bk/repo/store"
)

// ErrInjected is the failure of a Fault that names no other.
var ErrInjected = errors.New("injected failure")

// Method is a method of store.Store; its value is the operation in errors.
type Method string

// These are the methods that Faulty counts and that can fail.
const (
	Create Method = "create"
	ReadAt Method = "read"
	Get    Method = "get"
	Stat   Method = "stat"
	List   Method = "list"
	Delete Method = "delete"
	Now    Method = "read clock of"
)

// Mode says how much of its effect a call has that fails.
type Mode int

const (
	// Before: the call has no effect.
	Before Mode = iota
	// After: the call has its whole effect, but its result is lost.
	After
	// Short: ReadAt fills half of the buffer, and List shows one object; the
	// other methods do as with Before.
	Short
)

func (m Mode) String() string { return [...]string{"before", "after", "short"}[m] }

// Fault makes calls fail.
type Fault struct {
	Method  Method // empty for every method
	Call    int    // the call that fails, counted among the calls of Method from 1
	Forever bool   // every later call fails too
	Mode    Mode
	// Err is the failure: nil for ErrInjected, or io.ErrUnexpectedEOF with
	// Short; store.ErrFull for a full disk; store.ErrTemporary for a time-out.
	Err error
}

func (f Fault) String() string {
	return fmt.Sprintf("%s call %d, %s, forever=%t: %v", f.Method, f.Call, f.Mode, f.Forever, f.Err)
}

// Faulty is a store whose calls can fail. It counts calls and bytes.
type Faulty struct {
	store.Store // Close and String are passed on
	// Latency, if set, is how long each call of a method waits before it
	// begins. It is set before the first call.
	Latency func(Method) time.Duration

	faults []Fault
	mu     sync.Mutex
	all    int
	fired  int
	counts Counts
}

// Counts says what a store was asked to do. Calls that failed count too; the
// bytes are those of calls that succeeded.
type Counts struct {
	Calls                   map[Method]int
	BytesRead, BytesWritten int64
}

// NewFaulty returns a store that does as s does, but for the faults.
func NewFaulty(s store.Store, faults ...Fault) *Faulty {
	return &Faulty{Store: s, faults: faults, counts: Counts{Calls: map[Method]int{}}}
}

// Counts returns the counts up to now.
func (f *Faulty) Counts() Counts {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.counts
	c.Calls = maps.Clone(c.Calls)
	return c
}

// Fired returns how many calls failed by a fault.
func (f *Faulty) Fired() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fired
}

// Unwrap returns the store that does the work.
func (f *Faulty) Unwrap() store.Store { return f.Store }

// EachFault runs a test once for every call that can fail: first with the
// fault at call 1, then at call 2, and so on until the fault comes too late to
// be seen. open returns the storage that each run begins with. It returns the
// number of runs in which a call failed.
func EachFault(t *testing.T, fault Fault, open func(t *testing.T) store.Store, run func(t *testing.T, s *Faulty)) int {
	return StrideFaults(t, fault, 1, open, run)
}

// StrideFaults is EachFault for the calls 1, 1 + stride, 1 + 2 stride ...
func StrideFaults(t *testing.T, fault Fault, stride int, open func(t *testing.T) store.Store, run func(t *testing.T, s *Faulty)) int {
	cases := 0
	for fault.Call = 1; !t.Failed(); fault.Call += stride {
		fired := 0
		t.Run(fault.String(), func(t *testing.T) {
			s := NewFaulty(open(t), fault)
			run(t, s)
			fired = s.Fired()
		})
		if fired == 0 {
			break
		}
		cases++
	}
	return cases
}

// call does the work of a method, or fails. short is what it does with Short.
func (f *Faulty) call(ctx context.Context, m Method, name string, work, short func() error) error {
	fault, fires := f.begin(m)
	if f.Latency != nil {
		select {
		case <-time.After(f.Latency(m)):
		case <-ctx.Done():
			return f.fail(m, name, ctx.Err())
		}
	}
	if !fires {
		return work()
	}
	if fault.Mode == After {
		if err := work(); err != nil {
			return err
		}
	}
	if fault.Mode == Short && short != nil {
		if err := short(); err != nil {
			return err
		}
		if fault.Err == nil {
			fault.Err = io.ErrUnexpectedEOF
		}
	}
	if fault.Err == nil {
		fault.Err = ErrInjected
	}
	return f.fail(m, name, fault.Err)
}

// begin counts a call and finds the fault that it is to meet.
func (f *Faulty) begin(m Method) (Fault, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all++
	f.counts.Calls[m]++
	for _, fault := range f.faults {
		n := f.all
		if fault.Method != "" {
			n = f.counts.Calls[m]
		}
		if (fault.Method == "" || fault.Method == m) && (n == fault.Call || n > fault.Call && fault.Forever) {
			f.fired++
			return fault, true
		}
	}
	return Fault{}, false
}

func (f *Faulty) moved(err error, bytes *int64, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		*bytes += int64(n)
	}
}

func (f *Faulty) fail(m Method, name string, err error) error {
	return &store.Error{Op: string(m), Name: name, Store: f.String(), Err: err}
}

// Create stores an object or fails.
func (f *Faulty) Create(ctx context.Context, name string, data ...[]byte) error {
	err := f.call(ctx, Create, name, func() error { return f.Store.Create(ctx, name, data...) }, nil)
	for _, part := range data {
		f.moved(err, &f.counts.BytesWritten, len(part))
	}
	return err
}

// ReadAt fills p or fails.
func (f *Faulty) ReadAt(ctx context.Context, name string, p []byte, off int64) error {
	err := f.call(ctx, ReadAt, name, func() error { return f.Store.ReadAt(ctx, name, p, off) },
		func() error { return f.Store.ReadAt(ctx, name, p[:len(p)/2], off) })
	f.moved(err, &f.counts.BytesRead, len(p))
	return err
}

// Get returns an object or fails.
func (f *Faulty) Get(ctx context.Context, name string, sizeMax int64) (data []byte, err error) {
	err = f.call(ctx, Get, name, func() (err error) { data, err = f.Store.Get(ctx, name, sizeMax); return err }, nil)
	f.moved(err, &f.counts.BytesRead, len(data))
	if err != nil {
		return nil, err
	}
	return data, nil
}

// Stat describes an object or fails.
func (f *Faulty) Stat(ctx context.Context, name string) (info store.Info, err error) {
	err = f.call(ctx, Stat, name, func() (err error) { info, err = f.Store.Stat(ctx, name); return err }, nil)
	if err != nil {
		return store.Info{}, err
	}
	return info, nil
}

// List lists objects or fails.
func (f *Faulty) List(ctx context.Context, prefix string, fn func(store.Info) error) error {
	return f.call(ctx, List, prefix, func() error { return f.Store.List(ctx, prefix, fn) }, func() error {
		enough := errors.New("enough")
		err := f.Store.List(ctx, prefix, func(info store.Info) error {
			if err := fn(info); err != nil {
				return err
			}
			return enough
		})
		if err == enough {
			return nil
		}
		return err
	})
}

// Delete removes an object or fails.
func (f *Faulty) Delete(ctx context.Context, name string) error {
	return f.call(ctx, Delete, name, func() error { return f.Store.Delete(ctx, name) }, nil)
}

// Now returns the storage's time or fails.
func (f *Faulty) Now(ctx context.Context) (now time.Time, err error) {
	err = f.call(ctx, Now, "", func() (err error) { now, err = f.Store.Now(ctx); return err }, nil)
	return now, err
}
