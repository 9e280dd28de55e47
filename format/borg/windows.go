package borg

import (
	"context"
	"errors"
	"math/bits"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/internal/prefetch"
	"github.com/bk-backup/bk/format/internal/spill"
)

const (
	inFlightMax = 40 // MiB of buffers for content that was asked for and is not yet consumed

	// refCost is what a chunk that refs name counts in a window, of which one can
	// have 32 Ki.
	refCost = 128
)

// windowItem is a record, or what will be one.
type windowItem struct {
	rec   format.Record // of data: nil until it was fetched
	chunk bool          // it is the first use of a chunk, with the next number
	once  bool          // of data: no refs name it
	size  uint32        // of data
	id    format.ID     // of data
	of    format.ID     // of data: the snapshot
	refs  []uint64      // instead of a record: numbers and sizes of chunks that came before
}

// windows is a source of records whose chunks are fetched ahead. What refs name by
// numbers gets its ids from the data records that were handed out before.
type windows struct {
	*prefetch.Source[windowItem, want]
	r    *Repository
	opts format.ExportOptions
	of   format.ID  // the snapshot that is being made
	ids  *spill.Log // of chunks, in the order of their numbers
}

func newWindows(ctx context.Context, r *Repository, opts format.ExportOptions) *windows {
	w := &windows{r: r, opts: opts, ids: spill.NewLog(r.tempDir)}
	w.Source = prefetch.New(ctx, prefetch.Options[windowItem, want]{
		Fill: w.fill, Record: w.record, WindowsMax: 2 * r.workers, WeightMax: prefetch.WeightMax(r.workers, inFlightMax),
	})
	return w
}

// Close stops the goroutines and waits for them.
func (w *windows) Close() error { return errors.Join(w.Source.Close(), w.ids.Close()) }

// record makes the record of an item.
func (w *windows) record(it *windowItem) (format.Record, error) {
	if it.chunk {
		if _, err := w.ids.Write(it.id[:]); err != nil {
			return nil, err
		}
	}
	if it.refs == nil {
		return it.rec, nil
	}
	refs := &format.Refs{Chunks: make([]format.ChunkRef, len(it.refs))}
	for i, n := range it.refs {
		c := &refs.Chunks[i]
		c.Size = uint32(n)
		if _, err := w.ids.ReadAt(c.ID[:], int64(n>>32)*int64(len(c.ID))); err != nil {
			return nil, err
		}
	}
	return refs, nil
}

// emit appends a record.
func (w *windows) emit(rec format.Record) error {
	if s, ok := rec.(*format.Snapshot); ok {
		w.of = s.ID
	}
	return w.Add(windowItem{rec: rec})
}

// emitRef appends a reference to a chunk that was emitted before.
func (w *windows) emitRef(number, size uint32) error {
	value := uint64(number)<<32 | uint64(size)
	if _, err := w.Room(refCost, 0); err != nil {
		return err
	}
	if last := w.Last(); last != nil && last.refs != nil && len(last.refs) < format.RefsMax {
		last.refs = append(last.refs, value)
		return nil
	}
	return w.Add(windowItem{refs: []uint64{value}})
}

// emitData appends a data record whose chunk is fetched later. once says that no
// ref names it.
func (w *windows) emitData(once bool, chunk want) (err error) {
	chunk.number, err = w.Room(int64(chunk.size), bufferSize(chunk.size)+bufferSize(chunk.csize))
	if err != nil {
		return err
	}
	return w.Add(windowItem{chunk: !w.opts.Flat, once: once, size: chunk.size, of: w.of}, chunk)
}

// bufferSize is what format.AllocPayload takes for n bytes.
func bufferSize(n uint32) int64 { return 1 << bits.Len32(n) }

// atReceiver reports whether the receiver is known to hold a chunk.
func (w *windows) atReceiver(it *windowItem) bool {
	return w.opts.HasChunk != nil && w.opts.HasChunk(it.id, it.size) || w.opts.Arrived != nil && w.opts.Arrived(it.of, it.id)
}

// fill fetches the chunks of a window.
func (w *windows) fill(ctx context.Context, items []windowItem, wants []want) error {
	return w.r.fetch(ctx, wants, func(want *want, object []byte) error {
		plain, frame, err := w.r.openWant(want, object)
		if err != nil {
			return err
		}
		it := &items[want.number]
		nameless := w.opts.Nameless && it.once && !w.opts.Held && w.opts.HasChunk == nil && w.opts.Arrived == nil
		switch {
		case !w.r.keys.mode.keyed():
			it.id = format.ID(want.id)
		case !nameless:
			it.id = format.SumID(plain)
		}
		if w.opts.Held || !w.opts.Flat && w.atReceiver(it) {
			format.FreePayload(plain)
			it.rec = &format.Refs{Chunks: []format.ChunkRef{{ID: it.id, Size: it.size}}}
			return nil
		}
		d := &format.Data{ID: it.id, Size: it.size, Codec: format.CodecNone, Once: it.once, Payload: plain, Checked: true}
		if frame != nil && !w.opts.Plain && !d.Nameless() {
			d.Codec, d.Payload = format.CodecZstd, frame
			if format.CheckPayload(d) == nil {
				d.Payload = format.AllocPayload(len(frame))
				copy(d.Payload, frame)
				format.FreePayload(plain)
			} else {
				d.Codec, d.Payload = format.CodecNone, plain
			}
		}
		it.rec = d
		return nil
	})
}
