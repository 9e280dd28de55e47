package repo

import (
	"errors"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/tree"
)

const (
	editBatch     = 64      // edits handed over at a time, at most
	editBatchSize = 1 << 18 // bytes of long entries after which a batch is handed over
	queueDepth    = 16      // batches that may wait
)

// edit is one change of a listing: an entry with its content, or a removal.
type edit struct {
	path    string
	entry   *format.Entry // nil: remove path and all below it
	content tree.Content
	eof     []byte // encoded body of the file's eof record, if it says more than the size
}

// size returns about how many bytes the edit holds.
func (e *edit) size() int {
	n := len(e.path) + len(e.eof)
	if e.entry == nil {
		return n
	}
	n += len(e.entry.Target) + 16*len(e.entry.Extents)
	for _, x := range e.entry.Xattrs {
		n += len(x.Name) + len(x.Value)
	}
	for _, x := range e.entry.Extra {
		n += len(x.Key) + len(x.Raw)
	}
	return n
}

// editQueue carries edits from the sink to the goroutine that applies them to
// the parent's listing, so that the stream need not wait for nodes.
type editQueue struct {
	batches chan []edit
	batch   []edit
	size    int // bytes of long entries in the batch
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
	q.size += e.size()
	if len(q.batch) < editBatch && q.size < editBatchSize {
		return nil
	}
	return q.send()
}

func (q *editQueue) send() error {
	select {
	case q.batches <- q.batch:
		q.batch, q.size = make([]edit, 0, editBatch), 0
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
