package prefetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"testing/synctest"

	"github.com/bk-backup/bk/format"
)

// item is a number that becomes an entry, or a chunk when it was fetched.
type item struct {
	number int
	filled bool
	size   int
}

// want is an item of a window.
type want struct{ number, at int }

// script is a source of items with sizes and weights; those of size 0 are entries.
type script struct{ *Source[item, want] }

func newScript(ctx context.Context, weightMax int64, fill func(items []item, w want) error) *script {
	return &script{New(ctx, Options[item, want]{
		WindowsMax: 3, WeightMax: weightMax,
		Fill: func(_ context.Context, items []item, wants []want) error {
			rand.Shuffle(len(wants), func(i, j int) { wants[i], wants[j] = wants[j], wants[i] })
			for _, w := range wants {
				if err := fill(items, w); err != nil {
					return err
				}
			}
			return nil
		},
		Record: func(it *item) (format.Record, error) {
			if it.number < 0 {
				return nil, fmt.Errorf("item %d makes no record", it.number)
			}
			if it.size == 0 {
				return &format.Entry{Inode: uint64(it.number)}, nil
			}
			if !it.filled {
				return nil, fmt.Errorf("item %d was handed out before it was fetched", it.number)
			}
			return &format.Data{Size: uint32(it.number), Payload: format.AllocPayload(1)}, nil
		},
	})}
}

func fetched(items []item, w want) error {
	if items[w.at].number != w.number {
		return fmt.Errorf("item %d is at the place of %d", items[w.at].number, w.number)
	}
	items[w.at].filled = true
	return nil
}

// emit adds an item.
func (s *script) emit(number, size int, weight int64) error {
	if size == 0 {
		return s.Add(item{number: number})
	}
	at, err := s.Room(int64(size), weight)
	if err != nil {
		return err
	}
	return s.Add(item{number: number, size: size}, want{number, at})
}

// numberOf returns which item a record was.
func numberOf(rec format.Record) int {
	if d, ok := rec.(*format.Data); ok {
		return int(d.Size)
	}
	return int(rec.(*format.Entry).Inode)
}

// TestOrder has items of all sizes, those included that are greater than what
// may be in flight, come out complete and in their order.
func TestOrder(t *testing.T) {
	for seed := range uint64(5) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			s := newScript(t.Context(), 6<<20, fetched)
			const count = 20_000
			go s.Run(func() error {
				for n := range count {
					size := 0
					if rng.IntN(3) > 0 {
						size = 1 << rng.IntN(24)
					}
					if err := s.emit(n, size, int64(size)*rng.Int64N(4)); err != nil {
						return err
					}
				}
				return nil
			})
			for n := range count {
				rec, err := s.Next()
				if err != nil || numberOf(rec) != n {
					t.Fatalf("record %d: %v, %v", n, rec, err)
				}
			}
			for range 2 {
				if rec, err := s.Next(); err != io.EOF {
					t.Fatalf("at the end: %v, %v", rec, err)
				}
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRoom has small content take much of the room: the window that holds it is
// sent before the next one waits for it.
func TestRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(t.Context(), 100, fetched)
		weights := []int64{60, 60, 1000, 60, 40, 1, 99, 1, 100}
		go s.Run(func() error {
			for n, weight := range weights {
				if err := s.emit(n, 1, weight); err != nil {
					return err
				}
			}
			return nil
		})
		for n := range weights {
			if rec, err := s.Next(); err != nil || numberOf(rec) != n {
				t.Fatalf("record %d: %v, %v", n, rec, err)
			}
		}
		if _, err := s.Next(); err != io.EOF {
			t.Error(err)
		}
		s.Close()
	})
}

