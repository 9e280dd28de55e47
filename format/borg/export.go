package borg

import (
	"context"
	"errors"
	"fmt"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/internal/snapshots"
)

// Export implements format.System: it returns a source of snapshots.
//
// Before the first snapshot it reads the lists of files of all of them, to find
// the differences and which chunks come again, so that Data.Once is exact; Flat
// and ListingOnly need no such look ahead. It reads as it is consumed, in memory
// that does not grow with the repository, but for borg's index of up to a million
// objects: about 150 MiB. Temporary files hold what there is of metadata.
//
// Held, HasChunk and Arrived make no reading unnecessary, only sending, since a chunk's
// id is known when it has been read. A chunk that cannot be read ends the stream with
// an error that names it, its file and its place. Losses are those of the records
// that are sent: what did not change since the parent is not counted again.
func (r *Repository) Export(ctx context.Context, opts format.ExportOptions) (format.SourceCloser, error) {
	chosen, err := snapshots.Choose(ctx, &opts, r.list, r.snapshot)
	if err != nil {
		return nil, err
	}
	e := &exporter{r: r, opts: opts, chosen: chosen}
	e.out = newWindows(ctx, r, opts)
	go e.out.Run(e.produce)
	return e.out, nil
}

// exporter makes the records of an export.
type exporter struct {
	r        *Repository
	opts     format.ExportOptions
	chosen   *snapshots.Chosen[archive]
	out      *windows
	progress format.Progress
}

// ahead reports whether all snapshots are planned before the first is sent.
func (e *exporter) ahead() bool { return !e.opts.Flat && !e.opts.ListingOnly }

// produce emits the whole stream.
func (e *exporter) produce() (err error) {
	h := &format.Header{Version: format.Version, Producer: e.opts.Producer, Features: e.opts.Features()}
	if err := e.out.emit(h); err != nil {
		return err
	}
	// The header goes out now: who gets it may have to ask for a passphrase.
	if err := e.out.Send(); err != nil {
		return err
	}
	log := newRunLog(e.r)
	p := newPlan(e)
	defer func() { err = errors.Join(err, log.close(), p.close()) }()
	c := &comparison{e: e, log: log}
	defer func() { err = errors.Join(err, c.close()) }()
	if base := e.chosen.Base; base != nil {
		if err := c.begin(base); err != nil {
			return fmt.Errorf("export a difference to snapshot %s: %w", base.record.ID, err)
		}
	}
	for i, a := range e.chosen.List {
		if err := c.plan(p, a); err != nil {
			return fmt.Errorf("export snapshot %s: %w", a.record.ID, err)
		}
		if e.ahead() {
			n := &p.snapshots[i]
			e.progress.EntriesTotal += n.entries
			e.progress.BytesTotal += n.bytes
			continue
		}
		if err := e.snapshot(p, i, 0); err != nil {
			return fmt.Errorf("export snapshot %s: %w", a.record.ID, err)
		}
		if err := p.restart(); err != nil {
			return err
		}
	}
	for i := 0; e.ahead() && i < len(e.chosen.List); i++ {
		if err := e.snapshot(p, i, i); err != nil {
			return fmt.Errorf("export snapshot %s: %w", e.chosen.List[i].record.ID, err)
		}
	}
	return e.out.emit(&format.End{})
}

// comparison goes through archives, comparing each with the one before.
type comparison struct {
	e     *exporter
	log   *runLog
	prev  *archive
	runs  []*run // of prev
	links *links // of prev
}

// begin makes an archive the one that the next is compared with.
func (c *comparison) begin(a *archive) (err error) {
	c.prev = a
	if c.runs, err = c.log.runs(c.e.out.Context(), a); err != nil {
		return err
	}
	c.links, err = newLinks(c.log, c.runs)
	return err
}

func (c *comparison) close() error { return c.links.close() }

