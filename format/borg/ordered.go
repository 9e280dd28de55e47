package borg

import "context"

// ordered has work done by several goroutines and takes its results in the order
// in which the work was given, in the goroutine of the caller. What waits is
// bounded by weight and by number.
type ordered struct {
	ctx     context.Context
	running chan struct{} // one element for each goroutine at work; may be shared
	queue   []*task
	weight  int
}

type task struct {
	weight int
	done   chan error   // nil: nothing is to be done before then
	then   func() error // takes the result
}

const (
	orderedWeightMax = 16 << 20 // plain bytes and payloads
	orderedTasksMax  = 2048
	workersMax       = 4 // each compresses with 16 MiB of its own
)

// do begins work and has then called when it and all that was given before are
// finished: now, or by a later call of do or drain. work may be nil.
func (o *ordered) do(weight int, work, then func() error) error {
	for len(o.queue) > 0 && (o.weight+weight > orderedWeightMax || len(o.queue) >= orderedTasksMax) {
		if err := o.next(); err != nil {
			return err
		}
	}
	if work == nil && len(o.queue) == 0 {
		return then()
	}
	t := &task{weight: weight, then: then}
	if work != nil {
		t.done = make(chan error, 1)
		select {
		case o.running <- struct{}{}:
		case <-o.ctx.Done():
			return context.Cause(o.ctx)
		}
		go func() {
			err := work()
			<-o.running
			t.done <- err
		}()
	}
	o.queue = append(o.queue, t)
	o.weight += weight
	return nil
}

// next takes the oldest result.
func (o *ordered) next() error {
	t := o.queue[0]
	o.queue[0] = nil // what it holds on to can be used again
	o.queue = o.queue[1:]
	o.weight -= t.weight
	if t.done != nil {
		if err := <-t.done; err != nil {
			return err
		}
	}
	return t.then()
}

// drain takes all results.
func (o *ordered) drain() error {
	for len(o.queue) > 0 {
		if err := o.next(); err != nil {
			return err
		}
	}
	return nil
}

// abandon waits for what is at work and forgets the results.
func (o *ordered) abandon() {
	for _, t := range o.queue {
		if t.done != nil {
			<-t.done
		}
	}
	o.queue, o.weight = nil, 0
}
