package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sync/semaphore"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/pack"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/tree"
)

// Snapshots implements format.System. Damaged snapshots are logged and left out;
// List returns them.
func (r *Repository) Snapshots(ctx context.Context) ([]*format.Snapshot, error) {
	list, damage, err := r.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, d := range damage {
		r.opts.Log.Warn("a snapshot cannot be read", "object", d.Name, "error", d.Err)
	}
	out := make([]*format.Snapshot, len(list))
	for i, s := range list {
		out[i] = r.record(s)
	}
	return out, nil
}

// record is the stream's record of a snapshot, without a parent.
func (r *Repository) record(s *Snapshot) *format.Snapshot {
	rec := s.Meta.Clone()
	rec.ID = s.ID
	rec.Estimate = &format.Estimate{Entries: s.Entries, Bytes: s.Bytes}
	if rec.Origin == nil {
		id := r.keys.Repository()
		rec.Origin = &format.Origin{System: "bk", Repository: string(id[:]), ID: string(s.ID[:])}
	}
	if !s.Imported.IsZero() && len(rec.Via) < format.ViaMax {
		rec.Via = append(rec.Via, format.Via{Stage: r.ViaStage(), From: s.Imported})
	}
	return rec
}

// Export implements format.System: it returns a source of snapshots.
func (r *Repository) Export(ctx context.Context, opts format.ExportOptions) (format.SourceCloser, error) {
	list, damage, err := r.List(ctx)
	if err != nil {
		return nil, err
	}
	byID := make(map[format.ID]*Snapshot, len(list))
	for _, s := range list {
		byID[s.ID] = s
	}
	e := &exporter{r: r, opts: opts, sent: newIDSet(), roomSize: inFlightMax(r.workers()), windows: make(chan *window, windowsMax)}
	e.room = semaphore.NewWeighted(e.roomSize)
	e.ctx, e.cancel = context.WithCancelCause(ctx)
	if len(opts.Snapshots) == 0 {
		if len(damage) > 0 {
			return nil, fmt.Errorf("export all snapshots: %s: %w", damage[0].Name, damage[0].Err)
		}
		e.list = list
	}
	for _, id := range opts.Snapshots {
		s, ok := byID[id]
		if !ok && len(damage) > 0 {
			return nil, fmt.Errorf("export: there is no snapshot %s in %s, unless it is one that cannot be read: %s: %w", id, r, damage[0].Name, damage[0].Err)
		}
		if !ok {
			return nil, fmt.Errorf("export: there is no snapshot %s in %s", id, r)
		}
		e.list = append(e.list, s)
	}
	if !opts.Base.IsZero() {
		if e.base = byID[opts.Base]; e.base == nil {
			return nil, fmt.Errorf("export: there is no snapshot %s in %s to begin from", opts.Base, r)
		}
	}
	if err := e.prepareLost(); err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	go e.run()
	return e, nil
}

const (
	windowBytesMax = 2 << 20 // plain bytes of content fetched together
	windowItemsMax = 512     // records of one window
	windowsMax     = 8       // windows that wait to be consumed
)

// window is a run of records, those of data with what is still to be fetched.
type window struct {
	records []format.Record
	ids     []format.ID // of the data records, in order
	data    []*format.Data
	bytes   int64 // taken from the semaphore
	ready   chan struct{}
	err     error // why it could not be filled; ends the stream
}

// exporter is the source of a repository: one goroutine walks the listings and
// makes windows, others fetch what they need, Next consumes them in order.
type exporter struct {
	r      *Repository
	ctx    context.Context
	cancel context.CancelCauseFunc
	opts   format.ExportOptions
	list   []*Snapshot
	base   *Snapshot
	lost   lostSet            // what is known to be lost
	broken map[format.ID]bool // snapshots of whose listings a part is lost

	// Of the walking goroutine.
	sent     *idSet // chunks carried so far
	multi    *idSet // chunks that come more than once; nil: not known
	win      *window
	room     *semaphore.Weighted
	roomSize int64
	fetch    sync.WaitGroup
	current  format.ID // the snapshot that is being sent
	counts   format.Progress
	damaged  format.Loss // entries of the current snapshot of which something is lost
	scratch  format.Entry

	// Of the consumer.
	windows chan *window
	cur     *window
	at      int
	last    *format.Data
	err     error
}

// Next implements format.Source.
func (e *exporter) Next() (format.Record, error) {
	if e.err != nil {
		return nil, e.err
	}
	if e.last != nil {
		if !e.last.Taken() {
			format.FreePayload(e.last.Payload)
		}
		e.last = nil
	}
	for e.cur == nil || e.at == len(e.cur.records) {
		if e.cur != nil {
			e.room.Release(e.cur.bytes)
			e.cur = nil
		}
		win, ok := <-e.windows
		if !ok {
			e.err = io.EOF
			return nil, e.err
		}
		<-win.ready
		if win.err != nil {
			e.err = win.err
			e.cancel(win.err)
			return nil, e.err
		}
		e.cur, e.at = win, 0
	}
	rec := e.cur.records[e.at]
	e.at++
	if d, ok := rec.(*format.Data); ok {
		e.last = d
	}
	return rec, nil
}

