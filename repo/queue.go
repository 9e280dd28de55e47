package repo

import (
	"errors"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/tree"
)

const (
	editBatch  = 64 // edits handed over at a time
	queueDepth = 16 // batches that may wait
)

// edit is one change of a listing: an entry with its content, or a removal.
type edit struct {
	path    string
	entry   *format.Entry // nil: remove path and all below it
	content tree.Content
	eof     []byte // encoded body of the file's eof record, if it says more than the size
}

// editQueue carries edits from the sink to the goroutine that applies them to
// the parent's listing, so that the stream need not wait for nodes.
type editQueue struct {
	batches chan []edit
	batch   []edit
	done    chan struct{}

	root  format.ID
	stats tree.Stats
	err   error
}

var errAbandoned = errors.New("the snapshot was abandoned")

func newEditQueue() *editQueue {
	return &editQueue{batches: make(chan []edit, queueDepth), done: make(chan struct{})}
}

// editTarget takes edits: a tree.Updater, or a sorter before one.
type editTarget interface {
	Put(e *format.Entry, content tree.Content, eof []byte) error
	Remove(path string) error
}

// run applies the edits to target until put says it was the last.
func (q *editQueue) run(target editTarget, finish func() (format.ID, tree.Stats, error)) {
	defer close(q.done)
	for batch := range q.batches {
		if batch == nil {
			q.err = errAbandoned
			return
		}
		for i := range batch {
			e := &batch[i]
			if e.entry == nil {
				q.err = target.Remove(e.path)
			} else {
				q.err = target.Put(e.entry, e.content, e.eof)
			}
			if q.err != nil {
				return
			}
		}
	}
	q.root, q.stats, q.err = finish()
}

// put appends an edit; it fails with what stopped the other side.
func (q *editQueue) put(e edit) error {
	q.batch = append(q.batch, e)
	if len(q.batch) < editBatch {
		return nil
	}
	return q.send()
}

func (q *editQueue) send() error {
	select {
	case q.batches <- q.batch:
		q.batch = make([]edit, 0, editBatch)
		return nil
	case <-q.done:
		if q.err == nil {
			return errAbandoned
		}
		return q.err
	}
}

// finish returns the listing after all edits.
func (q *editQueue) finish() (format.ID, tree.Stats, error) {
	if len(q.batch) > 0 {
		if err := q.send(); err != nil {
			return format.ID{}, tree.Stats{}, err
		}
	}
	close(q.batches)
	<-q.done
	return q.root, q.stats, q.err
}

// abandon stops the other side.
func (q *editQueue) abandon() {
	select {
	case q.batches <- nil:
	case <-q.done:
	}
	<-q.done
}
