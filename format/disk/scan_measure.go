package disk

import (
	"context"
	"fmt"
	"runtime"
	"sync"

	"github.com/bk-backup/bk/format"
)

// Measure walks what a scan with these options would, opens no file, and returns
// how many entries there are and how many bytes of content, for progress: it is
// meant to run beside the scan. Of the options it looks at Roots, those that leave
// something out, and Workers.
func Measure(ctx context.Context, options ScanOptions) (format.Estimate, error) {
	var estimate format.Estimate
	tree, _, err := newRootTree(options.Roots)
	if err != nil {
		return estimate, err
	}
	if options.Workers <= 0 {
		options.Workers = runtime.GOMAXPROCS(0)
	}
	w := newWalk(&options)
	defer w.dirs.close()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer w.stop()
	for range options.Workers {
		wg.Go(func() { w.work(newWalker()) })
	}
	p := newWalker()
	top, err := w.root(tree, p)
	if err != nil {
		return estimate, fmt.Errorf("measure: %w", err)
	}
	if tree.isRoot {
		estimate.Entries++
	}
	if err := w.measure(ctx, top, p, &estimate); err != nil {
		return estimate, fmt.Errorf("measure: %w", err)
	}
	return estimate, nil
}

// measure adds what lies below a directory.
func (w *walk) measure(ctx context.Context, l *listing, p *walker, sum *format.Estimate) error {
	if err := w.need(ctx, l, p); err != nil {
		return err
	}
	for i, b := range l.batches {
		if err := w.need(ctx, b, p); err != nil {
			return err
		}
		for j := range b.nodes {
			n := &b.nodes[j]
			if n.err != nil {
				continue
			}
			sum.Entries++
			if n.status.isFile() {
				sum.Bytes += n.status.size
			}
			if n.sub != nil {
				if err := w.measure(ctx, n.sub, p, sum); err != nil {
					return err
				}
			}
		}
		w.consumed(len(b.nodes))
		l.batches[i] = nil
	}
	return nil
}