// Close stops the goroutines.
func (e *exporter) Close() error {
	e.cancel(errors.New("the export was closed"))
	for win := range e.windows {
		<-win.ready
	}
	e.fetch.Wait()
	return nil
}

// run walks the listings.
func (e *exporter) run() {
	defer close(e.windows)
	e.win = newWindow()
	if err := e.walk(); err != nil {
		bad := newWindow()
		bad.err = err
		close(bad.ready)
		e.windows <- bad
		return
	}
}

func newWindow() *window { return &window{ready: make(chan struct{})} }

func (e *exporter) walk() error {
	if err := e.findRepeated(); err != nil {
		return err
	}
	h := &format.Header{Version: format.Version, Producer: e.opts.Producer, Features: e.opts.Features()}
	if err := e.emit(h); err != nil {
		return err
	}
	prev := e.base
	for _, s := range e.list {
		e.current, e.damaged = s.ID, format.Loss{}
		rec := e.r.record(s)
		parent := e.parentOf(prev, s)
		if parent != nil && !e.opts.Whole() {
			rec.Parent = parent.ID
		}
		if err := e.emit(rec); err != nil {
			return err
		}
		if err := e.snapshot(parent, s); err != nil {
			return fmt.Errorf("export snapshot %s: %w", s.ID, err)
		}
		if err := e.emit(&format.Commit{Losses: e.losses(s)}); err != nil {
			return err
		}
		e.counts.Snapshots++
		prev = s
	}
	if err := e.emit(&format.End{}); err != nil {
		return err
	}
	return e.sendWindow()
}

// findRepeated walks all listings once to learn which chunks come more than
// once, so that the others can say so and no filter need keep them.
func (e *exporter) findRepeated() error {
	if e.opts.Held || e.opts.Flat || e.opts.ListingOnly {
		return nil
	}
	multi, seen := newIDSet(), newIDSet()
	prev := e.base
	for _, s := range e.list {
		err := e.changes(e.parentOf(prev, s), s, func(c change) error {
			if c.item == nil {
				return nil
			}
			return e.content(c, func(_, _ uint64) error { return nil }, func(p tree.Piece) error {
				if !p.IsHole() && !e.isLost(p) && !seen.add(p.ID, uint32(p.Size)) {
					multi.add(p.ID, uint32(p.Size))
				}
				return nil
			})
		})
		if err != nil {
			return fmt.Errorf("read the listing of snapshot %s: %w", s.ID, err)
		}
		prev = s
	}
	e.multi = multi
	return nil
}

// change is one difference between two listings as the stream says it: an
// entry, or with item nil a removal.
type change struct {
	path string
	item *tree.Item
	old  *tree.Item // the parent's version, if there is one
}

// changes calls fn with what makes cur's listing of prev's (of nothing, if prev
// is nil or snapshots are sent whole), in path order, but for what is dropped.
func (e *exporter) changes(prev, cur *Snapshot, fn func(change) error) error {
	loader := metaReader{e.r}
	if prev == nil || e.opts.Whole() {
		return e.listing(tree.Listing{Chunks: loader, Root: cur.Root}, "", fn)
	}
	return e.differences(tree.Listing{Chunks: loader, Root: prev.Root}, tree.Listing{Chunks: loader, Root: cur.Root}, fn)
}

// listing calls fn with every entry at or below a path.
func (e *exporter) listing(l tree.Listing, below string, fn func(change) error) error {
	rd, err := tree.NewReader(e.ctx, l, e.readerOptions(below))
	if err != nil {
		return err
	}
	defer rd.Close()
	for {
		it, err := rd.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		drop, skip, err := e.drops(it)
		if err != nil {
			return err
		}
		if !drop {
			err = fn(change{path: it.Path, item: it})
		} else if skip {
			err = rd.SkipBelow()
		}
		if err != nil {
			return err
		}
	}
}

// drops asks the caller's patterns about an item.
func (e *exporter) drops(it *tree.Item) (drop, skipBelow bool, err error) {
	if e.opts.Drop == nil {
		return false, false, nil
	}
	dir, err := e.isDir(it)
	if err != nil {
		return false, false, err
	}
	drop, skipBelow = e.opts.Drop(it.Path, dir)
	return drop, skipBelow, nil
}

func (e *exporter) isDir(it *tree.Item) (bool, error) {
	if it.IsFile() {
		return false, nil
	}
	if err := it.Decode(e.ctx, &e.scratch); e.lost.isPartOf(err) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	return e.scratch.Type == format.TypeDir, nil
}

