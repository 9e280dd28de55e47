package repo

import (
	"io"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/tree"
)

// contentOut emits the content of one file: data at the first use of a chunk,
// refs for those that came before, copy for what the parent's version has.
type contentOut struct {
	e    *exporter
	old  *tree.Item // the parent's version, where copy may be used
	refs []format.ChunkRef
	copy *format.CopyRange // run that is being gathered
	at   map[format.ID]uint64
}

func (w *contentOut) send(it *tree.Item) error {
	e := w.e
	pieces := tree.NewContentReader(e.ctx, metaReader{e.r}, it.Content())
	for {
		p, _, err := pieces.Next()
		if err == io.EOF {
			return w.flush()
		}
		if err != nil {
			return err
		}
		if err := w.piece(p); err != nil {
			return err
		}
	}
}

func (w *contentOut) piece(p tree.Piece) error {
	e := w.e
	switch {
	case p.IsHole():
		if err := w.flush(); err != nil {
			return err
		}
		return e.emit(&format.Hole{Size: p.Size})
	case e.opts.Held:
		return w.ref(p)
	}
	if !e.opts.Flat {
		if _, sent := e.sent.get(p.ID); sent {
			return w.ref(p)
		}
		if offset, ok, err := w.inOld(p); err != nil {
			return err
		} else if ok {
			return w.copyRun(offset, p.Size)
		}
		e.sent.add(p.ID, uint32(p.Size))
	}
	if err := w.flush(); err != nil {
		return err
	}
	d := &format.Data{ID: p.ID, Size: uint32(p.Size)}
	if e.multi != nil {
		_, repeated := e.multi.get(p.ID)
		d.Once = !repeated
	}
	return e.emitData(d)
}

// ref adds a chunk to the run of refs.
func (w *contentOut) ref(p tree.Piece) error {
	if w.copy != nil || len(w.refs) == format.RefsMax {
		if err := w.flush(); err != nil {
			return err
		}
	}
	w.refs = append(w.refs, format.ChunkRef{ID: p.ID, Size: uint32(p.Size)})
	return nil
}

// copyRun adds a run of the parent's version, joined to the one before if they
// touch.
func (w *contentOut) copyRun(offset, size uint64) error {
	if w.copy != nil && w.copy.Offset+w.copy.Size == offset {
		w.copy.Size += size
		return nil
	}
	if err := w.flush(); err != nil {
		return err
	}
	w.copy = &format.CopyRange{Offset: offset, Size: size}
	return nil
}

// flush emits the run that is being gathered.
func (w *contentOut) flush() error {
	if w.copy != nil {
		rec := w.copy
		w.copy = nil
		return w.e.emit(rec)
	}
	if len(w.refs) > 0 {
		rec := &format.Refs{Chunks: w.refs}
		w.refs = nil
		return w.e.emit(rec)
	}
	return nil
}

// inOld finds a chunk in the parent's version of the file.
func (w *contentOut) inOld(p tree.Piece) (offset uint64, ok bool, err error) {
	if w.old == nil {
		return 0, false, nil
	}
	if w.at == nil {
		w.at = make(map[format.ID]uint64)
		pieces := tree.NewContentReader(w.e.ctx, metaReader{w.e.r}, w.old.Content())
		for {
			q, offset, err := pieces.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				return 0, false, err
			}
			if _, twice := w.at[q.ID]; !twice && !q.IsHole() {
				w.at[q.ID] = offset
			}
		}
	}
	offset, ok = w.at[p.ID]
	return offset, ok, nil
}
