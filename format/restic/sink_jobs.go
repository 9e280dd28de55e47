package restic

import (
	"context"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/bk-backup/bk/format"
)

// jobBytesMax bounds what jobs that were given and are not done hold.
const jobBytesMax = format.ChunkSizeMax

// jobs runs what need not be done in the order of the stream on several
// processors. do and wait are for one goroutine.
type jobs struct {
	ctx     context.Context
	workers int
	room    *semaphore.Weighted
	group   *errgroup.Group
	within  context.Context // of the group
}

func newJobs(ctx context.Context, workers int) *jobs {
	j := &jobs{ctx: ctx, workers: workers, room: semaphore.NewWeighted(jobBytesMax)}
	j.begin()
	return j
}

func (j *jobs) begin() {
	j.group, j.within = errgroup.WithContext(j.ctx)
	j.group.SetLimit(j.workers)
}

// do gives away a job that holds size bytes; it waits for room.
func (j *jobs) do(size int, run func() error) error {
	weight := min(int64(size), jobBytesMax)
	if err := j.room.Acquire(j.within, weight); err != nil {
		return j.wait()
	}
	j.group.Go(func() error {
		defer j.room.Release(weight)
		if j.within.Err() != nil {
			return context.Cause(j.within)
		}
		return run()
	})
	return nil
}

// wait returns when all jobs are done.
func (j *jobs) wait() error {
	err := j.group.Wait()
	j.begin()
	if err == nil {
		err = context.Cause(j.ctx)
	}
	return err
}