// differences calls fn with the changes between two listings. A removed
// directory is one removal; if entries below it stay although it is gone from
// the listing, they are sent again behind it.
func (e *exporter) differences(from, to tree.Listing, fn func(change) error) error {
	diff, err := tree.NewDiff(e.ctx, from, to, tree.DiffOptions{ReadAhead: 2 * e.r.workers()})
	if err != nil {
		return err
	}
	defer diff.Close()
	covered, resent := "", false // below this path everything has been said
	for {
		d, err := diff.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if resent && format.IsBelow(d.Path, covered) {
			continue
		}
		if d.New == nil {
			if drop, _, err := e.drops(d.Old); err != nil {
				return err
			} else if drop {
				continue
			}
			if err := fn(change{path: d.Path, old: d.Old}); err != nil {
				return err
			}
			covered, resent = d.Path, true
			if err := e.listing(to, d.Path, fn); err != nil {
				return err
			}
			continue
		}
		c := change{path: d.Path, item: d.New, old: d.Old}
		if drop, _, err := e.drops(d.New); err != nil {
			return err
		} else if drop {
			// It may have been of another type before, and have passed.
			if d.Old == nil {
				continue
			}
			if drop, _, err := e.drops(d.Old); err != nil {
				return err
			} else if drop {
				continue
			}
			c.item = nil
		}
		if err := fn(c); err != nil {
			return err
		}
		// An entry that is not a directory has nothing below it: what the parent
		// had there goes without a word.
		if dir, err := e.isDir(d.New); err != nil {
			return err
		} else if !dir {
			covered, resent = d.Path, true
		}
	}
}

// snapshot emits the records between snapshot and commit.
func (e *exporter) snapshot(prev, cur *Snapshot) error {
	return e.changes(prev, cur, func(c change) error {
		if c.item == nil {
			return e.emit(&format.Remove{Path: c.path})
		}
		return e.entry(c)
	})
}

func (e *exporter) entry(c change) error {
	entry := new(format.Entry)
	if err := c.item.Decode(e.ctx, entry); err != nil {
		return e.passEntry(c.path, err)
	}
	e.counts.Entries++
	e.counts.Path = entry.Path
	if e.opts.OnProgress != nil {
		e.opts.OnProgress(e.counts)
	}
	if err := e.emit(entry); err != nil || entry.Type != format.TypeFile {
		return err
	}
	w := contentOut{e: e}
	if !e.opts.ListingOnly {
		if err := w.send(c); err != nil {
			return fmt.Errorf("file %q: %w", entry.Path, err)
		}
	}
	eof := &format.EOF{Size: c.item.Size()}
	if body, err := c.item.EOF(e.ctx); err != nil {
		if err := e.endUnknown(eof, entry.Path, err); err != nil {
			return err
		}
	} else if body != nil {
		if _, err := eof.ParseBody(body); err != nil {
			return fmt.Errorf("file %q: %w", entry.Path, err)
		}
	}
	if w.lost > 0 {
		e.endDamaged(eof, entry.Path, w.lost)
	}
	e.counts.Bytes += eof.Size
	return e.emit(eof)
}

// emit appends a record to the window.
func (e *exporter) emit(rec format.Record) error {
	e.win.records = append(e.win.records, rec)
	if len(e.win.records) >= windowItemsMax {
		return e.sendWindow()
	}
	return nil
}

// emitData appends a data record whose payload is fetched later.
func (e *exporter) emitData(d *format.Data) error {
	size := min(int64(d.Size), e.roomSize)
	if e.win.bytes > 0 && e.win.bytes+size > windowBytesMax {
		if err := e.sendWindow(); err != nil {
			return err
		}
	}
	if err := e.room.Acquire(e.ctx, size); err != nil {
		return context.Cause(e.ctx)
	}
	e.win.bytes += size
	e.win.ids = append(e.win.ids, d.ID)
	e.win.data = append(e.win.data, d)
	return e.emit(d)
}

// sendWindow hands the window on and begins to fetch what it needs.
func (e *exporter) sendWindow() error {
	win := e.win
	e.win = newWindow()
	if len(win.data) == 0 {
		close(win.ready)
	} else {
		e.fetch.Add(1)
		go func() {
			defer e.fetch.Done()
			defer close(win.ready)
			win.err = e.fill(win)
		}()
	}
	select {
	case e.windows <- win:
		return nil
	case <-e.ctx.Done():
		<-win.ready
		return context.Cause(e.ctx)
	}
}

// fill fetches the payloads of a window.
func (e *exporter) fill(win *window) error {
	return e.r.readPayloads(e.ctx, seal.ChunkData, win.ids, func(n int, p payload, err error) error {
		if err != nil {
			return err
		}
		d := win.data[n]
		if p.size != d.Size {
			return fmt.Errorf("chunk %s has %d bytes, not the %d its file says: %w", d.ID, p.size, d.Size, seal.ErrDamaged)
		}
		if e.opts.Plain && p.codec != pack.CodecNone {
			plain, err := decode(d.ID, p)
			if err != nil {
				return fmt.Errorf("chunk %s: %w", d.ID, err)
			}
			d.Payload, d.Codec = plain, format.CodecNone
			return nil
		}
		d.Payload, d.Codec = p.bytes, formatCodec(p.codec)
		return nil
	})
}