// plan finds the differences between the last archive and this one.
func (c *comparison) plan(p *plan, a *archive) error {
	old := *c
	if c.e.opts.Whole() {
		old.prev, old.runs = nil, nil
	}
	if err := c.begin(a); err != nil {
		return errors.Join(err, old.close())
	}
	n := p.begin(a.losses)
	known := make(map[*run]bool, len(old.runs))
	for _, one := range old.runs {
		known[one] = true
	}
	for _, one := range c.runs {
		if !known[one] {
			n.losses.Merge(one.losses)
		}
	}
	err := c.compare(&old, p, n)
	n = &p.snapshots[len(p.snapshots)-1]
	n.end = p.log.Size()
	err = errors.Join(err, old.close())
	if err != nil {
		return err
	}
	moved, err := c.log.compact(c.runs)
	if err != nil || !moved {
		return err
	}
	err = c.links.close()
	if err != nil {
		return err
	}
	c.links, err = newLinks(c.log, c.runs)
	return err
}

// compare plans the differences between two archives.
func (c *comparison) compare(old *comparison, p *plan, n *planned) error {
	m, err := newMerge(c.log, old.runs, c.runs)
	if err != nil {
		return err
	}
	w := &changes{
		ctx: c.e.out.Context(), links: [2]*links{old.links, c.links}, drop: c.e.opts.Drop, losses: &n.losses,
		found: func(ch *change) error { return p.change(n, ch) },
	}
	w.parts[1] = c.prev.checkpoint
	w.parts[0] = old.prev != nil && old.prev.checkpoint
	return w.walk(m)
}

// snapshot emits a snapshot, the ith of the list, that was planned as the nth.
func (e *exporter) snapshot(p *plan, i, n int) error {
	a, planned := e.chosen.List[i], &p.snapshots[n]
	rec := a.record.Clone()
	if prev := e.chosen.Parent(i); prev != nil {
		rec.Parent = prev.record.ID
	}
	rec.Estimate = &format.Estimate{Entries: planned.entries, Bytes: planned.bytes}
	if err := e.out.emit(rec); err != nil {
		return err
	}
	r := p.reader(planned)
	for {
		kind, ok := r.kind()
		if !ok {
			break
		}
		if err := e.change(p, r, kind); err != nil {
			return err
		}
	}
	if r.err != nil {
		return r.err
	}
	e.progress.Snapshots++
	return e.out.emit(&format.Commit{Losses: planned.losses})
}

// change emits one difference.
func (e *exporter) change(p *plan, r *planReader, kind byte) error {
	if kind == planRemove {
		path := string(r.bytes())
		if r.err != nil {
			return r.err
		}
		return e.out.emit(&format.Remove{Path: path})
	}
	entry := new(format.Entry)
	body := r.bytes()
	if r.err != nil {
		return r.err
	}
	if _, err := entry.ParseBody(body, true); err != nil {
		return fmt.Errorf("read an entry back from a temporary file: %w", err)
	}
	if err := e.out.emit(entry); err != nil {
		return err
	}
	e.progress.Entries++
	e.progress.Path = entry.Path
	if kind == planFile {
		size, err := e.file(p, r, entry.Path)
		if err != nil {
			return err
		}
		e.progress.Bytes += size
	}
	if e.opts.OnProgress != nil {
		e.opts.OnProgress(e.progress)
	}
	return nil
}

// file emits the content of a file and what closes it.
func (e *exporter) file(p *plan, r *planReader, path string) (size uint64, err error) {
	for {
		kind, _ := r.kind()
		switch kind {
		case planData:
			w := want{path: path}
			number := r.number()
			r.fill(w.id[:])
			w.size, w.csize = uint32(r.number()), uint32(r.number())
			if r.err == nil {
				err = e.out.emitData(!p.again.Has(int(number)), w)
			}
		case planRef:
			number, size := uint32(r.number()), uint32(r.number())
			err = e.out.emitRef(number, size)
		case planCopy:
			err = e.out.emit(&format.CopyRange{Offset: r.number(), Size: r.number()})
		default:
			eof := &format.EOF{Size: r.number(), Error: string(r.bytes())}
			if r.err != nil {
				return 0, r.err
			}
			return eof.Size, e.out.emit(eof)
		}
		if r.err != nil {
			return 0, r.err
		}
		if err != nil {
			return 0, err
		}
	}
}

var _ format.System = (*Repository)(nil)
