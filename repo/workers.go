package repo

import (
	"context"
	"runtime"
	"sync"

	"golang.org/x/sync/semaphore"
)

// inFlightMax bounds the bytes of payloads that wait for a worker or are being
// worked on. A chunk that has more goes alone. It is enough for the workers, and
// not more: what lies in memory in vain has the collector run the more often.
func inFlightMax(workers int) int64 { return min(8+4*int64(workers), 24) << 20 }

func (r *Repository) workers() int {
	if r.opts.Workers > 0 {
		return r.opts.Workers
	}
	return runtime.GOMAXPROCS(0)
}

// pool runs jobs on a fixed number of goroutines, bounded by the bytes they
// hold. The first error stops it.
type pool struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	jobs   chan job
	room   *semaphore.Weighted
	most   int64          // that one job takes of the room
	closed sync.WaitGroup // goroutines

	mu   sync.Mutex
	idle sync.Cond // busy has become 0
	busy int       // jobs given and not done
}

type job struct {
	run  func() error
	size int64
}

func newPool(ctx context.Context, workers int) *pool {
	p := &pool{jobs: make(chan job, 4*workers), most: inFlightMax(workers)}
	p.room = semaphore.NewWeighted(p.most)
	p.ctx, p.cancel = context.WithCancelCause(ctx)
	p.idle.L = &p.mu
	for range workers {
		p.closed.Add(1)
		go func() {
			defer p.closed.Done()
			for j := range p.jobs {
				if p.ctx.Err() == nil {
					if err := j.run(); err != nil {
						p.cancel(err)
					}
				}
				p.room.Release(j.size)
				p.count(-1)
			}
		}()
	}
	return p
}

// do gives a job that holds size bytes to a worker; it waits for room.
func (p *pool) do(size int, run func() error) error {
	weight := min(int64(size), p.most)
	if err := p.room.Acquire(p.ctx, weight); err != nil {
		return context.Cause(p.ctx)
	}
	p.count(1)
	p.jobs <- job{run, weight}
	return nil
}

func (p *pool) count(n int) {
	p.mu.Lock()
	p.busy += n
	if p.busy == 0 {
		p.idle.Broadcast()
	}
	p.mu.Unlock()
}

// wait returns when no job is being done. Another goroutine may give more at the
// same time, which a sync.WaitGroup would not allow.
func (p *pool) wait() error {
	p.mu.Lock()
	for p.busy > 0 {
		p.idle.Wait()
	}
	p.mu.Unlock()
	return context.Cause(p.ctx)
}

// close stops the goroutines after what they have been given.
func (p *pool) close() {
	close(p.jobs)
	p.closed.Wait()
	p.cancel(context.Canceled)
}