// TestBounds has a consumer that takes nothing: what is made ahead stops at the
// weight, and at the number of windows where nothing has any.
func TestBounds(t *testing.T) {
	for name, c := range map[string]struct {
		size, least, most int
		weight            int64
	}{
		"weight":  {1 << 20, 32, 32, 1 << 20},
		"content": {4 << 20, 3, 5, 1},
		"windows": {0, 3 * itemsMax, 5 * itemsMax, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScript(t.Context(), 32<<20, fetched)
				if name == "weight" { // alone has to stop it
					s.queue = make(chan *window[item, want], 1000)
				}
				made, stopped := 0, errors.New("not yet")
				go s.Run(func() error {
					for ; ; made++ {
						if stopped = s.emit(made, c.size, c.weight); stopped != nil {
							return stopped
						}
					}
				})
				synctest.Wait()
				if made < c.least || made > c.most {
					t.Errorf("%d items were made, not %d to %d", made, c.least, c.most)
				}
				for n := range 10 * c.most {
					if rec, err := s.Next(); err != nil || numberOf(rec) != n {
						t.Fatalf("record %d: %v, %v", n, rec, err)
					}
				}
				if err := s.Close(); err != nil || stopped == nil {
					t.Errorf("closed: %v, and what made items got %v", err, stopped)
				}
			})
		})
	}
}

// TestWindows looks at where windows end, and at what Last returns.
func TestWindows(t *testing.T) {
	s := newScript(t.Context(), 64<<20, fetched)
	s.queue = make(chan *window[item, want], 100)
	if s.Last() != nil {
		t.Error("there is a last item before there is one")
	}
	for n, size := range []int{SizeMax - 1, 1, 1, 2 * SizeMax, 1, SizeMax} {
		if err := s.emit(n, size, 1); err != nil {
			t.Fatal(err)
		}
		if last := s.Last(); last == nil || last.number != n {
			t.Errorf("the last item is %v, not %d", last, n)
		}
	}
	for range itemsMax - 1 { // beside the last one
		if s.Last() == nil {
			t.Error("no last item")
		}
		if err := s.emit(0, 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	if s.Last() != nil {
		t.Error("there is a last item after the window was sent")
	}
	for i, want := range []int{2, 1, 1, 1, itemsMax} {
		if n := len((<-s.queue).items); n != want {
			t.Errorf("window %d has %d items, not %d", i, n, want)
		}
	}
}

// TestErrors has the windows before an error come out whole, then the error, and
// that again; nothing goes on behind it.
func TestErrors(t *testing.T) {
	bad := errors.New("bad")
	for name, c := range map[string]struct {
		fill    error
		produce error
		number  int // of the item that makes no record
		want    int // records before
	}{
		"fetching":  {fill: bad, want: 2 * itemsMax},
		"producing": {produce: bad, want: 2 * itemsMax},
		"a record":  {number: -1, want: 2*itemsMax + 7},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScript(t.Context(), 1<<20, func(items []item, w want) error {
					if w.number == 2*itemsMax+7 && c.fill != nil {
						return c.fill
					}
					return fetched(items, w)
				})
				go s.Run(func() error {
					for n := 0; ; n++ {
						number, size := n, 1
						if n == 2*itemsMax+7 && c.number < 0 {
							number, size = c.number, 0
						}
						if n == 2*itemsMax+7 && c.produce != nil {
							return c.produce
						}
						if err := s.emit(number, size, 1); err != nil {
							return err
						}
					}
				})
				n := 0
				_, err := s.Next()
				for ; err == nil; n++ {
					_, err = s.Next()
				}
				if n != c.want || c.number == 0 && err != bad {
					t.Errorf("%d records, then %v", n, err)
				}
				if _, again := s.Next(); again != err {
					t.Errorf("%v, then %v", err, again)
				}
				if c.produce == nil {
					<-s.Context().Done()
				}
				s.Close()
			})
		})
	}
}

// TestCancelled ends with the context, or with Close, at any place.
func TestCancelled(t *testing.T) {
	for read := range 40 {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			s := newScript(ctx, 64, fetched)
			var stopped error
			go s.Run(func() error {
				for n := 0; ; n++ {
					if stopped = s.emit(n, n%3, 10); stopped != nil {
						return stopped
					}
				}
			})
			for range read {
				if _, err := s.Next(); err != nil {
					t.Fatal(err)
				}
			}
			why := errors.New("enough")
			if read%2 == 0 {
				cancel(why)
				var err error
				for err == nil {
					_, err = s.Next()
				}
				if err != why {
					t.Errorf("after %d records: %v", read, err)
				}
			}
			s.Close()
			if stopped == nil {
				t.Errorf("after %d records: what makes items was not told", read)
			}
			cancel(nil)
		})
	}
}
