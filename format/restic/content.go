package restic

import (
	"fmt"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/internal/bitset"
)

// content emits the content of files: data at the first use of a chunk, refs for
// those that came before, copy for what the parent's version has.
type content struct {
	e     *exporter
	dry   bool       // decide, count and emit nothing
	sent  bitset.Set // chunks that the stream has carried, by their numbers
	again bitset.Set // chunks that refs name; known after a dry run

	// Of the file that is being sent.
	refs []format.ChunkRef
	copy *format.CopyRange
	old  map[format.ID]uint64 // where the parent's version has a chunk
}

// send emits the content of an entry and returns its size. Where an export goes on
// over what is lost, missing is why the content ends before a chunk: one that no
// index and no pack has, so that not even its size is known.
func (w *content) send(c *change) (size uint64, missing, err error) {
	w.old = nil
	for i := range c.file.content {
		n, err := w.chunk(c, &c.file.content[i])
		if err != nil && w.e.gaps != nil && isLost(err) {
			if err := w.e.r.checkUnchanged(w.e.out.Context(), err); err != nil {
				return 0, nil, err
			}
			missing = err
			break
		}
		if err != nil {
			return 0, nil, err
		}
		if size += uint64(n); size > format.FileSizeMax {
			return 0, nil, fmt.Errorf("its chunks are more than 2^63-1 bytes: %w", ErrDamaged)
		}
	}
	return size, missing, w.flush()
}

// chunk emits one chunk.
func (w *content) chunk(c *change, id *format.ID) (size uint32, err error) {
	e := w.e
	n, at, err := e.r.find(e.out.Context(), dataBlob, *id)
	if err != nil {
		return 0, err
	}
	size = at.size()
	switch {
	case size == 0:
		return 0, nil
	case size > format.ChunkSizeMax:
		return 0, fmt.Errorf("chunk %s has %d bytes, and the stream holds up to %d", id, size, format.ChunkSizeMax)
	case e.opts.Held:
		return size, w.ref(id, size)
	}
	d := &format.Data{ID: *id, Size: size, Once: true}
	if !e.opts.Flat {
		sent := w.sent.Has(n)
		if !sent || e.opts.Copy {
			if offset, ok, err := w.inOld(c, id); err != nil {
				return 0, err
			} else if ok {
				return size, w.copyRun(offset, size)
			}
		}
		if sent && w.dry {
			w.again.Add(n)
		}
		w.sent.Add(n)
		if sent || e.opts.HasChunk != nil && e.opts.HasChunk(*id, size) || e.opts.Arrived != nil && e.opts.Arrived(e.current, *id) {
			return size, w.ref(id, size)
		}
		d.Once = !w.again.Has(n)
	}
	if w.dry {
		return size, nil
	}
	if err := w.flush(); err != nil {
		return 0, err
	}
	return size, e.emitData(d, e.r.index.Load().place(dataBlob, n, at))
}

// ref adds a chunk to the run of refs.
func (w *content) ref(id *format.ID, size uint32) error {
	if w.dry {
		return nil
	}
	if w.copy != nil || len(w.refs) == format.RefsMax {
		if err := w.flush(); err != nil {
			return err
		}
	}
	w.refs = append(w.refs, format.ChunkRef{ID: *id, Size: size})
	return nil
}

// copyRun adds a run of the parent's version, joined to the one before if they
// touch.
func (w *content) copyRun(offset uint64, size uint32) error {
	if w.dry {
		return nil
	}
	if w.copy != nil && w.copy.Offset+w.copy.Size == offset {
		w.copy.Size += uint64(size)
		return nil
	}
	if err := w.flush(); err != nil {
		return err
	}
	w.copy = &format.CopyRange{Offset: offset, Size: uint64(size)}
	return nil
}

// flush emits the run that is being gathered.
func (w *content) flush() error {
	if w.copy != nil {
		rec := w.copy
		w.copy = nil
		return w.e.out.Add(rec)
	}
	if len(w.refs) > 0 {
		rec := &format.Refs{Chunks: w.refs}
		w.refs = nil
		return w.e.out.Add(rec)
	}
	return nil
}

// inOld finds a chunk in the parent's version of the file.
func (w *content) inOld(c *change, id *format.ID) (offset uint64, ok bool, err error) {
	if c.old == nil || !w.e.opts.Copies() {
		return 0, false, nil
	}
	if w.old == nil {
		w.old = make(map[format.ID]uint64, len(c.old.content))
		at := uint64(0)
		for i := range c.old.content {
			id := &c.old.content[i]
			_, b, err := w.e.r.find(w.e.out.Context(), dataBlob, *id)
			if err != nil && w.e.gaps != nil && isLost(err) {
				break // there it ends for the receiver, too
			}
			if err != nil {
				return 0, false, fmt.Errorf("the version of the snapshot before: %w", err)
			}
			if _, twice := w.old[*id]; !twice {
				w.old[*id] = at
			}
			at += uint64(b.size())
		}
	}
	offset, ok = w.old[*id]
	return offset, ok, nil
}
