package restic

import (
	"context"
	"fmt"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/internal/gaps"
	"github.com/bk-backup/bk/format/internal/loss"
	"github.com/bk-backup/bk/format/internal/prefetch"
	"github.com/bk-backup/bk/format/internal/snapshots"
)

// Export implements format.System: it returns a source of snapshots.
//
// Before the first record it walks the trees of all of them once, to learn which
// chunks come again, so that Data.Once is exact; what Held, Flat or ListingOnly
// ask for needs no such walk. It reads as it is consumed, in memory that does
// not grow with the content: 48 bytes for each blob in the repository, the JSON
// of the directories from the root to where it is, and about 100 MiB.
//
// A blob that cannot be read from any of its packs ends the stream with an error
// that names it; with OnDamage only one of a tree does (lost.go). A chunk of more
// than format.ChunkSizeMax bytes, which restic never makes, ends it always. Losses are
// those of the records that are sent: what did not change since the parent is not
// counted again, but for damage that this export found.
func (r *Repository) Export(ctx context.Context, opts format.ExportOptions) (format.SourceCloser, error) {
	chosen, err := snapshots.Choose(ctx, &opts, r.list, r.snapshot)
	if err != nil {
		return nil, err
	}
	e := &exporter{r: r, opts: opts, chosen: chosen}
	if _, err := r.loadedIndex(ctx); err != nil {
		return nil, err
	}
	e.out = prefetch.New(ctx, prefetch.Options[format.Record, want]{
		Fill: e.fill, Record: func(rec *format.Record) (format.Record, error) { return *rec, nil },
		WindowsMax: r.workers, WeightMax: prefetch.WeightMax(r.workers, inFlightMax),
	})
	if opts.OnDamage == nil || opts.Held || opts.ListingOnly {
		go e.out.Run(e.produce)
		return e.out, nil
	}
	e.gaps = gaps.New(e.out, opts.OnDamage)
	go e.out.Run(e.produce)
	return e.gaps, nil
}

// inFlightMax is how many MiB of payloads may be asked for and not yet consumed.
const inFlightMax = 32

// exporter makes the records of an export.
type exporter struct {
	r         *Repository
	opts      format.ExportOptions
	chosen    *snapshots.Chosen[snapshot]
	current   format.ID // of the list: the snapshot that is being sent
	out       *prefetch.Source[format.Record, want]
	gaps      *gaps.Source // nil: what is lost ends the export
	content   *content
	progress  format.Progress
	estimates []format.Estimate // of the list, from the first walk
	losses    loss.Counts       // of the snapshot that is being sent
}

// produce emits the whole stream.
func (e *exporter) produce() error {
	e.content = &content{e: e}
	if !e.opts.Held && !e.opts.Flat && !e.opts.ListingOnly {
		if err := e.rehearse(); err != nil {
			return err
		}
	}
	h := &format.Header{Version: format.Version, Producer: e.opts.Producer, Features: e.opts.Features()}
	if err := e.out.Add(h); err != nil {
		return err
	}
	for i, s := range e.chosen.List {
		if err := e.snapshot(i, s); err != nil {
			return fmt.Errorf("export snapshot %s: %w", s.record.ID, err)
		}
	}
	return e.out.Add(&format.End{})
}

// rehearse decides on everything that will be sent, to learn which chunks come
// more than once.
func (e *exporter) rehearse() error {
	e.content.dry = true
	e.estimates = make([]format.Estimate, len(e.chosen.List))
	for i, s := range e.chosen.List {
		n := &e.estimates[i]
		err := e.changes(e.chosen.Parent(i), s, func(string, string) {}, func(c *change) error {
			if c.entry == nil {
				return nil
			}
			n.Entries++
			if c.file == nil {
				return nil
			}
			size, _, err := e.content.send(c)
			n.Bytes += size
			return err
		})
		if err != nil {
			return fmt.Errorf("read the trees of snapshot %s: %w", s.record.ID, err)
		}
		e.progress.EntriesTotal += n.Entries
		e.progress.BytesTotal += n.Bytes
	}
	e.content.dry = false
	e.content.sent.Clear()
	return nil
}

// changes calls found with what makes cur's listing of prev's, or of nothing.
func (e *exporter) changes(prev, cur *snapshot, lost func(kind, path string), found func(*change) error) error {
	w := &walk{trees: newTreeLoader(e.out.Context(), e.r), drop: e.opts.Drop, found: found, lost: lost}
	defer w.trees.close()
	var from *format.ID
	if prev != nil {
		from = &prev.tree
	}
	err := w.dir("", from, &cur.tree)
	if err != nil && e.out.Context().Err() != nil {
		return context.Cause(e.out.Context())
	}
	return err
}

// snapshot emits a snapshot.
func (e *exporter) snapshot(i int, cur *snapshot) error {
	prev := e.chosen.Parent(i)
	e.current = cur.record.ID
	rec := cur.record.Clone()
	if prev != nil {
		rec.Parent = prev.record.ID
	}
	if e.estimates != nil {
		rec.Estimate = &e.estimates[i]
	}
	if err := e.out.Add(rec); err != nil {
		return err
	}
	e.losses = cur.losses.Clone()
	if err := e.changes(prev, cur, e.losses.Add, e.change); err != nil {
		return err
	}
	e.progress.Snapshots++
	return e.out.Add(&format.Commit{Losses: e.losses})
}

// change emits one difference.
func (e *exporter) change(c *change) error {
	if c.entry == nil {
		return e.out.Add(&format.Remove{Path: c.path})
	}
	if err := e.out.Add(c.entry); err != nil {
		return err
	}
	e.progress.Entries++
	e.progress.Path = c.path
	if c.file != nil {
		if err := e.file(c); err != nil {
			return err
		}
	}
	if e.opts.OnProgress != nil {
		e.opts.OnProgress(e.progress)
	}
	return nil
}

// file emits the content of a file and what closes it.
func (e *exporter) file(c *change) error {
	eof := &format.EOF{Size: c.entry.Size}
	if !e.opts.ListingOnly {
		size, missing, err := e.content.send(c)
		if err != nil {
			return fmt.Errorf("file %q: %w", "/"+c.path, err)
		}
		if missing != nil {
			e.gaps.Lose(eof, missing)
		}
		eof.Size = size
	}
	eof.Error = c.file.err[:min(len(c.file.err), format.CommentSizeMax)]
	if !c.file.hasContent && c.entry.Size > 0 && eof.Error == "" {
		e.losses.Add(format.LossDamaged, c.path)
	}
	e.progress.Bytes += eof.Size
	return e.out.Add(eof)
}

// emitData appends a data record whose payload is fetched later.
func (e *exporter) emitData(d *format.Data, at place) error {
	size := int64(at.stored)
	number, err := e.out.Room(size, size)
	if err != nil {
		return err
	}
	return e.out.Add(d, want{at, number})
}

// fill fetches the payloads of a window.
func (e *exporter) fill(ctx context.Context, records []format.Record, wants []want) error {
	load := func(w *want, opened []byte) error {
		return loadChunk(w, opened, records[w.number].(*format.Data), e.opts.Plain)
	}
	if e.gaps == nil {
		return e.r.fetch(ctx, dataBlob, wants, load)
	}
	return e.r.fetchSound(ctx, wants, load, func(w *want, err error) { e.gaps.Lose(records[w.number], err) })
}
