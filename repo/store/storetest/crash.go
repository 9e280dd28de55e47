package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/bk-backup/bk/repo/store"
)

// ErrCrashed is the failure of every call from the crash on.
var ErrCrashed = errors.New("the machine has crashed")

// Fate is what becomes of the change that is under way at the crash. All
// changes before it were durable when their calls returned.
type Fate int

const (
	// Applied: the change was durable, though nobody was told.
	Applied Fate = iota
	// Lost: nothing of the change is left.
	Lost
	// Torn: half of an object was written. It is not visible under its name,
	// but may lie about as a leftover. A deletion that is torn is lost.
	Torn
)

func (f Fate) String() string { return [...]string{"applied", "lost", "torn"}[f] }

// Crash is a store that stops at a change (Create or Delete): that call and
// every later one, of any method, fails with ErrCrashed.
type Crash struct {
	store.Store // String is passed on; Close does nothing, since the storage goes on
	// Leave, if set, is given what a torn object left behind, so that it can
	// be put where the storage would have it. It is set before the first call.
	Leave func(name string, part []byte)

	change int
	fate   Fate
	random *rand.Rand // if set, every change under way at the crash draws its fate

	running  sync.WaitGroup // calls that began before the crash
	mu       sync.Mutex
	changes  int // begun so far
	crashed  bool
	next     chan struct{} // closed when the next change begins
	underWay int           // changes that drew a fate
}

// linger is how long a change is under way at least, unless another one begins,
// where several may be under way at a crash.
const linger = 300 * time.Microsecond

// NewCrash returns a store that does as s does and crashes at a change, the
// first one being 1; with 0 it never crashes.
func NewCrash(s store.Store, change int, fate Fate) *Crash {
	return &Crash{Store: s, change: change, fate: fate}
}

// NewRandomCrash is NewCrash for a storage that has written nothing down when a
// change begins: each change that is under way at the crash (its call has not
// returned) is applied, lost or torn, as seed has it.
func NewRandomCrash(s store.Store, change int, seed uint64) *Crash {
	return &Crash{Store: s, change: change, random: rand.New(rand.NewPCG(seed, uint64(change))), next: make(chan struct{})}
}

// UnderWay returns how many changes were under way at the crash, for one that
// NewRandomCrash made.
func (c *Crash) UnderWay() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.underWay
}

// Changes returns how many changes have begun.
func (c *Crash) Changes() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changes
}

// wait waits as long as a change is under way. It draws its fate if the crash
// comes meanwhile.
func (c *Crash) wait() (fate Fate, crashed bool) {
	c.mu.Lock()
	next := c.next
	c.mu.Unlock()
	select {
	case <-next:
	case <-time.After(linger):
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.crashed {
		return Applied, false
	}
	c.underWay++
	return Fate(c.random.IntN(3)), true
}

// Crashed says whether the crash has come.
func (c *Crash) Crashed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.crashed
}

// After returns the storage as it is after the crash, when everything has been
// started again. If there was no crash yet, it comes now, between two changes.
func (c *Crash) After() store.Store {
	c.mu.Lock()
	c.crashed = true
	c.mu.Unlock()
	c.running.Wait()
	return c.Store
}

// EachCrash runs a program until it crashes and then checks what is left: for
// each of its changes and each fate of that change. open returns the storage
// that each run begins with; run gets a store that crashes and may return
// early; check gets the storage after the crash, or after the whole run, and
// how many changes had begun. It returns the number of crashes.
func EachCrash(t *testing.T, open func(t *testing.T) store.Store, run func(t *testing.T, s *Crash), check func(t *testing.T, s store.Store, changes int)) int {
	crashes := 0
	for change, done := 1, false; !done && !t.Failed(); change++ {
		for _, fate := range []Fate{Applied, Lost, Torn} {
			t.Run(fmt.Sprintf("change %d %s", change, fate), func(t *testing.T) {
				c := NewCrash(open(t), change, fate)
				run(t, c)
				if c.Crashed() {
					crashes++
				} else {
					done = true
				}
				check(t, c.After(), c.changes)
			})
		}
	}
	return crashes
}

// begin says whether a call comes before the crash, and then counts it as
// running; and whether it is the change at which the crash comes.
func (c *Crash) begin(change bool) (alive, last bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.crashed {
		return false, false
	}
	if change {
		c.changes++
		c.crashed = c.changes == c.change
		if c.random != nil {
			close(c.next)
			c.next = make(chan struct{})
		}
	}
	c.running.Add(1)
	return true, c.crashed
}

func (c *Crash) do(op, name string, change bool, work func() error, torn func()) error {
	alive, last := c.begin(change)
	if !alive {
		return c.fail(op, name)
	}
	defer c.running.Done()
	fate := c.fate
	if change && c.random != nil {
		var crashed bool
		if fate, crashed = c.wait(); crashed {
			last = true
		}
	}
	if !last {
		return work()
	}
	switch {
	case fate == Applied:
		// An error, such as ErrExists, is lost as well as a success.
		_ = work()
	case fate == Torn && torn != nil:
		torn()
	}
	return c.fail(op, name)
}

func (c *Crash) fail(op, name string) error {
	return &store.Error{Op: op, Name: name, Store: c.String(), Err: ErrCrashed}
}

// Create stores an object, or crashes.
func (c *Crash) Create(ctx context.Context, name string, data ...[]byte) error {
	return c.do("create", name, true, func() error { return c.Store.Create(ctx, name, data...) }, func() {
		if c.Leave != nil {
			whole := bytes.Join(data, nil)
			c.Leave(name, whole[:len(whole)/2])
		}
	})
}

// Delete removes an object, or crashes.
func (c *Crash) Delete(ctx context.Context, name string) error {
	return c.do("delete", name, true, func() error { return c.Store.Delete(ctx, name) }, nil)
}

// ReadAt fills p.
func (c *Crash) ReadAt(ctx context.Context, name string, p []byte, off int64) error {
	return c.do("read", name, false, func() error { return c.Store.ReadAt(ctx, name, p, off) }, nil)
}

// Get returns an object.
func (c *Crash) Get(ctx context.Context, name string, sizeMax int64) (data []byte, err error) {
	err = c.do("read", name, false, func() (err error) { data, err = c.Store.Get(ctx, name, sizeMax); return err }, nil)
	return data, err
}

// Stat describes an object.
func (c *Crash) Stat(ctx context.Context, name string) (info store.Info, err error) {
	err = c.do("stat", name, false, func() (err error) { info, err = c.Store.Stat(ctx, name); return err }, nil)
	return info, err
}

// Now returns the storage's time.
func (c *Crash) Now(ctx context.Context) (now time.Time, err error) {
	err = c.do("read clock of", "", false, func() (err error) { now, err = c.Store.Now(ctx); return err }, nil)
	return now, err
}

// List lists objects. A crash while fn runs ends it.
func (c *Crash) List(ctx context.Context, prefix string, fn func(store.Info) error) error {
	if c.Crashed() {
		return c.fail("list", prefix)
	}
	return c.Store.List(ctx, prefix, func(info store.Info) error {
		if c.Crashed() {
			return c.fail("list", prefix)
		}
		return fn(info)
	})
}

// Close does nothing, so that After can be used.
func (c *Crash) Close() error { return nil }
